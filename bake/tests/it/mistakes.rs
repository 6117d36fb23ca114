//! Mistakes are told with their place and their reason.

use crate::{load, load_with, select};

#[test]
fn mistakes_in_hcl_have_a_place() {
    let mut wrong = Vec::new();
    for (text, expected) in [
        ("target \"a\" {", "f.hcl:1,12-13: Invalid syntax; "),
        ("target \"a\" {\n  tags = [\n}\n", "f.hcl:3,1-2: Invalid syntax; "),
        (
            "target \"a\" {\n  args = { X = MISSING }\n}",
            "f.hcl:2,16-23: Unknown variable; There is no variable named \"MISSING\".",
        ),
        (
            "target \"a\" {\n  args = { X = nothing(1) }\n}",
            "f.hcl:2,16-23: Call to unknown function; There is no function named \"nothing\".",
        ),
        (
            "target \"a\" {\n  tags = \"x\"\n}",
            "f.hcl:2,10-13: Unsuitable value type; Unsuitable value: list of string required",
        ),
        (
            "target \"a\" {\n  args = { X = upper() }\n}",
            "f.hcl:2,16-23: Wrong number of function arguments; Function \"upper\" expects 1 argument(s): str.",
        ),
        (
            "target \"a\" {\n  args = { X = parseint(\"zz\", 10) }\n}",
            "f.hcl:2,25-29: Invalid function argument; Invalid value for \"number\" parameter: cannot parse \"zz\" as a base 10 integer.",
        ),
        (
            "target \"a\" {\n  tags = []\n  tags = []\n}",
            "f.hcl:3,3-4: Attribute redefined; Each argument may be set only once.",
        ),
        (
            "target \"a b\" {}",
            "f.hcl:1,8-13: Invalid name; \"a b\": only \"[a-zA-Z0-9_-]+\" are allowed",
        ),
        (
            "target \"a\" {\n  name = \"b\"\n}",
            "f.hcl:2,3-13: Invalid name; name requires matrix",
        ),
        (
            "target \"a\" {\n  matrix = { x = [1, 2] }\n}",
            "f.hcl:1,8-11: Invalid name; duplicate name \"a\"",
        ),
        (
            "target {}",
            "f.hcl:1,1-7: Invalid block; A target block has one label, its name.",
        ),
        (
            "group \"g\" {}",
            "f.hcl:1,1-10: Missing required argument; The argument \"targets\" is required, but no definition was found.",
        ),
        (
            "variable \"V\" {\n  type = lists(string)\n}",
            "f.hcl:2,10-23: Invalid type specification; Keyword \"lists\" is not a valid type constructor.",
        ),
        (
            "variable \"V\" {\n  type = number\n  default = \"x\"\n}",
            "f.hcl:3,13-16: Invalid value; invalid type number for variable V default value: a number is required",
        ),
        (
            "variable \"V\" {\n  default = \"x\"\n  validation {\n    condition = V == \"y\"\n    error_message = \"V is ${V}\"\n  }\n}",
            "f.hcl:4,17-25: Validation failed; V is x",
        ),
        (
            "target \"a\" {\n  args = { X = 1 / 0, Y = \"${null}\" }\n}",
            "f.hcl:2,16-21: Operation failed; Error during operation: division by zero.",
        ),
    ] {
        let error = load("f.hcl", text).unwrap_err();
        let shown = error.to_string();
        if !shown.starts_with(expected) || error.place().is_none() {
            wrong.push(format!("{text}\n{shown}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn several_mistakes_are_counted() {
    let error = load(
        "f.hcl",
        "target \"a\" {\n  tags = [X]\n  context = Y\n}\ntarget \"b\" { target = Z }\n",
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "f.hcl:2,11-12: Unknown variable; There is no variable named \"X\"., and 2 other diagnostic(s)"
    );
}

#[test]
fn cycles_name_their_members() {
    for (text, expected) in [
        (
            "variable \"A\" { default = B }\nvariable \"B\" { default = C }\nvariable \"C\" { default = A }",
            "variable cycle not allowed for A: A -> B -> C -> A",
        ),
        (
            "variable \"A\" { default = try(A, 1) }",
            "variable cycle not allowed for A: A -> A",
        ),
        (
            "function \"f\" {\n params = [x]\n result = g(x)\n}\nfunction \"g\" {\n params = [x]\n result = f(x)\n}",
            "function cycle not allowed for f: f -> g -> f",
        ),
        (
            "function \"f\" {\n params = [x]\n result = nothing(x)\n}",
            "function \"nothing\" does not exist",
        ),
        (
            "target \"a\" { context = target.b.context }\ntarget \"b\" { context = target.a.context }",
            "reference cycle not allowed for target.a.context",
        ),
    ] {
        let shown = load("f.hcl", text).unwrap_err().to_string();
        assert!(shown.contains(expected), "{shown}");
    }
    let definition = load(
        "f.hcl",
        "group \"a\" { targets = [\"b\"] }\ngroup \"b\" { targets = [\"a\"] }\ntarget \"x\" { contexts = { y = \"target:y\" } }\ntarget \"y\" { contexts = { x = \"target:x\" } }\ntarget \"i\" { inherits = [\"i\"] }",
    )
    .unwrap();
    let failure = |name: &str| select(&definition, &[name], &[]).unwrap_err().to_string();
    assert_eq!(failure("a"), "group cycle not allowed for a: a -> b -> a");
    assert_eq!(failure("x"), "infinite loop from y to x");
    // As in buildx, a target gains nothing from itself.
    assert!(select(&definition, &["i"], &[]).is_ok());
}

#[test]
fn what_is_asked_for_must_be_there() {
    let definition = load(
        "f.hcl",
        "target \"app\" { inherits = [\"gone\"] }\ntarget \"db\" {}",
    )
    .unwrap();
    for (names, overrides, expected) in [
        (
            &["nothing"][..],
            &[][..],
            "failed to find target nothing: targets are app, db",
        ),
        (&["app"], &[], "failed to find target gone: targets are app, db"),
        (&["x*"], &[], "could not find any target matching \"x*\""),
        (&["db"], &["zz.tags=x"], "could not find any target matching 'zz'"),
        (&["db"], &["db"], "invalid override key db, expected target.name"),
        (
            &["db"],
            &["db.tags"],
            "invalid override db.tags, expected target.name=value",
        ),
        (&["db"], &["db.args=x"], "invalid key db.args, args requires name"),
        (&["db"], &["db.what=x"], "unknown key: what"),
        (
            &["db"],
            &["db.pull=perhaps"],
            "invalid value perhaps for boolean key pull",
        ),
        (
            &["db"],
            &["db.output=dest=x,a=b"],
            "invalid value for output: type is required for output",
        ),
        (
            &["db"],
            &["db.secret.x=env=Y"],
            "secret \"x\" must be declared before it can be overridden",
        ),
    ] {
        assert_eq!(
            select(&definition, names, overrides).unwrap_err().to_string(),
            expected
        );
    }
}

#[test]
fn mistakes_in_json_have_a_place() {
    let mut wrong = Vec::new();
    for (text, expected) in [
        ("", "f.json:1,1-1: Missing JSON data"),
        (
            "{\"target\": {\"a\": {\"tags\": [1,}}}",
            "f.json:1,30-31: Invalid start of value",
        ),
        (
            "{\n  \"target\": nope\n}",
            "f.json:2,13-17: Invalid JSON keyword; \"nope\"",
        ),
        (
            "{\"target\": []} x",
            "f.json:1,16-17: Extraneous data after value",
        ),
        ("{\"target\": \"x\"}", "f.json:1,12-15: Incorrect JSON value type"),
        ("{\"a\": \"x", "f.json:1,7-8: Invalid JSON string"),
        ("{\"a\": 01}", "f.json:1,7-9: Invalid JSON number"),
        (
            "{\"target\": {\"a\": {\"tags\": [\"${GONE}\"]}}}",
            "f.json:1,31-35: Unknown variable; There is no variable named \"GONE\".",
        ),
    ] {
        let shown = load("f.json", text).unwrap_err().to_string();
        if !shown.starts_with(expected) {
            wrong.push(format!("{text}\n{shown}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn mistakes_in_compose_files_have_a_place_or_a_way() {
    let mut wrong = Vec::new();
    for (text, expected) in [
        ("services:\n  a: [\n", "f.yaml:"),
        ("- a\n", "f.yaml: top-level object must be a mapping"),
        ("version: '3'\n", "f.yaml: empty compose file"),
        (
            "services:\n  a:\n    build:\n      what: x\n",
            "f.yaml: services.a.build additional properties 'what' not allowed",
        ),
        (
            "services:\n  a:\n    build:\n      args: { X: [1] }\n",
            "f.yaml: services.a.build.args.X must be a string",
        ),
        (
            "services:\n  a:\n    image: ${X:?is not set}\n",
            "f.yaml: error while interpolating services.a.image: required variable X is missing a value: is not set",
        ),
        (
            "services:\n  a: { extends: b }\n  b: { extends: a }\n",
            "failed to parse compose file: f.yaml: circular reference with extends: a -> b -> a",
        ),
        (
            "services:\n  a: { extends: gone }\n",
            "failed to parse compose file: f.yaml: cannot extend service \"gone\": service not found",
        ),
        (
            "services:\n  a: { build: { secrets: [x] } }\nsecrets:\n  x: { external: true }\n",
            "failed to parse compose file: services.a: unsupported external secret x: give it a file or an environment variable",
        ),
        (
            "services:\n  a:\n    build: !reset null\n",
            "f.yaml:3,1-1: Invalid YAML; the tags !reset and !override",
        ),
    ] {
        let shown = load("f.yaml", text).unwrap_err().to_string();
        if !shown.starts_with(expected) {
            wrong.push(format!("{text}\n{shown}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn services_may_be_described_in_other_files() {
    let files = [(
        "compose.yaml",
        "include: [inc/compose.yaml]\nservices:\n  app:\n    extends: { file: base/common.yaml, service: base }\n    build: { args: { B: '2' } }\n",
    )];
    let others = [
        (
            "base/common.yaml",
            "services:\n  base:\n    build: { context: src, args: { A: '1' } }\n",
        ),
        ("inc/compose.yaml", "services:\n  tool:\n    build: .\n"),
    ];
    let definition = load_with(&files, &[], &others).unwrap();
    let selection = select(&definition, &["default"], &[]).unwrap();
    let app = &selection.targets["app"];
    assert_eq!(app.context.as_deref(), Some("base/src"));
    assert_eq!(app.args.as_ref().unwrap().len(), 2);
    assert_eq!(selection.targets["tool"].context.as_deref(), Some("inc"));
}
