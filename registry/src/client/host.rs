//! Where a registry is and how to talk to it: addresses, mirrors, schemes, certificates.
//!
//! One HTTP client per TLS set-up; plain HTTP shares one that loads no root certificates, which is most of the
//! start-up cost of a client.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tokio::sync::OnceCell;

use super::error::Error;
use crate::reference::Repository;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How to reach one registry (or mirror); the default is HTTPS with the usual roots, plain HTTP on loopback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Asked before the registry itself for everything that is pulled, in this order; `host[:port][/prefix]`,
    /// optionally with a scheme.
    pub mirrors: Vec<String>,
    /// Plain HTTP only (true) or HTTPS only (false).
    pub plain_http: Option<bool>,
    /// Certificates are not checked, and plain HTTP is the second try.
    pub insecure: bool,
    /// PEM files of additional roots.
    pub roots: Vec<PathBuf>,
    /// PEM files of a certificate chain and its key.
    pub client_certificate: Option<ClientCertificate>,
    /// Upload in requests of this many bytes, for registries behind a proxy with a limit.
    pub upload_chunk: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Everything that is fixed for the life of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// By registry name as in references (`docker.io`, `localhost:5000`) or by mirror host.
    pub hosts: BTreeMap<String, HostConfig>,
    pub user_agent: String,
    pub retry: Retry,
}

/// How often and how patiently transient failures are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    pub attempts: u32,
    /// The first pause; doubles each time, with jitter.
    pub pause: Duration,
    /// No pause is longer, whatever the registry asks for.
    pub longest_pause: Duration,
    /// How long a registry may be silent.
    pub silence: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(30),
            silence: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// Lets a registry do without TLS, or with a certificate that nobody vouches for.
    pub fn allow_insecure(&mut self, registry: &str) {
        self.hosts.entry(registry.to_owned()).or_default().insecure = true;
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            user_agent: concat!("trimaran/", env!("CARGO_PKG_VERSION")).to_owned(),
            retry: Retry::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// One server that serves the distribution API.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// `host[:port]`: what credentials are kept by and errors name.
    pub host: String,
    /// Path prefix of the repositories, `/v2` plus the mirror's own.
    prefix: String,
    /// Sent as `ns=` so that a mirror of several registries knows which one is meant.
    namespace: Option<String>,
    schemes: Vec<Scheme>,
    settled: OnceCell<Scheme>,
    secure: OnceLock<reqwest::Client>,
    config: HostConfig,
}

impl Endpoint {
    pub fn upload_chunk(&self) -> Option<u64> {
        self.config.upload_chunk
    }

    fn base(&self, scheme: Scheme) -> Result<Url, Error> {
        let text = format!("{}://{}", scheme.name(), self.host);
        text.parse().map_err(|_| Error::Address {
            address: self.host.clone(),
        })
    }
}

type EndpointKey = (String, Option<String>);

/// The connections of a client: HTTP clients and what is known about servers.
#[derive(Debug)]
pub(super) struct Connections {
    pub config: Config,
    plain: OnceLock<reqwest::Client>,
    secure: OnceLock<reqwest::Client>,
    /// By address and, for mirrors, the registry they stand in for.
    endpoints: Mutex<HashMap<EndpointKey, Arc<Endpoint>>>,
}

impl Connections {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            plain: OnceLock::new(),
            secure: OnceLock::new(),
            endpoints: Mutex::new(HashMap::new()),
        }
    }

    /// The server of the registry itself, to which everything is pushed.
    pub fn origin(&self, repository: &Repository) -> Result<Arc<Endpoint>, Error> {
        self.endpoint(
            repository.api_host(),
            self.config.hosts.get(repository.registry()),
            None,
        )
    }

    /// The servers to pull from, in order: mirrors, then the registry itself.
    pub fn pull_endpoints(&self, repository: &Repository) -> Result<Vec<Arc<Endpoint>>, Error> {
        let mut endpoints = Vec::new();
        if let Some(config) = self.config.hosts.get(repository.registry()) {
            for mirror in &config.mirrors {
                endpoints.push(self.endpoint(mirror, None, Some(repository.registry()))?);
            }
        }
        endpoints.push(self.origin(repository)?);
        Ok(endpoints)
    }

    fn endpoint(
        &self,
        address: &str,
        config: Option<&HostConfig>,
        namespace: Option<&str>,
    ) -> Result<Arc<Endpoint>, Error> {
        let key = (address.to_owned(), namespace.map(str::to_owned));
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = endpoints.get(&key) {
            return Ok(endpoint.clone());
        }
        let (scheme, rest) = match address.split_once("://") {
            Some(("http", rest)) => (Some(Scheme::Http), rest),
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some(_) => {
                return Err(Error::Address {
                    address: address.to_owned(),
                });
            }
            None => (None, address),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_end_matches('/');
        let config = config
            .or_else(|| self.config.hosts.get(host))
            .cloned()
            .unwrap_or_default();
        let schemes = match (scheme, config.plain_http, config.insecure) {
            (Some(scheme), ..) => vec![scheme],
            (None, Some(true), _) => vec![Scheme::Http],
            (None, Some(false), _) => vec![Scheme::Https],
            (None, None, true) => vec![Scheme::Https, Scheme::Http],
            // Docker's rule; a local registry that does speak TLS is found out by asking.
            (None, None, false) if is_loopback(host) => vec![Scheme::Http, Scheme::Https],
            (None, None, false) => vec![Scheme::Https],
        };
        let endpoint = Arc::new(Endpoint {
            host: host.to_owned(),
            prefix: if path.is_empty() {
                "/v2".to_owned()
            } else {
                format!("/v2/{path}")
            },
            namespace: namespace.map(str::to_owned),
            schemes,
            settled: OnceCell::new(),
            secure: OnceLock::new(),
            config,
        });
        endpoints.insert(key, endpoint.clone());
        Ok(endpoint)
    }

    /// `…/v2/<repository>/<rest>` on the endpoint, with its scheme found out first where two are possible.
    pub async fn url(&self, endpoint: &Endpoint, repository: &str, rest: &str) -> Result<Url, Error> {
        let scheme = endpoint
            .settled
            .get_or_try_init(|| self.find_scheme(endpoint))
            .await?;
        let mut url = endpoint.base(*scheme)?;
        let (path, query) = rest
            .split_once('?')
            .map_or((rest, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{}/{repository}/{path}", endpoint.prefix));
        url.set_query(query);
        if let Some(namespace) = &endpoint.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }

    async fn find_scheme(&self, endpoint: &Endpoint) -> Result<Scheme, Error> {
        let mut first_error = None;
        let (Some(first), Some(second)) = (endpoint.schemes.first(), endpoint.schemes.get(1)) else {
            return Ok(endpoint.schemes.first().copied().unwrap_or(Scheme::Https));
        };
        for scheme in [*first, *second] {
            let mut url = endpoint.base(scheme)?;
            url.set_path("/v2/");
            let client = self.client(endpoint, &url)?;
            match client.get(url).timeout(self.config.retry.silence).send().await {
                // Go's servers answer so to plain text on a TLS port.
                Ok(answer) if scheme == Scheme::Http && answer.status() == http::StatusCode::BAD_REQUEST => {
                    tracing::debug!(host = endpoint.host, "plain HTTP refused, trying HTTPS");
                }
                Ok(_) => return Ok(scheme),
                Err(error) => {
                    tracing::debug!(host = endpoint.host, scheme = scheme.name(), %error, "no answer");
                    first_error.get_or_insert(error);
                }
            }
        }
        match first_error {
            Some(source) => Err(Error::Connect {
                host: endpoint.host.clone(),
                doing: "ping".to_owned(),
                source: source.without_url(),
            }),
            None => Ok(*first),
        }
    }

    /// The HTTP client for `url`, which a redirect may have led away from `endpoint`.
    pub fn client(&self, endpoint: &Endpoint, url: &Url) -> Result<reqwest::Client, Error> {
        let own = authority(url).is_some_and(|authority| authority == endpoint.host.to_ascii_lowercase());
        if url.scheme() == "http" {
            return cached(&self.plain, || {
                self.builder()
                    .tls_certs_only([])
                    .build()
                    .map_err(|source| setup_failed(&endpoint.host, source))
            });
        }
        if own
            && (endpoint.config.insecure
                || !endpoint.config.roots.is_empty()
                || endpoint.config.client_certificate.is_some())
        {
            return cached(&endpoint.secure, || self.special_client(endpoint));
        }
        cached(&self.secure, || {
            let failed = match self.builder().build() {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            // An image made from scratch has no root certificates.
            tracing::debug!(error = %failed, "no usable root certificates on this system, using the built-in ones");
            let bundled = webpki_root_certs::TLS_SERVER_ROOT_CERTS
                .iter()
                .filter_map(|root| reqwest::Certificate::from_der(root).ok());
            self.builder()
                .tls_certs_only(bundled)
                .build()
                .map_err(|source| setup_failed(&endpoint.host, source))
        })
    }

    fn special_client(&self, endpoint: &Endpoint) -> Result<reqwest::Client, Error> {
        let host = &endpoint.host;
        let mut roots = Vec::new();
        for path in &endpoint.config.roots {
            let certificates = reqwest::Certificate::from_pem_bundle(&read(host, path)?)
                .map_err(|source| certificate_failed(host, path, source))?;
            roots.extend(certificates);
        }
        let mut builder = self.builder();
        if endpoint.config.insecure {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        if !roots.is_empty() {
            builder = builder.tls_certs_merge(roots.clone());
        }
        if let Some(ClientCertificate { certificate, key }) = &endpoint.config.client_certificate {
            let mut pem = read(host, certificate)?;
            pem.push(b'\n');
            pem.extend(read(host, key)?);
            let identity = reqwest::Identity::from_pem(&pem)
                .map_err(|source| certificate_failed(host, certificate, source))?;
            builder = builder.identity(identity);
        }
        builder.build().map_err(|source| setup_failed(host, source))
    }

    fn builder(&self) -> reqwest::ClientBuilder {
        // Redirects are followed by `transport`, which knows when credentials must stay behind.
        reqwest::Client::builder()
            .user_agent(&self.config.user_agent)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
    }
}

fn cached(
    cell: &OnceLock<reqwest::Client>,
    make: impl FnOnce() -> Result<reqwest::Client, Error>,
) -> Result<reqwest::Client, Error> {
    if let Some(client) = cell.get() {
        return Ok(client.clone());
    }
    let client = make()?;
    Ok(cell.get_or_init(|| client).clone())
}

fn read(host: &str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| certificate_failed(host, path, source))
}

fn certificate_failed(host: &str, path: &Path, source: impl Into<super::error::BoxError>) -> Error {
    Error::Certificate {
        host: host.to_owned(),
        path: path.to_owned(),
        source: source.into(),
    }
}

fn setup_failed(host: &str, source: reqwest::Error) -> Error {
    Error::Setup {
        host: host.to_owned(),
        source,
    }
}

/// `host[:port]` of a URL.
pub(super) fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// True for `localhost`, `127.0.0.0/8` and `[::1]`, with or without a port.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
        || name
            .parse::<Ipv6Addr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_are_recognised() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1",
            "127.1.2.3:80",
            "[::1]",
            "[::1]:5000",
            "LOCALHOST:1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example.com",
            "128.0.0.1",
            "docker.io",
            "[::2]:5000",
            "127.example.com",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[tokio::test]
    async fn urls_carry_prefix_and_namespace_of_a_mirror() {
        let mut config = Config::default();
        config.hosts.insert(
            "docker.io".to_owned(),
            HostConfig {
                mirrors: vec!["https://harbor.example.com/proxy.docker.io/".to_owned()],
                ..HostConfig::default()
            },
        );
        let connections = Connections::new(config);
        let repository = "alpine".parse().unwrap();
        let mut urls = Vec::new();
        for endpoint in connections.pull_endpoints(&repository).unwrap() {
            urls.push(
                connections
                    .url(&endpoint, repository.path(), "manifests/3?x=y")
                    .await
                    .unwrap()
                    .to_string(),
            );
        }
        assert_eq!(
            urls,
            [
                "https://harbor.example.com/v2/proxy.docker.io/library/alpine/manifests/3?x=y&ns=docker.io",
                "https://registry-1.docker.io/v2/library/alpine/manifests/3?x=y",
            ]
        );
    }
}
