//! What accompanies an image: where it came from (SLSA provenance) and what is in it (SPDX documents).

use base64::Engine as _;
use registry::{Descriptor, Manifest};
use serde_json::Value;

/// Documents about large images are large; more than this is no document.
pub const LARGEST: u64 = 256 << 20;
const STATEMENT: &str = "application/vnd.in-toto+json";
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
const SPDX: &str = "https://spdx.dev/Document";
const SLSA: &str = "https://slsa.dev/provenance/";

#[derive(Debug, thiserror::Error)]
pub enum AttestationError {
    #[error("it is no in-toto statement")]
    Statement(#[source] serde_json::Error),
    #[error("its envelope cannot be opened")]
    Envelope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Sbom,
    Provenance,
}

/// The predicates about one image.
#[derive(Clone, Debug, Default)]
pub struct Statements {
    pub provenance: Option<Value>,
    pub sboms: Vec<Value>,
}

impl Statements {
    /// Of several provenances the last counts.
    pub fn add(&mut self, other: Self) {
        self.sboms.extend(other.sboms);
        self.provenance = other.provenance.or(self.provenance.take());
    }
}

/// The layers of an attestation manifest that hold documents: all SBOMs, and the first provenance.
pub fn choose(manifest: &Manifest) -> Vec<(Wanted, &Descriptor)> {
    let mut has_provenance = false;
    let chosen = manifest.layers.iter().filter_map(|layer| {
        if layer.media_type != STATEMENT && !is_envelope(&layer.media_type) {
            return None;
        }
        match layer.annotation(PREDICATE_TYPE)? {
            SPDX => Some((Wanted::Sbom, layer)),
            other if other.starts_with(SLSA) && !std::mem::replace(&mut has_provenance, true) => {
                Some((Wanted::Provenance, layer))
            }
            _ => None,
        }
    });
    chosen.collect()
}

/// Signed statements come in an envelope.
fn is_envelope(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.in-toto.") && media_type.ends_with("+dsse")
}

/// What the statement says.
pub fn predicate(bytes: &[u8], media_type: &str) -> Result<Value, AttestationError> {
    let statement: Value = if is_envelope(media_type) {
        let envelope: Value = serde_json::from_slice(bytes).map_err(AttestationError::Statement)?;
        let payload = envelope
            .get("payload")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let payload = base64::engine::general_purpose::STANDARD
            .decode(payload)
            .map_err(|_| AttestationError::Envelope)?;
        serde_json::from_slice(&payload).map_err(AttestationError::Statement)?
    } else {
        serde_json::from_slice(bytes).map_err(AttestationError::Statement)?
    };
    Ok(match statement {
        Value::Object(mut statement) => statement.remove("predicate").unwrap_or(Value::Null),
        _ => Value::Null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_found_plain_and_in_envelopes() {
        let statement = br#"{"predicateType":"x","predicate":{"a":1}}"#;
        let expected = serde_json::json!({"a": 1});
        assert_eq!(predicate(statement, STATEMENT).unwrap(), expected);
        let payload = base64::engine::general_purpose::STANDARD.encode(statement);
        let envelope = format!(r#"{{"payloadType":"p","payload":"{payload}"}}"#);
        let signed = "application/vnd.in-toto.spdx+dsse";
        assert_eq!(predicate(envelope.as_bytes(), signed).unwrap(), expected);
        assert!(predicate(b"no JSON", STATEMENT).is_err());
        assert!(matches!(
            predicate(br#"{"payload":"?"}"#, signed),
            Err(AttestationError::Envelope)
        ));
    }
}
