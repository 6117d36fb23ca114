use super::*;

fn only(instruction: &str) -> Instruction {
    let file = parse(&format!("FROM a\n{instruction}\n")).unwrap();
    let [stage] = <[Stage; 1]>::try_from(file.stages).unwrap();
    let [command] = <[Arc<Command>; 1]>::try_from(stage.commands).unwrap();
    command.instruction.clone()
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn pair(name: &str, value: &str, old_form: bool) -> Pair {
    Pair {
        name: name.to_owned(),
        value: value.to_owned(),
        old_form,
    }
}

#[test]
fn stages_have_names_bases_and_platforms() {
    let file = parse(
        "# syntax=docker/dockerfile:1\nARG V=1 W\nFROM --platform=$BUILDPLATFORM golang:$V AS Builder\nRUN x\nfrom scratch\ncopy --from=builder /a /b\n",
    )
    .unwrap();
    let args = vec![
        Arg {
            name: "V".into(),
            default: Some("1".into()),
        },
        Arg {
            name: "W".into(),
            default: None,
        },
    ];
    assert_eq!(
        file.global_args,
        [GlobalArg {
            args,
            lines: Lines::at(2),
            comments: Vec::new(),
        }]
    );
    let builder = &file.stages[0];
    assert_eq!(builder.name.as_deref(), Some("builder"));
    assert_eq!(
        (builder.base.as_str(), builder.platform.as_deref()),
        ("golang:$V", Some("$BUILDPLATFORM"))
    );
    assert_eq!(
        builder.code,
        "FROM --platform=$BUILDPLATFORM golang:$V AS Builder"
    );
    assert_eq!(builder.commands[0].lines, Lines::at(4));
    assert_eq!(file.stages[1].name, None);
    assert_eq!(file.stages[1].commands[0].code, "copy --from=builder /a /b");
}

#[test]
fn simple_instructions() {
    let shell = |text: &str| CommandLine::Shell(text.to_owned());
    let exec = |words: &[&str]| CommandLine::Exec(strings(words));
    for (text, expected) in [
        (
            "ENV A=1 B=\"x y\" C=z\\ w",
            Instruction::Env(vec![
                pair("A", "1", false),
                pair("B", "\"x y\"", false),
                pair("C", "z\\ w", false),
            ]),
        ),
        ("ENV A  x = y ", Instruction::Env(vec![pair("A", "x = y", true)])),
        (
            "LABEL \"a b\"=c",
            Instruction::Label(vec![pair("\"a b\"", "c", false)]),
        ),
        ("CMD echo $A", Instruction::Cmd(shell("echo $A"))),
        ("CMD [\"a\", \"b c\"]", Instruction::Cmd(exec(&["a", "b c"]))),
        ("CMD [\"a\", 'b']", Instruction::Cmd(shell("[\"a\", 'b']"))),
        ("CMD", Instruction::Cmd(shell(""))),
        ("ENTRYPOINT []", Instruction::Entrypoint(exec(&[]))),
        (
            "EXPOSE 80/tcp 53/udp 8000-8002",
            Instruction::Expose(strings(&["53/udp", "80/tcp", "8000-8002"])),
        ),
        ("VOLUME /a /b", Instruction::Volume(strings(&["/a", "/b"]))),
        ("VOLUME [\" /a \"]", Instruction::Volume(strings(&["/a"]))),
        ("USER me:you", Instruction::User("me:you".into())),
        ("WORKDIR /a b", Instruction::Workdir("/a b".into())),
        ("STOPSIGNAL SIGTERM", Instruction::StopSignal("SIGTERM".into())),
        ("MAINTAINER A <b@c>", Instruction::Maintainer("A <b@c>".into())),
        (
            "SHELL [\"/bin/bash\", \"-c\"]",
            Instruction::Shell(strings(&["/bin/bash", "-c"])),
        ),
        ("ONBUILD  run  x", Instruction::Onbuild("run  x".into())),
        ("HEALTHCHECK NONE", Instruction::Healthcheck(Healthcheck::None)),
        (
            "HEALTHCHECK --interval=1m30s --timeout=.5s --retries=3 CMD curl x",
            Instruction::Healthcheck(Healthcheck::Test {
                command: shell("curl x"),
                timing: Timing {
                    interval: 90_000_000_000,
                    timeout: 500_000_000,
                    retries: 3,
                    ..Timing::default()
                },
            }),
        ),
    ] {
        assert_eq!(only(text), expected, "{text}");
    }
}

#[test]
fn files_are_copied_and_added() {
    let plain = Transfer {
        sources: strings(&["a", "b"]),
        documents: Vec::new(),
        destination: "/c/".into(),
        chown: None,
        chmod: None,
        link: false,
        excludes: Vec::new(),
    };
    assert_eq!(
        only(
            "COPY --from=x --chown=1:2 --chmod=644 --exclude=*.md --exclude=y --link --parents=false a b /c/"
        ),
        Instruction::Copy(Copy {
            files: Transfer {
                chown: Some("1:2".into()),
                chmod: Some("644".into()),
                link: true,
                excludes: strings(&["*.md", "y"]),
                ..plain.clone()
            },
            from: Some("x".into()),
            parents: false,
        })
    );
    assert_eq!(
        only("ADD --unpack=false --keep-git-dir --checksum=sha256:ab [\"a\", \"b\", \"/c/\"]"),
        Instruction::Add(Add {
            files: plain,
            keep_git_dir: Some(true),
            checksum: Some("sha256:ab".into()),
            unpack: Some(false)
        })
    );
    let Instruction::Copy(copy) = only("COPY <<A x <<-B /d/\n1\nA\n\t2\nB") else {
        panic!("not a COPY")
    };
    assert_eq!(copy.files.sources, ["x"]);
    let documents: Vec<_> = copy
        .files
        .documents
        .iter()
        .map(|doc| (doc.name.as_str(), doc.body()))
        .collect();
    assert_eq!(documents, [("A", "1\n".to_owned()), ("B", "2\n".to_owned())]);
}

#[test]
fn run_has_mounts_and_modes() {
    let Instruction::Run(run) = only(
        "RUN --mount=type=cache,target=/c --mount=from=x,target=/y --network=none --security=insecure make",
    ) else {
        panic!("not a RUN")
    };
    assert_eq!(run.command, CommandLine::Shell("make".into()));
    assert_eq!(run.mounts, ["type=cache,target=/c", "from=x,target=/y"]);
    assert_eq!((run.network, run.security), (Network::None, Security::Insecure));
    assert_eq!(Mount::source_stage(&run.mounts[1]), Ok(Some("x".into())));
}

fn mount(text: &str) -> Result<Mount, String> {
    Mount::parse(text, |value| Ok(value.replace("$T", "tmpfs"))).map_err(|error| error.to_string())
}

#[test]
fn mounts_are_fields_of_csv() {
    let cache = mount("type=cache,id=i,target=/t,sharing=locked,mode=0750,uid=1,gid=2,ro").unwrap();
    assert_eq!(
        (cache.kind, cache.sharing, cache.mode),
        (MountKind::Cache, Some(CacheSharing::Locked), Some(0o750))
    );
    assert_eq!(
        (cache.uid, cache.gid, cache.read_only, cache.id.as_deref()),
        (Some(1), Some(2), true, Some("i"))
    );
    assert!(mount("target=/t").unwrap().read_only);
    assert!(!mount("target=/t,rw").unwrap().read_only);
    assert!(!mount("type=cache,target=/t").unwrap().read_only);
    assert_eq!(mount("type=$T,size=1.5g,target=/t").unwrap().size, 3 << 29);
    assert_eq!(mount("\"target=/a,b\"").unwrap().target, "/a,b");
    assert!(mount("type=secret,id=x,required").unwrap().required);
}

#[test]
fn mounts_that_make_no_sense_say_why() {
    for (text, expected) in [
        (
            "type=cashe,target=/t",
            "unsupported mount type \"cashe\" (did you mean cache?)",
        ),
        (
            "type=cache,sharing=lock",
            "unsupported sharing value \"lock\" (did you mean locked?)",
        ),
        (
            "targt=/t",
            "unexpected key 'targt' in 'targt=/t' (did you mean target?)",
        ),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("required", "unexpected key 'required' for mount type 'bind'"),
        ("size=1", "unexpected key 'size' for mount type 'bind'"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("mode=8,type=cache", "invalid value for mode: 8"),
        ("uid=1,target=/t", "uid not allowed for \"bind\" type mounts"),
        (
            "type=secret",
            "invalid secret mount. one of source, target required",
        ),
        ("type=secret,from=x,id=y", "secret mount should not have a from"),
        ("type=secret,source=x,id=y", "both source and id can't be set"),
        (
            "type=ssh,sharing=shared",
            "invalid cache sharing set for ssh mount",
        ),
        (
            "\"target=/t",
            "failed to parse csv mounts: bare or unclosed quote in \"\\\"target=/t\"",
        ),
    ] {
        assert_eq!(mount(text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn errors_name_the_line_and_the_way_out() {
    for (text, expected) in [
        (
            "FROM a\nFOO x",
            "on line 2: unknown instruction: FOO (did you mean FROM?)",
        ),
        ("FROM a\n\nXYZZY", "on line 3: unknown instruction: XYZZY"),
        ("RUN x\nFROM a", "on line 1: no build stage in current context"),
        ("FROM", "on line 1: FROM requires either one or three arguments"),
        (
            "FROM a b",
            "on line 1: FROM requires either one or three arguments",
        ),
        (
            "FROM a AS 1x",
            "on line 1: invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
        ),
        (
            "FROM --platfrom=x a",
            "on line 1: unknown flag: --platfrom (did you mean platform?)",
        ),
        (
            "FROM a\nCOPY --form=b x y",
            "on line 2: unknown flag: --form (did you mean from?)",
        ),
        ("FROM a\nENV --x=y a=b", "on line 2: unknown flag: --x"),
        (
            "FROM a\nCOPY --from=b --from=c x y",
            "on line 2: duplicate flag specified: --from",
        ),
        (
            "FROM a\nCOPY --from x y",
            "on line 2: missing a value on flag: --from",
        ),
        (
            "FROM a\nCOPY --link=maybe x y",
            "on line 2: expecting boolean value for flag --link, not: maybe",
        ),
        (
            "FROM a\nCOPY x",
            "on line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "FROM a\nCOPY",
            "on line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "FROM a\nCOPY x <<E\nE",
            "on line 2: COPY cannot accept a heredoc as a destination",
        ),
        (
            "FROM a\nCOPY --from=$x a b",
            "on line 2: variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
        ),
        ("FROM a\nENV A", "on line 2: ENV must have two arguments"),
        ("FROM a\nENV", "on line 2: ENV requires at least one argument"),
        (
            "FROM a\nENV A=b c",
            "on line 2: Syntax error - can't find = in \"c\". Must be of the form: name=value",
        ),
        ("FROM a\nLABEL =b", "on line 2: LABEL names can not be blank"),
        ("FROM a\nARG =b", "on line 2: ARG names can not be blank"),
        (
            "FROM a\nCMD [\"a\", 1]",
            "on line 2: when using JSON array syntax, arrays must be comprised of strings only",
        ),
        (
            "FROM a\nSHELL /bin/sh",
            "on line 2: SHELL requires the arguments to be in JSON form",
        ),
        (
            "FROM a\nWORKDIR",
            "on line 2: WORKDIR requires exactly one argument",
        ),
        (
            "FROM a\nVOLUME [\"\"]",
            "on line 2: VOLUME specified can not be an empty string",
        ),
        (
            "FROM a\nONBUILD ONBUILD RUN x",
            "on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        (
            "FROM a\nONBUILD FROM b",
            "on line 2: FROM isn't allowed as an ONBUILD trigger",
        ),
        (
            "FROM a\nHEALTHCHECK NONE x",
            "on line 2: HEALTHCHECK NONE takes no arguments",
        ),
        (
            "FROM a\nHEALTHCHECK CMD",
            "on line 2: Missing command after HEALTHCHECK CMD",
        ),
        (
            "FROM a\nHEALTHCHECK FOO",
            "on line 2: Unknown type \"FOO\" in HEALTHCHECK (try CMD)",
        ),
        (
            "FROM a\nHEALTHCHECK --interval=5 CMD x",
            "on line 2: time: missing unit in duration \"5\"",
        ),
        (
            "FROM a\nHEALTHCHECK --timeout=5x CMD x",
            "on line 2: time: unknown unit in duration \"5x\"",
        ),
        (
            "FROM a\nHEALTHCHECK --timeout=1us CMD x",
            "on line 2: Interval \"timeout\" cannot be less than 1ms",
        ),
        (
            "FROM a\nHEALTHCHECK --retries=-1 CMD x",
            "on line 2: --retries cannot be negative (-1)",
        ),
        (
            "FROM a\nRUN --network=lan x",
            "on line 2: invalid network mode \"lan\"",
        ),
        (
            "FROM a\nRUN --security=no x",
            "on line 2: security \"no\" is not valid",
        ),
        (
            "FROM a\nRUN --mount=from=$x,target=/y z",
            "on line 2: 'from' doesn't support variable expansion, define alias stage instead",
        ),
    ] {
        assert_eq!(
            parse(text).unwrap_err().to_string(),
            format!("dockerfile parse error {expected}"),
            "{text}"
        );
    }
    assert_eq!(
        parse("ARG a").unwrap_err().to_string(),
        "dockerfile contains no stages to build"
    );
}

#[test]
fn a_trigger_is_one_instruction() {
    assert_eq!(parse_trigger("RUN x").unwrap().instruction, only("RUN x"));
    assert_eq!(
        parse_trigger("COPY <<E /x\nhi\nE").unwrap().instruction,
        only("COPY <<E /x\nhi\nE")
    );
    assert!(parse_trigger("RUN x\nRUN y").is_err());
    assert!(parse_trigger("FROM x").is_err());
}

#[test]
fn durations_are_go_durations() {
    for (text, expected) in [
        ("1s", Some(1_000_000_000)),
        ("1h2m3.5s", Some(3_723_500_000_000)),
        ("-1.5h", Some(-5_400_000_000_000)),
        ("10µs", Some(10_000)),
        ("0", Some(0)),
        ("", None),
        ("s", None),
        ("1", None),
        (".s", None),
        ("1.2.3s", None),
        ("9999999999h", None),
    ] {
        assert_eq!(parse_duration(text).ok(), expected, "{text}");
    }
}
