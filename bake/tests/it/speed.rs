//! Many targets are no trouble. The bound is generous: the benchmark has the real one.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::{load, select};

#[test]
fn two_hundred_targets_are_evaluated_at_once() {
    let mut text = String::from(
        "variable \"TAG\" { default = \"latest\" }\nfunction \"tag\" {\n  params = [name]\n  result = [\"example/${name}:${TAG}\"]\n}\ntarget \"base\" {\n  args = { A = upper(TAG) }\n  platforms = [\"linux/amd64\", \"linux/arm64\"]\n}\n",
    );
    let mut names = Vec::new();
    for number in 0..200 {
        write!(
            text,
            "target \"t{number}\" {{\n  inherits = [\"base\"]\n  tags = tag(\"t{number}\")\n  args = {{ N = {number} * 2, J = join(\",\", [for i in range(10) : \"x${{i}}\"]) }}\n}}\n"
        )
        .unwrap();
        names.push(format!("\"t{number}\""));
    }
    writeln!(text, "group \"default\" {{ targets = [{}] }}", names.join(", ")).unwrap();
    let started = Instant::now();
    let definition = load("f.hcl", &text).unwrap();
    let selection = select(&definition, &["default"], &[]).unwrap();
    let json = selection.json();
    let took = started.elapsed();
    assert_eq!(selection.targets.len(), 200);
    assert!(json.contains("x9"));
    assert!(took < Duration::from_secs(5), "{took:?}");
}
