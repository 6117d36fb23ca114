//! What a RUN step sees and what is said when it fails.

use tests::needs::{Need, given};
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

#[test]
fn a_failed_step_is_shown_with_platform_line_and_output() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "FROM @base@\nRUN echo before\nRUN echo words on the way; echo and errors >&2; exit 3\nRUN echo not-\"reached\"\n";
    world
        .build_fails("failing", dockerfile)
        .said(&[
            "Dockerfile:3",
            ">>> RUN echo words on the way",
            "words on the way",
            "and errors",
            "exit code: 3",
        ])
        .did_not_say("not-reached");
}

#[test]
fn of_two_platforms_the_one_that_failed_is_named() {
    if !given(&NEEDS) || !given(&[Need::Qemu]) {
        return;
    }
    let world = World::new();
    let dockerfile = "FROM @base@\nRUN test \"$(uname -m)\" != aarch64\n";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    world
        .build(&context, &["--platform=linux/amd64,linux/arm64"])
        .failed()
        .said(&["linux/arm64", "Dockerfile:2"]);
}

#[test]
fn a_step_sees_what_it_would_in_docker() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let checks = [
        // Its own process namespace, and nothing else in it.
        "test $$ = 1",
        "test $(ls -d /proc/[0-9]* | wc -l) -le 4",
        // The default capabilities of containers, not all of root's.
        "grep -q '^CapEff:.00000000a80425fb$' /proc/self/status",
        "grep -q '^Seccomp:.2$' /proc/self/status",
        "! mount -t tmpfs none /mnt 2>/dev/null",
        "! mknod /tmp/disk b 8 0 2>/dev/null || ! cat /tmp/disk 2>/dev/null",
        // What the engine provides.
        "grep -q localhost /etc/hosts",
        "test -f /etc/resolv.conf",
        "test -n \"$(hostname)\"",
        "test -c /dev/null && test -c /dev/zero && test -c /dev/urandom && test -c /dev/tty && test -d /dev/shm && test -L /dev/fd",
        "test \"$(stat -c %a /dev/shm)\" = 1777",
        // What is hidden or may not be written.
        "test -z \"$(cat /proc/kcore 2>/dev/null | head -c 1)\"",
        "! echo 1 2>/dev/null > /proc/sys/kernel/panic",
        "! echo b 2>/dev/null > /proc/sysrq-trigger",
        "! ls /sys/firmware/* 2>/dev/null | grep -q .",
        // The user and the folder it starts in.
        "test \"$(id -u):$(id -g)\" = 0:0",
        "test \"$(pwd)\" = /",
        "test \"$HOME\" = /root",
    ];
    let mut dockerfile = "FROM @base@\n".to_owned();
    for check in checks {
        dockerfile.push_str(&format!("RUN {check}\n"));
    }
    let context = world.context("context", &[("Dockerfile", &dockerfile)]);
    world.build(&context, &[]).succeeded();
}

#[test]
fn nothing_of_the_plumbing_ends_up_in_the_image() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile =
        "FROM @base@\nRUN touch /made\nRUN rm /etc/os-release && mkdir /folder && ln /made /folder/hard\n";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    world
        .build(&context, &["-t", &world.image("clean"), "--push"])
        .succeeded();
    let repository = world.repository("clean");
    let (manifest, _) = repository.image("latest", "linux/amd64").unwrap();
    let (base, _) = world.repository("base").image("latest", "linux/amd64").unwrap();
    let before = tests::unpacked::tree(&world.repository("base"), &base).unwrap();
    let after = tests::unpacked::tree(&repository, &manifest).unwrap();
    let added: Vec<&str> = after
        .keys()
        .filter(|path| !before.contains_key(*path))
        .map(String::as_str)
        .collect();
    let removed: Vec<&str> = before
        .keys()
        .filter(|path| !after.contains_key(*path))
        .map(String::as_str)
        .collect();
    assert_eq!(
        (added, removed),
        (vec!["folder", "folder/hard", "made"], vec!["etc/os-release"])
    );
    let changed: Vec<&String> = before
        .iter()
        .filter(|(path, entry)| after.get(*path).is_some_and(|now| now != *entry))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(changed, Vec::<&String>::new());
}

#[test]
fn instructions_have_their_effect_on_steps() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = r#"
ARG OUTER=one
FROM @base@
ARG OUTER
ARG GIVEN=default
ENV NAME="some value" OTHER=${GIVEN}-x
RUN test "$OUTER" = one && test "$GIVEN" = told && test "$NAME" = "some value" && test "$OTHER" = told-x
WORKDIR /work/deep
RUN test "$(pwd)" = /work/deep && touch here
WORKDIR ../up
RUN test "$(pwd)" = /work/up
USER user
RUN test "$(id -un)" = user && test "$(id -u)" = 1000
USER 0
SHELL ["/bin/sh", "-ec"]
RUN test "$0" = /bin/sh || true; false || true
RUN ["/bin/busybox", "touch", "/exec form"]
RUN test -f "/exec form"
RUN <<EOF
echo several > /lines
echo lines >> /lines
EOF
RUN test "$(wc -l < /lines)" -eq 2
"#;
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    world.build(&context, &["--build-arg", "GIVEN=told"]).succeeded();
}

#[test]
fn secrets_are_there_while_a_step_runs_and_nowhere_else() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "\
FROM @base@
RUN --mount=type=secret,id=token test \"$(cat /run/secrets/token)\" = t0p \
 && test \"$(stat -c %a:%u /run/secrets/token)\" = 400:0
RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=token,target=/t,mode=0444,uid=7 \
 test \"$TOKEN\" = t0p && test \"$(stat -c %a:%u /t)\" = 444:7
RUN --mount=type=secret,id=other test ! -e /run/secrets/other && test ! -e /run/secrets/token && test -z \"$TOKEN\"
";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    let secret = world.folder().join("token");
    std::fs::write(&secret, "t0p").unwrap();
    let secret = format!("id=token,src={}", secret.display());
    world
        .build(&context, &["--secret", &secret])
        .succeeded()
        .did_not_say("t0p\n");
    let dockerfile = "FROM @base@\nRUN --mount=type=secret,id=token,required cat /run/secrets/token\n";
    world
        .build_fails("required", dockerfile)
        .said(&["Dockerfile:2", "secret token: not found"]);
}

#[test]
fn caches_outlive_builds_and_leave_nothing_in_images() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "\
FROM @base@
ARG TURN
RUN --mount=type=cache,target=/cache echo $TURN >> /cache/turns && cat /cache/turns > /seen
RUN --mount=type=cache,target=/own,uid=7,mode=0700,sharing=locked \
 test \"$(stat -c %a:%u /own)\" = 700:7 && echo $TURN >> /own/turns && cat /own/turns >> /seen
RUN test ! -e /cache/turns && test ! -e /own/turns
";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    for (turn, seen) in [("one", "one\none\n"), ("two", "one\ntwo\none\ntwo\n")] {
        let out = world.folder().join(turn);
        let output = format!("type=local,dest={}", out.display());
        let turn = format!("TURN={turn}");
        world
            .build(&context, &["--build-arg", &turn, "-o", &output])
            .succeeded();
        assert_eq!(std::fs::read_to_string(out.join("seen")).unwrap(), seen);
    }
}

#[test]
fn an_ssh_agent_is_a_socket_for_one_step() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let dockerfile = "\
FROM @base@
RUN --mount=type=ssh,mode=0640,uid=7,gid=8 test -S \"$SSH_AUTH_SOCK\" \
 && test \"$(stat -c %a:%u:%g $SSH_AUTH_SOCK)\" = 640:7:8
RUN --mount=type=ssh,id=other test -z \"$SSH_AUTH_SOCK\" || test ! -e \"$SSH_AUTH_SOCK\"
RUN test -z \"$SSH_AUTH_SOCK\"
";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    let socket = world.folder().join("agent");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let agent = format!("default={}", socket.display());
    world.build(&context, &["--ssh", &agent]).succeeded();
    let dockerfile = "FROM @base@\nRUN --mount=type=ssh,required true\n";
    world
        .build_fails("required", dockerfile)
        .said(&["Dockerfile:2", "no SSH key \"default\" forwarded from the client"]);
}

#[test]
fn what_was_not_allowed_is_refused_by_name() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    for (name, options, refusal) in [
        (
            "insecure",
            "--security=insecure",
            "security.insecure is not allowed",
        ),
        ("host", "--network=host", "network.host is not allowed"),
        (
            "device",
            "--device=none.com/device=x,required",
            "required device \"none.com/device=x\" is not registered",
        ),
    ] {
        let dockerfile = format!("FROM @base@\nRUN {options} true\n");
        world.build_fails(name, &dockerfile).said(&[refusal]);
    }
}

#[test]
fn steps_that_make_the_same_place_for_a_cache_do_not_hinder_each_other() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let mounts = "--mount=type=cache,target=/outer --mount=type=cache,target=/outer/inner";
    let dockerfile = format!(
        "FROM @base@ AS a\nRUN {mounts} echo 1 > /one\nFROM @base@ AS b\nRUN {mounts} echo 2 > /two\n\
         FROM scratch\nCOPY --from=a /one /\nCOPY --from=b /two /\n"
    );
    let context = world.context("nested", &[("Dockerfile", &dockerfile)]);
    for _ in 0..10 {
        world.build(&context, &["--no-cache"]).succeeded();
    }
}

#[test]
fn steps_that_share_a_cache_with_files_see_each_other() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let wait = "for i in $(seq 100); do test -e /c/$other && exit 0; sleep 0.1; done; exit 1";
    let step = |own: &str, other: &str| {
        format!(
            "FROM @base@ AS {own}\nRUN --mount=type=cache,id=both,target=/c,mode=0777 other={other}; touch /c/{own}; {wait}\n"
        )
    };
    let dockerfile = format!(
        "{}{}FROM @base@\nCOPY --from=one /bin /one\nCOPY --from=two /bin /two\n",
        step("one", "two"),
        step("two", "one")
    );
    let context = world.context("context", &[("Dockerfile", &dockerfile)]);
    world.build(&context, &[]).succeeded();
}
