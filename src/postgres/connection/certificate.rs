//! The little that is needed of an X.509 certificate beyond what the TLS library says: by what hash it is signed, and
//! the name in its subject. The library has parsed it before; what makes no sense here all the same is taken for
//! absent.

use sha2::{Digest, Sha256, Sha384, Sha512};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const EXTENSIONS: u8 = 0xA3;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1D, 0x11];
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// One value of DER: its tag, its content, and what follows it.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match *first {
        len @ 0..=0x7F => (usize::from(len), rest),
        // Longer than 4 bytes is longer than any certificate.
        count @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(count & 0x7F))?;
            (digits.iter().try_fold(0_usize, |len, digit| len.checked_mul(256)?.checked_add(usize::from(*digit)))?, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((*tag, content, rest))
}

/// The content of the next value, which has this tag.
fn tagged(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = value(der)?;
    (tag == wanted).then_some((content, rest))
}

/// The values one after the other.
fn values(mut der: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, content, rest) = value(der)?;
        der = rest;
        Some((tag, content))
    })
}

/// What `tls-server-end-point` binds to (RFC 5929): the hash of a certificate by the function that it is signed with,
/// or a better one. `None` for signatures that name no hash function.
pub(super) fn end_point(der: &[u8]) -> Option<Vec<u8>> {
    let (certificate, _) = tagged(der, SEQUENCE)?;
    let (_, rest) = tagged(certificate, SEQUENCE)?;
    let (algorithm, _) = tagged(rest, SEQUENCE)?;
    let (algorithm, _) = tagged(algorithm, OID)?;
    let last = algorithm.last()?;
    // PKCS #1 (RFC 8017) and ECDSA (RFC 5758).
    if algorithm.starts_with(&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01]) {
        match last {
            4 | 5 | 11 => Some(Sha256::digest(der).to_vec()),
            12 => Some(Sha384::digest(der).to_vec()),
            13 => Some(Sha512::digest(der).to_vec()),
            _ => None,
        }
    } else if algorithm == [0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x01] {
        Some(Sha256::digest(der).to_vec())
    } else if algorithm.starts_with(&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03]) {
        match last {
            2 => Some(Sha256::digest(der).to_vec()),
            3 => Some(Sha384::digest(der).to_vec()),
            4 => Some(Sha512::digest(der).to_vec()),
            _ => None,
        }
    } else {
        None
    }
}

/// Whether a certificate that has no other name has this one in its subject, as libpq accepts it.
pub(super) fn is_for_common_name(der: &[u8], host: &str) -> bool {
    common_name(der).is_some_and(|name| matches(&name, host))
}

/// The common name; `None` also where there are names to be believed instead.
fn common_name(der: &[u8]) -> Option<String> {
    let (certificate, _) = tagged(der, SEQUENCE)?;
    let (body, _) = tagged(certificate, SEQUENCE)?;
    // Version, where there is one; serial number, algorithm, issuer, validity, subject.
    let mut fields = values(body).filter(|(tag, _)| *tag != 0xA0);
    let (_, subject) = fields.nth(4)?;
    let extensions = fields.find(|(tag, _)| *tag == EXTENSIONS).and_then(|(_, list)| tagged(list, SEQUENCE));
    for (_, extension) in extensions.into_iter().flat_map(|(list, _)| values(list)) {
        let mut parts = values(extension);
        if parts.next() != Some((OID, SUBJECT_ALT_NAME)) {
            continue;
        }
        let (_, names) = parts.last()?;
        let (names, _) = tagged(names, SEQUENCE)?;
        if values(names).any(|(tag, _)| matches!(tag, DNS_NAME | IP_ADDRESS)) {
            return None;
        }
    }
    values(subject).filter(|(tag, _)| *tag == SET).flat_map(|(_, set)| values(set)).find_map(|(_, attribute)| {
        let mut parts = values(attribute);
        if parts.next() != Some((OID, COMMON_NAME)) {
            return None;
        }
        String::from_utf8(parts.next()?.1.to_vec()).ok()
    })
}

/// A wildcard stands for the first label (RFC 6125), as in libpq.
fn matches(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => domain.contains('.') && host.split_once('.').is_some_and(|(_, of)| of.eq_ignore_ascii_case(domain)),
        None => !name.is_empty() && name.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType};

    use super::*;

    fn certificate(common_name: &str, names: Vec<SanType>, key: &KeyPair) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "x");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        params.self_signed(key).unwrap().der().to_vec()
    }

    #[test]
    fn the_subject_counts_where_there_is_no_other_name() {
        let key = KeyPair::generate().unwrap();
        let alone = certificate("db.example.org", vec![], &key);
        assert!(is_for_common_name(&alone, "DB.example.org"));
        assert!(!is_for_common_name(&alone, "example.org"));
        let mail = certificate("db.example.org", vec![SanType::Rfc822Name("a@b".try_into().unwrap())], &key);
        assert!(is_for_common_name(&mail, "db.example.org"));
        for name in [SanType::DnsName("x".try_into().unwrap()), SanType::IpAddress("127.0.0.1".parse().unwrap())] {
            assert!(!is_for_common_name(&certificate("db.example.org", vec![name], &key), "db.example.org"));
        }
        let wild = certificate("*.example.org", vec![], &key);
        assert!(is_for_common_name(&wild, "db.example.org"));
        assert!(!is_for_common_name(&wild, "a.db.example.org") && !is_for_common_name(&wild, "example.org"));
        assert!(!is_for_common_name(&certificate("*.org", vec![], &key), "example.org"));
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (algorithm, len) in
            [(&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)), (&PKCS_ECDSA_P384_SHA384, Some(48)), (&PKCS_ED25519, None)]
        {
            let der = certificate("x", vec![], &KeyPair::generate_for(algorithm).unwrap());
            assert_eq!(end_point(&der).map(|hash| hash.len()), len);
        }
    }

    #[test]
    fn nonsense_is_nothing() {
        let der = certificate("x", vec![SanType::DnsName("x".try_into().unwrap())], &KeyPair::generate().unwrap());
        for at in 0..der.len() {
            end_point(&der[..at]);
            common_name(&der[..at]);
            for bit in 0..8 {
                let mut der = der.clone();
                der[at] ^= 1 << bit;
                end_point(&der);
                common_name(&der);
            }
        }
        assert_eq!(end_point(&[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF]), None);
    }
}
