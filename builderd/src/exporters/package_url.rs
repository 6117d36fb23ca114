//! Images as package URLs: `pkg:docker/alpine@3.20?platform=linux%2Famd64`.

use registry::{Digest, Platform, Reference};

/// The package URL of an image in a registry (`docker`) or an OCI layout (`oci`).
pub fn of_image(
    kind: &str,
    reference: &str,
    platform: Option<&Platform>,
    reference_type: Option<&str>,
) -> String {
    let mut qualifiers = Vec::new();
    let name = match reference.parse::<Reference>() {
        Ok(parsed) => {
            let repository = parsed.repository().to_string();
            let short = repository
                .strip_prefix("docker.io/library/")
                .or_else(|| repository.strip_prefix("docker.io/"))
                .unwrap_or(&repository);
            let digest = parsed.digest().map(Digest::to_string);
            let tag = match (parsed.tag(), &digest) {
                (Some(tag), _) => Some(tag),
                (None, None) => Some("latest"),
                (None, Some(_)) => None,
            };
            qualifiers.extend(digest.map(|digest| format!("digest={digest}")));
            let short = short.split('/').map(escaped).collect::<Vec<_>>().join("/");
            match tag {
                Some(tag) => format!("{short}@{}", escaped(tag)),
                None => short,
            }
        }
        Err(_) => escaped(reference),
    };
    qualifiers.extend(platform.map(|platform| format!("platform={}", escaped(&platform.to_string()))));
    qualifiers.extend(reference_type.map(|kind| format!("ref_type={kind}")));
    let separator = if qualifiers.is_empty() { "" } else { "?" };
    format!("pkg:{kind}/{name}{separator}{}", qualifiers.join("&"))
}

/// The package URL of a bundle of git commits, which stands for the repository at `url`.
pub fn of_bundle(kind: &str, place: &Reference, url: &str) -> String {
    let repository = place.repository().to_string();
    let bundle = of_image(kind, &repository, None, Some("bundle"));
    format!("{bundle}&vcs_url={}", escaped(url))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_as_packages() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let arm = Platform::new("linux", "arm", "v7");
        for (reference, platform, url) in [
            ("alpine", None, "pkg:docker/alpine@latest".to_owned()),
            (
                "docker.io/library/alpine:3.20",
                Some(&arm),
                "pkg:docker/alpine@3.20?platform=linux%2Farm%2Fv7".to_owned(),
            ),
            ("user/app:1", None, "pkg:docker/user/app@1".to_owned()),
            (
                "localhost:5000/a/b",
                None,
                "pkg:docker/localhost%3A5000/a/b@latest".to_owned(),
            ),
            (
                &format!("busybox@{digest}"),
                Some(&arm),
                format!("pkg:docker/busybox?digest={digest}&platform=linux%2Farm%2Fv7"),
            ),
        ] {
            assert_eq!(of_image("docker", reference, platform, None), url);
        }
    }
}
