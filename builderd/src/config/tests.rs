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
    assert_eq!(
        from_file.entitlements,
        [Entitlement::SecurityInsecure, Entitlement::Device]
    );
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
    assert_eq!(
        from_flags.entitlements,
        [Entitlement::NetworkHost, Entitlement::Device]
    );
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
    let settings = resolve(&["--rootless", "--oci-worker-net=cni"], toml).unwrap();
    assert_eq!(
        settings.without_effect,
        ["worker.oci.snapshotter", "--oci-worker-net", "--rootless"]
    );
}

#[test]
fn the_network_of_steps_is_said_by_flag_or_file() {
    let network = |arguments: &[&str], toml: &str| {
        let settings = resolve(arguments, toml).unwrap();
        (
            settings.proxy_network,
            settings.default_is_host,
            settings.without_effect,
        )
    };
    let nothing = Vec::<String>::new;
    assert_eq!(network(&[], ""), (false, false, nothing()));
    let both = ["--proxy-network", "--oci-worker-net=host"];
    assert_eq!(network(&both, ""), (true, true, nothing()));
    let file = "proxyNetwork = true\n[worker.oci]\nnetworkMode = \"host\"\n";
    assert_eq!(network(&[], file), (true, true, nothing()));
    let bridge = "[worker.oci]\nnetworkMode = \"bridge\"\n";
    let named = vec!["worker.oci.networkMode".to_owned()];
    assert_eq!(network(&[], bridge), (false, false, named));
}

#[test]
fn steps_are_told_how_names_resolve_and_how_many_may_run() {
    let toml =
        "[dns]\nnameservers = [\"10.0.0.1\"]\noptions = [\"edns0\"]\n[worker.oci]\nmax-parallelism = 3\n";
    let settings = resolve(&[], toml).unwrap();
    assert!(settings.without_effect.is_empty());
    assert_eq!(
        settings.resolver.nameservers,
        ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(settings.resolver.options, ["edns0"]);
    assert_eq!(settings.steps_at_once.map(std::num::NonZeroUsize::get), Some(3));
    let unlimited = resolve(&[], "[worker.oci]\nmax-parallelism = 0").unwrap();
    assert_eq!(unlimited.steps_at_once, None);
    resolve(&[], "[dns]\nnameservers = [\"dns.example\"]").unwrap_err();
}

#[test]
fn steps_have_a_cgroup_parent_if_the_file_says_so() {
    let parent = |toml: &str| resolve(&[], toml).map(|settings| settings.cgroup_parent);
    let file = |parent: &str| format!("[worker.oci]\ndefaultCgroupParent = \"{parent}\"");
    assert_eq!(parent("").unwrap(), None);
    assert_eq!(parent(&file("")).unwrap(), None);
    assert_eq!(parent(&file("/builds")).unwrap().as_deref(), Some("/builds"));
    let refused = proto::chain(&parent(&file("../up")).unwrap_err());
    assert!(
        refused.contains("defaultCgroupParent: invalid cgroup parent \"../up\""),
        "{refused}"
    );
    assert!(resolve(&[], &file("/builds")).unwrap().without_effect.is_empty());
}

#[test]
fn output_of_steps_is_limited() {
    let settings = resolve(&["--step-log-max-size=7"], "").unwrap();
    assert_eq!(settings.log_limit, LogLimit(7));
    assert_eq!(flags(&["--step-log-max-size", "-1"]).step_log_max_size, Some(-1));
    for (flag, variable, limit) in [
        (None, "", Some(LogLimit::default())),
        (None, "9", Some(LogLimit(9))),
        (None, "-1", Some(LogLimit(usize::MAX))),
        (None, "10MiB", None),
        (Some(0), "10MiB", Some(LogLimit(0))),
    ] {
        assert_eq!(log_limit(flag, variable), limit, "{flag:?} {variable:?}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    for (arguments, toml) in [
        (&["--oci-worker=false"][..], ""),
        (&["--containerd-worker=true"], ""),
        (&[], "[worker.containerd]\nenabled = true"),
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

#[test]
fn garbage_collection_and_history_are_configured_as_for_buildkit() {
    let toml = r#"
[history]
maxAge = "1h"
maxEntries = 7
[worker.oci]
gckeepstorage = 5
[[worker.oci.gcpolicy]]
filters = ["type==source.local"]
keepDuration = 60
keepBytes = "1GB"
[[worker.oci.gcpolicy]]
all = true
keepDuration = "48h"
maxUsedSpace = "10%"
"#;
    let settings = resolve(&[], toml).unwrap();
    assert!(
        settings.without_effect.is_empty(),
        "{:?}",
        settings.without_effect
    );
    assert_eq!(settings.history.max_age.as_secs(), 3600);
    assert_eq!(settings.history.max_entries, 7);
    let policies = settings.collection.policies(10 << 30).unwrap();
    assert_eq!(policies.len(), 2);
    assert_eq!(policies[0].filters, ["type==source.local"]);
    assert_eq!(policies[0].prune.keep_duration.as_secs(), 60);
    assert_eq!(policies[0].prune.reserved_space, 1 << 30);
    assert!(policies[1].prune.all);
    assert_eq!(policies[1].prune.max_used_space, 2_000_000_000);

    let none = resolve(&["--oci-worker-gc=false"], toml).unwrap();
    assert!(none.collection.policies(1 << 40).unwrap().is_empty());
    let limits = |arguments: &[&str], toml: &str| {
        let settings = resolve(arguments, toml).unwrap();
        let policies = settings.collection.policies(1 << 40).unwrap();
        let prune = &policies[2].prune;
        [prune.reserved_space, prune.max_used_space, prune.min_free_space]
    };
    let old = "[worker.oci]\ngckeepstorage = 5\n";
    assert_eq!(limits(&[], old), [5, 0, 0]);
    let new = "[worker.oci]\ngckeepstorage = 5\nminFreeSpace = 3\n";
    assert_eq!(limits(&[], new), [0, 0, 3]);
    assert_eq!(
        limits(&["--oci-worker-gc-keepstorage=1,2,3"], new),
        [1_000_000, 3_000_000, 2_000_000]
    );

    for (arguments, toml, text) in [
        (
            &["--oci-worker-gc-keepstorage=x"][..],
            "",
            "--oci-worker-gc-keepstorage",
        ),
        (&[], "[history]\nmaxAge = \"soon\"\n", "a duration such as 48h"),
        (&[], "[worker.oci]\nmaxUsedSpace = \"much\"\n", "10GB"),
        (&[], "[[worker.oci.gcpolicy]]\nfilters = [\"type=x\"]\n", "filter"),
    ] {
        let error = resolve(arguments, toml).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}
