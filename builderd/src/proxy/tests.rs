//! A proxy without a step: the test does what the runner does, and asks as a step would.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as StdUnixStream;

use futures::FutureExt as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::executor::descriptors;

/// Denies what lies at `/denied`, and puts `/new` in the place of `/old`.
struct Rules;

impl Judge for Rules {
    fn judge<'a>(&'a self, _: &'a Method, url: &'a Url) -> BoxFuture<'a, Result<Url, Refusal>> {
        let judged = match url.path() {
            "/denied" => Err(Refusal("not this one".to_owned())),
            "/old" => url.join("/new").map_err(|error| Refusal(error.to_string())),
            _ => Ok(url.clone()),
        };
        async move { judged }.boxed()
    }
}

struct Fixture {
    proxy: Proxy,
    address: SocketAddr,
    authority: Arc<Authority>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    /// A proxy whose servers are vouched for by `servers`.
    async fn new(network: Network, servers: &Authority) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::new().unwrap());
        let roots = Roots::of(trusting(servers));
        let proxy = Proxy::start(folder.path(), Arc::clone(&authority), &roots, network, Rules).unwrap();
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let socket = proxy.link().socket;
        std::thread::spawn(move || run(&socket, &listener));
        Self {
            proxy,
            address,
            authority,
            _folder: folder,
        }
    }

    async fn say(&self, words: &str) -> String {
        let stream = TcpStream::connect(self.address).await.unwrap();
        say(stream, words).await
    }

    async fn get(&self, url: &str) -> String {
        self.say(&format!(
            "GET {url} HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n"
        ))
        .await
    }
}

/// What the runner does for a step.
fn run(socket: &Path, listener: &StdListener) -> std::io::Result<()> {
    let stream = StdUnixStream::connect(socket)?;
    descriptors::send(stream.as_fd(), listener.as_fd())?;
    while let 1.. = std::io::Read::read(&mut &stream, &mut [0])? {
        let kind = rustix::net::SocketType::STREAM;
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, kind, None)?;
        descriptors::send(stream.as_fd(), socket.as_fd())?;
    }
    Ok(())
}

async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, words: &str) -> String {
    stream.write_all(words.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    // An end that was not announced is one too.
    stream.read_to_end(&mut heard).await.ok();
    String::from_utf8_lossy(&heard).into_owned()
}

fn trusting(authority: &Authority) -> ClientConfig {
    let text: String = authority
        .certificate()
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let certificate = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate)).unwrap();
    ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Answers as the path of the request says, and repeats its head in a header.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut heard = Vec::new();
    while !heard.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut heard).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8_lossy(&heard).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let seen: Vec<&str> = head.lines().skip(1).filter(|line| !line.is_empty()).collect();
    let (status, more, length, body) = match path {
        "/moved" => ("302 Moved", "Location: /again\r\n", 0, ""),
        "/again" => ("301 Moved", "Location: new#there\r\n", 0, ""),
        "/missing" => ("404 Gone", "", 4, "gone"),
        "/cut" => ("200 OK", "", 100, "short"),
        "/hop" => ("200 OK", "Connection: x-hop\r\nX-Hop: 1\r\n", 3, "hop"),
        "/silent" => return std::future::pending().await,
        _ => ("200 OK", "", 3, "new"),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nX-Seen: {}\r\n{more}Content-Length: {length}\r\n\r\n{body}",
        seen.join(" | ")
    );
    stream.write_all(answer.as_bytes()).await.ok();
    stream.flush().await.ok();
    stream.shutdown().await.ok();
}

struct Server {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                match tls.clone() {
                    None => drop(connections.spawn(converse(stream))),
                    Some(tls) => drop(connections.spawn(async move {
                        if let Ok(stream) = tls.accept(stream).await {
                            converse(stream).await;
                        }
                    })),
                }
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }
}

#[tokio::test]
async fn requests_are_judged_passed_on_and_noted() {
    let server = Server::start(None).await;
    let at = |path: &str| format!("http://{}{path}", server.address);
    let fixture = Fixture::new(Network::Machine, &Authority::new().unwrap()).await;
    let file = fixture.get(&at("/file?a=b")).await;
    assert!(
        file.starts_with("HTTP/1.1 200 OK\r\n") && file.ends_with("\r\n\r\nnew"),
        "{file}"
    );
    // The server hears the name that was judged.
    assert!(
        file.to_lowercase().contains(&format!("host: {}", server.address)),
        "{file}"
    );
    assert!(!file.contains("other"), "{file}");
    let hop = fixture.get(&at("/hop")).await.to_lowercase();
    assert!(!hop.contains("x-hop"), "{hop}");
    let denied = fixture.get(&at("/denied")).await;
    assert!(
        denied.starts_with("HTTP/1.1 403 ") && denied.ends_with("Forbidden: not this one\n"),
        "{denied}"
    );
    for path in ["/old", "/moved", "/again", "/missing", "/cut"] {
        fixture.get(&at(path)).await;
    }
    let part = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\nConnection: close\r\n\r\n",
        at("/part")
    );
    fixture.say(&part).await;
    let post = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
        at("/post")
    );
    assert!(fixture.say(&post).await.ends_with("new"));

    let requests = fixture.proxy.finish().await;
    let fetched = requests.fetched();
    // `/old` was never asked for; what was redirected is the file at the end of the way.
    let file = |path: &str, contents: &[u8]| (at(path), registry::Digest::of(contents));
    assert_eq!(
        fetched.files,
        [
            file("/again", b"new"),
            file("/file?a=b", b"new"),
            file("/hop", b"hop"),
            file("/moved", b"new"),
            file("/new", b"new"),
        ]
    );
    let missed: Vec<(String, &str)> = fetched
        .missed
        .iter()
        .map(|missed| (missed.url.clone(), missed.reason.as_str()))
        .collect();
    assert_eq!(
        missed,
        [
            (at("/cut"), "body_read_failed"),
            (at("/missing"), "unsuccessful_response"),
            (at("/part"), "partial_response"),
            (at("/post"), "method_not_materializable"),
        ]
    );
    let summary = requests.summary();
    assert!(
        summary.starts_with("proxy network requests:\n- GET "),
        "{summary}"
    );
    assert!(
        summary.contains(&format!("- GET {} -> 403\n", at("/denied"))),
        "{summary}"
    );
}

#[tokio::test]
async fn encrypted_requests_are_read_and_the_server_is_checked() {
    let servers = Authority::new().unwrap();
    let identity = servers.identity("localhost").unwrap();
    let tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(identity)));
    let server = Server::start(Some(TlsAcceptor::from(Arc::new(tls)))).await;
    let fixture = Fixture::new(Network::Machine, &servers).await;
    let get = async |host: &str, path: &str| {
        let mut stream = TcpStream::connect(fixture.address).await.unwrap();
        let target = format!("{host}:{}", server.address.port());
        let connect = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(connect.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 200 "));
        // As a program that trusts nobody but the step's authority.
        let client = TlsConnector::from(Arc::new(trusting(&fixture.authority)));
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let stream = client.connect(name, stream).await.unwrap();
        say(
            stream,
            &format!("GET {path} HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n"),
        )
        .await
    };
    let file = get("localhost", "/file").await;
    assert!(
        file.starts_with("HTTP/1.1 200 ") && file.ends_with("new"),
        "{file}"
    );
    assert!(
        file.to_lowercase().contains("host: localhost:") && !file.contains("elsewhere"),
        "{file}"
    );
    assert!(get("localhost", "/denied").await.starts_with("HTTP/1.1 403 "));
    // The server's certificate is of another name.
    assert!(get("127.0.0.1", "/file").await.starts_with("HTTP/1.1 502 "));

    let fetched = fixture.proxy.finish().await.fetched();
    let port = server.address.port();
    let file = (
        format!("https://localhost:{port}/file"),
        registry::Digest::of(b"new"),
    );
    assert_eq!(fetched.files, [file]);
    let missed: Vec<&str> = fetched.missed.iter().map(|missed| missed.url.as_str()).collect();
    assert_eq!(missed, [format!("https://127.0.0.1:{port}/file")]);
}

#[tokio::test]
async fn the_machine_itself_is_no_part_of_the_network() {
    let server = Server::start(None).await;
    let fixture = Fixture::new(Network::Others, &Authority::new().unwrap()).await;
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
    ] {
        let url = format!("http://{host}:{}/file", server.address.port());
        let refused = fixture.get(&url).await;
        assert!(refused.starts_with("HTTP/1.1 502 "), "{url}: {refused}");
    }
    let missed = fixture.proxy.finish().await.fetched().missed;
    assert!(!missed.is_empty() && missed.iter().all(|missed| missed.reason == "upstream_error"));
}

#[tokio::test]
async fn what_is_no_request_gets_no_further() {
    let fixture = Fixture::new(Network::Machine, &Authority::new().unwrap()).await;
    for words in [
        "GET ftp://127.0.0.1/file HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:///file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n",
        "CONNECT /file HTTP/1.1\r\nHost: a\r\n\r\n",
        &format!(
            "{} http://a/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "X".repeat(33)
        ),
        &format!("CONNECT {}:1 HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(254)),
        "\x16\x03\x01 no TLS here\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
    ] {
        let stream = TcpStream::connect(fixture.address).await.unwrap();
        let (reader, mut writer) = stream.into_split();
        writer.write_all(words.as_bytes()).await.unwrap();
        writer.shutdown().await.unwrap();
        let mut heard = Vec::new();
        let mut reader = reader;
        reader.read_to_end(&mut heard).await.ok();
        let heard = String::from_utf8_lossy(&heard);
        assert!(
            heard.is_empty() || heard.starts_with("HTTP/1.1 400 "),
            "{words:?}: {heard}"
        );
    }
    let tunnel = "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: a\r\n\r\nplain words\r\n\r\n";
    let heard = fixture.say(tunnel).await;
    assert!(
        heard.starts_with("HTTP/1.1 200 ") && !heard.contains("words"),
        "{heard}"
    );
    assert_eq!(fixture.proxy.finish().await.fetched(), Fetched::default());
}

impl Fixture {
    /// Asks for what the server does not answer, and gives the request time to get there.
    async fn unanswered(&self, server: &Server) -> (String, TcpStream) {
        let url = format!("http://{}/silent", server.address);
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {url} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        (url, stream)
    }
}

#[tokio::test]
async fn a_proxy_ends_with_its_step() {
    let server = Server::start(None).await;
    let fixture = Fixture::new(Network::Machine, &Authority::new().unwrap()).await;
    let (url, mut stream) = fixture.unanswered(&server).await;
    let missed = fixture.proxy.finish().await.fetched().missed;
    assert_eq!(missed.len(), 1, "{missed:?}");
    assert_eq!(
        (missed[0].url.as_str(), missed[0].reason.as_str()),
        (url.as_str(), "upstream_error")
    );
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.ok();
    assert!(rest.is_empty());

    // So does one with no room for more connections, of which nothing comes.
    let crowded = Fixture::new(Network::Machine, &Authority::new().unwrap()).await;
    let mut silent = Vec::new();
    for _ in 0..130 {
        silent.push(TcpStream::connect(crowded.address).await.unwrap());
    }
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), crowded.proxy.finish());
    assert!(ended.await.is_ok());

    // One that was never used ends at once.
    let folder = tempfile::tempdir().unwrap();
    let authority = Arc::new(Authority::new().unwrap());
    let roots = Roots::of(trusting(&authority));
    let proxy = Proxy::start(folder.path(), authority, &roots, Network::Others, Rules).unwrap();
    assert_eq!(proxy.finish().await.summary(), "");
}

#[test]
fn addresses_of_the_machine_are_known_in_all_spellings() {
    for (address, own) in [
        ("127.0.0.1", true),
        ("127.255.0.9", true),
        ("0.0.0.0", true),
        ("0.1.2.3", true),
        ("::1", true),
        ("::", true),
        ("::ffff:127.0.0.1", true),
        ("::127.0.0.1", true),
        ("10.0.0.1", false),
        ("169.254.1.1", false),
        ("2001:db8::1", false),
        ("::ffff:10.0.0.1", false),
    ] {
        let parsed: IpAddr = address.parse().unwrap();
        assert_eq!(connect::is_this_machine(parsed), own, "{address}");
    }
}

#[tokio::test]
async fn a_request_ends_with_whoever_waits_for_it() {
    let server = Server::start(None).await;
    let fixture = Fixture::new(Network::Machine, &Authority::new().unwrap()).await;
    let (_, stream) = fixture.unanswered(&server).await;
    drop(stream);
    let requests = Arc::clone(&fixture.proxy.requests);
    let noticed = async {
        while requests.fetched().missed.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let noticed = tokio::time::timeout(std::time::Duration::from_secs(10), noticed);
    assert!(noticed.await.is_ok());
}

#[test]
fn certificates_of_an_authority_have_numbers_of_their_own() {
    let authority = Authority::new().unwrap();
    let [a, b] = ["a", "b"].map(|host| authority.identity(host).unwrap().cert[0].clone());
    // The number is the first thing in it that is 16 bytes long.
    let number = |certificate: &CertificateDer<'_>| {
        let at = certificate.windows(2).position(|head| head == [2, 16]).unwrap();
        certificate[at..at + 18].to_vec()
    };
    assert_ne!(number(&a), number(&b));
}

#[test]
fn what_is_kept_of_requests_is_bounded() {
    let requests = Requests::default();
    let long = format!("http://a/{}", "x".repeat(60_000));
    let method = "X".repeat(60_000);
    for number in 0..200 {
        requests.answered("GET", &format!("{long}{number}"), 200, None);
        requests.missed(&method, "", "");
        requests.file(&format!("{long}{number}"), registry::Digest::of(b""));
    }
    let fetched = requests.fetched();
    assert!(fetched.files.len() + fetched.missed.len() < 100);
    assert_eq!(fetched.missed[0].reason, "too_many_requests");
    assert!(requests.summary().ends_with("- further requests are not shown\n"));
    // A circle of redirects leads to no file.
    let circle = Requests::default();
    for (from, to) in [("a", "b"), ("b", "a"), ("c", "d")] {
        circle.answered("GET", from, 302, Some(to.to_owned()));
    }
    circle.file("d", registry::Digest::of(b""));
    let files = circle.fetched().files;
    let urls: Vec<&str> = files.iter().map(|(url, _)| url.as_str()).collect();
    assert_eq!(urls, ["c", "d"]);
}
