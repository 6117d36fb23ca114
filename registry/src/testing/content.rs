//! What the fake registry holds, and its good answers.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use super::access::Access;
use super::faults::{Fault, Gate, Rule};
use crate::digest::Digest;
use crate::manifest::{Descriptor, RawManifest};

#[derive(Debug, Default)]
pub(super) struct Content {
    pub access: Access,
    pub blobs: BTreeMap<(String, Digest), Bytes>,
    pub manifests: BTreeMap<(String, Digest), (String, Bytes)>,
    pub tags: BTreeMap<(String, String), Digest>,
    pub uploads: BTreeMap<u64, Vec<u8>>,
    pub tokens: BTreeMap<String, (BTreeSet<String>, u32)>,
    pub rules: Vec<Rule>,
    pub log: Vec<String>,
    pub mounts: bool,
    pub next_id: u64,
    pub address: String,
    pub gate: Gate,
}

pub(super) struct Query(pub Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        let url = reqwest::Url::parse(&format!("http://localhost/?{text}"));
        Self(url.map_or_else(|_| Vec::new(), |url| url.query_pairs().into_owned().collect()))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

pub(super) fn refuse(status: StatusCode, code: &str) -> Response {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"says the test"}}]}}"#);
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

impl Content {
    /// The good answer, and what is to be done to it; a request that fails altogether changes nothing.
    pub fn answer_or_fail(
        &mut self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> (Response, Option<Fault>) {
        let text = uri.to_string();
        self.log.push(format!("{method} {text}"));
        let rule = self
            .rules
            .iter_mut()
            .find(|rule| rule.left > 0 && rule.method == *method && text.contains(&rule.path_part));
        let fault = rule.map(|rule| {
            rule.left -= 1;
            rule.fault.clone()
        });
        if matches!(fault, Some(Fault::Status(..) | Fault::Close)) {
            return (Response::default(), fault);
        }
        let query = Query::parse(uri.query().unwrap_or_default());
        (self.answer(method, uri.path(), &query, headers, body), fault)
    }

    fn answer(
        &mut self,
        method: &Method,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Response {
        if path == "/token" {
            return self.token(method, query, headers, &body);
        }
        let Some(rest) = path.strip_prefix("/v2/") else {
            return refuse(StatusCode::NOT_FOUND, "NOT_FOUND");
        };
        let parts = ["/manifests/", "/blobs/uploads/", "/blobs/", "/tags/"]
            .into_iter()
            .find_map(|kind| {
                rest.split_once(kind)
                    .map(|(repository, name)| (repository, kind, name))
            });
        let (repository, kind, name) = parts.unwrap_or(("", "", ""));
        if let Err(response) = self.authorise(method, repository, query, headers) {
            return *response;
        }
        match (kind, method.as_str()) {
            ("", _) if rest.is_empty() => StatusCode::OK.into_response(),
            ("", _) => refuse(StatusCode::NOT_FOUND, "NOT_FOUND"),
            ("/manifests/", "GET" | "HEAD") => match self.find_manifest(repository, name) {
                Some((media_type, bytes)) => (
                    [
                        (header::CONTENT_TYPE.as_str(), media_type),
                        ("docker-content-digest", Digest::of(&bytes).to_string()),
                    ],
                    bytes,
                )
                    .into_response(),
                None => refuse(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            },
            ("/manifests/", "PUT") => self.put_manifest(repository, name, headers, body),
            ("/manifests/", "DELETE") => match self.tags.remove(&(repository.to_owned(), name.to_owned())) {
                Some(_) => StatusCode::ACCEPTED.into_response(),
                None => refuse(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            },
            ("/blobs/", "GET" | "HEAD") => self.get_blob(repository, name, headers),
            ("/blobs/uploads/", "POST") => self.begin(repository, query),
            ("/blobs/uploads/", _) => self.upload(method, repository, name, query, headers, &body),
            ("/tags/", "GET") => {
                let of_repository = self.tags.keys().filter(|(path, _)| path == repository);
                let tags: Vec<_> = of_repository.map(|(_, tag)| tag).collect();
                serde_json::json!({"name": repository, "tags": tags})
                    .to_string()
                    .into_response()
            }
            _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        }
    }

    pub fn find_manifest(&self, repository: &str, name: &str) -> Option<(String, Bytes)> {
        let digest = match name.parse() {
            Ok(digest) => digest,
            Err(_) => self.tags.get(&(repository.to_owned(), name.to_owned()))?.clone(),
        };
        self.manifests.get(&(repository.to_owned(), digest)).cloned()
    }

    fn put_manifest(&mut self, repository: &str, name: &str, headers: &HeaderMap, body: Bytes) -> Response {
        let media_type = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let raw = RawManifest::new(body, Some(&media_type));
        let known = |descriptor: &Descriptor| {
            let key = (repository.to_owned(), descriptor.digest.clone());
            self.blobs.contains_key(&key) || self.manifests.contains_key(&key)
        };
        // As real registries: nothing may be named that is not there.
        let complete = match raw.parse() {
            Ok(crate::manifest::Document::Manifest(manifest)) => {
                known(&manifest.config) && manifest.layers.iter().all(known)
            }
            Ok(crate::manifest::Document::Index(index)) => index.manifests.iter().all(known),
            Err(_) => false,
        };
        if !complete {
            return refuse(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN");
        }
        match name.parse::<Digest>() {
            Ok(digest) if digest != raw.digest => return refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Ok(_) => {}
            Err(_) => {
                let key = (repository.to_owned(), name.to_owned());
                self.tags.insert(key, raw.digest.clone());
            }
        }
        self.manifests
            .insert((repository.to_owned(), raw.digest), (media_type, raw.bytes));
        StatusCode::CREATED.into_response()
    }

    fn get_blob(&self, repository: &str, name: &str, headers: &HeaderMap) -> Response {
        let found = name
            .parse()
            .ok()
            .and_then(|digest| self.blobs.get(&(repository.to_owned(), digest)));
        let Some(blob) = found else {
            return refuse(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
        };
        let start = headers
            .get(header::RANGE)
            .and_then(|range| {
                range
                    .to_str()
                    .ok()?
                    .strip_prefix("bytes=")?
                    .strip_suffix('-')?
                    .parse()
                    .ok()
            })
            .filter(|start: &usize| *start < blob.len());
        match start {
            Some(start) => (StatusCode::PARTIAL_CONTENT, blob.slice(start..)).into_response(),
            None => blob.clone().into_response(),
        }
    }

    fn begin(&mut self, repository: &str, query: &Query) -> Response {
        if let (Some(from), Some(Ok(digest)), true) = (
            query.get("from"),
            query.get("mount").map(str::parse::<Digest>),
            self.mounts,
        ) && let Some(blob) = self.blobs.get(&(from.to_owned(), digest.clone())).cloned()
        {
            self.blobs.insert((repository.to_owned(), digest), blob);
            return StatusCode::CREATED.into_response();
        }
        self.next_id += 1;
        self.uploads.insert(self.next_id, Vec::new());
        self.accepted(repository, self.next_id)
    }

    fn accepted(&self, repository: &str, id: u64) -> Response {
        let length = self.uploads.get(&id).map_or(0, Vec::len);
        (
            StatusCode::ACCEPTED,
            [
                (
                    header::LOCATION,
                    format!("/v2/{repository}/blobs/uploads/{id}?state=s"),
                ),
                (header::RANGE, format!("0-{}", length.saturating_sub(1))),
            ],
        )
            .into_response()
    }

    fn upload(
        &mut self,
        method: &Method,
        repository: &str,
        name: &str,
        query: &Query,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Response {
        let upload = name
            .parse()
            .ok()
            .and_then(|id| self.uploads.get_mut(&id).map(|upload| (id, upload)));
        let Some((id, upload)) = upload else {
            return refuse(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
        };
        match method.as_str() {
            "PATCH" => {
                let range = headers
                    .get(header::CONTENT_RANGE)
                    .and_then(|range| range.to_str().ok());
                let start = range.and_then(|range| range.split('-').next()?.parse::<usize>().ok());
                if start.is_some_and(|start| start != upload.len()) {
                    return refuse(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID");
                }
                upload.extend_from_slice(body);
                self.accepted(repository, id)
            }
            "PUT" => {
                upload.extend_from_slice(body);
                let digest = Digest::of(upload);
                if query.get("digest") != Some(digest.as_str()) {
                    return refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
                }
                if let Some(blob) = self.uploads.remove(&id) {
                    self.blobs.insert((repository.to_owned(), digest), blob.into());
                }
                StatusCode::CREATED.into_response()
            }
            "GET" => {
                let mut response = self.accepted(repository, id);
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            "DELETE" => {
                self.uploads.remove(&id);
                StatusCode::NO_CONTENT.into_response()
            }
            _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        }
    }
}
