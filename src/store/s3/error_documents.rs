//! S3's error documents: the little XML that says why a request was refused. Foreign bytes.

/// An S3 error document: `<Error><Code>…</Code><Message>…</Message>…</Error>`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServiceError {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) request_id: Option<String>,
    pub(super) region: Option<String>,
    pub(super) object_size: Option<u64>,
}

impl ServiceError {
    /// Reads the document; `None` when it is anything else. The SDK's own reader takes any root element, which a
    /// proxy's page could have, and absence must never be guessed.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let inside = element(std::str::from_utf8(body).ok()?, "Error")?;
        let field = |name: &str| field(inside, name);
        Some(Self {
            code: field("Code").filter(|c| !c.is_empty())?,
            message: field("Message").unwrap_or_default(),
            request_id: field("RequestId").filter(|id| !id.is_empty()),
            region: field("Region").filter(|r| !r.is_empty()),
            object_size: field("ActualObjectSize").and_then(|s| s.parse().ok()),
        })
    }
}

/// What is inside a document's only element, when that has this name.
pub(super) fn element<'t>(text: &'t str, root: &str) -> Option<&'t str> {
    let mut text = text.trim_start_matches('\u{feff}').trim();
    if text.starts_with("<?xml") {
        text = text.split_once("?>")?.1.trim_start();
    }
    let inside = text.strip_prefix('<')?.strip_prefix(root)?;
    if !inside.starts_with(['>', ' ', '\n', '\r', '\t']) {
        return None;
    }
    if inside.strip_suffix("/>").is_some_and(|attributes| !attributes.contains(['<', '>'])) {
        return Some("");
    }
    inside.strip_suffix('>')?.trim_end().strip_suffix(root)?.strip_suffix("</")
}

/// The text of the first element of this name.
pub(super) fn field(inside: &str, name: &str) -> Option<String> {
    let from = inside.split_once(&format!("<{name}>"))?.1;
    Some(unescape(from.split_once(&format!("</{name}>"))?.0.trim()))
}

/// Decodes the entities of XML, in one pass: what one stands for is not looked at again.
fn unescape(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) = rest.split_once('&') {
        clean.push_str(before);
        let entity = from.split_once(';').and_then(|(name, after)| Some((entity(name)?, after)));
        match entity {
            Some((c, after)) => {
                clean.push(c);
                rest = after;
            }
            None => {
                clean.push('&');
                rest = from;
            }
        }
    }
    clean.push_str(rest);
    clean
}

/// The character that an entity stands for.
fn entity(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "amp" => Some('&'),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements() {
        for (text, inside) in [
            ("<?xml version=\"1.0\"?>\n<Root><A>1</A></Root>", Some("><A>1</A>")),
            ("<Root xmlns=\"http://x/\"/>", Some("")),
            ("<Root />\n", Some("")),
            ("<Rooted/>", None),
            ("<Root><A/>", None),
            ("<Root", None),
        ] {
            assert_eq!(element(text, "Root"), inside, "{text}");
        }
    }

    #[test]
    fn entities() {
        for (escaped, text) in [
            ("&lt;a b=&quot;c&apos;&gt;", "<a b=\"c'>"),
            ("&#34;x&#39; &#xA;&#x1F600;", "\"x' \n\u{1f600}"),
            ("&amp;lt; &amp;#34;", "&lt; &#34;"),
            ("R&D; & &unknown; &#xD800; &#; &", "R&D; & &unknown; &#xD800; &#; &"),
        ] {
            assert_eq!(unescape(escaped), text);
        }
    }
}
