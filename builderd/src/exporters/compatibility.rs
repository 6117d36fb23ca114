//! What exporters did by default in earlier versions of BuildKit, which a client may ask for by number.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{ExportError, Results};

/// BuildKit 0.13 and 0.14.
const V013: i64 = 10;
/// From here on defaults are those of today.
const CURRENT: i64 = 30;

/// The attributes of an export with the defaults of a compatibility version; 0 asks for none.
pub(crate) fn attributes<'a>(
    version: i64,
    kind: &str,
    attributes: &'a BTreeMap<String, String>,
    results: &Results,
) -> Result<Cow<'a, BTreeMap<String, String>>, ExportError> {
    let image = matches!(kind, "image" | "moby");
    if version == 0 || version >= CURRENT || !(image || matches!(kind, "oci" | "docker")) {
        return Ok(Cow::Borrowed(attributes));
    }
    let compression = attributes.get("compression").map(String::as_str);
    if version == V013 && compression == Some("zstd") {
        let feature = format!("{kind} exporter compression=zstd");
        return Err(ExportError::Compatibility { version, feature });
    }
    let mut all = attributes.clone();
    let attested = results
        .targets
        .iter()
        .any(|target| !target.attestations.is_empty());
    if image && !attested {
        all.entry("oci-mediatypes".to_owned())
            .or_insert_with(|| "false".to_owned());
    }
    all.entry("oci-artifact".to_owned())
        .or_insert_with(|| "false".to_owned());
    Ok(Cow::Owned(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_versions_have_their_defaults_and_what_is_given_stays() {
        let results = Results {
            targets: Vec::new(),
            multi_platform: false,
            build_info: None,
            metadata: BTreeMap::new(),
        };
        let all = |version, kind, given: &[(&str, &str)]| {
            let given = given.iter();
            let given = given.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            attributes(version, kind, &given.collect(), &results).map(Cow::into_owned)
        };
        for current in [0, 30] {
            assert!(all(current, "image", &[]).unwrap().is_empty());
        }
        assert_eq!(all(20, "image", &[]).unwrap()["oci-mediatypes"], "false");
        assert_eq!(all(20, "oci", &[]).unwrap().get("oci-mediatypes"), None);
        let given = all(10, "image", &[("oci-mediatypes", "true")]).unwrap();
        assert_eq!(given["oci-mediatypes"], "true");
        assert_eq!(given["oci-artifact"], "false");
        assert!(all(10, "oci", &[("compression", "zstd")]).is_err());
        assert!(all(20, "oci", &[("compression", "zstd")]).is_ok());
        assert!(all(10, "local", &[("compression", "zstd")]).unwrap().len() == 1);
    }
}
