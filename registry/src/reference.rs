//! Image references as people write them, and as registries need them.
//!
//! Docker's grammar decides: the first component is a registry only if it looks like one (a dot, a port, a bracket,
//! an upper-case letter, or `localhost`), everything else belongs to Docker Hub, and there to `library/` if it has one
//! component only. Parsing does no I/O; what parsed can be put into a URL without escaping.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

const DOCKER_HUB: &str = "docker.io";
const OFFICIAL: &str = "library/";
const LONGEST_PATH: usize = 255;
const LONGEST_TAG: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("invalid reference format: empty image name")]
    Empty,
    #[error("invalid reference format: invalid registry {registry:?} in {reference:?}")]
    Registry { reference: String, registry: String },
    #[error("invalid reference format: repository name ({name}) must be lowercase")]
    Uppercase { name: String },
    #[error("invalid reference format: invalid repository name {name:?}")]
    Name { name: String },
    #[error("invalid reference format: repository name must not be more than 255 characters")]
    TooLong,
    #[error("invalid reference format: invalid tag {tag:?} in {reference:?}")]
    Tag { reference: String, tag: String },
    #[error("invalid reference format: {reference:?}")]
    Digest {
        reference: String,
        #[source]
        source: DigestError,
    },
    #[error("invalid repository name ({name}), cannot specify 64-byte hexadecimal strings")]
    Identifier { name: String },
}

/// A registry and a name in it, without tag and digest: `docker.io/library/alpine`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    registry: Box<str>,
    path: Box<str>,
}

impl Repository {
    /// The registry's name as in the full form, `docker.io` for Docker Hub; with its port if one was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name inside the registry: `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The host that serves the registry's API; Docker Hub's is not its name.
    pub fn api_host(&self) -> &str {
        match &*self.registry {
            DOCKER_HUB => "registry-1.docker.io",
            registry => registry,
        }
    }

    /// The short form that Docker shows: `alpine`, `user/app`, `localhost:5000/app`.
    pub fn familiar(&self) -> String {
        if &*self.registry != DOCKER_HUB {
            return self.to_string();
        }
        let short = self.path.strip_prefix(OFFICIAL).unwrap_or(&self.path);
        // `docker.io/library/a/b` and `docker.io/a.b/c` mean something else without their first part.
        [short, &self.path]
            .into_iter()
            .find(|name| name.parse().ok().as_ref() == Some(self))
            .map_or_else(|| self.to_string(), str::to_owned)
    }

    pub fn with_tag(&self, tag: &str) -> Result<Reference, ReferenceError> {
        let tag = valid_tag(tag, tag)?;
        Ok(Reference {
            repository: self.clone(),
            tag: Some(tag),
            digest: None,
        })
    }

    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference {
            repository: self.clone(),
            tag: None,
            digest: Some(digest),
        }
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let reference: Reference = text.parse()?;
        if reference.tag.is_some() || reference.digest.is_some() {
            return Err(ReferenceError::Name {
                name: text.to_owned(),
            });
        }
        Ok(reference.repository)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

/// A repository, and optionally a tag and a digest in it. With both, the digest is what counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    repository: Repository,
    tag: Option<Box<str>>,
    digest: Option<Digest>,
}

impl Reference {
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// This reference with the tag `latest` if it has neither tag nor digest.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".into());
        }
        self
    }

    /// This reference pinned to `digest`; the tag stays, for display.
    #[must_use]
    pub fn pinned(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// What stands behind `/manifests/` in a request: the digest, else the tag, else `latest`.
    pub fn manifest_name(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// The short form that Docker shows.
    pub fn familiar(&self) -> String {
        let mut text = self.repository.familiar();
        self.append_suffix(&mut text);
        text
    }

    fn append_suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.repository.to_string();
        self.append_suffix(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::Identifier {
                name: text.to_owned(),
            });
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|source| ReferenceError::Digest {
                    reference: text.to_owned(),
                    source,
                })?;
                (rest, Some(digest))
            }
        };
        let (registry, remainder) = split_registry(rest);
        // A colon behind the last slash starts the tag; one in the registry was split off already.
        let (path, tag) = match remainder.split_once(':') {
            None => (remainder, None),
            Some((path, tag)) => (path, Some(valid_tag(tag, text)?)),
        };
        if path.is_empty() {
            return Err(ReferenceError::Name {
                name: text.to_owned(),
            });
        }
        let registry = match registry.unwrap_or(DOCKER_HUB) {
            "index.docker.io" => DOCKER_HUB,
            registry => registry,
        };
        let written = path;
        let path = match registry {
            DOCKER_HUB if !path.contains('/') => format!("{OFFICIAL}{path}"),
            _ => path.to_owned(),
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase { name: path });
        }
        if !written.split('/').all(valid_component) {
            return Err(ReferenceError::Name {
                name: written.to_owned(),
            });
        }
        if !valid_registry(registry) {
            return Err(ReferenceError::Registry {
                reference: text.to_owned(),
                registry: registry.to_owned(),
            });
        }
        if path.len() > LONGEST_PATH {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self {
            repository: Repository {
                registry: registry.into(),
                path: path.into(),
            },
            tag,
            digest,
        })
    }
}

impl serde::Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Splits off the first component if it names a registry.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':', '['])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, name),
    }
}

fn valid_registry(registry: &str) -> bool {
    let (host, port) = if let Some(rest) = registry.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        let hex_colon = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
        if address.is_empty() || !address.bytes().all(hex_colon) {
            return false;
        }
        (None, port)
    } else {
        match registry.split_once(':') {
            Some((host, _)) => (Some(host), &registry[host.len()..]),
            None => (Some(registry), ""),
        }
    };
    let port_is_fine = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(digits) => !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()),
    };
    port_is_fine
        && host.is_none_or(|host| {
            host.split('.').all(|label| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            })
        })
}

/// Letters and digits, joined by one dot, one or two underscores, or any number of dashes.
fn valid_component(component: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes.split(alphanumeric).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

fn valid_tag(tag: &str, reference: &str) -> Result<Box<str>, ReferenceError> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts_well = tag.bytes().next().is_some_and(word);
    if starts_well
        && tag.len() <= LONGEST_TAG
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
    {
        Ok(tag.into())
    } else {
        Err(ReferenceError::Tag {
            reference: reference.to_owned(),
            tag: tag.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
