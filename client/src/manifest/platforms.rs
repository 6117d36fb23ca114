//! The platforms that may be written into lists by hand. Both tools refuse what they do not know, against typing errors.

/// Pairs that `docker manifest annotate` takes, and those that came after it: loong64 runs here too.
const DOCKER: [(&str, &[&str]); 9] = [
    ("darwin", &["386", "amd64", "arm", "arm64"]),
    ("dragonfly", &["amd64"]),
    ("freebsd", &["386", "amd64", "arm"]),
    (
        "linux",
        &[
            "386", "amd64", "arm", "arm64", "loong64", "mips64", "mips64le", "ppc64le", "riscv64", "s390x",
        ],
    ),
    ("netbsd", &["386", "amd64", "arm"]),
    ("openbsd", &["386", "amd64", "arm"]),
    ("plan9", &["386", "amd64"]),
    ("solaris", &["amd64"]),
    ("windows", &["386", "amd64"]),
];

/// Systems and architectures of the Go compiler, in any combination.
const SYSTEMS: [&str; 15] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
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
];
const ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
    "riscv64", "s390x", "wasm",
];

/// True for what `docker manifest annotate` lets one write.
pub fn docker_knows(os: &str, architecture: &str) -> bool {
    DOCKER
        .iter()
        .any(|(known, architectures)| *known == os && architectures.contains(&architecture))
}

/// True for what `manifest-tool` takes. Only Linux on ARM has variants there.
pub fn manifest_tool_knows(os: &str, architecture: &str, variant: &str) -> bool {
    let variant_fits = match (os, architecture, variant) {
        (_, _, "") => true,
        ("linux", "arm", variant) => matches!(variant, "v5" | "v6" | "v7"),
        ("linux", "arm64", variant) => variant == "v8",
        _ => false,
    };
    SYSTEMS.contains(&os) && ARCHITECTURES.contains(&architecture) && variant_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_variants() {
        assert!(docker_knows("linux", "s390x") && docker_knows("windows", "amd64"));
        assert!(!docker_knows("windows", "s390x") && !docker_knows("", "amd64"));
        for (os, architecture, variant, known) in [
            ("linux", "arm", "v7", true),
            ("linux", "arm", "v8", false),
            ("linux", "arm64", "v8", true),
            ("linux", "amd64", "v2", false),
            ("aix", "s390x", "", true),
            ("linux", "x86_64", "", false),
            ("", "", "", false),
        ] {
            assert_eq!(
                manifest_tool_knows(os, architecture, variant),
                known,
                "{os}/{architecture}/{variant}"
            );
        }
    }
}
