use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn names_are_normalised_as_docker_does() {
    // written, full form, familiar form
    for (written, full, familiar) in [
        ("alpine", "docker.io/library/alpine", "alpine"),
        ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
        ("user/app", "docker.io/user/app", "user/app"),
        ("docker.io/alpine", "docker.io/library/alpine", "alpine"),
        (
            "docker.io/library/alpine:1",
            "docker.io/library/alpine:1",
            "alpine:1",
        ),
        ("index.docker.io/library/a", "docker.io/library/a", "a"),
        ("library/alpine", "docker.io/library/alpine", "alpine"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/app", "localhost/app", "localhost/app"),
        (
            "localhost:5000/a/b:c",
            "localhost:5000/a/b:c",
            "localhost:5000/a/b:c",
        ),
        ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        ("[fe80::1]/x:t", "[fe80::1]/x:t", "[fe80::1]/x:t"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x", "127.0.0.1:5000/x"),
        ("Foo/bar", "Foo/bar", "Foo/bar"),
        (
            "example.com/a__b/c---d.e_f",
            "example.com/a__b/c---d.e_f",
            "example.com/a__b/c---d.e_f",
        ),
        (
            "localhost:5000",
            "docker.io/library/localhost:5000",
            "localhost:5000",
        ),
        ("a:B_c.d-e", "docker.io/library/a:B_c.d-e", "a:B_c.d-e"),
    ] {
        let reference: Reference = written
            .parse()
            .unwrap_or_else(|error| panic!("{written}: {error}"));
        assert_eq!(reference.to_string(), full, "{written}");
        assert_eq!(reference.familiar(), familiar, "{written}");
    }
}

#[test]
fn digests_stand_alone_or_behind_a_tag() {
    let reference: Reference = format!("alpine@{DIGEST}").parse().unwrap();
    assert_eq!(
        reference.to_string(),
        format!("docker.io/library/alpine@{DIGEST}")
    );
    assert_eq!(reference.tag(), None);
    assert_eq!(reference.manifest_name(), DIGEST);

    let reference: Reference = format!("localhost:5000/a:1@{DIGEST}").parse().unwrap();
    assert_eq!(reference.tag(), Some("1"));
    assert_eq!(reference.manifest_name(), DIGEST);
    assert_eq!(reference.clone().or_latest(), reference);

    let reference: Reference = "alpine".parse().unwrap();
    assert_eq!(
        reference.or_latest().to_string(),
        "docker.io/library/alpine:latest"
    );
}

#[test]
fn what_docker_refuses_is_refused_with_its_reason() {
    let long = "a".repeat(256);
    for (written, expected) in [
        ("", "invalid reference format: empty image name"),
        (
            "FOO",
            "invalid reference format: repository name (library/FOO) must be lowercase",
        ),
        (
            "user/App",
            "invalid reference format: repository name (user/App) must be lowercase",
        ),
        (
            "docker.io/Alpine",
            "invalid reference format: repository name (library/Alpine) must be lowercase",
        ),
        (
            "a//b",
            "invalid reference format: invalid repository name \"a//b\"",
        ),
        ("a/", "invalid reference format: invalid repository name \"a/\""),
        ("-a", "invalid reference format: invalid repository name \"-a\""),
        (
            "a___b",
            "invalid reference format: invalid repository name \"a___b\"",
        ),
        (
            "a..b",
            "invalid reference format: invalid repository name \"a..b\"",
        ),
        (
            "a._b",
            "invalid reference format: invalid repository name \"a._b\"",
        ),
        (
            "localhost:5000/",
            "invalid reference format: invalid repository name \"localhost:5000/\"",
        ),
        (
            ":tag",
            "invalid reference format: invalid repository name \":tag\"",
        ),
        ("a:", "invalid reference format: invalid tag \"\" in \"a:\""),
        ("a:.b", "invalid reference format: invalid tag \".b\" in \"a:.b\""),
        (
            "a:b/c",
            "invalid reference format: invalid registry \"a:b\" in \"a:b/c\"",
        ),
        (
            "a.:5/c",
            "invalid reference format: invalid registry \"a.:5\" in \"a.:5/c\"",
        ),
        (
            "[::1/c",
            "invalid reference format: invalid registry \"[::1\" in \"[::1/c\"",
        ),
        ("a@sha256:12", "invalid reference format: \"a@sha256:12\""),
        (
            &long,
            "invalid reference format: repository name must not be more than 255 characters",
        ),
        (
            &DIGEST[7..],
            "invalid repository name (ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad), \
             cannot specify 64-byte hexadecimal strings",
        ),
    ] {
        let error = match written.parse::<Reference>() {
            Ok(reference) => panic!("{written} parsed as {reference}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(error, expected, "{written}");
    }
}

#[test]
fn docker_hub_is_served_by_another_host() {
    let hub: Repository = "alpine".parse().unwrap();
    assert_eq!(hub.api_host(), "registry-1.docker.io");
    let own: Repository = "localhost:5000/a".parse().unwrap();
    assert_eq!(own.api_host(), "localhost:5000");
    assert!("alpine:3".parse::<Repository>().is_err());
}

proptest! {
    #[test]
    fn parsing_never_panics_and_printing_is_its_inverse(text in ".{0,80}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference.clone());
            prop_assert_eq!(reference.familiar().parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn well_formed_references_parse_and_survive_both_forms(
        registry in prop::option::of("(localhost|[a-z][a-z0-9]{0,5}\\.[a-z]{2,3})(:[0-9]{1,5})?"),
        path in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,5}){0,3}",
        tag in prop::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}"),
        digest in prop::option::of("sha256:[0-9a-f]{64}"),
    ) {
        let first_component = path.split('/').next().unwrap_or_default();
        // Without a registry in front, such a first component would be taken for one.
        prop_assume!(registry.is_some() || !path.contains('/') || !first_component.contains('.'));
        let mut text = registry.map(|registry| registry + "/").unwrap_or_default() + &path;
        if let Some(tag) = &tag { text = format!("{text}:{tag}"); }
        if let Some(digest) = &digest { text = format!("{text}@{digest}"); }
        // A lone `localhost` in front of a slash is a registry, which the generator may hit by chance: still fine.
        let reference: Reference = text.parse().unwrap();
        prop_assert_eq!(reference.tag(), tag.as_deref());
        prop_assert_eq!(reference.digest().map(Digest::as_str), digest.as_deref());
        prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference.clone());
        prop_assert_eq!(reference.familiar().parse::<Reference>().unwrap(), reference);
    }
}
