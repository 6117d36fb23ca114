//! Any bytes as a definition (LLB). Mutations break the digests that tie operations together, so each input is tried as
//! it is and with its inputs tied anew to operations before them.
#![no_main]

use builderd::graph::{Graph, digest_of};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::pb;

fuzz_target!(|data: &[u8]| {
    let Ok(mut definition) = pb::Definition::decode(data) else {
        return;
    };
    load(&definition);
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
    load(&definition);
});

fn load(definition: &pb::Definition) {
    let mut graph = Graph::default();
    let Ok(output) = graph.load(definition) else {
        return;
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
}
