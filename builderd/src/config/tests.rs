use clap::Parser;

use super::arguments::Arguments;
use super::*;

fn flags(arguments: &[&str]) -> Serve {
    let all = ["builderd", "--config=/dev/null"].iter().chain(arguments);
    Arguments::try_parse_from(all).unwrap().serve
}

fn resolve(arguments: &[&str], toml: &str) -> Result<Settings, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("buildkitd.toml");
    std::fs::write(&path, toml).unwrap();
    let mut flags = flags(arguments);
    flags.config = Some(path);
    Settings::resolve(CalledAs::Buildkitd, &flags)
}

#[test]
fn flags_go_before_the_file() {
    let toml = r#"
root = "/file"
insecure-entitlements = ["security.insecure"]
[grpc]
address = ["tcp://127.0.0.1:1"]
[worker.oci]
labels = { a = "file", b = "file" }
[registry."docker.io"]
mirrors = ["mirror.example:5000"]
[registry."mirror.example:5000"]
http = true
ca = ["/ca.pem"]
"#;
    let from_file = resolve(&[], toml).unwrap();
    assert_eq!(from_file.root, Path::new("/file"));
    assert_eq!(from_file.entitlements, [Entitlement::SecurityInsecure]);
    assert_eq!(from_file.addresses, ["tcp://127.0.0.1:1".parse().unwrap()]);
    assert_eq!(from_file.registries["docker.io"].mirrors, ["mirror.example:5000"]);
    assert!(from_file.registries["mirror.example:5000"].http);

    let arguments = [
        "--root=/flag",
        "--addr=unix:///a",
        "--addr=unix:///b",
        "--allow-insecure-entitlement=network.host",
        "--oci-worker-labels=a=flag",
        "--executor=native",
    ];
    let from_flags = resolve(&arguments, toml).unwrap();
    assert_eq!(from_flags.root, Path::new("/flag"));
    assert_eq!(from_flags.entitlements, [Entitlement::NetworkHost]);
    assert_eq!(from_flags.addresses.len(), 2);
    assert_eq!(from_flags.executor, executor::Choice::Native);
    assert_eq!(from_flags.labels["a"], "flag");
    assert_eq!(from_flags.labels["b"], "file");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_likely_one() {
    let error = resolve(&[], "root = \"/x\"\n[worker.oci]\nplatfroms = []\n")
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 3"), "{error}");
    assert!(error.contains("unknown field `platfroms`"), "{error}");
    assert!(error.ends_with("did you mean `platforms`?"), "{error}");
    let error = resolve(&[], "wholly_different = 1").unwrap_err().to_string();
    assert!(!error.contains("did you mean"), "{error}");
}

#[test]
fn keys_and_flags_without_effect_are_named() {
    let toml = "[worker.oci]\nsnapshotter = \"native\"\n[worker.containerd]\nnamespace = \"x\"\n";
    let settings = resolve(&["--rootless", "--oci-worker-gc"], toml).unwrap();
    assert_eq!(
        settings.without_effect,
        ["worker.oci.snapshotter", "--oci-worker-gc", "--rootless"]
    );
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    for (arguments, toml) in [
        (&["--oci-worker=false"][..], ""),
        (&["--containerd-worker=true"], ""),
        (&[], "[worker.containerd]\nenabled = true"),
        (&["--allow-insecure-entitlement=device"], ""),
        (&["--allow-insecure-entitlement=everything"], ""),
        (&["--tlscert=/c"], ""),
        (&["--tlscacert=/c"], ""),
        (&["--addr=carrier-pigeon://x"], ""),
        (&["--oci-worker-labels=novalue"], ""),
    ] {
        assert!(resolve(arguments, toml).is_err(), "{arguments:?} {toml:?}");
    }
    assert!(resolve(&["--oci-worker=true", "--containerd-worker=false"], "").is_ok());
}
