//! Which of an image's platforms serves a platform that was asked for.
//!
//! The order is containerd's `Only`, which BuildKit resolves base images with: the platform itself, then older
//! levels of it, then what its processors run besides. A newer level never serves an older one.

use super::Platform;

impl Platform {
    /// The platforms whose images serve this one, best first; the first is the platform itself.
    pub fn accepted(&self) -> Vec<Self> {
        let mut accepted = vec![self.clone()];
        match self.architecture.as_str() {
            "amd64" => {
                accepted.extend(self.older_levels("amd64", &self.variant, 1));
                accepted.push(self.sibling("386", ""));
            }
            "arm" => accepted.extend(self.older_levels("arm", &self.variant, 5)),
            "arm64" => {
                let level = if self.variant.is_empty() {
                    "v8"
                } else {
                    &self.variant
                };
                // A v9 processor runs v8 images; `linux/arm64` is how v8 is spelt.
                accepted.extend(self.older_levels("arm64", level, 8));
                accepted.push(self.sibling("arm", "v8"));
                accepted.extend(self.older_levels("arm", "v8", 5));
            }
            _ => {}
        }
        accepted
    }

    /// Whether an image for `candidate` serves this platform.
    pub fn accepts(&self, candidate: &Self) -> bool {
        self.rank(candidate).is_some()
    }

    /// How well `candidate` serves this platform: 0 is best, `None` not at all.
    pub fn rank(&self, candidate: &Self) -> Option<usize> {
        self.accepted()
            .iter()
            .position(|accepted| accepted.is_served_by(candidate))
    }

    /// The candidate that serves this platform best; of equals the first, as manifests are read in order.
    pub fn pick<'a, T>(
        &self,
        candidates: &'a [T],
        platform_of: impl Fn(&T) -> Option<&Self>,
    ) -> Option<&'a T> {
        let accepted = self.accepted();
        let rank = |candidate: &T| {
            let platform = platform_of(candidate)?;
            accepted
                .iter()
                .position(|accepted| accepted.is_served_by(platform))
        };
        candidates
            .iter()
            .filter_map(|candidate| Some((rank(candidate)?, candidate)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, candidate)| candidate)
    }

    fn sibling(&self, architecture: &str, variant: &str) -> Self {
        Self::new(&self.os, architecture, variant).with_os_version(&self.os_version)
    }

    /// Who asks for no version of the operating system takes any.
    fn is_served_by(&self, candidate: &Self) -> bool {
        let parts = |platform: &Self| {
            (
                platform.os.clone(),
                platform.architecture.clone(),
                platform.variant.clone(),
            )
        };
        parts(self) == parts(candidate)
            && (self.os_version.is_empty() || self.os_version == candidate.os_version)
    }

    /// The levels below `variant` down to `lowest`, newest first; none if the variant is not a level.
    fn older_levels(&self, architecture: &str, variant: &str, lowest: u8) -> Vec<Self> {
        let level = variant
            .strip_prefix('v')
            .and_then(|level| level.parse::<u8>().ok())
            .unwrap_or(lowest);
        (lowest..level)
            .rev()
            .map(|level| self.sibling(architecture, &format!("v{level}")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn each_platform_accepts_itself_then_older_levels() {
        for (wanted, accepted) in [
            ("linux/amd64", "linux/amd64 linux/386"),
            (
                "linux/amd64/v3",
                "linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386",
            ),
            ("linux/386", "linux/386"),
            ("linux/arm/v7", "linux/arm/v7 linux/arm/v6 linux/arm/v5"),
            ("linux/arm/v6", "linux/arm/v6 linux/arm/v5"),
            (
                "linux/arm64",
                "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5",
            ),
            (
                "linux/arm64/v9",
                "linux/arm64/v9 linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5",
            ),
            ("linux/s390x", "linux/s390x"),
            ("windows/amd64", "windows/amd64 windows/386"),
            ("linux/arm/vx", "linux/arm/vx"),
        ] {
            let listed: Vec<String> = platform(wanted)
                .accepted()
                .iter()
                .map(Platform::to_string)
                .collect();
            assert_eq!(listed.join(" "), accepted, "{wanted}");
        }
    }

    #[test]
    fn the_best_manifest_is_picked_and_the_first_of_equals() {
        let offered: Vec<Option<Platform>> = [
            "linux/arm/v5",
            "linux/arm/v7",
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/386",
            "windows/amd64",
        ]
        .into_iter()
        .map(|text| Some(platform(text)))
        .chain([None])
        .collect();
        let position = |wanted: &str| {
            let picked = platform(wanted).pick(&offered, Option::as_ref)?;
            offered
                .iter()
                .position(|candidate| std::ptr::eq(candidate, picked))
        };
        assert_eq!(position("linux/arm/v7"), Some(1));
        assert_eq!(position("linux/arm/v6"), Some(2));
        assert_eq!(position("linux/arm64"), Some(1));
        assert_eq!(position("linux/amd64"), Some(4));
        assert_eq!(position("windows/amd64"), Some(5));
        assert_eq!(position("linux/s390x"), None);
        assert_eq!(position("windows/arm64"), None);
    }

    #[test]
    fn a_newer_level_never_serves_an_older_one() {
        assert!(!platform("linux/arm/v6").accepts(&platform("linux/arm/v7")));
        assert!(!platform("linux/amd64").accepts(&platform("linux/amd64/v2")));
        assert!(!platform("linux/386").accepts(&platform("linux/amd64")));
    }
}
