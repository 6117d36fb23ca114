//! Steps whose only way to the network is the daemon's proxy.

use std::path::{Path, PathBuf};

use proto::control::{BuildHistoryRecord, Exporter, SolveRequest};
use proto::pb;
use proto::sourcepolicy::{Policy, PolicyAction, Rule, Selector, Update};
use serde_json::{Value, json};
use tests::api::Api;
use tests::daemon;
use tests::distribution::digest_of;
use tests::llb::Llb;
use tests::needs::{Need, given};
use tests::programs::installed;
use tests::web::{Reply, WebServer};
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

struct Steps {
    world: World,
    server: WebServer,
    builds: u32,
}

/// What a build came to.
struct Built {
    log: String,
    error: Option<String>,
    provenance: Value,
}

impl Steps {
    /// The server is on the machine of the daemon, which only steps with its network reach.
    fn new() -> Self {
        Self {
            world: World::with_daemon(&["--executor", "native", "--oci-worker-net=host"]),
            server: WebServer::start(|request| match request.path.as_str() {
                "/missing" => Reply::status(404),
                path => Reply::of(path),
            }),
            builds: 0,
        }
    }

    fn api(&self) -> Api {
        Api::connect(&daemon::socket(self.world.folder()))
    }

    /// Runs a script as the one step of a build; in it, `@` is the server's address.
    fn run(&mut self, script: &str, change: impl FnOnce(&mut SolveRequest)) -> Built {
        self.builds += 1;
        let mut llb = Llb::default();
        let base = llb.image(&self.world.image("base"));
        let root = llb.run(base, &script.replace('@', &self.server.url("")));
        let mut request = SolveRequest {
            r#ref: format!("proxied{}", self.builds),
            definition: Some(llb.with_result(root)),
            proxy_network: true,
            exporters: vec![Exporter {
                r#type: "image".to_owned(),
                attrs: [("name".to_owned(), self.world.image("proxied"))].into(),
            }],
            ..SolveRequest::default()
        };
        change(&mut request);
        let reference = request.r#ref.clone();
        let api = self.api();
        let solved = api.solve(request);
        let messages = api.status(&reference).unwrap();
        let lines = messages.iter().flat_map(|message| &message.logs);
        let record = api.records(&[&format!("ref=={reference}")]).unwrap();
        Built {
            log: lines.map(|line| String::from_utf8_lossy(&line.msg)).collect(),
            error: solved.err().map(|status| status.message().to_owned()),
            provenance: record
                .first()
                .map_or(Value::Null, |record| provenance(&api, record)),
        }
    }

    fn rule(&self, action: PolicyAction, from: &str, to: Option<&str>) -> Policy {
        Policy {
            version: 1,
            rules: vec![Rule {
                action: action.into(),
                selector: Some(Selector {
                    identifier: self.server.url(from),
                    ..Selector::default()
                }),
                updates: to.map(|to| Update {
                    identifier: self.server.url(to),
                    ..Update::default()
                }),
            }],
        }
    }

    fn asked(&self) -> Vec<String> {
        let seen = self.server.seen();
        seen.into_iter().map(|request| request.path).collect()
    }
}

fn provenance(api: &Api, record: &BuildHistoryRecord) -> Value {
    let result = record.result.iter().chain(record.results.values());
    let attestation = result.flat_map(|result| &result.attestations).next();
    attestation.map_or(Value::Null, |attestation| {
        serde_json::from_slice(&api.blob(&attestation.digest, 0, 0).unwrap()).unwrap()
    })
}

impl Built {
    fn succeeded(self) -> Self {
        assert_eq!(self.error, None, "{}", self.log);
        self
    }

    /// The materials that lie at the server.
    fn materials(&self, server: &WebServer) -> Vec<(String, String)> {
        let all = self.provenance["buildDefinition"]["resolvedDependencies"].as_array();
        let all = all.unwrap().iter();
        let named = all.map(|one| {
            (
                one["uri"].as_str().unwrap().to_owned(),
                format!("sha256:{}", one["digest"]["sha256"].as_str().unwrap()),
            )
        });
        named
            .filter(|(uri, _)| uri.starts_with(&server.url("")))
            .collect()
    }

    fn metadata(&self) -> &Value {
        &self.provenance["runDetails"]["metadata"]
    }
}

#[test]
fn requests_of_steps_are_passed_on_and_told_in_the_provenance() {
    if !given(&NEEDS) {
        return;
    }
    let mut steps = Steps::new();
    let script = "env NO_PROXY= no_proxy= wget -q -O- @/good | grep -x /good";
    let url = steps.server.url("/good");
    let material = (url.clone(), digest_of(b"/good"));
    let built = steps.run(script, |_| {}).succeeded();
    let summary = format!("proxy network requests:\n- GET {url} -> 200\n");
    assert!(built.log.contains(&summary), "{}", built.log);
    assert_eq!(built.materials(&steps.server), std::slice::from_ref(&material));
    assert_eq!(
        built.metadata()["buildkit_metadata"]["network"],
        json!({ "mode": "proxy" })
    );
    assert_eq!(
        built.metadata()["buildkit_completeness"]["resolvedDependencies"],
        true
    );
    assert_eq!(steps.asked(), ["/good"]);

    // From the records, with what it was made from; and not in a build whose steps see another world.
    let again = steps.run(script, |_| {}).succeeded();
    assert_eq!(again.materials(&steps.server), [material]);
    assert_eq!(steps.asked(), ["/good"]);
    let direct = steps
        .run(script, |request| request.proxy_network = false)
        .succeeded();
    assert_eq!(direct.materials(&steps.server), []);
    assert_eq!(direct.metadata()["buildkit_metadata"]["network"], Value::Null);
    assert_eq!(steps.asked(), ["/good", "/good"]);

    // What was not fetched as a whole is named, and refused where all must be known.
    let missing = "env NO_PROXY= no_proxy= wget -q -O- @/missing || true";
    let url = steps.server.url("/missing");
    let incomplete = steps.run(missing, |_| {}).succeeded();
    let told = &incomplete.metadata()["buildkit_metadata"]["network"]["proxy"]["incomplete"][0];
    assert_eq!(
        (&told["uri"], &told["reason"]),
        (&json!(url), &json!("unsuccessful_response")),
        "{told}"
    );
    let refused = steps.run(missing, |request| {
        let wish = (
            "attest:provenance".to_owned(),
            "complete-materials=true".to_owned(),
        );
        request.frontend_attrs.extend([wish]);
    });
    let error = refused.error.unwrap();
    assert!(
        error.contains("provenance materials are incomplete") && error.contains(&url),
        "{error}"
    );
}

#[test]
fn policies_hold_for_requests_of_steps() {
    if !given(&NEEDS) {
        return;
    }
    let mut steps = Steps::new();
    let deny = steps.rule(PolicyAction::Deny, "/bad*", None);
    let script = "env NO_PROXY= no_proxy= wget -S -O- @/bad1";
    let denied = steps.run(script, |request| request.source_policy = Some(deny));
    assert!(denied.error.unwrap().contains("exit code: 1"));
    assert!(denied.log.contains("403 Forbidden"), "{}", denied.log);
    assert_eq!(steps.asked(), Vec::<String>::new());

    let other = steps.rule(PolicyAction::Convert, "/old", Some("/new"));
    let script = "env NO_PROXY= no_proxy= wget -q -O- @/old | grep -x /new";
    let converted = steps
        .run(script, |request| request.source_policy = Some(other))
        .succeeded();
    let new = (steps.server.url("/new"), digest_of(b"/new"));
    assert_eq!(converted.materials(&steps.server), [new]);
    assert_eq!(steps.asked(), ["/new"]);
}

#[test]
fn there_is_no_other_way_out() {
    if !given(&NEEDS) {
        return;
    }
    let mut steps = Steps::new();
    let port = steps.server.address().rsplit_once(':').unwrap().1.to_owned();
    let direct = format!(
        "unset HTTP_PROXY http_proxy HTTPS_PROXY https_proxy; \
         ! wget -q -O- @/direct && ! nc -w 2 127.0.0.1 {port} </dev/null && ! ping -c 1 -W 1 10.0.0.1 && \
         test \"$(ls /sys/class/net)\" = lo"
    );
    steps.run(&direct, |_| {}).succeeded();
    let none = "! env | grep -i ^http_proxy && ! wget -q -O- @/none";
    steps
        .run(none, |request| {
            let definition = request.definition.as_mut().unwrap();
            *definition = without_network(definition);
        })
        .succeeded();
    assert_eq!(steps.asked(), Vec::<String>::new());
}

/// The definition with a step that asks for no network.
fn without_network(definition: &pb::Definition) -> pb::Definition {
    use prost::Message as _;
    let mut operations: Vec<pb::Op> = definition
        .def
        .iter()
        .map(|bytes| pb::Op::decode(&bytes[..]).unwrap())
        .collect();
    let mut llb = Llb::default();
    let end = operations.pop().unwrap();
    let mut last = end.inputs[0].clone();
    for mut operation in operations {
        if let Some(pb::op::Op::Exec(step)) = &mut operation.op {
            step.network = pb::NetMode::None.into();
        }
        last = llb.add(operation.op.unwrap(), operation.inputs);
    }
    llb.with_result(last)
}

#[test]
fn steps_trust_the_proxy_and_nothing_of_that_stays() {
    if !given(&NEEDS) {
        return;
    }
    let arguments = [
        "--executor",
        "native",
        "--proxy-network",
        "--allow-insecure-entitlement=network.host",
    ];
    let world = World::with_daemon(&arguments);
    let server = WebServer::start(|_| Reply::of("here"));
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let shown = format!("grep -q 'proxy CA begin' {bundle}");
    let wget = format!("env NO_PROXY= no_proxy= wget -q -O- {}", server.url("/file"));
    let dockerfile = format!(
        "FROM @base@ AS steps\n\
         COPY bundle {bundle}\n\
         RUN {shown} && grep -x one {bundle}\n\
         RUN --network=none ! {shown}\n\
         # The machine of the daemon is no part of the network of steps that do not ask for it.\n\
         RUN ! {wget}\n\
         RUN --network=host {wget} | grep -x here\n\
         RUN echo two >> {bundle} && {shown}\n\
         RUN --network=none test \"$(cat {bundle})\" = \"$(printf 'one\\ntwo')\"\n\
         RUN echo new > /tmp/new && mv /tmp/new {bundle}\n\
         FROM scratch\n\
         COPY --from=steps {bundle} /\n"
    );
    let files = [("Dockerfile", dockerfile.as_str()), ("bundle", "one\n")];
    let context = world.context("context", &files);
    let output = world.folder().join("output");
    let built = world.build(
        &context,
        &["--allow=network.host", "-o", output.to_str().unwrap()],
    );
    built.succeeded().said(&["-> 502", "-> 200"]);
    let left = std::fs::read_to_string(output.join("ca-certificates.crt")).unwrap();
    assert_eq!(left, "new\n");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn encrypted_requests_are_read_by_programs_that_check_certificates() {
    if !given(&NEEDS) || !given(&[Need::Curl]) {
        return;
    }
    let world = World::with_daemon(&["--executor", "native", "--proxy-network"]);
    // The answer is the proxy's own, and it comes through only if the certificate that it shows is trusted.
    let dockerfile = "FROM @base@\n\
         COPY root /\n\
         COPY bundle /etc/ssl/certs/ca-certificates.crt\n\
         RUN curl -sS --noproxy none -o /dev/null -w '%{http_code}' https://localhost:1/file | grep -x 502\n\
         RUN --network=none test \"$(cat /etc/ssl/certs/ca-certificates.crt)\" = '# none'\n";
    let context = world.context("context", &[("Dockerfile", dockerfile), ("bundle", "# none\n")]);
    let curl = installed("curl").unwrap();
    let root = context.join("root");
    for path in libraries(&curl).into_iter().chain([curl]) {
        let copy = root.join(path.strip_prefix("/").unwrap());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(&path, copy).unwrap();
    }
    world
        .build(&context, &[])
        .succeeded()
        .said(&["- GET https://localhost:1/file -> 502"]);
}

/// What a program is linked with.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = std::process::Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}
