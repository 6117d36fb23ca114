//! What cannot be built says so, with its lines.

use super::*;

fn refuse(dockerfile: &str, attributes: &[(&str, &str)]) -> (String, Vec<u32>) {
    let error = run(build(&TestHost::new(dockerfile), &request(attributes))).unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    let lines = error
        .location
        .map(|location| location.lines.iter().map(|lines| lines.first).collect());
    (text, lines.unwrap_or_default())
}

#[test]
fn errors_name_their_lines() {
    for (dockerfile, expected, lines) in [
        (
            "FROM busybox\nFOO x",
            "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)",
            vec![2],
        ),
        (
            "FROM nosuch",
            "nosuch: docker.io/library/nosuch:latest: not found",
            vec![1],
        ),
        (
            "FROM busybox\nCOPY --from=nosuch a b",
            "nosuch: docker.io/library/nosuch:latest: not found",
            vec![2],
        ),
        ("FROM $NOPE", "base name ($NOPE) should not be blank", vec![1]),
        (
            "FROM Bad",
            "failed to parse stage name \"Bad\": invalid reference format: repository name (library/Bad) must be lowercase",
            vec![1],
        ),
        (
            "FROM --platform=$NOPE busybox",
            "empty platform value from expression $NOPE",
            vec![1],
        ),
        (
            "FROM --platform=vax busybox",
            "failed to parse platform vax: platform \"vax\" is neither a known operating system nor a known architecture: write it as os/architecture, like linux/arm64: invalid argument",
            vec![1],
        ),
        (
            "FROM busybox AS a\nCOPY --from=b x y\nFROM busybox AS b\nCOPY --from=a x y",
            "circular dependency detected on stage: a",
            vec![2, 4],
        ),
        (
            "FROM busybox AS a\nCOPY --from=a x y",
            "circular dependency detected on stage: a",
            vec![2],
        ),
        (
            "FROM busybox AS a\nCOPY --from=9 x y",
            "invalid stage index 9",
            vec![2],
        ),
        (
            "FROM busybox\n\nRUN --mount=type=bind,target=/ x",
            "invalid mount target \"/\"",
            vec![3],
        ),
        (
            "FROM busybox\nRUN --mount=tpye=bind x",
            "unexpected key 'tpye' in 'tpye=bind' (did you mean type?)",
            vec![2],
        ),
        ("FROM busybox\nRUN []", "arguments are required", vec![2]),
        (
            "FROM busybox\nEXPOSE 99999",
            "invalid containerPort: 99999",
            vec![2],
        ),
        ("FROM busybox\nSTOPSIGNAL x", "invalid signal: x", vec![2]),
        (
            "FROM busybox\nCOPY --chmod=9 a b",
            "invalid chmod parameter: '9'. it should be octal string and between 0 and 07777",
            vec![2],
        ),
        (
            "FROM busybox\nADD --checksum=sha256:12 https://x/y /z",
            "invalid checksum: invalid digest \"sha256:12\": wrong length or characters for its algorithm",
            vec![2],
        ),
        (
            "FROM busybox\nADD --checksum=sha256:12 a /z",
            "checksum requires HTTP(S) or Git sources",
            vec![2],
        ),
        (
            "FROM busybox\nADD --checksum=12 https://x/y https://x/z /z/",
            "checksum can't be specified for multiple sources",
            vec![2],
        ),
        (
            "FROM busybox\nADD --checksum=12 https://x/y.git?checksum=34 /z/",
            "checksum mismatch \"12\" != \"34\"",
            vec![2],
        ),
        (
            "FROM busybox\nADD --keep-git-dir=true https://x/y.git?keep-git-dir=0 /z/",
            "inconsistent keep-git-dir configuration",
            vec![2],
        ),
        (
            "FROM busybox\nADD https://x/y.git?what=0 /z/",
            "invalid source \"https://x/y.git?what=0\": unexpected query \"what\"",
            vec![2],
        ),
        (
            "FROM busybox\nCOPY git@x:y /z",
            "source can't be a git ref for COPY",
            vec![2],
        ),
        (
            "FROM busybox\nCOPY https://x/y /z",
            "source can't be a URL for COPY",
            vec![2],
        ),
        (
            "FROM busybox\nENV A=${B:?missing}",
            "failed to process \"${B:?missing}\": B: missing",
            vec![2],
        ),
        (
            "# syntax=other/frontend:1\nFROM busybox",
            "frontend image other/frontend:1 is needed for this Dockerfile",
            vec![1],
        ),
        ("", "the Dockerfile cannot be empty", vec![]),
    ] {
        assert_eq!(
            refuse(dockerfile, &[]),
            (expected.to_owned(), lines),
            "{dockerfile}"
        );
    }
}

#[test]
fn a_stage_that_comes_later_cannot_be_copied_from() {
    let (text, lines) = refuse(
        "FROM busybox AS a\nCOPY --from=b x y\nFROM busybox AS b\nFROM a",
        &[],
    );
    assert_eq!(
        text,
        "cannot copy from stage \"b\", it needs to be defined before current stage \"a\""
    );
    assert_eq!(lines, [2]);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    for (attributes, expected) in [
        (
            vec![("target", "finl")],
            "target stage \"finl\" could not be found (did you mean final?)",
        ),
        (vec![("target", "x")], "target stage \"x\" could not be found"),
        (
            vec![("platform", "linux/arm64,vax")],
            "failed to parse target platform vax: platform \"vax\" is neither a known operating system nor a known architecture: write it as os/architecture, like linux/arm64",
        ),
        (
            vec![
                ("platform", "linux/arm64,linux/amd64"),
                ("multi-platform", "false"),
            ],
            "conflicting config: returning multiple target platforms is not allowed",
        ),
        (
            vec![("filename", "other")],
            "failed to read dockerfile: open other: no such file or directory",
        ),
        (
            vec![("add-hosts", "x")],
            "invalid value \"x\" for add-hosts: host=ip",
        ),
        (
            vec![("shm-size", "1g")],
            "invalid value \"1g\" for shm-size: a number",
        ),
        (
            vec![("memory", "1g")],
            "invalid value \"1g\" for memory: a positive number",
        ),
        (
            vec![("cpuquota", "0")],
            "invalid value \"0\" for cpuquota: a positive number",
        ),
        (
            vec![("memswap", "-2")],
            "invalid value \"-2\" for memswap: a positive number, or -1",
        ),
        (
            vec![("cpusetcpus", "all")],
            "invalid value \"all\" for cpusetcpus: numbers and ranges such as 0-2,4",
        ),
        (
            vec![("context", "https://x/y.git?what=0")],
            "invalid build context: unexpected query \"what\"",
        ),
        (
            vec![("context", "ftp://me:secret@x/y")],
            "\"ftp://x/y\" is neither a git repository nor an http address, so it cannot be a build context",
        ),
    ] {
        assert_eq!(refuse("FROM busybox AS final", &attributes).0, expected);
    }
}

#[test]
fn the_excerpt_carries_the_file_and_both_ends_of_each_line() {
    let error = run(build(
        &TestHost::new("FROM busybox\nRUN a \\\n b\nCOPY https://x/y /z"),
        &request(&[]),
    ))
    .unwrap_err();
    let Some(proto::errdefs::Detail::Source(detail)) = error.detail() else {
        panic!("{error} has no place");
    };
    assert_eq!(
        (detail.info.filename.as_str(), detail.info.language.as_str()),
        ("Dockerfile", "Dockerfile")
    );
    assert_eq!(&detail.info.data[..12], b"FROM busybox");
    assert_eq!((detail.ranges[0].start.line, detail.ranges[0].end.line), (4, 4));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// Whatever is written down, the answer is a build or an error.
    #[test]
    fn no_dockerfile_makes_the_frontend_panic(lines in proptest::collection::vec(line(), 1..12)) {
        let text = lines.concat();
        let _ = run(build(&TestHost::new(&text), &request(&[("platform", "linux/arm64,linux/amd64")])));
    }
}

fn line() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::strategy::Strategy;
    let keyword = proptest::sample::select(vec![
        "FROM busybox AS a",
        "FROM a",
        "FROM localhost:5000/trigger AS b",
        "FROM scratch",
        "FROM",
        "COPY",
        "ADD",
        "RUN",
        "ENV",
        "ARG",
        "WORKDIR",
        "USER",
        "EXPOSE",
        "ONBUILD COPY",
        "ONBUILD RUN",
        "COPY --from=a",
        "COPY --from=1",
        "COPY --from=busybox",
        "COPY --parents",
        "RUN --mount=from=b,target=x",
        "RUN --mount=type=cache,target=/c",
        "HEALTHCHECK CMD",
        "VOLUME",
        "LABEL",
        "CMD",
        "SHELL",
    ]);
    let word = proptest::sample::select(vec![
        " x",
        " /",
        " .",
        " ..",
        " ./",
        " $A",
        " ${A:-b}",
        " \"",
        " A=1",
        " --",
        " --chown=a:b",
        " --chmod=9",
        " [\"x\"]",
        " [\"x\", \"/y\"]",
        " <<E",
        " <<-E",
        " 80",
        " *",
        " \\",
        "\n",
        "\nE",
        "\nE\n",
    ]);
    (keyword, proptest::collection::vec(word, 0..5))
        .prop_map(|(keyword, words)| format!("{keyword}{}\n", words.concat()))
}

#[test]
fn a_large_file_costs_no_more_than_its_size() {
    let stage = |at: usize| {
        format!(
            "FROM busybox AS s{at}\nENV A={at}\nRUN one {at}\nRUN two $A\nRUN three\nCOPY --from=s{} /a /b\n",
            at.saturating_sub(1)
        )
    };
    let text: String = std::iter::once("FROM busybox AS s0\n".to_owned())
        .chain((1..200).map(stage))
        .collect();
    let built = run(build(&TestHost::new(&text), &request(&[]))).unwrap();
    // One image, four steps for each stage but the first, and the head.
    assert_eq!(built.targets[0].definition.def.len(), 1 + 199 * 4 + 1);
}
