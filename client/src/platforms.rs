//! Lists of platforms as the commands show and take them.

use std::collections::BTreeMap;

use binfmt::{ParsePlatformError, Platform};

/// The platforms of a list of `--platform` values, each of which may hold several, separated by commas.
pub fn parse(values: &[String]) -> Result<Vec<Platform>, ParsePlatformError> {
    let mut platforms = Vec::new();
    for text in values.iter().flat_map(|value| value.split(',')) {
        let platform = if text.trim().eq_ignore_ascii_case("local") {
            Platform::host()
        } else {
            text.parse()?
        };
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// The platforms that a user fixed, marked with a star, and then those that the daemon offers.
pub fn in_groups(fixed: &[Platform], offered: &[Platform]) -> Vec<String> {
    let mut texts: Vec<String> = fixed.iter().map(|platform| format!("{platform}*")).collect();
    texts.extend(
        offered
            .iter()
            .filter(|platform| !fixed.contains(platform))
            .map(ToString::to_string),
    );
    texts
}

/// The families that a shortened list shows first.
const MAJOR: [&str; 7] = [
    "linux/amd64",
    "linux/arm64",
    "linux/arm",
    "linux/ppc64le",
    "linux/s390x",
    "linux/riscv64",
    "linux/mips64",
];

/// At most `most` families of platforms: `linux/amd64 (+3), linux/arm64, (4 more)`.
pub fn shortened(texts: &[String], most: usize) -> String {
    let family = |text: &str| {
        text.trim_end_matches('*')
            .splitn(3, '/')
            .take(2)
            .collect::<Vec<_>>()
            .join("/")
    };
    let mut families: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for text in texts {
        families.entry(family(text)).or_default().push(text);
    }
    let major = MAJOR.iter().map(|name| (*name).to_owned());
    let minor = families
        .keys()
        .filter(|name| !MAJOR.contains(&name.as_str()))
        .cloned();
    let order: Vec<String> = major
        .chain(minor)
        .filter(|name| families.contains_key(name))
        .take(most)
        .collect();
    let mut shown = 0;
    let mut parts: Vec<String> = order
        .iter()
        .map(|name| {
            let members = &families[name];
            shown += members.len();
            match members.as_slice() {
                [single] => (*single).clone(),
                several => {
                    let star = if several.iter().any(|text| text.ends_with('*')) {
                        "*"
                    } else {
                        ""
                    };
                    format!("{name}{star} (+{})", several.len())
                }
            }
        })
        .collect();
    if texts.len() > shown {
        parts.push(format!("({} more)", texts.len() - shown));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &str) -> Vec<String> {
        list.split(' ')
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn platforms_are_normalised_and_named_once() {
        let parsed = parse(&["linux/arm64/v8,amd64".to_owned(), "linux/arm64".to_owned()]).unwrap();
        assert_eq!(parsed, [Platform::linux("arm64"), Platform::linux("amd64")]);
        assert!(parse(&["linux/".to_owned()]).is_err());
    }

    #[test]
    fn a_long_list_is_shortened_by_family() {
        for (all, short) in [
            ("", ""),
            ("linux/amd64 linux/arm64", "linux/amd64, linux/arm64"),
            (
                "linux/amd64 linux/amd64/v2 linux/386",
                "linux/amd64 (+2), linux/386",
            ),
            (
                "linux/amd64* linux/amd64/v2 linux/386",
                "linux/amd64* (+2), linux/386",
            ),
            (
                "linux/amd64 linux/arm64 linux/riscv64 linux/ppc64le linux/s390x linux/386 linux/arm/v7 linux/arm/v6",
                "linux/amd64, linux/arm64, linux/arm (+2), linux/ppc64le, (3 more)",
            ),
        ] {
            assert_eq!(shortened(&texts(all), 4), short);
        }
    }

    #[test]
    fn fixed_platforms_come_first_with_a_star() {
        let fixed = [Platform::linux("arm64")];
        let offered = [Platform::linux("amd64"), Platform::linux("arm64")];
        assert_eq!(in_groups(&fixed, &offered), ["linux/arm64*", "linux/amd64"]);
    }
}
