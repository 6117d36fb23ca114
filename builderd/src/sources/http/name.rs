//! What a downloaded file is called.

use http::HeaderMap;
use http::header::CONTENT_DISPOSITION;

use super::HttpSource;

const DEFAULT: &str = "download";

/// The name that was asked for, else the one the server gives it, else the end of its address.
pub(super) fn of(source: &HttpSource, headers: Option<&HeaderMap>) -> String {
    if let Some(name) = &source.file_name {
        return safe(name);
    }
    let disposition = headers.and_then(|headers| headers.get(CONTENT_DISPOSITION)?.to_str().ok());
    if let Some(name) = disposition.and_then(file_name)
        && !name.ends_with('/')
    {
        return safe(&name);
    }
    safe(&dockerfile::address::file_name(source.url.as_str()).unwrap_or_default())
}

/// One plain name, whatever was said.
pub(in crate::sources) fn safe(name: &str) -> String {
    let name = name
        .trim()
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    // What the kernel takes as a name.
    let usable = !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.chars().any(char::is_control);
    if usable { name } else { DEFAULT }.to_owned()
}

/// `filename` of a `Content-Disposition`; the form with a character set goes first.
fn file_name(header: &str) -> Option<String> {
    let mut plain = None;
    for (key, value) in parameters(header) {
        match key.to_ascii_lowercase().as_str() {
            "filename*" => {
                let (set, rest) = value.split_once('\'')?;
                let (_, encoded) = rest.split_once('\'')?;
                if set.eq_ignore_ascii_case("utf-8") {
                    return Some(dockerfile::address::decoded(encoded));
                }
            }
            "filename" => plain = Some(value),
            _ => {}
        }
    }
    plain.filter(|name| !name.is_empty())
}

/// `; key=value` or `; key="value"`, again and again, behind the first word.
fn parameters(header: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = header;
    while let Some((_, next)) = rest.split_once(';') {
        let Some((key, value)) = next.split_once('=') else {
            break;
        };
        let value = value.trim_start();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let end = value.find(';').unwrap_or(value.len());
                let (value, after) = value.split_at(end);
                (value.trim().to_owned(), after)
            }
        };
        found.push((key.trim().to_owned(), value));
        rest = after;
    }
    found
}

/// What stands before the closing quote, and the rest.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, text.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_whatever_was_said() {
        for (name, expected) in [
            ("foo.txt", "foo.txt"),
            ("資料.txt", "資料.txt"),
            ("  a b ", "a b"),
            ("a/b/c.txt", "c.txt"),
            ("", "download"),
            ("..", "download"),
            ("../", "download"),
            ("a\0b", "download"),
            ("a\nb", "download"),
        ] {
            assert_eq!(safe(name), expected);
        }
    }

    #[test]
    fn servers_may_give_names() {
        for (header, expected) in [
            (
                "attachment; filename=\"a \\\"b\\\";c.txt\"; x=y",
                Some("a \"b\";c.txt"),
            ),
            ("attachment; filename=plain.txt", Some("plain.txt")),
            (
                "attachment; filename=x; filename*=UTF-8''%e2%82%ac.txt",
                Some("€.txt"),
            ),
            ("attachment", None),
            ("attachment; filename=\"\"", None),
            ("inline; filename", None),
        ] {
            assert_eq!(file_name(header).as_deref(), expected, "{header}");
        }
    }
}
