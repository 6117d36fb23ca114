//! `trimaran manifest` and `trimaran manifest-tool` print, write and push what the tools they replace do.

use serde_json::json;
use tests::needs::{Need, given};
use tests::sessions::{Session, Tool};
use tests::small_images::{self, Format, OCI_MANIFEST, PLATFORMS};

/// An image by itself for each platform, in a repository of its own, and one repository with an index over all.
fn with_images(tool: Tool, name: &'static str) -> Option<Session> {
    if !given(&[Need::Registry]) {
        return None;
    }
    let session = Session::start(tool, name);
    for (format, prefix) in [(Format::Docker, "docker"), (Format::Oci, "oci")] {
        for platform in PLATFORMS {
            let repository = session.repository(&format!("{prefix}/{}", platform.1));
            small_images::push(&repository, "v1", format, platform).unwrap();
        }
        small_images::push_all(&session.repository(&format!("{prefix}/all")), format).unwrap();
    }
    let windows = json!({"os.version": "10.0.17763.1", "os.features": ["win32k"]});
    let repository = session.repository("windows");
    small_images::push_with(&repository, "v1", Format::Oci, ("windows", "amd64", ""), &windows).unwrap();
    Some(session)
}

#[test]
fn manifest_inspect() {
    let Some(mut session) = with_images(Tool::DockerManifest, "inspect") else {
        return;
    };
    // What is printed keeps the text of the manifest, except for its white space.
    let repository = session.repository("odd");
    let config = repository
        .push_blob(br#"{"architecture":"arm","os":"linux","variant":"v7"}"#)
        .unwrap();
    let odd = format!(
        "{{\"mediaType\" : \"{OCI_MANIFEST}\",\n\n \"annotations\":{{ \"b\":\"<&> \\u00e9\", \"a\":\"\"}}, \"layers\": [ ],\t\"schemaVersion\": 2,\
         \"config\": {{\"digest\":\"{config}\",\"size\":50,\"mediaType\":\"application/vnd.oci.image.config.v1+json\"}}, \
         \"unknown\":[1.50,{{ }},[],null]}}\n"
    );
    small_images::push_text(&repository, "v1", OCI_MANIFEST, &odd).unwrap();
    for arguments in [
        "inspect --insecure @registry@/docker/all",
        "inspect --insecure @registry@/docker/all:arm64",
        "inspect --insecure --verbose @registry@/docker/all:arm64",
        "inspect --insecure -v @registry@/docker/all",
        "inspect --insecure @registry@/oci/all:latest",
        "inspect --insecure @registry@/oci/all:s390x",
        "inspect -v --insecure @registry@/oci/s390x:v1",
        "inspect -v --insecure @registry@/oci/all",
        "inspect -v --insecure @registry@/windows:v1",
        "inspect --insecure @registry@/odd:v1",
        "inspect -v --insecure @registry@/odd:v1",
        "inspect --insecure @registry@/docker/all:none",
        "inspect --insecure @registry@/nothing",
        "inspect Foo",
    ] {
        session.run(arguments);
    }
    session.finish();
}

#[test]
fn manifest_create_and_annotate() {
    let Some(mut session) = with_images(Tool::DockerManifest, "create") else {
        return;
    };
    for arguments in [
        "create --insecure @registry@/new @registry@/docker/amd64:v1 @registry@/docker/arm64:v1",
        "create --insecure @registry@/new @registry@/docker/s390x:v1",
        "create --insecure --amend @registry@/new @registry@/docker/s390x:v1",
        "annotate @registry@/new @registry@/docker/arm64:v1 --variant v9 --os-version 1.2 --os-features a,b --os-features a,c",
        "annotate @registry@/new @registry@/docker/s390x:v1 --os windows",
        "annotate @registry@/new @registry@/docker/s390x:v1 --arch x",
        "annotate @registry@/new @registry@/docker/s390x:v1 --arch ppc64le",
        "annotate @registry@/new @registry@/docker/ppc64le:v1 --arch ppc64le",
        "annotate @registry@/other @registry@/docker/ppc64le:v1 --arch ppc64le",
        "annotate Foo @registry@/docker/ppc64le:v1",
        "annotate @registry@/new Foo",
        "create --insecure -a @registry@/new @registry@/docker/arm64:v1 @registry@/docker/ppc64le:v1",
        "inspect @registry@/new",
        "inspect -v @registry@/new",
        "inspect @registry@/new @registry@/docker/arm64:v1",
        "inspect -v @registry@/new @registry@/docker/s390x:v1",
        "inspect @registry@/new @registry@/docker/none:v1",
        "inspect @registry@/other @registry@/docker/none:v1",
    ] {
        session.run(arguments);
    }
    session.show_lists();
    for arguments in [
        "create --insecure @registry@/oci:x @registry@/oci/amd64:v1 @registry@/docker/arm64:v1 @registry@/windows:v1",
        "inspect @registry@/oci:x",
        "create --insecure @registry@/list @registry@/docker/all",
        "create --insecure @registry@/list @registry@/docker/all:none",
        "create --insecure Foo @registry@/docker/all:none",
        "create --insecure @registry@/list Foo",
        "create --insecure elsewhere.example/list @registry@/docker/amd64:v1",
        "inspect elsewhere.example/list",
        "push elsewhere.example/list",
        "rm @registry@/new @registry@/none @registry@/none:x Foo @registry@/oci:x",
        "rm elsewhere.example/list",
        "push @registry@/new",
        "push Foo",
    ] {
        session.run(arguments);
    }
    session.show_lists();
    session.finish();
}

#[test]
fn manifest_push() {
    let Some(mut session) = with_images(Tool::DockerManifest, "push") else {
        return;
    };
    for arguments in [
        "create --insecure @registry@/new:v1 @registry@/docker/amd64:v1 @registry@/docker/arm64:v1 @registry@/docker/s390x:v1",
        "annotate @registry@/new:v1 @registry@/docker/arm64:v1 --os-version 1.2 --os-features a,b",
        "push --insecure @registry@/new:v1",
        "push --insecure --purge @registry@/new:v1",
        "push --insecure --purge @registry@/new:v1",
        "create --insecure @registry@/oci/all:again @registry@/oci/all:amd64 @registry@/oci/all:arm64 @registry@/windows:v1",
        "push --insecure -p @registry@/oci/all:again",
        "create --insecure @registry@/mixed @registry@/oci/s390x:v1 @registry@/docker/arm64:v1",
        "push --insecure @registry@/mixed",
    ] {
        session.run(arguments);
    }
    session.show_manifest("new", "v1");
    session.show_manifest("oci/all", "again");
    session.show_manifest("mixed", "latest");
    session.finish();
}

#[test]
fn tool_inspect() {
    let Some(mut session) = with_images(Tool::ManifestTool, "inspect") else {
        return;
    };
    let repository = session.repository("attested");
    let arm = small_images::push(&repository, "arm", Format::Oci, ("linux", "arm", "v7")).unwrap();
    let mut windows =
        small_images::push(&repository, "windows", Format::Oci, ("windows", "amd64", "")).unwrap();
    windows["platform"]["os.version"] = json!("10.0.1");
    windows["platform"]["os.features"] = json!(["win32k", "other"]);
    let attestation = small_images::push_attestation(&repository, &arm).unwrap();
    small_images::push_index(
        &repository,
        "v1",
        Format::Oci,
        &[arm.clone(), attestation.clone()],
    )
    .unwrap();
    small_images::push_index(
        &repository,
        "v2",
        Format::Oci,
        &[windows, arm, attestation.clone(), attestation],
    )
    .unwrap();
    for arguments in [
        "--plain-http inspect @registry@/docker/all:latest",
        "--plain-http inspect @registry@/oci/all:latest",
        "--plain-http inspect @registry@/attested:v1",
        "--plain-http inspect @registry@/attested:v2",
        "--plain-http inspect @registry@/docker/arm64:v1",
        "--plain-http inspect @registry@/windows:v1",
        "--plain-http inspect --raw @registry@/docker/all:latest",
        "--plain-http inspect --raw @registry@/attested:v1",
        "--plain-http inspect --raw --expand-config @registry@/attested:v1",
        "--plain-http inspect --raw @registry@/oci/arm64:v1",
        "--plain-http inspect --raw --expand-config @registry@/oci/arm64:v1",
        "--plain-http inspect --raw --expand-config @registry@/windows:v1",
        "--plain-http inspect --expand-config @registry@/oci/arm64:v1",
        "--plain-http inspect @registry@/oci/arm64",
        "--plain-http inspect @registry@/oci/arm64:none",
    ] {
        session.run(arguments);
    }
    session.finish();
}

#[test]
fn tool_push_from_spec() {
    let Some(mut session) = with_images(Tool::ManifestTool, "from-spec") else {
        return;
    };
    let repository = session.repository("attested");
    let arm = small_images::push(&repository, "arm", Format::Oci, ("linux", "arm", "v7")).unwrap();
    let attestation = small_images::push_attestation(&repository, &arm).unwrap();
    small_images::push_index(&repository, "v1", Format::Oci, &[arm, attestation]).unwrap();
    let body = "\
manifests:
  - image: @registry@/docker/amd64:v1
    platform: {architecture: amd64, os: linux}
  - image: @registry@/docker/arm64:v1
    platform:
      architecture: arm64
      os: linux
  - image: @registry@/oci/ppc64le:v1
  - image: @registry@/windows:v1
    platform: {architecture: amd64, os: windows, osversion: 10.0.2, osfeatures: [a, b]}
  - image: @registry@/attested:v1
";
    session.file(
        "docker.yaml",
        &format!("image: @registry@/made:docker\ntags: [1.10, 1, 'latest']\n{body}"),
    );
    session.file(
        "oci.yaml",
        &format!("image: @registry@/made:oci\n{body}annotations:\n  title: a <b> & c\n  a: 1.0\n"),
    );
    session.file(
        "missing.yaml",
        &format!("image: @registry@/made:missing\n{body}  - image: @registry@/docker/none:v1\n"),
    );
    session.file(
        "empty.yaml",
        "image: @registry@/made:empty\nmanifests:\n- image: @registry@/docker/none:v1\n",
    );
    session.file(
        "elsewhere.yaml",
        "image: elsewhere.example/made:empty\nmanifests:\n- image: @registry@/docker/none:v1\n",
    );
    session.file("twice.yaml", "image: @registry@/made:x\nmanifests:\n- image: @registry@/docker/amd64:v1\n- image: @registry@/oci/amd64:v1\n");
    session.file("unknown.yaml", "image: @registry@/made:x\nmanifests:\n- image: @registry@/docker/amd64:v1\n  platform: {os: linux, architecture: x86_64}\n");
    for arguments in [
        "--plain-http push from-spec docker.yaml",
        "--plain-http push --type oci from-spec oci.yaml",
        "--plain-http push from-spec oci.yaml",
        "--plain-http push from-spec missing.yaml",
        "--plain-http push from-spec --ignore-missing missing.yaml",
        "--plain-http push from-spec --ignore-missing empty.yaml",
        "--plain-http push from-spec elsewhere.yaml",
        "--plain-http push from-spec twice.yaml",
        "--plain-http push from-spec unknown.yaml",
    ] {
        session.run(arguments);
    }
    for tag in ["docker", "1.10", "1", "latest", "oci", "missing"] {
        session.show_manifest("made", tag);
    }
    session.finish();
}

#[test]
fn tool_push_from_args() {
    let Some(mut session) = with_images(Tool::ManifestTool, "from-args") else {
        return;
    };
    let template = "--template @registry@/docker/ARCH:v1";
    for arguments in [
        format!(
            "--platforms linux/amd64,linux/arm64/v8,linux/s390x {template} --target @registry@/made:1 --tags 2,3"
        ),
        format!("--platforms linux/amd64 --platforms linux/none {template} --target @registry@/made:4"),
        format!(
            "--platforms linux/amd64 --platforms linux/none {template} --target @registry@/made:4 --ignore-missing"
        ),
        format!("--platforms linux/none {template} --target @registry@/made:4 --ignore-missing"),
        format!("--platforms linux/amd64,linux/amd64 {template} --target @registry@/made:5"),
        format!("--platforms linux/amd64/v2 {template} --target @registry@/made:5"),
        format!("--platforms linux/amd64 {template} --target @registry@/made:5 --annotations a=b"),
        format!("--platforms linux/amd64 {template} --target @registry@/made:5 --annotations a"),
        format!("--platforms linux/amd64 {template} --target elsewhere.example/made:5"),
    ] {
        session.run(&format!("--plain-http push from-args {arguments}"));
    }
    session.run(
        "--plain-http push --type oci from-args --platforms linux/amd64,linux/arm64/v8 --template @registry@/oci/ARCH:v1 \
         --target @registry@/made:6 --annotations a=b,c=d",
    );
    for tag in ["1", "2", "3", "4", "6"] {
        session.show_manifest("made", tag);
    }
    session.finish();
}
