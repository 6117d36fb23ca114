use super::*;

fn source(identifier: &str) -> pb::Op {
    pb::Op {
        op: Some(pb::op::Op::Source(pb::SourceOp {
            identifier: identifier.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn input_of(op: &pb::Op, index: i64) -> pb::Input {
    pb::Input {
        digest: digest_of(&op.encode_to_vec()),
        index,
    }
}

fn copy(inputs: Vec<pb::Input>, first: i64, second: i64) -> pb::Op {
    let action = pb::file_action::Action::Copy(pb::FileActionCopy {
        src: "/a".to_owned(),
        dest: "/b".to_owned(),
        ..Default::default()
    });
    let action = pb::FileAction {
        input: first,
        secondary_input: second,
        output: 0,
        action: Some(action),
    };
    pb::Op {
        inputs,
        op: Some(pb::op::Op::File(pb::FileOp {
            actions: vec![action],
        })),
        ..Default::default()
    }
}

fn definition(ops: &[&pb::Op], head: pb::Input) -> pb::Definition {
    let terminal = pb::Op {
        inputs: vec![head],
        ..Default::default()
    };
    pb::Definition {
        def: ops
            .iter()
            .copied()
            .chain([&terminal])
            .map(|op| op.encode_to_vec().into())
            .collect(),
        ..Default::default()
    }
}

#[test]
fn what_two_definitions_have_in_common_is_one_vertex() {
    let base = source("docker-image://docker.io/library/a:latest");
    let context = source("local://context");
    let step = copy(vec![input_of(&base, 0), input_of(&context, 0)], 0, 1);
    let mut graph = Graph::default();
    let first = graph
        .load(&definition(&[&base, &context, &step], input_of(&step, 0)))
        .expect("valid");
    let second = graph
        .load(&definition(&[&base], input_of(&base, 0)))
        .expect("valid");
    assert_eq!(graph.len(), 3);
    assert_eq!(first, Some(Edge { vertex: 2, output: 0 }));
    assert_eq!(second, Some(Edge { vertex: 0, output: 0 }));
    assert_eq!(graph.vertex(2).name, "copy /a /b");
    assert_eq!(
        graph.vertex(2).inputs,
        [Edge { vertex: 0, output: 0 }, Edge { vertex: 1, output: 0 }]
    );
}

#[test]
fn an_empty_definition_is_scratch() {
    assert_eq!(
        Graph::default().load(&pb::Definition::default()).expect("valid"),
        None
    );
}

#[test]
fn hostile_definitions_are_refused() {
    let base = source("docker-image://a");
    let head = || input_of(&base, 0);
    let no_kind = pb::Op::default();
    let mut torn = definition(&[&base], head());
    torn.def[0] = vec![0xff, 0xff].into();
    let mut two_heads = definition(&[&base], head());
    two_heads.def[1] = pb::Op {
        inputs: vec![head(), head()],
        ..Default::default()
    }
    .encode_to_vec()
    .into();
    let forward = copy(vec![input_of(&base, 0)], 0, -1);
    let wild = copy(vec![head()], 7, -1);
    let negative = copy(vec![input_of(&base, -1)], 0, -1);
    for (case, definition, expected) in [
        ("torn", torn, "invalid definition: operation 0 cannot be decoded"),
        (
            "two heads",
            two_heads,
            "invalid definition: the last operation must have exactly one input and no kind",
        ),
        (
            "users before inputs",
            definition(&[&forward, &base], input_of(&forward, 0)),
            "which does not come before it",
        ),
        (
            "unknown input of an action",
            definition(&[&base, &wild], input_of(&wild, 0)),
            "a file action names an input that does not exist",
        ),
        (
            "negative output",
            definition(&[&base, &negative], input_of(&negative, 0)),
            "uses output -1 of an input",
        ),
        (
            "output that is not there",
            definition(&[&base], input_of(&base, 3)),
            "uses output 3 of an input",
        ),
        ("no kind", definition(&[&no_kind, &base], head()), "has no kind"),
    ] {
        let error = Graph::default().load(&definition).expect_err(case).to_string();
        assert!(error.contains(expected), "{case}: {error}");
    }
}

#[test]
fn a_definition_may_be_deep_but_not_endless() {
    // Each operation uses the one before it: neither loading nor dropping them recurses.
    let mut operations = vec![source("docker-image://a")];
    for _ in 0..50_000 {
        let below = operations.last().map(|below| input_of(below, 0)).unwrap();
        operations.push(copy(vec![below], 0, -1));
    }
    let references: Vec<&pb::Op> = operations.iter().collect();
    let head = input_of(references[references.len() - 1], 0);
    let mut graph = Graph::default();
    let edge = graph
        .load(&definition(&references, head.clone()))
        .unwrap()
        .unwrap();
    assert_eq!(edge.vertex, 50_000);

    let mut endless = definition(&references, head);
    endless.def = vec![endless.def[0].clone(); 1_000_001];
    let error = Graph::default().load(&endless).unwrap_err();
    assert!(matches!(error, LoadError::TooLarge(1_000_000)), "{error}");
}

#[test]
fn only_bind_mounts_are_outputs() {
    let mount = |dest: &str, kind: pb::MountType| pb::Mount {
        input: -1,
        dest: dest.to_owned(),
        mount_type: kind.into(),
        secret_opt: (kind == pb::MountType::Secret).then(pb::SecretOpt::default),
        ..pb::Mount::default()
    };
    let step = |mounts| pb::Op {
        op: Some(pb::op::Op::Exec(pb::ExecOp {
            meta: Some(pb::Meta {
                args: vec!["/x".to_owned()],
                ..pb::Meta::default()
            }),
            mounts,
            ..pb::ExecOp::default()
        })),
        ..pb::Op::default()
    };
    // As BuildKit's client library writes it: the number of the secret says nothing.
    let good = step(vec![
        mount("/", pb::MountType::Bind),
        mount("/secret", pb::MountType::Secret),
    ]);
    let mut graph = Graph::default();
    graph.load(&definition(&[&good], input_of(&good, 0))).unwrap();
    let error = graph.load(&definition(&[&good], input_of(&good, 1))).unwrap_err();
    assert!(matches!(error, LoadError::BadIndex { .. }), "{error}");
    let twice = step(vec![
        mount("/", pb::MountType::Bind),
        mount("/a", pb::MountType::Bind),
    ]);
    let error = graph
        .load(&definition(&[&twice], input_of(&twice, 0)))
        .unwrap_err();
    assert!(
        error.to_string().contains("two mounts are the same output"),
        "{error}"
    );
}

#[test]
fn a_name_does_not_double_with_every_operation() {
    let mut operations = vec![source("docker-image://a")];
    for _ in 0..100 {
        let below = operations.last().map(|below| input_of(below, 0)).unwrap();
        operations.push(pb::Op {
            inputs: vec![below.clone(), below],
            op: Some(pb::op::Op::Merge(pb::MergeOp {
                inputs: vec![pb::MergeInput { input: 0 }, pb::MergeInput { input: 1 }],
            })),
            ..pb::Op::default()
        });
    }
    let references: Vec<&pb::Op> = operations.iter().collect();
    let head = input_of(references[100], 0);
    let mut graph = Graph::default();
    graph.load(&definition(&references, head)).unwrap();
    assert_eq!(
        graph.vertex(2).name,
        "merge (merge (docker-image://a, docker-image://a), merge (docker-image://a, docker-image://a))"
    );
    assert!(graph.vertex(100).name.len() < 1100, "{}", graph.vertex(100).name);
}

#[test]
fn an_operation_cannot_use_itself() {
    let base = source("docker-image://a");
    let mut circle = copy(vec![input_of(&base, 0)], 0, -1);
    // No operation can hold its own digest, so a circle is always an input that is not there.
    circle.inputs[0] = input_of(&circle.clone(), 0);
    let error = Graph::default()
        .load(&definition(&[&base, &circle], input_of(&circle, 0)))
        .unwrap_err();
    assert!(matches!(error, LoadError::MissingInput { .. }), "{error}");
}
