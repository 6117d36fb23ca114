//! URLs of Git repositories, in both spellings: `https://host/path` and `user@host:path`.

/// A repository, and what stands behind its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitUrl {
    /// `http`, `https`, `ssh` or `git`.
    pub scheme: &'static str,
    /// User name and perhaps a password, as written.
    pub user: Option<String>,
    /// With the port, if there is one.
    pub host: String,
    /// With the slash it starts with, if it has one; `user@host:path` has none.
    pub path: String,
    /// Without the `?`, as written.
    pub query: Option<String>,
    /// Without the `#`, decoded.
    pub fragment: String,
    /// What Git is to be given: everything before query and fragment.
    pub remote: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitUrlError {
    #[error("{0:?} names no protocol")]
    NoProtocol(String),
    #[error("protocol {0:?} is not supported: use http, https, ssh or git")]
    Protocol(String),
    #[error("{0:?} is not a valid URL")]
    Invalid(String),
}

const SCHEMES: [&str; 4] = ["http", "https", "ssh", "git"];

impl GitUrl {
    pub fn parse(text: &str) -> Result<Self, GitUrlError> {
        let invalid = || GitUrlError::Invalid(super::without_credentials(text));
        if text.chars().any(|c| c.is_control()) {
            return Err(invalid());
        }
        let Some((scheme, rest)) = split_scheme(text) else {
            return scp_style(text).ok_or_else(|| GitUrlError::NoProtocol(text.to_owned()));
        };
        let scheme = SCHEMES
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(scheme))
            .ok_or_else(|| GitUrlError::Protocol(scheme.to_owned()))?;
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, percent_decoded(fragment, Plus::Kept).ok_or_else(invalid)?),
            None => (rest, String::new()),
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query.to_owned())),
            None => (rest, None),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, authority),
        };
        if host.starts_with('-') || host.contains(char::is_whitespace) {
            return Err(invalid());
        }
        Ok(Self {
            scheme,
            user,
            host: host.to_owned(),
            path: path.to_owned(),
            query: query.filter(|query| !query.is_empty()),
            fragment,
            remote: format!("{scheme}://{rest}"),
        })
    }

    /// Whether `text` says by itself how the repository is reached.
    pub fn names_transport(text: &str) -> bool {
        match split_scheme(text) {
            Some((scheme, _)) => SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)),
            None => scp_style(text).is_some(),
        }
    }

    /// `ref:subfolder` of the fragment; the folder is cleaned, and empty for the root.
    pub fn reference_and_subfolder(&self) -> (String, String) {
        let (reference, subfolder) = self.fragment.split_once(':').unwrap_or((&self.fragment, ""));
        (reference.to_owned(), clean(subfolder))
    }

    /// The name without protocol and user, under which a repository is known whatever way it is reached.
    pub fn identity(&self) -> String {
        let path = clean(&self.path);
        format!("{}/{path}", self.host).trim_end_matches('/').to_owned()
    }

    /// The pairs of the query, decoded; a key without `=` has an empty value.
    pub(super) fn query_pairs(&self) -> Result<Vec<(String, String)>, GitUrlError> {
        let decoded = |text: &str| {
            percent_decoded(text, Plus::Space)
                .ok_or_else(|| GitUrlError::Invalid(super::without_credentials(&self.remote)))
        };
        let pairs = self.query.as_deref().unwrap_or_default().split('&');
        pairs
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decoded(key)?, decoded(value)?))
            })
            .collect()
    }
}

/// `scheme://` at the start, if there is one.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_scheme.then_some((scheme, rest))
}

/// `user@host:path[?query][#fragment]`
fn scp_style(text: &str) -> Option<GitUrl> {
    let (user, rest) = text.split_once('@')?;
    let (host, rest) = rest.split_once(':')?;
    let word = |text: &str, also: &[u8]| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || also.contains(&byte);
        !text.is_empty() && !text.starts_with('-') && text.bytes().all(known)
    };
    if !word(user, b"_") || !word(host, b".") || rest.chars().any(|c| c.is_control()) {
        return None;
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    Some(GitUrl {
        scheme: "ssh",
        user: Some(user.to_owned()),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.filter(|query| !query.is_empty()).map(str::to_owned),
        fragment: fragment.to_owned(),
        remote: format!("{user}@{host}:{path}"),
    })
}

/// `path` relative to the root, without `.`, `..` and double slashes.
pub(super) fn clean(path: &str) -> String {
    let absolute = format!("/{path}");
    crate::ignore::clean(&absolute).trim_start_matches('/').to_owned()
}

/// What a `+` stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plus {
    Kept,
    Space,
}

/// Nothing if an escape is cut off or the result is no text.
pub(super) fn percent_decoded(text: &str, plus: Plus) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus == Plus::Space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}
