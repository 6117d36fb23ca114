//! What holds for a step, whoever started its sandbox.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use builderd::executor::ExecutorError;
use builderd::executor::step::{
    ExitStatus, ExtraHost, FileSystem, Mount, NetworkMode, Secret, SecurityMode, Source, Step, StepError,
    Ulimit,
};
use tokio_util::sync::CancellationToken;

use super::Bench;

pub(super) async fn all(bench: &Bench) {
    ends_and_streams(bench).await;
    users(bench).await;
    confinement(bench).await;
    insecurity(bench).await;
    names(bench).await;
    devices(bench).await;
    devices_of_the_machine(bench).await;
    standard_input(bench).await;
    networks(bench).await;
    folders(bench).await;
    mounts(bench).await;
    traces(bench).await;
    many_mount_points(bench).await;
    kills(bench).await;
    many_layers(bench).await;
}

async fn ends_and_streams(bench: &Bench) {
    let ran = bench.sh("echo out; echo err >&2; exit 3").await;
    assert_eq!(
        (ran.code(), ran.stdout.as_str(), ran.stderr.as_str()),
        (3, "out\n", "err\n")
    );
    let ran = bench.sh("kill -TERM $$; sleep 1; echo alive").await;
    // PID 1 of a namespace is immune to its own signals, as in any container.
    assert_eq!(ran.text(), "alive");
    let ran = bench.sh("sh -c 'kill -SEGV $$'; echo $?").await;
    assert_eq!(ran.text(), "139");
    let ran = bench.sh("yes | head -n 100000 | wc -c").await;
    assert_eq!(ran.text(), "200000");
    let ran = bench.sh("dd if=/dev/zero bs=1k count=3000 2>/dev/null").await;
    assert_eq!(ran.stdout.len(), 3_072_000);
    assert_eq!(
        bench.sh("cat; echo over").await.text(),
        "over",
        "standard input is empty"
    );
    let mut step = bench.shell("");
    step.args = vec!["nothing-of-that-name".into()];
    let ran = bench.run(step).await;
    assert_eq!(
        ran.status.unwrap_err().to_string(),
        "cannot start the step: exec \"nothing-of-that-name\": executable file not found in $PATH"
    );
    let mut step = bench.shell("");
    step.args = vec!["echo".into(), "by path".into()];
    step.env = vec!["PATH=/nowhere:/bin".into()];
    assert_eq!(bench.run(step).await.text(), "by path");
    let (one, other) = tokio::join!(bench.sh("sleep 0.2; echo one"), bench.sh("sleep 0.1; echo other"));
    assert_eq!((one.text(), other.text()), ("one", "other"));
}

async fn users(bench: &Bench) {
    for (user, expected) in [
        ("", "uid=0(root) gid=0(root) groups=0(root),10(wheel) /root"),
        (
            "app",
            "uid=1000(app) gid=1000(app) groups=10(wheel),1000(app) /srv",
        ),
        ("app:staff", "uid=1000(app) gid=50(staff) groups=50(staff) /srv"),
        ("77:88", "uid=77 gid=88 groups=88 /"),
    ] {
        let mut step = bench.shell("echo $(id) $HOME");
        step.user = user.into();
        assert_eq!(bench.run(step).await.text(), expected, "{user:?}");
    }
    let mut step = bench.shell("true");
    step.user = "ghost".into();
    let refusal = bench.run(step).await.status.unwrap_err().to_string();
    assert!(refusal.contains("unable to find user ghost"), "{refusal}");
}

async fn confinement(bench: &Bench) {
    let script = "grep -E 'Cap|Seccomp:|NoNewPrivs' /proc/self/status";
    let ran = bench.sh(script).await;
    let zero = "0000000000000000";
    let docker = "00000000a80425fb";
    assert_eq!(
        ran.text(),
        format!(
            "CapInh:\t{zero}\nCapPrm:\t{docker}\nCapEff:\t{docker}\nCapBnd:\t{docker}\nCapAmb:\t{zero}\nNoNewPrivs:\t0\nSeccomp:\t2"
        )
    );
    let mut step = bench.shell(script);
    step.user = "app".into();
    assert_eq!(
        bench.run(step).await.text(),
        format!(
            "CapInh:\t{zero}\nCapPrm:\t{zero}\nCapEff:\t{zero}\nCapBnd:\t{docker}\nCapAmb:\t{zero}\nNoNewPrivs:\t0\nSeccomp:\t2"
        )
    );
    for script in [
        "mount -t tmpfs x /tmp",
        "unshare -m true",
        "unshare -r true",
        "hostname other",
        "mount -o remount,rw /proc/sys",
    ] {
        let ran = bench.sh(script).await;
        assert!(
            ran.code() != 0
                && (ran.stderr.contains("not permitted") || ran.stderr.contains("ermission denied")),
            "{script}: {ran:?}"
        );
    }
    assert_eq!(bench.sh("chroot / true && echo allowed").await.text(), "allowed");
    for (script, what) in [
        ("echo 1 > /proc/sys/vm/drop_caches", "/proc/sys"),
        ("touch /sys/kernel/x", "/sys"),
        ("echo x >> /etc/hosts", "/etc/hosts"),
    ] {
        let ran = bench.sh(script).await;
        assert!(
            ran.code() != 0 && ran.stderr.contains("ead-only"),
            "{what} can be written: {ran:?}"
        );
    }
    assert_eq!(
        bench
            .sh("cat /proc/kcore /proc/keys /proc/timer_list | wc -c")
            .await
            .text(),
        "0"
    );
    assert_eq!(
        bench
            .sh("ls /sys/firmware /proc/acpi 2>/dev/null | grep -v : | wc -w")
            .await
            .text(),
        "0"
    );
    assert_eq!(bench.sh("umask").await.text(), "0022");
    let mut step = bench.shell("ulimit -n; ulimit -Hn");
    step.ulimits = vec![Ulimit {
        name: "nofile".into(),
        soft: 123,
        hard: 456,
    }];
    assert_eq!(bench.run(step).await.text(), "123\n456");
}

async fn insecurity(bench: &Bench) {
    let mut step = bench
        .shell("mknod /zero c 1 5 && head -c 1 /zero >/var/x && mount -t tmpfs x /tmp && grep CapEff /proc/self/status && grep Seccomp: /proc/self/status");
    step.security = SecurityMode::Insecure;
    let ran = bench.run(step).await;
    if let Err(StepError::Sandbox(ExecutorError::Engine { source, .. })) = &ran.status
        && source.to_string().contains("unable to apply caps")
    {
        eprintln!(
            "skipped: this engine cannot start privileged containers, being without some capability itself"
        );
        return;
    }
    let (capabilities, seccomp) = ran.text().split_once('\n').unwrap();
    let effective = u64::from_str_radix(capabilities.trim_start_matches("CapEff:\t"), 16).unwrap();
    assert!(effective & (1 << 21) != 0, "no CAP_SYS_ADMIN in {capabilities}");
    assert_eq!(seccomp, "Seccomp:\t0");
}

async fn names(bench: &Bench) {
    let ran = bench
        .sh("hostname; cat /etc/hosts; grep -c nameserver /etc/resolv.conf")
        .await;
    let (names, resolvers) = ran.text().rsplit_once('\n').unwrap();
    assert_eq!(
        names,
        "buildkitsandbox\n127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback"
    );
    assert_ne!(resolvers, "0");
    let mut step = bench.shell("hostname; cat /etc/hosts");
    step.hostname = Some("ship".into());
    step.extra_hosts = vec![ExtraHost {
        host: "db".into(),
        ip: "10.0.0.7".parse().unwrap(),
    }];
    assert_eq!(
        bench.run(step).await.text(),
        "ship\n127.0.0.1\tlocalhost ship\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.7\tdb"
    );
}

async fn devices(bench: &Bench) {
    assert_eq!(
        bench
            .sh("cd /dev; ls; for d in null zero full random urandom tty; do stat -c '%n %a %t:%T' $d; done")
            .await
            .text(),
        "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n\
         null 666 1:3\nzero 666 1:5\nfull 666 1:7\nrandom 666 1:8\nurandom 666 1:9\ntty 666 5:0"
    );
    assert_eq!(
        bench
            .sh("head -c 4 /dev/zero | wc -c; echo x > /dev/null; echo y > /dev/stderr")
            .await
            .text(),
        "4"
    );
    let mut step = bench.shell("df -k /dev/shm | grep -o ' 4096 ' | head -n 1; stat -c %a /dev/shm");
    step.shm_size = Some(4 << 20);
    assert_eq!(
        bench.run(step).await.text(),
        "4096 \n1777".replacen("4096", " 4096", 1)
    );
    assert_eq!(
        bench
            .sh("echo $$; ls -d /proc/[0-9]* | wc -l")
            .await
            .text()
            .lines()
            .next(),
        Some("1"),
        "the step is PID 1"
    );
}

async fn devices_of_the_machine(bench: &Bench) {
    // Disks of virtual machines have this number; whether there is one is not asked before the refusal.
    let node = |folder: &Path| {
        let device = rustix::fs::makedev(254, 0);
        let path = folder.join("disk");
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::BlockDevice,
            mode,
            device,
        )
        .unwrap();
    };
    let (layer, other, cache) = (
        bench.folder("layer-"),
        bench.folder("other-"),
        bench.folder("cache-"),
    );
    for folder in [&layer, &other, &cache] {
        node(folder);
    }
    let snapshot = |selector: &str, writable| Source::Snapshot {
        files: if writable {
            bench.over(vec![other.clone()])
        } else {
            FileSystem {
                lowers: vec![other.clone()],
                writable: None,
            }
        },
        selector: selector.into(),
    };
    let places = [
        "/disk",
        "/made",
        "/dev/made",
        "/cache/disk",
        "/cache/made",
        "/read/disk",
        "/write/disk",
        "/write/made",
        "/file",
    ];
    let mut step = bench.shell(&format!(
        "for made in /made /dev/made /cache/made /write/made; do mknod $made b 254 0 || exit 1; done
         for disk in {}; do head -c 1 $disk 2>&1; done",
        places.join(" ")
    ));
    step.root = bench.over(vec![bench.base.clone(), layer]);
    step.mounts = [
        (
            "/cache",
            Source::Folder {
                path: cache,
                selector: String::new(),
            },
        ),
        ("/read", snapshot("", false)),
        ("/write", snapshot("", true)),
        ("/file", snapshot("disk", false)),
    ]
    .map(|(destination, source)| Mount {
        destination: destination.into(),
        source,
        read_only: false,
    })
    .to_vec();
    let ran = bench.run(step).await;
    let refused = ran
        .stdout
        .lines()
        .filter(|line| line.ends_with("not permitted") || line.ends_with("ermission denied"))
        .count();
    assert_eq!(refused, places.len(), "{ran:?}");
}

async fn standard_input(bench: &Bench) {
    let machine = || fs::metadata("/dev/null").unwrap().permissions().mode();
    let before = machine();
    let modes = "stat -c %a /dev/null /proc/keys";
    let others = bench.sh(modes).await;
    let ran = bench
        .sh("busybox chmod 667 /dev/stdin && stat -c %a /dev/null; busybox chmod 667 /proc/keys 2>&1 | grep -o ead-only")
        .await;
    assert_eq!(ran.text(), "667\nead-only", "{ran:?}");
    assert_eq!(machine(), before);
    assert_eq!(bench.sh(modes).await.text(), others.text());
}

async fn networks(bench: &Bench) {
    let mut step = bench.shell("ls /sys/class/net; ip addr show lo | grep -c 127.0.0.1");
    step.network = NetworkMode::None;
    assert_eq!(bench.run(step).await.text(), "lo\n1");
    let ours = fs::read_link("/proc/self/ns/net").unwrap();
    let mut step = bench.shell("readlink /proc/self/ns/net");
    step.network = NetworkMode::Host;
    assert_eq!(bench.run(step).await.text(), ours.to_str().unwrap());
    let default = bench.sh("readlink /proc/self/ns/net").await;
    let shared = bench.executor.network_mode().await.unwrap() == "host";
    assert_eq!(default.text() == ours.to_str().unwrap(), shared);
}

async fn folders(bench: &Bench) {
    let mut step = bench.shell("pwd; stat -c %u:%g:%a . ..");
    step.cwd = "/srv/new/deep".into();
    step.user = "app".into();
    let ran = bench.run(step).await;
    assert_eq!(ran.text(), "/srv/new/deep\n1000:1000:755\n1000:1000:755");
    assert_eq!(ran.changes(), ["srv", "srv/new", "srv/new/deep"]);
    let mut step = bench.shell("pwd");
    step.root = FileSystem {
        lowers: vec![bench.base.clone()],
        writable: None,
    };
    assert_eq!(bench.run(step.clone()).await.text(), "/");
    step.args = vec!["/bin/touch".into(), "/x".into()];
    let ran = bench.run(step).await;
    assert!(ran.stderr.contains("Read-only"), "{ran:?}");
}

async fn mounts(bench: &Bench) {
    let other = bench.folder("other-");
    fs::create_dir(other.join("sub")).unwrap();
    fs::write(other.join("sub/file"), "from a snapshot").unwrap();
    let cache = bench.folder("cache-");
    let snapshot = |selector: &str| Source::Snapshot {
        files: FileSystem {
            lowers: vec![other.clone()],
            writable: None,
        },
        selector: selector.into(),
    };
    let mut step = bench.shell(
        "cat /in/dir/file /in/one; echo; cat /run/secrets/key; stat -c %a:%u /run/secrets/key; echo kept > /var/cache/x; \
         touch /in/dir/no 2>&1 | grep -o 'Read-only'; touch /scratch/y; ls /scratch; echo new > /work/new; cat /work/sub/file",
    );
    let mount = |destination: &str, source, read_only| Mount {
        destination: destination.into(),
        source,
        read_only,
    };
    step.mounts = vec![
        mount("/in/one", snapshot("/sub/file"), true),
        mount("/in/dir", snapshot("sub"), true),
        mount(
            "/run/secrets/key",
            Source::Secret {
                contents: Secret(b"s3cret\n".to_vec()),
                uid: 1000,
                gid: 0,
                mode: 0o440,
            },
            true,
        ),
        mount(
            "/var/cache",
            Source::Folder {
                path: cache.clone(),
                selector: String::new(),
            },
            false,
        ),
        mount("/scratch", Source::Tmpfs { size: Some(1 << 20) }, false),
        mount(
            "/work",
            Source::Snapshot {
                files: bench.over(vec![other.clone()]),
                selector: String::new(),
            },
            false,
        ),
    ];
    let ran = bench.run(step).await;
    assert_eq!(
        ran.text(),
        "from a snapshotfrom a snapshot\ns3cret\n440:1000\nRead-only\ny\nfrom a snapshot"
    );
    assert_eq!(fs::read_to_string(cache.join("x")).unwrap(), "kept\n");
    assert!(!other.join("new").exists());
    assert_eq!(ran.changes(), [""; 0], "mount points are gone");

    // Below a link the stub does not help: made, then removed.
    let linked = bench.folder("linked-");
    std::os::unix::fs::symlink("/real", linked.join("link")).unwrap();
    fs::create_dir(linked.join("real")).unwrap();
    let mut step = bench.shell("cat /link/deep/key");
    step.root = bench.over(vec![bench.base.clone(), linked]);
    step.mounts = vec![mount(
        "/link/deep/key",
        Source::Secret {
            contents: Secret(b"k".to_vec()),
            uid: 0,
            gid: 0,
            mode: 0o400,
        },
        true,
    )];
    let ran = bench.run(step).await;
    assert_eq!(ran.text(), "k");
    assert_eq!(ran.changes(), ["real"]);

    // A link in an image must not lead out of the root.
    let escape = bench.folder("escape-");
    std::os::unix::fs::symlink("../../../../../../..", escape.join("out")).unwrap();
    let mut step = bench.shell("ls /inner");
    step.root = bench.over(vec![bench.base.clone(), escape]);
    step.mounts = vec![mount("/out/inner", Source::Tmpfs { size: None }, false)];
    assert_eq!(bench.run(step).await.text(), "");
}

async fn traces(bench: &Bench) {
    assert_eq!(bench.sh("true").await.changes(), [""; 0]);
    let ran = bench
        .sh("mkdir /made; echo x > /made/file; rm /tmp -r; mknod /made/device c 1 3")
        .await;
    assert_eq!(ran.text(), "");
    assert_eq!(ran.changes(), ["made", "made/device", "made/file", "tmp"]);
    let empty = bench.folder("empty-");
    fs::copy(bench.base.join("bin/busybox"), empty.join("busybox")).unwrap();
    let step = Step::new(bench.over(vec![empty]), ["/busybox", "ls", "/", "/etc"]);
    let ran = bench.run(step).await;
    assert_eq!(
        ran.text(),
        "/:\nbusybox\ndev\netc\nproc\nsys\n\n/etc:\nhosts\nresolv.conf"
    );
    assert_eq!(ran.changes(), [""; 0]);
}

/// What is made in place, not as a stub, is told to the runner while the step starts.
async fn many_mount_points(bench: &Bench) {
    let linked = bench.folder("linked-");
    std::os::unix::fs::symlink("/real", linked.join("link")).unwrap();
    fs::create_dir(linked.join("real")).unwrap();
    let mut step = bench.shell("ls /real | wc -l");
    step.root = bench.over(vec![bench.base.clone(), linked]);
    step.mounts = (0..400)
        .map(|number| Mount {
            destination: format!("/link/{number:0>250}"),
            source: Source::Tmpfs { size: None },
            read_only: false,
        })
        .collect();
    let ran = bench.run(step).await;
    assert_eq!(ran.text(), "400");
    assert_eq!(ran.changes(), ["real"]);
}

async fn kills(bench: &Bench) {
    let cancel = CancellationToken::new();
    let marker = bench.folder("marker-");
    let mut step =
        bench.shell("(while true; do sleep 0.02; echo . >> /marker/beat; done) & echo started; sleep 1000");
    step.mounts = vec![Mount {
        destination: "/marker".into(),
        source: Source::Folder {
            path: marker.clone(),
            selector: String::new(),
        },
        read_only: false,
    }];
    let ran = bench
        .run_until(step, &cancel, |text| {
            if text.contains("started") {
                cancel.cancel()
            }
        })
        .await;
    assert!(matches!(ran.status, Err(StepError::Cancelled)), "{ran:?}");
    // Everything is gone: nothing holds the marker, so what it says now is final.
    let beats = || fs::metadata(marker.join("beat")).map_or(0, |found| found.len());
    let then = beats();
    assert_eq!(bench.sh("sleep 0.2").await.code(), 0);
    assert_eq!(beats(), then);
    let ran = bench.sh("sleep 1000 & exit 7").await;
    assert_eq!(
        ran.status.unwrap(),
        ExitStatus::Code(7),
        "what PID 1 leaves does not hold up its end"
    );
}

async fn many_layers(bench: &Bench) {
    let mut lowers = vec![bench.base.clone()];
    for number in 0..300 {
        let layer = bench.folder(&format!("a-layer-with-a-long-name-like-a-digest-{number:0>40}-"));
        fs::write(layer.join(format!("file-{number}")), "x").unwrap();
        fs::write(layer.join("top"), number.to_string()).unwrap();
        lowers.push(layer);
    }
    let step = Step::new(
        bench.over(lowers),
        ["/bin/sh", "-c", "ls -d /file-* | wc -l; cat /top"],
    );
    assert_eq!(bench.run(step).await.text(), "300\n299");
}
