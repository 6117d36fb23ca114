//! Platform names as images and command lines spell them.
//!
//! A [`Platform`] is always normalised: one spelling per platform, the one containerd and BuildKit use, so that
//! equality, ordering and map keys mean what they say. `linux/aarch64`, `arm64` and `linux/arm64/v8` are one value;
//! `linux/arm/v6` and `linux/arm/v7` are two.

mod preference;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Operating system, architecture and variant, with the field names of the OCI image specification.
///
/// The variant is empty where the architecture alone says it all, and so is the version of the operating system: images
/// of Windows have one, `windows(10.0.20348)/amd64`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Spelling")]
pub struct Platform {
    os: String,
    architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    variant: String,
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    os_version: String,
}

/// A platform as somebody wrote it, before normalisation.
#[derive(Deserialize)]
struct Spelling {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
    #[serde(rename = "os.version", default)]
    os_version: String,
}

impl From<Spelling> for Platform {
    fn from(spelling: Spelling) -> Self {
        Self::new(&spelling.os, &spelling.architecture, &spelling.variant)
            .with_os_version(&spelling.os_version)
    }
}

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParsePlatformError {
    #[error(
        "the platform is empty: write it as os/architecture or os/architecture/variant, like linux/arm64"
    )]
    Empty,
    #[error(
        "platform {text:?} has more than three parts: write it as os/architecture/variant, like linux/arm/v7"
    )]
    TooManyParts { text: String },
    #[error(
        "{part:?} is an invalid component of {text:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\""
    )]
    InvalidPart { text: String, part: String },
    #[error(
        "platform {text:?} is neither a known operating system nor a known architecture: write it as os/architecture, like linux/arm64"
    )]
    Unknown { text: String },
}

impl Platform {
    /// The platform with these parts, normalised. An empty operating system means Linux.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = normal_architecture(architecture, variant);
        Self {
            os: normal_os(os),
            architecture,
            variant,
            os_version: String::new(),
        }
    }

    /// The same with a version of the operating system.
    #[must_use]
    pub fn with_os_version(self, version: &str) -> Self {
        Self {
            os_version: version.to_owned(),
            ..self
        }
    }

    /// A Linux platform without a variant.
    pub fn linux(architecture: &str) -> Self {
        Self::new("linux", architecture, "")
    }

    /// The platform that the machine's own processor runs, without a micro-architecture level.
    pub fn host() -> Self {
        match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => Self::linux("ppc64le"),
            "powerpc64" => Self::linux("ppc64"),
            "mips64" if cfg!(target_endian = "little") => Self::linux("mips64le"),
            architecture => Self::linux(architecture),
        }
    }

    pub fn os(&self) -> &str {
        &self.os
    }

    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The version of the operating system, empty where none is asked for.
    pub fn os_version(&self) -> &str {
        &self.os_version
    }

    /// The variant, empty where the platform has none.
    pub fn variant(&self) -> &str {
        &self.variant
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if !self.os_version.is_empty() {
            write!(f, "({})", self.os_version)?;
        }
        write!(f, "/{}", self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ParsePlatformError::Empty);
        }
        let (text, version) = split_version(text)?;
        let parts: Vec<&str> = text.split('/').collect();
        if let Some(part) = parts.iter().find(|part| !is_valid_part(part)) {
            return Err(ParsePlatformError::InvalidPart {
                part: (*part).to_owned(),
                text,
            });
        }
        let platform = match parts.as_slice() {
            [single] => parse_single(single)?,
            [os, architecture] => Self::new(os, architecture, ""),
            [os, architecture, variant] => Self::new(os, architecture, variant),
            _ => return Err(ParsePlatformError::TooManyParts { text }),
        };
        Ok(platform.with_os_version(version))
    }
}

/// A platform without the version of its operating system, and that version.
fn split_version(text: &str) -> Result<(String, &str), ParsePlatformError> {
    let os = text.split('/').next().unwrap_or_default();
    let Some((name, version)) = os.split_once('(') else {
        return Ok((text.to_owned(), ""));
    };
    match version.strip_suffix(')') {
        Some(version) if is_valid_part(version) => Ok((format!("{name}{}", &text[os.len()..]), version)),
        _ => Err(ParsePlatformError::InvalidPart {
            text: text.to_owned(),
            part: os.to_owned(),
        }),
    }
}

/// One word is an operating system on this machine's architecture, or a Linux architecture.
fn parse_single(word: &str) -> Result<Platform, ParsePlatformError> {
    let os = normal_os(word);
    if KNOWN_OPERATING_SYSTEMS.contains(&os.as_str()) {
        let host = Platform::host();
        return Ok(Platform::new(&os, &host.architecture, &host.variant));
    }
    let platform = Platform::linux(word);
    if KNOWN_ARCHITECTURES.contains(&platform.architecture.as_str()) {
        return Ok(platform);
    }
    Err(ParsePlatformError::Unknown {
        text: word.to_owned(),
    })
}

fn is_valid_part(part: &str) -> bool {
    !part.is_empty()
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

const KNOWN_OPERATING_SYSTEMS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
    "zos",
];

const KNOWN_ARCHITECTURES: &[&str] = &[
    "386", "amd64", "arm", "arm64", "armbe", "arm64be", "loong64", "mips", "mipsle", "mips64", "mips64le",
    "ppc", "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x", "sparc", "sparc64", "wasm",
];

fn normal_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "" => "linux".to_owned(),
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

/// Go's name for the architecture, and the variant only where it adds something.
fn normal_architecture(architecture: &str, variant: &str) -> (String, String) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.to_ascii_lowercase();
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1" | "1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        ("loongarch64", variant) => ("loong64", variant),
        ("mips64el", variant) => ("mips64le", variant),
        ("mipsel", variant) => ("mipsle", variant),
        ("powerpc64le" | "ppc64el", variant) => ("ppc64le", variant),
        (architecture, variant) => (architecture, variant),
    };
    (architecture.to_owned(), variant.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_has_one_normal_form() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("x86-64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v2", "linux/amd64/v2"),
            ("Linux/AMD64/V3", "linux/amd64/v3"),
            ("i386", "linux/386"),
            ("linux/i686", "linux/386"),
            ("arm64", "linux/arm64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("arm", "linux/arm/v7"),
            ("armhf", "linux/arm/v7"),
            ("armel", "linux/arm/v6"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/arm/5", "linux/arm/v5"),
            ("s390x", "linux/s390x"),
            ("ppc64le", "linux/ppc64le"),
            ("ppc64el", "linux/ppc64le"),
            ("riscv64", "linux/riscv64"),
            ("loongarch64", "linux/loong64"),
            ("mips64el", "linux/mips64le"),
            ("macos/arm64", "darwin/arm64"),
            ("windows/amd64", "windows/amd64"),
            ("windows(10.0.20348)/x86_64", "windows(10.0.20348)/amd64"),
            (" linux/arm64 ", "linux/arm64"),
        ] {
            let platform: Platform = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(platform.to_string(), normal, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_platform_is_refused_by_name() {
        let unknown = |text: &str| ParsePlatformError::Unknown {
            text: text.to_owned(),
        };
        let invalid = |text: &str, part: &str| ParsePlatformError::InvalidPart {
            text: text.to_owned(),
            part: part.to_owned(),
        };
        for (text, error) in [
            ("", ParsePlatformError::Empty),
            ("  ", ParsePlatformError::Empty),
            ("vax", unknown("vax")),
            ("linux/", invalid("linux/", "")),
            ("/arm64", invalid("/arm64", "")),
            ("windows()/amd64", invalid("windows()/amd64", "windows()")),
            ("windows(1/amd64", invalid("windows(1/amd64", "windows(1")),
            (
                "windows(1+x)/amd64",
                invalid("windows(1+x)/amd64", "windows(1+x)"),
            ),
            ("linux/arm 64", invalid("linux/arm 64", "arm 64")),
            (
                "linux/arm/v7/x",
                ParsePlatformError::TooManyParts {
                    text: "linux/arm/v7/x".to_owned(),
                },
            ),
        ] {
            assert_eq!(text.parse::<Platform>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_bare_operating_system_means_this_machines_architecture() {
        let platform: Platform = "linux".parse().unwrap();
        assert_eq!(platform, Platform::host());
    }

    #[test]
    fn json_has_the_names_of_the_image_specification() {
        let json = |text: &str| serde_json::to_string(&text.parse::<Platform>().unwrap()).unwrap();
        assert_eq!(json("linux/amd64"), r#"{"os":"linux","architecture":"amd64"}"#);
        assert_eq!(
            json("linux/arm/v6"),
            r#"{"os":"linux","architecture":"arm","variant":"v6"}"#
        );
        let read: Platform = serde_json::from_str(
            r#"{"architecture":"aarch64","os":"linux","variant":"v8","os.version":"1"}"#,
        )
        .unwrap();
        assert_eq!(read, Platform::linux("arm64").with_os_version("1"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_the_normal_form_is_stable(text in "\\PC{0,24}") {
            if let Ok(platform) = text.parse::<Platform>() {
                prop_assert_eq!(platform.to_string().parse::<Platform>(), Ok(platform));
            }
        }

        #[test]
        fn the_normal_form_of_known_words_is_stable(
            os in "linux|macos|windows|", architecture in "arm|aarch64|amd64|x86_64|armhf|armel|i386", variant in "|v1|v5|6|v8|8"
        ) {
            let platform = Platform::new(&os, &architecture, &variant);
            prop_assert_eq!(platform.to_string().parse::<Platform>(), Ok(platform.clone()));
            prop_assert_eq!(Platform::new(platform.os(), platform.architecture(), platform.variant()), platform);
        }
    }
}
