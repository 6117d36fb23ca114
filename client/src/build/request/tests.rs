use super::*;

fn project() -> (tempfile::TempDir, Flags) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Dockerfile"), "FROM scratch\n").unwrap();
    let flags = Flags {
        context: folder.path().to_str().unwrap().to_owned(),
        ..Flags::default()
    };
    (folder, flags)
}

fn list(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}

fn attributes(flags: &Flags) -> Vec<(String, String)> {
    Plan::new(flags, &Settings::of(&[("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")]))
        .unwrap()
        .attributes
        .into_iter()
        .collect()
}

#[test]
fn provenance_is_asked_for_unless_it_is_refused() {
    let (_folder, base) = project();
    let attests = |attests: &[&str], settings: &[(&str, &str)]| {
        let flags = Flags {
            attests: attests.iter().map(|&attest| attest.to_owned()).collect(),
            ..base.clone()
        };
        let plan = Plan::new(&flags, &Settings::of(settings))?;
        let attests = plan
            .attributes
            .into_iter()
            .filter(|(key, _)| key.starts_with("attest:"));
        anyhow::Ok(
            attests
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>(),
        )
    };
    let default = "attest:provenance=mode=min,inline-only=true";
    assert_eq!(attests(&[], &[]).unwrap(), [default]);
    assert!(
        attests(&[], &[("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")])
            .unwrap()
            .is_empty()
    );
    assert!(
        attests(&["type=provenance,disabled=true"], &[])
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        attests(&["type=sbom,generator=x", "type=provenance,mode=max"], &[]).unwrap(),
        ["attest:provenance=mode=max", "attest:sbom=generator=x"]
    );
    assert!(attests(&["mode=max"], &[]).is_err());
    assert!(attests(&["type=other"], &[]).is_err());
}

#[test]
fn flags_become_attributes_of_the_frontend() {
    let (_folder, base) = project();
    let plain = ("filename".to_owned(), "Dockerfile".to_owned());
    assert_eq!(attributes(&base), std::slice::from_ref(&plain));
    let cases: Vec<(Flags, &[(&str, &str)])> = vec![
        (
            Flags {
                platforms: list(&["linux/arm64/v8,linux/amd64", "linux/arm64"]),
                ..base.clone()
            },
            &[("platform", "linux/arm64,linux/amd64")],
        ),
        (
            Flags {
                build_args: list(&["A=1", "B=x=y"]),
                ..base.clone()
            },
            &[("build-arg:A", "1"), ("build-arg:B", "x=y")],
        ),
        (
            Flags {
                labels: list(&["l=v", "m"]),
                ..base.clone()
            },
            &[("label:l", "v"), ("label:m", "")],
        ),
        (
            Flags {
                target: Some("t".to_owned()),
                ..base.clone()
            },
            &[("target", "t")],
        ),
        (
            Flags {
                no_cache: true,
                ..base.clone()
            },
            &[("no-cache", "")],
        ),
        (
            Flags {
                no_cache_filter: list(&["a", "b"]),
                ..base.clone()
            },
            &[("no-cache", "a,b")],
        ),
        (
            Flags {
                pull: true,
                ..base.clone()
            },
            &[("image-resolve-mode", "pull")],
        ),
        (
            Flags {
                network: Some("none".to_owned()),
                ..base.clone()
            },
            &[("force-network-mode", "none")],
        ),
        (
            Flags {
                network: Some("default".to_owned()),
                ..base.clone()
            },
            &[],
        ),
        (
            Flags {
                add_hosts: list(&["h:1.2.3.4"]),
                ..base.clone()
            },
            &[("add-hosts", "h=1.2.3.4")],
        ),
        (
            Flags {
                ulimits: list(&["nofile=8"]),
                ..base.clone()
            },
            &[("ulimit", "nofile=8:8")],
        ),
        (
            Flags {
                shm_size: Some("64m".to_owned()),
                ..base.clone()
            },
            &[("shm-size", "67108864")],
        ),
        (
            Flags {
                cgroup_parent: Some("/x".to_owned()),
                ..base.clone()
            },
            &[("cgroup-parent", "/x")],
        ),
    ];
    for (flags, expected) in cases {
        let mut expected: Vec<_> = expected
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        expected.push(plain.clone());
        expected.sort();
        assert_eq!(attributes(&flags), expected);
    }
}

#[test]
fn tags_name_the_images_of_all_outputs() {
    let (_folder, base) = project();
    let flags = Flags {
        tags: list(&["app", "localhost:5000/a/b:1"]),
        outputs: list(&["type=oci,dest=x", "out"]),
        push: true,
        ..base
    };
    let plan = Plan::new(&flags, &Settings::of(&[])).unwrap();
    let request = plan.solve_request(&plan.whole(), "ref", "session");
    let names: Vec<_> = request
        .exporters
        .iter()
        .map(|e| (e.r#type.as_str(), e.attrs.get("name").map(String::as_str)))
        .collect();
    let name = "docker.io/library/app:latest,localhost:5000/a/b:1";
    assert_eq!(
        names,
        [("oci", Some(name)), ("local", None), ("image", Some(name))]
    );
    assert_eq!(request.exporter_deprecated, "oci");
    assert_eq!(request.exporter_attrs_deprecated, request.exporters[0].attrs);
    assert_eq!(
        (
            request.frontend.as_str(),
            request.r#ref.as_str(),
            request.session.as_str()
        ),
        ("dockerfile.v0", "ref", "session")
    );
}

#[test]
fn the_epoch_of_the_environment_is_a_build_argument_and_an_attribute() {
    let (_folder, base) = project();
    let flags = Flags {
        tags: list(&["a"]),
        push: true,
        ..base
    };
    let plan = Plan::new(&flags, &Settings::of(&[("SOURCE_DATE_EPOCH", "5")])).unwrap();
    assert_eq!(plan.attributes["build-arg:SOURCE_DATE_EPOCH"], "5");
    assert_eq!(plan.outputs[0].attributes["source-date-epoch"], "5");
}

#[test]
fn host_networking_asks_for_its_entitlement() {
    let (_folder, base) = project();
    let flags = Flags {
        network: Some("host".to_owned()),
        allow: list(&["security.insecure"]),
        ..base
    };
    let plan = Plan::new(&flags, &Settings::of(&[])).unwrap();
    assert_eq!(plan.entitlements, ["security.insecure", "network.host"]);
}

#[test]
fn annotations_go_to_the_images() {
    let (_folder, base) = project();
    let flags = Flags {
        tags: list(&["a"]),
        push: true,
        annotations: list(&["a=b", "index,manifest[linux/amd64]:c=d", "x.y:z=1"]),
        ..base
    };
    let plan = Plan::new(&flags, &Settings::of(&[])).unwrap();
    let keys: Vec<_> = plan.outputs[0]
        .attributes
        .keys()
        .filter(|key| key.starts_with("annotation"))
        .collect();
    assert_eq!(
        keys,
        [
            "annotation-index.c",
            "annotation-manifest.a",
            "annotation-manifest.x.y:z",
            "annotation-manifest[linux/amd64].c"
        ]
    );
}

#[test]
fn mistakes_are_found_before_a_daemon_is_asked() {
    let (_folder, base) = project();
    for (flags, part) in [
        (
            Flags {
                platforms: list(&["linux/"]),
                ..base.clone()
            },
            "platform",
        ),
        (
            Flags {
                platforms: list(&["toaster"]),
                ..base.clone()
            },
            "toaster",
        ),
        (
            Flags {
                tags: list(&["UPPER"]),
                push: true,
                ..base.clone()
            },
            "invalid tag \"UPPER\"",
        ),
        (
            Flags {
                push: true,
                ..base.clone()
            },
            "tag is needed when pushing to registry",
        ),
        (
            Flags {
                network: Some("bridge".to_owned()),
                ..base.clone()
            },
            "network mode \"bridge\"",
        ),
        (
            Flags {
                shm_size: Some("big".to_owned()),
                ..base.clone()
            },
            "invalid size: 'big'",
        ),
        (
            Flags {
                allow: list(&["fs.read=x"]),
                ..base.clone()
            },
            "\"fs.read\"",
        ),
        (
            Flags {
                outputs: list(&["type=docker,dest=x.tar"]),
                platforms: list(&["linux/amd64,linux/arm64"]),
                ..base.clone()
            },
            "manifest lists",
        ),
    ] {
        let error = Plan::new(&flags, &Settings::of(&[])).unwrap_err();
        assert!(format!("{error:#}").contains(part), "{error:#}");
    }
}
