//! Numbers as people read them: durations, sizes, and checked pages.

/// Milliseconds in the largest two units that there are, below a minute to a tenth of a second.
pub(in crate::cli) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 if ms.is_multiple_of(1000) => format!("{seconds} s"),
        0..60 => format!("{seconds}.{} s", ms % 1000 / 100),
        60..3600 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// The same of seconds.
pub(in crate::cli) fn duration_of(seconds: f64) -> String {
    duration((seconds.max(0.0) * 1000.0) as u64)
}

/// What became of the checksums of a backup's pages.
pub(in crate::cli) fn pages(enabled: bool, verified: u64, damaged: u64) -> String {
    match (enabled, damaged) {
        (false, _) => "no page checksums".to_owned(),
        (true, 0) => format!("{verified} pages verified"),
        (true, damaged) => format!("{verified} pages verified, {damaged} DAMAGED"),
    }
}

/// Bytes in the largest binary unit that leaves at least one.
pub(in crate::cli) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, factor) in UNITS {
        if bytes >= factor {
            let tenths = bytes.saturating_mul(10) / factor;
            return if tenths.is_multiple_of(10) {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (ms, expected) in [
            (0, "0 s"),
            (40, "0.0 s"),
            (1250, "1.2 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min"),
            (61_500, "1 min 1 s"),
            (3_725_000, "1 h 2 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(ms), expected);
        }
        assert_eq!(duration_of(2.5), "2.5 s");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(16 << 20), "16 MiB");
        assert_eq!(size(1536), "1.5 KiB");
    }
}
