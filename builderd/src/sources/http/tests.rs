//! A server that says what it is told to, and what becomes of it.

mod signed;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::progress::Progress;
use crate::session::{Sessions, tests as client};

/// Answers each request with what `answer` makes of it; an empty answer leaves the client waiting.
struct Server {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Server {
    async fn start<A: Into<Vec<u8>> + 'static>(
        answer: impl Fn(&str, usize) -> A + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut serving = JoinSet::new();
        let log = Arc::clone(&seen);
        serving.spawn(async move {
            let mut waiting = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut piece = [0; 1024];
                    let length = stream.read(&mut piece).await.unwrap();
                    assert!(length > 0, "the client hung up");
                    request.extend_from_slice(&piece[..length]);
                }
                let request = String::from_utf8(request).unwrap().to_lowercase();
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push(request.clone());
                    log.len()
                };
                let answer: Vec<u8> = answer(&request, number).into();
                stream.write_all(&answer).await.unwrap();
                if answer.is_empty() {
                    waiting.push(stream);
                }
            }
        });
        Self {
            address,
            seen,
            _serving: serving,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn ok(headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 X\r\nConnection: close\r\nContent-Length: 0\r\nLocation: {to}\r\n\r\n")
}

struct World {
    _folder: tempfile::TempDir,
    store: Store,
    downloader: Downloader,
    sessions: Arc<Sessions>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        let mut downloader = Downloader::default();
        downloader.limits.pause = Duration::from_millis(1);
        Self {
            _folder: folder,
            store,
            downloader,
            sessions: Sessions::new(),
        }
    }

    async fn load(&self, url: &str, attributes: &[(&str, &str)]) -> Result<Loaded, String> {
        let attrs = attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let source = HttpSource::parse(&pb::SourceOp {
            identifier: url.to_owned(),
            attrs: attrs.collect(),
        })
        .map_err(|error| proto::chain(&error))?;
        let known: Vec<String> = vec!["client".to_owned()];
        let sessions = self.sessions.group(known);
        let log = Progress::default().internal_vertex("http");
        let request = Request {
            downloader: &self.downloader,
            source,
            sessions: &sessions,
            store: &self.store,
            log: &log,
        };
        let loaded = async {
            let loaded = request.load().await?;
            request.verify(&loaded).await.map(|()| loaded)
        };
        loaded.await.map_err(|error| proto::chain(&error))
    }

    fn path(&self, loaded: &Loaded) -> PathBuf {
        self.store
            .layer_folder(&loaded.snapshot.layers()[0])
            .join(&loaded.name)
    }

    fn content(&self, loaded: &Loaded) -> String {
        fs::read_to_string(self.path(loaded)).unwrap()
    }
}

/// Without a session a build waits for it, so each test has one.
async fn with_client() -> (World, tokio::task::JoinHandle<()>) {
    let world = World::new();
    let session = client::open(&world.sessions, "client", client::Client::default()).await;
    (world, session)
}

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

#[tokio::test]
async fn a_file_is_asked_for_again_only_if_it_has_changed() {
    let (world, _session) = with_client().await;
    for (tag, condition) in [
        ("ETag: \"one\"\r\n", "if-none-match: \"one\""),
        ("ETag: W/\"one\"\r\n", "if-none-match: \"one\""),
        (
            "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            "if-modified-since: sun, 06 nov 1994 08:49:37 gmt",
        ),
    ] {
        let server = Server::start(move |request, number| match number {
            1 => ok(tag, "content"),
            _ if request.contains(condition) => "HTTP/1.1 304 X\r\nConnection: close\r\n\r\n".to_owned(),
            _ => ok("", "nobody asked for this"),
        })
        .await;
        let first = world.load(&server.url("/a"), &[]).await.unwrap();
        let second = world.load(&server.url("/a"), &[]).await.unwrap();
        assert_eq!((first.cached, second.cached), (false, true), "{tag}");
        assert_eq!(first.snapshot, second.snapshot);
        assert_eq!(
            (world.content(&second).as_str(), second.name.as_str()),
            ("content", "a")
        );
    }
    // A server that gives tags and does not look at them: nothing is downloaded nevertheless.
    let server = Server::start(|_, _| ok("ETag: \"one\"\r\n", "content")).await;
    world.load(&server.url("/a"), &[]).await.unwrap();
    assert!(world.load(&server.url("/a"), &[]).await.unwrap().cached);
    // One that says nothing: it is downloaded, and is the same layer.
    let server = Server::start(|_, _| ok("", "content")).await;
    let first = world.load(&server.url("/a"), &[]).await.unwrap();
    let second = world.load(&server.url("/a"), &[]).await.unwrap();
    assert!(!second.cached && first.snapshot == second.snapshot);
    // And one whose file changes.
    let server = Server::start(|_, number| ok(&format!("ETag: \"{number}\"\r\n"), &number.to_string())).await;
    world.load(&server.url("/a"), &[]).await.unwrap();
    let second = world.load(&server.url("/a"), &[]).await.unwrap();
    assert_eq!(world.content(&second), "3");
    let methods: Vec<String> = server
        .seen()
        .iter()
        .map(|request| request[..4].to_owned())
        .collect();
    assert_eq!(methods, ["get ", "head", "get "]);
}

#[tokio::test]
async fn a_server_that_knows_no_head_is_asked_for_the_file() {
    let (world, _session) = with_client().await;
    let server = Server::start(|request, number| match number {
        _ if request.starts_with("head") => "HTTP/1.1 405 X\r\nConnection: close\r\n\r\n".to_owned(),
        1 => ok("ETag: \"one\"\r\n", "content"),
        _ => ok("ETag: \"two\"\r\n", "changed"),
    })
    .await;
    world.load(&server.url("/a"), &[]).await.unwrap();
    let second = world.load(&server.url("/a"), &[]).await.unwrap();
    assert_eq!(world.content(&second), "changed");
}

#[tokio::test]
async fn a_file_that_is_packed_for_the_way_is_unpacked() {
    let (world, _session) = with_client().await;
    let content = "many ".repeat(100_000);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, content.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let whole = packed.len();
    for (sent, expected) in [(whole, None), (whole - 9, Some("its gzip encoding is broken"))] {
        let body = packed[..sent].to_vec();
        let server = Server::start(move |request, _| {
            assert!(request.contains("accept-encoding: gzip\r\n"));
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\n";
            [
                format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes(),
                body.clone(),
            ]
            .concat()
        })
        .await;
        let digest = Digest::of(content.as_bytes());
        let loaded = world
            .load(&server.url("/a"), &[("http.checksum", digest.as_str())])
            .await;
        match expected {
            None => assert_eq!(world.content(&loaded.unwrap()), content),
            Some(problem) => assert!(loaded.unwrap_err().contains(problem)),
        }
    }
}

#[tokio::test]
async fn a_demanded_digest_is_checked_and_then_enough() {
    let (world, _session) = with_client().await;
    let server = Server::start(|_, _| ok("", "content")).await;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512] {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(b"content");
        let right = hasher.finish();
        let before = server.seen().len();
        let first = world
            .load(&server.url("/a"), &[("http.checksum", right.as_str())])
            .await
            .unwrap();
        let again = world
            .load(&server.url("/a"), &[("http.checksum", right.as_str())])
            .await
            .unwrap();
        assert!(again.cached && again.snapshot == first.snapshot && again.digest == right);
        assert_eq!(server.seen().len() - before, 1);
    }
    let (found, wanted) = (Digest::of(b"content"), Digest::of(b"other"));
    let error = world
        .load(&server.url("/a"), &[("http.checksum", wanted.as_str())])
        .await
        .unwrap_err();
    let url = server.url("/a");
    assert_eq!(
        error,
        format!("digest mismatch {found}: {wanted} is expected of {url}")
    );
}

#[tokio::test]
async fn the_file_looks_as_it_was_asked_for() {
    let (world, _session) = with_client().await;
    let headers =
        format!("Last-Modified: {DATE}\r\nContent-Disposition: attachment; filename=\"../given.txt\"\r\n");
    let server = Server::start(move |request, _| {
        assert!(request.contains("accept: text/x") || !request.contains("accept: text"));
        ok(&headers, "content")
    })
    .await;
    let plain = world.load(&server.url("/a"), &[]).await.unwrap();
    assert_eq!(plain.name, "given.txt");
    let metadata = fs::metadata(world.path(&plain)).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o600, 784_111_777));
    let attributes = [
        ("http.filename", "x/named"),
        ("http.perm", "0754"),
        ("http.uid", "12"),
        ("http.gid", "34"),
        ("http.header.accept", "text/x"),
        ("http.header.cookie", "not sent"),
    ];
    let named = world.load(&server.url("/a"), &attributes).await.unwrap();
    assert_eq!(named.name, "named");
    let metadata = fs::metadata(world.path(&named)).unwrap();
    assert_eq!(
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid()),
        (0o754, 12, 34)
    );
    assert!(server.seen().iter().all(|request| !request.contains("cookie")));
    let request = Request {
        downloader: &world.downloader,
        source: HttpSource::parse(&pb::SourceOp {
            identifier: server.url("/a"),
            ..pb::SourceOp::default()
        })
        .unwrap(),
        sessions: &world.sessions.group(Vec::<String>::new()),
        store: &world.store,
        log: &Progress::default().internal_vertex("x"),
    };
    let digest = request
        .checksum(&plain, Algorithm::Sha256, b"and more".to_vec())
        .await
        .unwrap();
    assert_eq!(digest, Digest::of(b"contentand more"));
    assert!(
        request
            .checksum(&plain, Algorithm::Sha256, vec![0; 5000])
            .await
            .is_err()
    );
}

#[tokio::test]
async fn credentials_stay_with_the_server_they_are_for() {
    let (world, _session) = with_client().await;
    let other = Server::start(|_, _| ok("", "content")).await;
    let to = other.url("/b");
    let server = Server::start(move |request, _| match request.contains("authorization: hush") {
        true if request.starts_with("get /a ") => redirect("/c"),
        true => redirect(&to),
        false => "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned(),
    })
    .await;
    let secret = [("http.authheadersecret", "known")];
    world.load(&server.url("/a"), &secret).await.unwrap();
    assert_eq!(server.seen().len(), 2);
    assert!(
        other
            .seen()
            .iter()
            .all(|request| !request.contains("authorization"))
    );
    let error = world.load(&server.url("/a"), &[]).await.unwrap_err();
    assert!(
        error.contains("status 401 Unauthorized; if it needs credentials, pass a token with"),
        "{error}"
    );
    let missing = world
        .load(&server.url("/a"), &[("http.authheadersecret", "nope")])
        .await
        .unwrap_err();
    assert!(
        missing.contains("secret nope: the client has none of that name"),
        "{missing}"
    );
    // Those in an address are sent as credentials and shown nowhere.
    let url = server.url("/a").replace("http://", "http://me:pa%20ss@");
    let error = world.load(&url, &[]).await.unwrap_err();
    assert!(!error.contains("pa%20ss"), "{error}");
    let last = server.seen().pop().unwrap();
    assert!(last.contains("authorization: basic bwu6cgegc3m="), "{last}");
}

#[tokio::test]
async fn redirects_end() {
    let (world, _session) = with_client().await;
    let server = Server::start(|_, _| redirect("/a")).await;
    let error = world.load(&server.url("/a"), &[]).await.unwrap_err();
    assert!(error.ends_with("it redirects more than 10 times"), "{error}");
    assert_eq!(server.seen().len(), 11);
    let server = Server::start(|_, _| redirect("file:///etc/passwd")).await;
    let error = world.load(&server.url("/a"), &[]).await.unwrap_err();
    assert!(error.contains("redirects to \"file:///etc/passwd\""), "{error}");
}

#[tokio::test]
async fn a_server_that_stops_half_way_gets_another_chance() {
    let (world, _session) = with_client().await;
    let cut = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\nhalf";
    let server = Server::start(move |_, number| {
        if number < 3 {
            cut.to_owned()
        } else {
            ok("", "whole")
        }
    })
    .await;
    let loaded = world.load(&server.url("/a"), &[]).await.unwrap();
    assert_eq!(
        (world.content(&loaded).as_str(), server.seen().len()),
        ("whole", 3)
    );
    let server = Server::start(move |_, _| cut.to_owned()).await;
    let error = world.load(&server.url("/a"), &[]).await.unwrap_err();
    assert!(error.contains("the server stopped after 4 bytes"), "{error}");
    assert_eq!(server.seen().len(), 3);
    let busy = "HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let server = Server::start(move |_, number| if number < 3 { busy.to_owned() } else { ok("", "x") }).await;
    world.load(&server.url("/a"), &[]).await.unwrap();
    let gone = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let server = Server::start(move |_, _| gone.to_owned()).await;
    let error = world.load(&server.url("/a"), &[]).await.unwrap_err();
    assert_eq!(
        error,
        format!(
            "failed to get {}: invalid response status 404 Not Found",
            server.url("/a")
        )
    );
    assert_eq!(server.seen().len(), 1);
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let error = world.load(&format!("http://{address}/a"), &[]).await.unwrap_err();
    assert!(
        error.starts_with(&format!("failed to get http://{address}/a: ")),
        "{error}"
    );
}

#[tokio::test]
async fn what_a_server_may_cost_is_bounded() {
    let (mut world, _session) = with_client().await;
    world.downloader.limits.patience = Duration::from_millis(100);
    world.downloader.limits.attempts = 2;
    world.downloader.limits.size = 10;
    let server = Server::start(|_, _| String::new()).await;
    let error = world.load(&server.url("/a"), &[]).await.unwrap_err();
    assert!(error.contains("the server was silent for"), "{error}");
    world.downloader.limits.patience = Duration::from_secs(60);
    let unannounced = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\neleven byte";
    for answer in [ok("", "eleven byte"), unannounced.to_owned()] {
        let server = Server::start(move |_, _| answer.clone()).await;
        let error = world.load(&server.url("/a"), &[]).await.unwrap_err();
        assert!(
            error.ends_with("it has more than 10 bytes, the largest file that is taken"),
            "{error}"
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let parse = |identifier: &str, key: &str, value: &str| {
        HttpSource::parse(&pb::SourceOp {
            identifier: identifier.to_owned(),
            attrs: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        })
        .map(|source| source.appearance.mode)
        .map_err(|error| error.to_string())
    };
    assert_eq!(parse("http://e.com/a", "http.perm", "0644"), Ok(Some(0o644)));
    assert_eq!(parse("http://e.com/a", "http.perm", "0o644"), Ok(Some(0o644)));
    assert_eq!(parse("http://e.com/a", "http.perm", "420"), Ok(Some(0o644)));
    for (identifier, key, value, problem) in [
        (
            "http://",
            "x",
            "",
            "\"http://\" is no address of a file: empty host",
        ),
        (
            "http://e.com/a",
            "http.perm",
            "x",
            "invalid value \"x\" of http.perm for an http source: a number",
        ),
        (
            "http://e.com/a",
            "http.checksum",
            "sha256:x",
            "invalid value of http.checksum",
        ),
    ] {
        assert_eq!(parse(identifier, key, value), Err(problem.to_owned()));
    }
}

#[tokio::test]
async fn a_client_hands_over_a_file_once() {
    let (world, _session) = with_client().await;
    let attributes = [("http.filename", "context")];
    let loaded = world
        .load("http://buildkit-session/file", &attributes)
        .await
        .unwrap();
    assert_eq!(
        (world.content(&loaded).as_str(), loaded.name.as_str()),
        ("content", "context")
    );
    let error = world
        .load("http://buildkit-session/other", &attributes)
        .await
        .unwrap_err();
    assert!(error.contains("no such file"), "{error}");
}
