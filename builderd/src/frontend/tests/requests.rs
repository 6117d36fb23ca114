//! Questions in place of a build.

use serde_json::Value;

use super::*;

fn ask(dockerfile: &str, name: &str, attributes: &[(&str, &str)]) -> (Value, String) {
    let host = TestHost::new(dockerfile);
    let answer = run(answer(&host, &request(attributes), name)).unwrap();
    assert_eq!(answer["version"], b"1.0.0");
    assert!(host.warned().is_empty(), "findings are in the answer alone");
    let json = serde_json::from_slice(&answer["result.json"]).unwrap();
    (json, String::from_utf8(answer["result.txt"].clone()).unwrap())
}

#[test]
fn what_is_asked_for_is_listed_with_what_it_is_made_of() {
    let dockerfile = "\
ARG tag=1.2
# image is where it starts
ARG image=golang:${tag}2
ARG unused=x
FROM $image AS other
FROM scratch AS first
# key opens it
ARG key=abc
FROM busybox AS third
RUN --mount=type=secret,id=never true
# app is the result
FROM $image AS app
ARG key
ARG TARGETARCH
RUN --mount=type=secret,id=token,required --mount=type=ssh true
COPY --from=first / /
";
    let (json, text) = ask(
        dockerfile,
        "frontend.outline",
        &[("target", "app"), ("build-arg:key", "k")],
    );
    let args = json["args"].as_array().unwrap().iter();
    let args: Vec<_> = args
        .map(|arg| (arg["name"].as_str().unwrap(), arg["value"].as_str().unwrap()))
        .collect();
    assert_eq!(args, [("tag", "1.2"), ("image", "golang:1.22"), ("key", "k")]);
    assert_eq!(json["args"][0]["location"]["ranges"][0]["start"]["line"], 1);
    assert_eq!(json["secrets"][0]["required"], true);
    assert_eq!(
        (&json["name"], json["secrets"].as_array().unwrap().len()),
        (&"app".into(), 1)
    );
    assert_eq!(
        text,
        "TARGET:      app\nDESCRIPTION: is the result\n\n\
         BUILD ARG   VALUE         DESCRIPTION\n\
         tag         1.2           \n\
         image       golang:1.22   is where it starts\n\
         key         k             \n\n\
         SECRET   REQUIRED\ntoken    true\n\nSSH       REQUIRED\ndefault   \n\n"
    );
}

#[test]
fn targets_are_listed_as_they_are_written() {
    let dockerfile = "# a is first\nFROM --platform=$BUILDPLATFORM busybox AS a\nFROM a\n";
    let (json, text) = ask(dockerfile, "frontend.targets", &[]);
    assert_eq!(json["targets"][0]["platform"], "$BUILDPLATFORM");
    assert_eq!(json["targets"][1]["default"], true);
    assert_eq!(text, "TARGET    DESCRIPTION\na         is first\n(default) \n");
}

#[test]
fn a_check_looks_at_every_stage_and_tells_why_the_file_does_not_build() {
    let (json, text) = ask(
        "FROM scratch as a\nFROM scratch\nCOPY $x /\n",
        "frontend.lint",
        &[],
    );
    let rules: Vec<_> = json["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|warning| &warning["ruleName"])
        .collect();
    assert_eq!(rules, ["FromAsCasing", "UndefinedVar"]);
    assert!(text.starts_with("\nWARNING: FromAsCasing - https://"), "{text}");
    assert!(text.contains("   3 | >>> COPY $x /\n"), "{text}");
    let (json, _) = ask(
        "FROM scratch AS Bad\nMAINTAINER x\nNONSENSE\n",
        "frontend.lint",
        &[],
    );
    assert_eq!(json["warnings"].as_array().unwrap().len(), 2);
    assert_eq!(
        json["buildError"]["message"],
        "dockerfile parse error on line 3: unknown instruction: NONSENSE"
    );
    assert_eq!(json["buildError"]["location"]["ranges"][0]["start"]["line"], 3);
    let (json, text) = ask("FROM scratch\n", "frontend.lint", &[]);
    assert_eq!((&json["warnings"], text.as_str()), (&Value::Null, ""));
}

#[test]
fn unknown_questions_and_needs_are_named() {
    let host = TestHost::new("FROM scratch\n");
    let unknown = run(answer(&host, &request(&[]), "frontend.flying")).unwrap_err();
    assert!(unknown.is_unknown(), "{unknown}");
    let needs = request(&[("frontend.caps", "moby.buildkit.frontend.inputs,x+forward")]);
    assert!(run(build(&host, &needs)).unwrap_err().is_unknown());
    let (json, _) = ask("FROM scratch\n", "frontend.subrequests.describe", &[]);
    assert_eq!(json[0]["name"], "frontend.outline");
}

#[test]
fn the_epoch_may_be_a_name() {
    let of = |dockerfile: &str, attributes: &[(&str, &str)]| {
        run(build(&TestHost::new(dockerfile), &request(attributes))).map(|built| built.epoch)
    };
    let fetched = "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD https://e.com/a.tar /\nFROM scratch\n";
    assert_eq!(of(fetched, &[]).unwrap(), Some(1_700_000_402));
    assert_eq!(
        of(fetched, &[("build-arg:SOURCE_DATE_EPOCH", "5")]).unwrap(),
        Some(5)
    );
    assert_eq!(of(fetched, &[("build-arg:SOURCE_DATE_EPOCH", "")]).unwrap(), None);
    assert_eq!(
        of("ARG SOURCE_DATE_EPOCH=context\nFROM scratch\n", &[]).unwrap(),
        None
    );
    for (wrong, said) in [
        (
            "ARG SOURCE_DATE_EPOCH=soon\nFROM scratch\n",
            "invalid SOURCE_DATE_EPOCH: soon",
        ),
        (
            "ARG SOURCE_DATE_EPOCH=a\nFROM scratch AS a\nRUN x\n",
            "unsupported RUN instruction",
        ),
        (
            "ARG SOURCE_DATE_EPOCH=a\nFROM scratch AS a\nADD x /\n",
            "single HTTP(S) or Git ADD",
        ),
        (
            "ARG SOURCE_DATE_EPOCH=a\nFROM busybox AS a\n",
            "must use FROM scratch",
        ),
    ] {
        let error = of(wrong, &[]).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// How long a large file takes; in a release build it should stay below 50 ms.
#[test]
#[ignore = "a measurement: run it alone, with --release"]
fn a_large_file_is_lowered_quickly() {
    let mut dockerfile = String::from("FROM busybox AS s0\n");
    for stage in 1..200 {
        dockerfile.push_str(&format!("FROM busybox AS s{stage}\nARG A{stage}=1\n"));
        dockerfile.push_str(&format!("COPY --from=s{} /a /a\n", stage - 1));
        for line in 0..22 {
            dockerfile.push_str(&format!("RUN echo ${{A{stage}}} {line}\n"));
        }
    }
    let host = TestHost::new(&dockerfile);
    let start = std::time::Instant::now();
    let built = run(build(&host, &request(&[]))).unwrap();
    let taken = start.elapsed();
    assert!(built.targets[0].definition.def.len() > 4500);
    println!("{} lines: {taken:?}", dockerfile.lines().count());
    assert!(taken.as_millis() < 50, "{taken:?}");
}
