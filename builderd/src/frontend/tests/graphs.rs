//! What instructions become.

use super::*;

#[test]
fn a_two_stage_build_shares_what_does_not_depend_on_the_platform() {
    let dockerfile = "\
FROM --platform=$BUILDPLATFORM golang:1.22 AS build
WORKDIR /src
COPY go.* .
ARG TARGETARCH
RUN make $TARGETARCH
FROM build AS unused
RUN never
FROM busybox
COPY --from=build --chown=app:0 /src/out /bin/out
CMD [\"/bin/out\"]
";
    let host = TestHost::new(dockerfile).file(".dockerignore", "*.md\n!README.md\n");
    let built = run(build(&host, &request(&[("platform", "linux/arm64,linux/amd64")]))).unwrap();
    insta::assert_snapshot!(render(&built.targets[0].definition));
    insta::assert_snapshot!(host.asked().join("\n"));
    let (arm, amd) = (&built.targets[0].definition, &built.targets[1].definition);
    let shared = amd.def.iter().filter(|op| arm.def.contains(op)).count();
    // Context, base of the build stage, WORKDIR and COPY.
    assert_eq!(shared, 4);
    assert_eq!(built.sources.len(), 2);
    let metadata = built.metadata();
    let platforms = String::from_utf8(metadata["refs.platforms"].clone()).unwrap();
    assert_eq!(
        platforms,
        r#"{"Platforms":[{"ID":"linux/arm64","Platform":{"architecture":"arm64","os":"linux"}},{"ID":"linux/amd64","Platform":{"architecture":"amd64","os":"linux"}}]}"#
    );
    assert!(metadata.contains_key("containerimage.config/linux/arm64"));
    assert!(metadata.contains_key("containerimage.base.config/linux/amd64"));
}

#[test]
fn limits_of_steps_are_beside_the_graph_and_the_cgroup_parent_is_in_it() {
    let dockerfile = "FROM busybox\nCOPY a /\nRUN one\nRUN two\n";
    let definition =
        |attributes: &[(&str, &str)]| build_with(dockerfile, attributes).targets[0].definition.clone();
    let limits = |definition: &pb::Definition| -> Vec<pb::LinuxResources> {
        let all = definition.metadata.values();
        all.filter_map(|metadata| metadata.linux_resources.clone())
            .collect()
    };
    let plain = definition(&[]);
    let limited = definition(&[
        ("memory", "64"),
        ("memswap", "-1"),
        ("cpushares", "2"),
        ("cpuperiod", "3"),
        ("cpuquota", "4"),
        ("cpusetcpus", "0-1"),
        ("cpusetmems", "0"),
    ]);
    assert_eq!(plain.def, limited.def);
    assert_eq!(limits(&plain), []);
    let expected = pb::LinuxResources {
        memory: 64,
        memory_swap: -1,
        cpu_shares: 2,
        cpu_period: 3,
        cpu_quota: 4,
        cpuset_cpus: "0-1".to_owned(),
        cpuset_mems: "0".to_owned(),
    };
    assert_eq!(limits(&limited), [expected.clone(), expected]);
    assert_ne!(plain.def, definition(&[("cgroup-parent", "/builds")]).def);
}

#[test]
fn run_sees_the_stage_and_the_request() {
    let dockerfile = "\
FROM busybox
ARG WHO=me
ENV A=1 B=\"$WHO two\"
USER app
WORKDIR work
SHELL [\"/bin/ash\", \"-ec\"]
RUN --network=none echo \"$A\" '$B' \\
  more
RUN [\"a\", \"b c\"]
";
    let attributes = [
        ("hostname", "box"),
        ("build-arg:HTTP_PROXY", "http://p"),
        ("no-cache", ""),
        ("shm-size", "64"),
    ];
    insta::assert_snapshot!(graph(dockerfile, &attributes));
    insta::assert_snapshot!(history(dockerfile, &attributes).join("\n"));
}

#[test]
fn copy_and_add_become_one_action_per_source() {
    let dockerfile = "\
FROM scratch
ARG D=/dst
COPY a b* $D/
ADD --chmod=0640 x.tar .
COPY --chown=1000 --chmod=u+x --exclude=*.md sub/ /sub
COPY --parents ./a/./b/c *.txt /p/
COPY <<A <<\"B\" /docs/
d=$D
A
d=$D
B
COPY --from=busybox /bin/sh /sh
";
    insta::assert_snapshot!(graph(dockerfile, &[]));
    insta::assert_snapshot!(history(dockerfile, &[]).join("\n"));
}

#[test]
fn mounts_and_heredocs_of_run() {
    let dockerfile = "\
FROM golang:1.22 AS tools
FROM busybox
RUN --mount=type=cache,target=/c,sharing=locked --mount=from=tools,source=/go,target=go --mount=type=secret,id=tok,env=TOK --mount=type=tmpfs,target=/t,size=1k --mount=target=/ctx,source=sub true
RUN --mount=type=secret,id=x --mount=type=ssh,required true
RUN <<EOF
one
two
EOF
RUN <<-EOF
\t#!/bin/awk -f
\tBEGIN {}
EOF
RUN cat <<A >/x && true
a
A
";
    insta::assert_snapshot!(graph(dockerfile, &[]));
}

#[test]
fn triggers_of_a_base_image_run_first() {
    let dockerfile = "FROM localhost:5000/trigger\nRUN own\n";
    insta::assert_snapshot!(graph(dockerfile, &[]));
    let inherited = "FROM busybox AS base\nONBUILD ENV A=1\nFROM base\nRUN true\n";
    assert_eq!(
        history(inherited, &[])[1..],
        ["ENV A=1", "RUN /bin/sh -c true # buildkit"]
    );
    assert_eq!(
        config("FROM busybox\nONBUILD RUN x\n", &[]).config.on_build,
        ["RUN x"]
    );
}

#[test]
fn the_config_follows_the_instructions() {
    let dockerfile = "\
FROM busybox
MAINTAINER someone
LABEL b=2 a=\"x y\"
EXPOSE 81/udp 80-81
VOLUME /data [\"/x\"]
VOLUME [\"/data\", \"/more\"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=1m30s --retries=2 CMD curl -f x
ENTRYPOINT [\"/e\"]
CMD run \"this\"
ENV LANG=D
";
    let attributes = [("label:c", "3"), ("platform", "linux/arm/v6")];
    let built = build_with(dockerfile, &attributes);
    let pretty: serde_json::Value = serde_json::from_slice(&built.targets[0].config).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&pretty).unwrap());
    assert!(!built.multi_platform);
}

#[test]
fn an_entrypoint_resets_the_command_of_the_base() {
    assert_eq!(
        config("FROM busybox\nENTRYPOINT e", &[]).config.cmd,
        Vec::<String>::new()
    );
    assert_eq!(
        config("FROM busybox\nCMD c\nENTRYPOINT e", &[]).config.cmd,
        ["/bin/sh", "-c", "c"]
    );
    assert_eq!(
        config("FROM busybox AS a\nCMD c\nFROM a\nENTRYPOINT e", &[])
            .config
            .cmd,
        Vec::<String>::new()
    );
    assert_eq!(
        config("FROM busybox\nENTRYPOINT []", &[]).config.cmd,
        Vec::<String>::new()
    );
}

#[test]
fn arguments_have_scopes() {
    let env = |dockerfile: &str, attributes: &[(&str, &str)]| {
        config(dockerfile, attributes).config.env.last().cloned().unwrap()
    };
    for (dockerfile, attributes, expected) in [
        ("ARG A=1\nFROM busybox\nENV B=[$A]", vec![], "B=[]"),
        ("ARG A=1\nFROM busybox\nARG A\nENV B=[$A]", vec![], "B=[1]"),
        ("ARG A=1\nFROM busybox\nARG A=2\nENV B=[$A]", vec![], "B=[2]"),
        (
            "ARG A=1\nFROM busybox\nARG A=2\nENV B=[$A]",
            vec![("build-arg:A", "3")],
            "B=[3]",
        ),
        ("FROM busybox\nENV B=[$A]", vec![("build-arg:A", "3")], "B=[]"),
        (
            "FROM busybox\nARG A=2\nENV A=4\nENV B=[$A]",
            vec![("build-arg:A", "3")],
            "B=[4]",
        ),
        (
            "FROM busybox\nARG TARGETPLATFORM\nENV B=[$TARGETPLATFORM]",
            vec![("platform", "linux/arm64")],
            "B=[linux/arm64]",
        ),
        ("FROM busybox AS x\nARG A=5\nFROM x\nENV B=[$A]", vec![], "B=[5]"),
        ("ARG V=1.22\nFROM golang:$V\nENV B=$V", vec![], "B="),
        (
            "FROM busybox\nARG TARGETSTAGE\nENV B=$TARGETSTAGE",
            vec![],
            "B=default",
        ),
    ] {
        assert_eq!(env(dockerfile, &attributes), expected, "{dockerfile}");
    }
}

#[test]
fn the_escape_directive_and_the_syntax_directive_are_heeded() {
    let dockerfile = "# syntax=docker/dockerfile:1.7@sha256:ab\n# escape=`\nFROM busybox\nRUN a `\n b\\c\n";
    assert_eq!(history(dockerfile, &[])[1], "RUN /bin/sh -c a  b\\c # buildkit");
}

#[test]
fn a_target_is_found_by_name_and_scratch_has_no_operations() {
    let dockerfile = "FROM busybox AS One\nRUN one\nFROM scratch AS two\nENV A=b\n";
    assert!(graph(dockerfile, &[("target", "ONE")]).contains("[one 2/2] RUN one"));
    let built = build_with(dockerfile, &[]);
    assert_eq!(built.targets[0].definition, pb::Definition::default());
    assert_eq!(built.sources, []);
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(config(dockerfile, &[]).config.env, [path, "A=b"]);
}

#[test]
fn the_ignore_file_of_the_dockerfile_goes_first() {
    let host = TestHost::new("FROM scratch\nCOPY . /\n")
        .file("Dockerfile.dockerignore", "own\n")
        .file(".dockerignore", "common\n");
    let built = run(build(&host, &request(&[]))).unwrap();
    let text = render(&built.targets[0].definition);
    assert!(text.contains(r#"local.excludepatterns=["own"]"#), "{text}");
    assert!(!text.contains("followpaths"), "{text}");
}

#[test]
fn rules_that_need_values_are_checked_once_for_all_platforms() {
    let dockerfile = "\
ARG NONE
FROM --platform=$TARGETPLATFORM busybox
ARG DECLARED
ENV API_TOKEN=$DECLARD A=$DECLARED
WORKDIR here
COPY readme.md $PTAH/
EXPOSE 1:80/TCP
CMD echo
FROM --platform=linux/riscv64 golang:1.22 AS other
COPY --from=0 /a$NOPE /b
FROM ${NOEN}busybox
FROM ${NONE:-scratch}
COPY --from=1 / /
";
    let host = TestHost::new(dockerfile).file(".dockerignore", "*.md\n");
    run(build(&host, &request(&[("platform", "linux/arm64,linux/amd64")]))).unwrap();
    insta::assert_snapshot!(host.warned().join("\n"));
    let quiet = TestHost::new(&format!("# check=skip=all\n{dockerfile}"));
    run(build(&quiet, &request(&[]))).unwrap();
    assert!(quiet.warned().is_empty(), "{:?}", quiet.warned());
    let strict = run(build(
        &host,
        &request(&[(
            "build-arg:BUILDKIT_DOCKERFILE_CHECK",
            "error=true;skip=UndefinedVar,CopyIgnoredFile",
        )]),
    ));
    let text = strict.unwrap_err().to_string();
    assert!(
        text.starts_with("lint violation found for rules: ExposeInvalidFormat, "),
        "{text}"
    );
}

#[test]
fn sources_elsewhere_are_fetched_by_operations_of_their_own() {
    let dockerfile = "\
FROM busybox
ADD --checksum=sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad https://e.com/a/file.tar.gz?x /
ADD --unpack https://e.com/ https://e.com/b /d/
ADD --keep-git-dir=true --checksum=abc --chown=1:2 git@e.com:a/b.git#v1:sub /src
ADD https://me:secret@e.com/a.git?submodules=0 local github.com/a/b /x/
";
    insta::assert_snapshot!(graph(dockerfile, &[]));
    insta::assert_snapshot!(history(dockerfile, &[]).join("\n"));
}

#[test]
fn a_context_may_be_elsewhere() {
    let dockerfile = "FROM scratch\nCOPY a b\n";
    let remote = |host: TestHost, attributes: &[(&str, &str)]| {
        let built = run(build(&host, &request(attributes))).unwrap();
        format!(
            "{}{}",
            host.asked().join("\n"),
            render(&built.targets[0].definition)
        )
    };
    let git = [
        ("context", "https://e.com/a.git#main:sub"),
        ("build-arg:SOURCE_DATE_EPOCH", "1"),
    ];
    insta::assert_snapshot!(remote(TestHost::new(dockerfile), &git));
    let folder = [
        ("contextkey", "other"),
        ("other", "git://e.com/a"),
        ("contextsubdir", "x/y"),
    ];
    insta::assert_snapshot!(remote(TestHost::new(dockerfile), &folder));
    let archive = [("context", "http://e.com/context.tgz")];
    let mut host = TestHost::new(dockerfile);
    host.files
        .insert("context".to_owned(), Bytes::from_static(b"\x1f\x8b\x08"));
    insta::assert_snapshot!(remote(host, &archive));
    let file = [("context", "http://e.com/Dockerfile")];
    let host = TestHost::new("none").file("context", dockerfile);
    insta::assert_snapshot!(remote(host, &file));
}
