//! Addresses in the one spelling in which they are judged, asked for and noted.

use reqwest::Url;

/// One of the spellings of an address, without what is nobody's business but the server's or the program's. `None` if it
/// has no server.
pub(super) fn normal(mut url: Url) -> Option<Url> {
    // Programs send these in a header; as a part of the address they would be shown.
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    url.set_fragment(None);
    // To DNS, a name with a dot at its end is the same.
    if let Some(name) = url.domain().and_then(|name| name.strip_suffix('.')) {
        let name = name.to_owned();
        url.set_host(Some(&name)).ok()?;
    }
    let path = unescaped(url.path());
    if path != url.path() {
        url.set_path(&path);
    }
    Some(url)
}

/// Without escapes of characters that mean the same without (RFC 3986, 2.3): rules for paths would not see through them.
fn unescaped(path: &str) -> String {
    let mut parts = path.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
        match code.map(char::from) {
            Some(letter) if letter.is_ascii_alphanumeric() || "-._~".contains(letter) => {
                plain.push(letter);
                plain.push_str(&part[2..]);
            }
            _ => {
                plain.push('%');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_spelling() {
        for (spelling, expected) in [
            ("http://a/b?c=%61", "http://a/b?c=%61"),
            ("http://user:token@a/b#c", "http://a/b"),
            ("https://evil.com./x", "https://evil.com/x"),
            ("https://evil.com.:444/x", "https://evil.com:444/x"),
            ("http://a/%62%61d/%7e%2D", "http://a/bad/~-"),
            // These mean something else, or nothing.
            ("http://a/b%2fc%20d%25", "http://a/b%2fc%20d%25"),
            ("http://a/%2562%6", "http://a/%2562%6"),
            ("http://a/%+1%é1", "http://a/%+1%%C3%A91"),
            ("http://a/b/%2e%2e/c", "http://a/c"),
            ("http://127.0.0.1./", "http://127.0.0.1/"),
        ] {
            let url = normal(spelling.parse().unwrap()).unwrap();
            assert_eq!(url.as_str(), expected, "{spelling}");
            assert_eq!(normal(url.clone()), Some(url), "{spelling}");
        }
    }
}
