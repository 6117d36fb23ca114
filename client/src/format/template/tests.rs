use super::super::data::{Nil, field, map, record};
use super::*;

fn value() -> Data {
    let image = |os: &str, size: i64| {
        record(
            "Image",
            [
                field("OS", "os", os),
                field("Size", "size", size),
                field("Tags", "tags", Data::list(["a", "b"])),
            ],
        )
    };
    record(
        "Root",
        [
            field("Name", "name", "some name"),
            field("Count", "count", 3_i64),
            field("Created", "created", Data::time("2024-01-31T12:00:00Z")),
            field(
                "Images",
                "images",
                map(
                    [("x", image("linux", 1)), ("y", image("windows", 2))],
                    Data::Nil(Nil::Pointer),
                ),
            ),
            field("Labels", "labels", map([("k", "v")], Data::from(""))),
            field("Nothing", "nothing", Data::Nil(Nil::Pointer)),
            field("Empty", "empty", Data::Nil(Nil::List)),
            field(
                "Any",
                "any",
                Data::any(&serde_json::json!({"a": {"n": 5, "z": null}})),
            ),
        ],
    )
}

#[test]
fn templates_do_what_they_do_in_go() {
    for (template, expected) in [
        ("{{.Name}} {{.Count}}", "some name 3"),
        (
            "{{json .Images.x}}",
            r#"{"os":"linux","size":1,"tags":["a","b"]}"#,
        ),
        (r#"{{(index .Images "y").OS}}"#, "windows"),
        (r#"{{json (index .Images "z")}}"#, "null"),
        (
            r#"{{index .Labels "k"}}{{index .Labels "none"}}{{.Labels.none}}"#,
            "v<no value>",
        ),
        (r#"{{index .Images "x" | json | len}}"#, "40"),
        (
            "{{range $key, $image := .Images}}{{$key}}={{.Size}}/{{$image.OS}} {{end}}",
            "x=1/linux y=2/windows ",
        ),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        (
            "{{range $i, $t := .Images.x.Tags}}{{if $i}},{{end}}{{$t}}{{end}}",
            "a,b",
        ),
        (
            "{{range .Images}}{{if eq .Size 2}}{{break}}{{end}}{{.OS}}{{end}}",
            "linux",
        ),
        (
            "{{range .Images}}{{if eq .Size 1}}{{continue}}{{end}}{{.OS}}{{end}}",
            "windows",
        ),
        ("{{range 3}}{{.}}{{end}}", "012"),
        (
            "{{with .Name}}[{{.}}]{{end}}{{with .Nothing}}x{{else}}y{{end}}",
            "[some name]y",
        ),
        ("{{if and .Name (gt .Count 2)}}yes{{else}}no{{end}}", "yes"),
        (
            "{{if or .Nothing .Empty}}yes{{else if not .Nothing}}no{{end}}",
            "no",
        ),
        ("{{$x := .Count}}{{if true}}{{$x = 5}}{{end}}{{$x}}", "5"),
        (
            r#"{{define "t"}}<{{.}}>{{end}}{{template "t" .Name}}"#,
            "<some name>",
        ),
        ("{{ .Name -}}   x", "some namex"),
        (
            "{{/* said by nobody */}}{{.Created}}",
            "2024-01-31 12:00:00 +0000 UTC",
        ),
        ("{{json .Created}}", r#""2024-01-31T12:00:00Z""#),
        (
            "{{.Nothing}} {{.Empty}} {{.Any.none.more}} {{.Any.a}}",
            "<nil> [] <no value> map[n:5 z:<nil>]",
        ),
        ("{{.Images.x}}", "{linux 1 [a b]}"),
        (
            "{{eq .Any.a.n 5}} {{eq .Name \"b\" \"some name\"}} {{ne .Count 3}} {{lt 1 2}} {{ge 1 2}}",
            "true true false true false",
        ),
        (
            r#"{{split "a,b" ","}} {{join .Images.x.Tags "/"}} {{title .Name}} {{upper "x"}}{{lower "Y"}}"#,
            "[a b] a/b Some Name Xy",
        ),
        (
            r#"[{{pad "x" 1 2}}] {{truncate .Name 4}} {{slice .Name 5}} {{slice .Images.x.Tags 1 2}}"#,
            "[ x  ] some name [b]",
        ),
        (r#"{{print "a" 1 2 "b"}} {{println "a" 1}}"#, "a1 2b a 1\n"),
        (
            r#"{{html "<a&b>"}} {{js "it's"}} {{urlquery "a b&c"}}"#,
            r"&lt;a&amp;b&gt; it\'s a+b%26c",
        ),
        (
            "{{.Any.a.n}} {{len .Any}} {{$.Name}} {{0x10}} {{'a'}} {{true}}",
            "5 1 some name 16 97 true",
        ),
    ] {
        let parsed = Template::parse(template, Json::Compact).unwrap();
        assert_eq!(parsed.render(&value()).unwrap(), expected, "{template}");
    }
}

#[test]
fn mistakes_are_pointed_at() {
    for (template, expected) in [
        ("{{", "template parsing error: template: :1:3: unclosed action"),
        (
            "line\n  {{nothing .}}",
            "template parsing error: template: :2:5: function \"nothing\" not defined",
        ),
        (
            "{{$x}}",
            "template parsing error: template: :1:3: undefined variable \"$x\"",
        ),
        (
            "{{if .Name}}",
            "template parsing error: template: :1:13: unexpected EOF: {{if}} has no {{end}}",
        ),
        (
            r#"{{template "no"}}"#,
            "template parsing error: template: :1:3: template \"no\" not defined",
        ),
        (
            "a {{.Nmae}}",
            "template: :1:5: executing \"\" at <.Nmae>: can't evaluate field Nmae in type Root",
        ),
        (
            "{{.Name.First}}",
            "template: :1:3: executing \"\" at <.Name.First>: can't evaluate field First in type string",
        ),
        (
            "{{.Nothing.More}}",
            "template: :1:3: executing \"\" at <.Nothing.More>: nil pointer evaluating More",
        ),
        (
            "{{index .Empty 1}}",
            "template: :1:3: executing \"\" at <index>: error calling index: index out of range: 1",
        ),
        (
            "{{lower 5}}",
            "template: :1:3: executing \"\" at <lower>: wrong type for value of lower; expected string; got int",
        ),
        (
            "{{range .Name}}{{end}}",
            "template: :1:9: executing \"\" at <.Name>: range can't iterate over some name",
        ),
        (
            r#"{{define "t"}}{{template "t"}}{{end}}{{template "t"}}"#,
            "template: :1:17: executing \"\" at <{{template \"t\"}}>: exceeded maximum template depth",
        ),
        (
            "{{range 99999999999}}{{end}}",
            "template: :1:9: executing \"\" at <99999999999>: the loop has too many rounds",
        ),
    ] {
        let error = Template::parse(template, Json::Compact)
            .and_then(|template| template.render(&value()))
            .map_err(|error| error.to_string());
        assert_eq!(error, Err(expected.to_owned()), "{template}");
    }
}

#[test]
fn what_a_template_looks_at_is_known() {
    let uses = |template: &str| Template::parse(template, Json::Compact).unwrap();
    assert!(uses("{{with .A}}{{.B}}{{end}}").uses("A"));
    assert!(uses("{{json $.A}}").uses("A"));
    assert!(!uses("{{json $.A}}").uses_whole());
    assert!(uses("{{json .}}").uses_whole() && uses("{{json $}}").uses_whole());
    assert!(!uses("A").uses("A"));
}

proptest::proptest! {
    #[test]
    fn no_template_makes_it_panic(template in r"(\{\{[ .$a-zA-Z0-9:=|()'\x22%-]{0,12}(if|range|index|slice|printf|end|json)?[ .$a-zA-Z0-9|()]{0,12}\}\}|x){0,4}") {
        let _ = Template::parse(&template, Json::Indented).and_then(|template| template.render(&value()));
    }
}
