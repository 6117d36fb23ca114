//! Requests as provenance tells them: without what concerns the host only, and without credentials.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::capture::Sources;

/// About how a build is run, not about what is built.
const OF_THE_HOST: [&str; 4] = ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];

/// A request of a frontend.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub frontend: String,
    pub attributes: BTreeMap<String, String>,
    /// What made the inputs, as far as that is known.
    pub inputs: BTreeMap<String, Value>,
}

impl Asked {
    pub(super) fn is_empty(&self) -> bool {
        self.frontend.is_empty() && self.attributes.is_empty() && self.inputs.is_empty()
    }

    /// Attributes that say something about the result.
    fn arguments(&self) -> BTreeMap<String, String> {
        let own_context = self.attributes.get("contextkey").filter(|key| !key.is_empty());
        let context = own_context.map_or("context", String::as_str);
        let told = |key: &str| !OF_THE_HOST.contains(&key) && !key.starts_with("attest:");
        let attributes = self.attributes.iter().filter(|(key, _)| told(key));
        attributes
            .map(|(key, value)| {
                let is_address = key == context || key.starts_with("context:");
                let value = match is_address {
                    true => redacted(value),
                    false => value.clone(),
                };
                (key.clone(), value)
            })
            .collect()
    }

    /// The source of the build, and the request without it.
    pub(super) fn told(&self, sources: &Sources) -> Told {
        let mut arguments = self.arguments();
        let filled = |key: &str| arguments.get(key).filter(|value| !value.is_empty()).cloned();
        let key = match (filled("contextkey"), filled("input:context")) {
            (Some(key), _) => key,
            (None, Some(_)) => "input:context".to_owned(),
            (None, None) => "context".to_owned(),
        };
        let mut source = Map::new();
        if let Some(address) = arguments.get(&key).filter(|value| !value.is_empty()).cloned() {
            arguments.remove(&key);
            if let Some(digest) = sources.digest_of(&address) {
                source.insert("digest".to_owned(), digest);
            }
            source.insert("uri".to_owned(), redacted(&address).into());
        }
        if let Some(path) = arguments.get("filename").filter(|path| !path.is_empty()).cloned() {
            arguments.remove("filename");
            source.insert("path".to_owned(), path.into());
        }
        Told {
            source: source.into(),
            frontend: self.frontend.clone(),
            arguments,
            inputs: self.inputs.clone(),
        }
    }
}

/// A request in the words of provenance.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub source: Value,
    pub frontend: String,
    pub arguments: BTreeMap<String, String>,
    pub inputs: BTreeMap<String, Value>,
}

impl Told {
    pub fn is_empty(&self) -> bool {
        self.frontend.is_empty() && self.arguments.is_empty() && self.inputs.is_empty()
    }

    pub fn request(&self) -> Map<String, Value> {
        let mut request = Map::new();
        if !self.frontend.is_empty() {
            request.insert("frontend".to_owned(), self.frontend.clone().into());
        }
        if !self.arguments.is_empty() {
            request.insert("args".to_owned(), json!(self.arguments));
        }
        if !self.inputs.is_empty() {
            request.insert("inputs".to_owned(), json!(self.inputs));
        }
        request
    }

    pub fn to_json(&self) -> Value {
        json!({ "configSource": self.source, "request": self.request() })
    }
}

/// A URL without the name and password in it.
pub(super) fn redacted(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.to_owned();
    };
    // What follows an @ there is a digest.
    if ["docker-image", "oci-layout"].contains(&scheme) {
        return address.to_owned();
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let Some((user, _)) = authority.rsplit_once('@') else {
        return address.to_owned();
    };
    let after = rest.get(user.len()..).unwrap_or_default();
    let hidden = match user.split_once(':') {
        Some(("", _)) => ":xxxxx",
        Some(_) => "xxxxx:xxxxx",
        None if user.is_empty() => "",
        None => "xxxxx",
    };
    format!("{scheme}://{hidden}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_hidden_and_the_rest_stays() {
        for (address, expected) in [
            (
                "https://me:secret@example.com/a@b",
                "https://xxxxx:xxxxx@example.com/a@b",
            ),
            (
                "ssh://git@example.com/x.git#v1",
                "ssh://xxxxx@example.com/x.git#v1",
            ),
            ("https://example.com/a@b", "https://example.com/a@b"),
            (
                "docker-image://alpine@sha256:00",
                "docker-image://alpine@sha256:00",
            ),
            ("git@example.com:x/y.git", "git@example.com:x/y.git"),
        ] {
            assert_eq!(redacted(address), expected);
        }
    }

    #[test]
    fn a_request_tells_its_source_apart() {
        let attributes = [
            ("context", "https://a:b@example.com/r.git#main:sub"),
            ("filename", "other"),
            ("platform", "linux/arm64"),
            ("attest:provenance", ""),
            ("build-arg:A", "b"),
        ];
        let asked = Asked {
            frontend: "dockerfile.v0".to_owned(),
            attributes: attributes
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            inputs: BTreeMap::new(),
        };
        assert_eq!(
            asked.told(&Sources::default()).to_json(),
            json!({
                "configSource": { "uri": "https://xxxxx:xxxxx@example.com/r.git#main:sub", "path": "other" },
                "request": { "frontend": "dockerfile.v0", "args": { "build-arg:A": "b" } },
            })
        );
    }
}
