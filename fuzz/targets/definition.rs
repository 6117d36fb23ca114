//! Any bytes as a definition (LLB), on all its ways: loaded, under rules about its sources, and as part of another one.
//! Mutations break the digests that tie operations together, so each input is tried as it is and with its inputs tied
//! anew to operations before them.
#![no_main]

use std::sync::LazyLock;

use builderd::graph::builder::Builder;
use builderd::graph::{Graph, digest_of};
use builderd::solver::Rules;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::pb;
use proto::sourcepolicy::{Policy, PolicyAction, Rule, Selector, Update};

/// Images come from a web server.
static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let selector = Selector {
        identifier: "docker-image://*".to_owned(),
        ..Selector::default()
    };
    let update = Update {
        identifier: "http://mirror.example/${1}".to_owned(),
        attrs: [("http.filename".to_owned(), "image".to_owned())].into(),
    };
    let rule = Rule {
        action: PolicyAction::Convert.into(),
        selector: Some(selector),
        updates: Some(update),
    };
    let rules = vec![rule];
    Rules::new([&Policy { version: 1, rules }]).expect("the rules make sense")
});

fuzz_target!(|data: &[u8]| {
    let Ok(mut definition) = pb::Definition::decode(data) else {
        return;
    };
    all_ways(&definition);
    let mut digests: Vec<String> = Vec::new();
    for bytes in &mut definition.def {
        if let Ok(mut op) = pb::Op::decode(&bytes[..])
            && !digests.is_empty()
        {
            for input in &mut op.inputs {
                let number = input.digest.bytes().map(usize::from).sum::<usize>() % digests.len();
                input.digest.clone_from(&digests[number]);
            }
            *bytes = op.encode_to_vec().into();
        }
        digests.push(digest_of(bytes));
    }
    all_ways(&definition);
});

fn all_ways(definition: &pb::Definition) {
    let is_good = load(definition);
    if let Ok(Some(rewritten)) = RULES.rewrite(definition) {
        load(&rewritten.definition);
        let again = RULES.rewrite(&rewritten.definition);
        let again = again.expect("what was converted is allowed");
        assert!(again.is_none(), "and is not converted again");
    }
    let mut builder = Builder::default();
    let imported = builder.import(definition);
    if is_good {
        assert_eq!(imported.is_some(), !definition.def.is_empty());
        assert!(
            load(&builder.definition(imported, None)),
            "a part is as good as the whole"
        );
    }
}

/// Whether it is accepted.
fn load(definition: &pb::Definition) -> bool {
    let mut graph = Graph::default();
    let Ok(output) = graph.load(definition) else {
        return false;
    };
    let again = graph
        .load(definition)
        .expect("what was loaded once can be loaded again");
    assert_eq!(output, again);
    for index in 0..graph.len() {
        let vertex = graph.vertex(index);
        for input in &vertex.inputs {
            assert!(input.vertex < index, "inputs come before their users");
            let outputs = builderd::graph::outputs(&graph.vertex(input.vertex).op);
            assert!(input.output < outputs, "an input is an output of somebody");
        }
    }
    true
}
