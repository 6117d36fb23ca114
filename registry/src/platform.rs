//! The platform of an image, and which of several images fits a platform best.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `os/architecture[/variant]` as image indexes and configs carry it. Field order is that of the OCI specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        Self {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            variant: variant.to_owned(),
            ..Self::default()
        }
    }

    /// With the aliases of architectures resolved and the variant left out where it is the usual one:
    /// `x86_64` is `amd64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
            ("i386", _) | ("386", _) => ("386", ""),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", other) => ("arm64", other),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            (other, variant) => (other, variant),
        };
        Self {
            architecture: architecture.to_owned(),
            os: self.os.to_ascii_lowercase(),
            variant: variant.to_owned(),
            ..self.clone()
        }
    }

    /// How well an image for `image` runs on this platform: 0 is exact, higher is worse, `None` not at all.
    ///
    /// As containerd does: a CPU runs what older variants of it ran, and 64-bit CPUs their 32-bit ancestors' code.
    pub fn rank(&self, image: &Self) -> Option<usize> {
        let image = image.normalised();
        let this = self.normalised();
        if image.os != this.os || (!this.os_version.is_empty() && image.os_version != this.os_version) {
            return None;
        }
        this.runs().into_iter().position(|(architecture, variant)| {
            architecture == image.architecture && variant == image.variant
        })
    }

    /// The (architecture, variant) pairs this platform runs, best first.
    fn runs(&self) -> Vec<(&str, String)> {
        let arm_down_from = |version: u8| (5..=version).rev().map(|v| ("arm", format!("v{v}")));
        let version = || self.variant.strip_prefix('v').and_then(|v| v.parse::<u8>().ok());
        let mut runs = vec![(self.architecture.as_str(), self.variant.clone())];
        match self.architecture.as_str() {
            "amd64" => {
                let older = (2..version().unwrap_or(1))
                    .rev()
                    .map(|v| ("amd64", format!("v{v}")));
                runs.extend(older);
                if !self.variant.is_empty() {
                    runs.push(("amd64", String::new()));
                }
                runs.push(("386", String::new()));
            }
            "arm64" => {
                if !self.variant.is_empty() {
                    runs.push(("arm64", String::new()));
                }
                runs.extend(arm_down_from(8));
            }
            "arm" => runs.extend(arm_down_from(version().unwrap_or(5)).skip(1)),
            _ => {}
        }
        runs
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/');
        let mut next = || parts.next().unwrap_or("");
        Platform::new(next(), next(), next())
    }

    #[test]
    fn older_variants_run_on_newer_processors_only() {
        for (wanted, image, rank) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v1", Some(0)),
            ("linux/amd64", "linux/386", Some(1)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64/v3", "linux/amd64/v2", Some(1)),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/amd64", "windows/amd64", None),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64/v8", "linux/arm64", Some(0)),
            ("linux/arm64", "linux/arm/v7", Some(2)),
            ("linux/arm", "linux/arm/v7", Some(0)),
            ("linux/arm/v7", "linux/arm/v6", Some(1)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/arm/v6", "linux/arm/v5", Some(1)),
            ("linux/riscv64", "linux/riscv64", Some(0)),
            ("linux/386", "linux/amd64", None),
        ] {
            assert_eq!(
                platform(wanted).rank(&platform(image)),
                rank,
                "{wanted} on {image}"
            );
        }
    }
}
