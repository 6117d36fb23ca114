//! One image of a list under construction, in the format of Docker's files below `~/.docker/manifests`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use registry::{Descriptor, Platform, RawManifest, Reference, media_type};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::text;

#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    #[error("{reference} has no payload")]
    Empty { reference: Reference },
    #[error("internal digest mismatch for {reference}: expected {expected}, got {found}")]
    Mismatch {
        reference: String,
        expected: registry::Digest,
        found: registry::Digest,
    },
    #[error("the manifest of {reference} is not readable")]
    Parse {
        reference: Reference,
        #[source]
        source: serde_json::Error,
    },
}

/// The fields have Docker's order and names; `descriptor` carries the platform, which is what gets annotated.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    #[serde(rename = "Ref")]
    pub reference: Reference,
    #[serde(rename = "Descriptor")]
    pub descriptor: Descriptor,
    /// The manifest as received, in base64. Files of Docker before 2023 do not have it.
    #[serde(rename = "Raw", default, skip_serializing_if = "String::is_empty")]
    raw: String,
    #[serde(rename = "SchemaV2Manifest", default, skip_serializing_if = "Option::is_none")]
    docker: Option<Box<RawValue>>,
    #[serde(rename = "OCIManifest", default, skip_serializing_if = "Option::is_none")]
    oci: Option<Box<RawValue>>,
}

impl Member {
    /// An image as a registry answered, and the platform its config names.
    pub fn new(reference: Reference, raw: &RawManifest, platform: Platform) -> Result<Self, MemberError> {
        let text = text::compact(&String::from_utf8_lossy(&raw.bytes));
        let manifest = RawValue::from_string(text).map_err(|source| MemberError::Parse {
            reference: reference.clone(),
            source,
        })?;
        let (docker, oci) = if raw.media_type == media_type::DOCKER_MANIFEST {
            (Some(manifest), None)
        } else {
            (None, Some(manifest))
        };
        Ok(Self {
            reference,
            descriptor: raw.descriptor().with_platform(platform),
            raw: STANDARD.encode(&raw.bytes),
            docker,
            oci,
        })
    }

    /// Has the bytes of the manifest.
    pub fn is_complete(&self) -> bool {
        !self.raw.is_empty()
    }

    /// The manifest as text; its white space need not be the original's.
    pub fn manifest_text(&self) -> Result<&str, MemberError> {
        self.docker
            .as_ref()
            .or(self.oci.as_ref())
            .map(|manifest| manifest.get())
            .ok_or_else(|| MemberError::Empty {
                reference: self.reference.clone(),
            })
    }

    /// The manifest with the bytes that its digest is of.
    pub fn raw(&self) -> Result<RawManifest, MemberError> {
        let bytes = match STANDARD.decode(&self.raw) {
            Ok(bytes) if !bytes.is_empty() => bytes,
            // Docker kept no bytes once, and wrote them anew the way its builder used to.
            _ => {
                let unit = if self.docker.is_some() { "   " } else { "  " };
                text::indent(self.manifest_text()?, unit).into_bytes()
            }
        };
        let expected = &self.descriptor.digest;
        let raw = RawManifest::new(Bytes::from(bytes), Some(&self.descriptor.media_type));
        if raw.matches(expected) {
            let media_type = Some(self.descriptor.media_type.as_str());
            return Ok(RawManifest::with_digest(raw.bytes, media_type, expected.clone()));
        }
        Err(MemberError::Mismatch {
            reference: self.reference.to_string(),
            expected: expected.clone(),
            found: raw.digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"application/vnd.docker.distribution.manifest.v2+json\",\n   \"config\": {\n      \"mediaType\": \"application/vnd.docker.container.image.v1+json\",\n      \"size\": 2,\n      \"digest\": \"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\"\n   },\n   \"layers\": [],\n   \"annotations\": {\n      \"a\": \"<b>\"\n   }\n}";

    fn member() -> Member {
        let raw = RawManifest::new(MANIFEST.into(), Some(media_type::DOCKER_MANIFEST));
        Member::new(
            "localhost:5000/app:v1".parse().unwrap(),
            &raw,
            Platform::new("linux", "arm64", "v8"),
        )
        .unwrap()
    }

    #[test]
    fn the_file_is_written_as_docker_writes_it() {
        let text = String::from_utf8(registry::json::compact(&member()).unwrap()).unwrap();
        let start = concat!(
            r#"{"Ref":"localhost:5000/app:v1","Descriptor":{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","#,
            r#""digest":"sha256:"#
        );
        assert!(text.starts_with(start), "{text}");
        assert!(
            text.ends_with(r#""layers":[],"annotations":{"a":"\u003cb\u003e"}}}"#),
            "{text}"
        );
        let read: Member = serde_json::from_str(&text).unwrap();
        assert_eq!(read.raw().unwrap().bytes, MANIFEST);
    }

    #[test]
    fn bytes_that_were_not_kept_are_written_anew_and_checked() {
        let mut old = member();
        old.raw.clear();
        assert!(!old.is_complete());
        assert_eq!(old.raw().unwrap().bytes, MANIFEST);
        old.descriptor.digest = registry::Digest::of(b"other");
        assert!(matches!(old.raw(), Err(MemberError::Mismatch { .. })));
    }
}
