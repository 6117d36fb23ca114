//! Sources that must be signed: those of a definition, and those of which a policy demands it.

use proto::control::SolveRequest;
use proto::pb;
use proto::sourcepolicy::{Policy, PolicyAction, Rule, Selector, Update};
use tests::api::Api;
use tests::daemon;
use tests::git_server::{GitServer, Manner};
use tests::llb::Llb;
use tests::needs::{Need, given};
use tests::web::{Reply, WebServer};
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

/// What GnuPG signed for the daemon's own tests.
macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!(
            "../../../builderd/src/sources/signature/fixtures/",
            $name
        ))
    };
}

const KEY: &str = fixture!("ed25519.key");
const OTHER_KEY: &str = fixture!("rsa2048.key");

fn attributes(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

/// Builds what is at a source, after a policy has added something to it.
fn build(
    world: &World,
    identifier: &str,
    own: &[(&str, &str)],
    added: &[(&str, &str)],
) -> Result<(), String> {
    static BUILDS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = BUILDS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut llb = Llb::default();
    let source = pb::SourceOp {
        identifier: identifier.to_owned(),
        attrs: attributes(own).into_iter().collect(),
    };
    let source = llb.add(pb::op::Op::Source(source), Vec::new());
    llb.needs(&source, "source.git.signatureverify");
    llb.needs(&source, "source.http.signatureverify");
    let rule = Rule {
        action: PolicyAction::Convert.into(),
        selector: Some(Selector {
            identifier: identifier.to_owned(),
            ..Selector::default()
        }),
        updates: Some(Update {
            identifier: identifier.to_owned(),
            attrs: attributes(added).into_iter().collect(),
        }),
    };
    let request = SolveRequest {
        r#ref: format!("signature{number}"),
        definition: Some(llb.with_result(source)),
        source_policy: Some(Policy {
            version: 1,
            rules: Vec::from_iter((!added.is_empty()).then_some(rule)),
        }),
        ..SolveRequest::default()
    };
    let api = Api::connect(&daemon::socket(world.folder()));
    let built = api.solve(request).map_err(|status| status.message().to_owned());
    built.map(drop)
}

#[test]
fn a_file_is_used_if_it_is_signed_as_a_definition_or_a_policy_demands() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let server = WebServer::start(|request| match request.path.as_str() {
        "/signed" => Reply::of(fixture!("signed.txt")),
        _ => Reply::of("anything else"),
    });
    let (signed, other) = (server.url("/signed"), server.url("/other"));
    let signature = ("http.sig.signature", fixture!("ed25519.sig"));
    let by = [("http.sig.pubkey", KEY), signature];
    let by_another = [("http.sig.pubkey", OTHER_KEY), signature];
    for (own, added) in [(&by[..], &[][..]), (&[], &by[..])] {
        build(&world, &signed, own, added).unwrap();
        let refused = build(&world, &other, own, added).unwrap_err();
        assert!(refused.contains("the signature is of other content"), "{refused}");
    }
    // It is here by now; that is nothing to those who want it signed by somebody else.
    for (own, added) in [(&by_another[..], &[][..]), (&[], &by_another[..])] {
        let refused = build(&world, &signed, own, added).unwrap_err();
        assert!(refused.contains("is not signed as demanded"), "{refused}");
    }
    build(&world, &other, &[], &[]).unwrap();
    let refused = build(&world, &other, &by, &[]).unwrap_err();
    assert!(refused.contains("the signature is of other content"), "{refused}");
}

#[test]
fn a_repository_is_used_if_it_is_signed_as_a_definition_or_a_policy_demands() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let folder = world.folder().join("served");
    std::fs::create_dir_all(&folder).unwrap();
    let server = GitServer::start(&folder, Manner::Protocol, None);
    server.commit("a.git", &[("a.txt", "signed\n")]);
    for (kind, object, reference) in [
        ("commit", fixture!("commit"), "refs/heads/signed"),
        ("commit", fixture!("unsigned-commit"), "refs/heads/unsigned"),
        ("tag", fixture!("tag"), "refs/tags/v1"),
    ] {
        let path = folder.join("object");
        std::fs::write(&path, object).unwrap();
        let path = path.display().to_string();
        let name = server.git("a.git", &["hash-object", "-w", "-t", kind, &path]);
        server.git("a.git", &["update-ref", reference, &name]);
    }
    let url = server.url("a.git");
    let build = |reference: &str, demands: &[(&str, &str)], by_policy: bool| {
        let identifier = format!("git://{}#{reference}", url.trim_start_matches("http://"));
        let full = ("git.fullurl", url.as_str());
        match by_policy {
            true => build(&world, &identifier, &[full], demands),
            false => build(&world, &identifier, &[&[full], demands].concat(), &[]),
        }
    };
    for by_policy in [false, true] {
        let key = ("git.sig.pubkey", KEY);
        build("signed", &[key], by_policy).unwrap();
        build("v1", &[key, ("git.sig.requiresignedtag", "true")], by_policy).unwrap();
        // Each of these is here already, from a build that did not ask.
        build("unsigned", &[], by_policy).unwrap();
        for (reference, demands, problem) in [
            ("unsigned", &[key][..], "it is not signed"),
            (
                "v1",
                &[key, ("git.sig.ignoresignedtag", "true")],
                "it is not signed",
            ),
            (
                "signed",
                &[("git.sig.pubkey", OTHER_KEY)],
                "none of the given ones",
            ),
            (
                "signed",
                &[key, ("git.sig.requiresignedtag", "true")],
                "a signed one is required",
            ),
        ] {
            let refused = build(reference, demands, by_policy).unwrap_err();
            assert!(refused.contains(problem), "{refused}");
        }
    }
}
