//! Source policies: rules that come with a build and say which sources it may use, and what to use in their place.

use proto::control::SolveRequest;
use proto::sourcepolicy::{AttrConstraint, MatchType, Policy, PolicyAction, Rule, Selector, Update};
use tests::api::Api;
use tests::daemon;
use tests::distribution::digest_of;
use tests::llb::Llb;
use tests::needs::{Need, given};
use tests::web::{Reply, WebServer};
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

struct Downloads {
    world: World,
    server: WebServer,
    builds: u32,
}

impl Downloads {
    fn new() -> Self {
        Self {
            world: World::new(),
            server: WebServer::start(|request| Reply::of(request.path.clone())),
            builds: 0,
        }
    }

    /// Builds from the file at `path`, and returns what was asked of the server.
    fn build(&mut self, path: &str, rules: Vec<Rule>) -> Result<Vec<String>, String> {
        self.builds += 1;
        let before = self.server.seen().len();
        let mut llb = Llb::default();
        let file = llb.download(&self.server.url(path), "file");
        let request = SolveRequest {
            r#ref: format!("policy{}", self.builds),
            definition: Some(llb.with_result(file)),
            source_policy: Some(Policy { version: 1, rules }),
            ..SolveRequest::default()
        };
        let api = Api::connect(&daemon::socket(self.world.folder()));
        let built = api.solve(request);
        built.map_err(|status| status.message().to_owned())?;
        let seen = self.server.seen();
        Ok(seen[before..]
            .iter()
            .map(|request| request.path.clone())
            .collect())
    }

    fn rule(&self, action: PolicyAction, path: &str) -> Rule {
        Rule {
            action: action.into(),
            selector: Some(Selector {
                identifier: self.server.url(path),
                ..Selector::default()
            }),
            updates: None,
        }
    }

    fn convert(&self, from: &str, to: &str, checksum: Option<String>) -> Rule {
        Rule {
            updates: Some(Update {
                identifier: self.server.url(to),
                attrs: checksum
                    .into_iter()
                    .map(|digest| ("http.checksum".to_owned(), digest))
                    .collect(),
            }),
            ..self.rule(PolicyAction::Convert, from)
        }
    }
}

#[test]
fn what_a_policy_denies_is_not_asked_for() {
    if !given(&NEEDS) {
        return;
    }
    let mut downloads = Downloads::new();
    let all_but_one = vec![
        downloads.rule(PolicyAction::Deny, "/*"),
        downloads.rule(PolicyAction::Allow, "/good"),
    ];
    let refused = downloads.build("/bad", all_but_one.clone()).unwrap_err();
    assert!(refused.contains("denied by policy"), "{refused}");
    assert!(refused.contains("/bad"), "{refused}");
    assert!(downloads.server.seen().is_empty());
    assert_eq!(downloads.build("/good", all_but_one).unwrap(), ["/good"]);

    let mut named = downloads.rule(PolicyAction::Deny, "/[a-c]+");
    if let Some(selector) = &mut named.selector {
        selector.match_type = MatchType::Regex.into();
        selector.constraints = vec![AttrConstraint {
            key: "http.filename".to_owned(),
            value: "file".to_owned(),
            ..AttrConstraint::default()
        }];
    }
    let refused = downloads.build("/abc", vec![named.clone()]).unwrap_err();
    assert!(refused.contains("denied by policy"), "{refused}");
    if let Some(selector) = &mut named.selector {
        selector.constraints[0].value = "another".to_owned();
    }
    assert_eq!(downloads.build("/abc", vec![named]).unwrap(), ["/abc"]);
}

#[test]
fn a_policy_puts_other_sources_in_the_place_of_some() {
    if !given(&NEEDS) {
        return;
    }
    let mut downloads = Downloads::new();
    let other = downloads.convert("/old", "/new", None);
    assert_eq!(downloads.build("/old", vec![other.clone()]).unwrap(), ["/new"]);

    // A checksum that the policy adds holds as if the definition had given it.
    let pinned = |downloads: &Downloads, digest| downloads.convert("/pinned", "/pinned", Some(digest));
    let right = pinned(&downloads, digest_of(b"/pinned"));
    downloads.build("/pinned", vec![right]).unwrap();
    let wrong = pinned(&downloads, digest_of(b"/other"));
    let refused = downloads.build("/pinned", vec![wrong]).unwrap_err();
    assert!(refused.contains("digest mismatch"), "{refused}");

    // What is put in its place must be allowed too, and a circle of replacements ends.
    let denied = vec![other.clone(), downloads.rule(PolicyAction::Deny, "/new")];
    let refused = downloads.build("/old", denied).unwrap_err();
    assert!(refused.contains("denied by policy"), "{refused}");
    let back = downloads.convert("/new", "/old", None);
    let refused = downloads.build("/old", vec![other, back]).unwrap_err();
    assert!(refused.contains("converted again and again"), "{refused}");
    assert_eq!(downloads.build("/after", Vec::new()).unwrap(), ["/after"]);
}
