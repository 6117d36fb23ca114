//! Where the files of a build come from: the local with the Dockerfile, the ignore file, the build context.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dockerfile::address::{Address, Mtime, without_credentials};
use dockerfile::ignore::read_ignore_file;
use dockerfile::parser::syntax_directive;
use futures::future::try_join_all;
use proto::pb;

use super::remote::{self, Download, GitOptions};
use super::{Attributes, Error, Host, Problem, Request};
use crate::graph::builder::{Builder, Note, Operation, Output};

const CONTEXT: &str = "context";
const DOCKERFILE: &str = "dockerfile";
const IGNORE_FILE: &str = ".dockerignore";
/// What a context that is one file is called.
pub(super) const DOWNLOAD: &str = "context";
/// The standard frontend images, which are this frontend under another name.
const BUILT_IN: [&str; 3] = ["docker/dockerfile", "docker/dockerfile-upstream", "dockerfile.v0"];

/// The paths of the build context that some instruction reads.
#[derive(Clone, Debug, Default)]
pub(super) struct ContextUse(BTreeSet<String>);

impl ContextUse {
    pub(super) fn add(&mut self, path: &str) {
        self.0.insert(dockerfile::ignore::clean(&format!("/{path}")));
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Relative paths for the sender, or none if everything is wanted.
    fn follow_paths(&self) -> Vec<&str> {
        if self.0.contains("/") {
            return Vec::new();
        }
        self.0.iter().map(|path| path.trim_start_matches('/')).collect()
    }
}

/// A Dockerfile that was read.
pub(super) struct DockerfileText {
    pub(super) text: String,
    pub(super) info: pb::SourceInfo,
}

pub(super) struct Contexts<'a> {
    request: &'a Request,
    filename: String,
    /// The context if it is no folder of the client: an input of the request, or what an address stands for.
    given: Option<pb::Definition>,
    /// It is what an address stands for.
    is_fetched: bool,
    /// The local that holds the Dockerfile.
    dockerfile_local: &'a str,
    /// `<Dockerfile>.dockerignore`, which goes before `.dockerignore`.
    own_ignore_file: Option<Bytes>,
    /// What named contexts leave out, by their names.
    ignored: BTreeMap<String, Vec<String>>,
}

impl<'a> Contexts<'a> {
    pub(super) fn new(attributes: &'a Attributes, request: &'a Request) -> Self {
        let dockerfile_local = request
            .attributes
            .get("dockerfilekey")
            .map_or(DOCKERFILE, String::as_str);
        Self {
            request,
            filename: attributes.filename.clone(),
            given: request.inputs.get(CONTEXT).cloned(),
            is_fetched: false,
            dockerfile_local,
            own_ignore_file: None,
            ignored: BTreeMap::new(),
        }
    }

    /// Finds out what an address that the request names for the context stands for.
    pub(super) async fn find_remote<H: Host>(&mut self, host: &H) -> Result<(), Error> {
        let attribute = |key: &str| self.request.attributes.get(key).map_or("", String::as_str);
        let text = match attribute("contextkey") {
            "" => attribute(CONTEXT),
            key => attribute(key),
        };
        let mut builder = Builder::default();
        let context = match Address::parse(text).map_err(Problem::Address)? {
            Some(Address::Git(reference)) => {
                let options = GitOptions {
                    keep_git_dir: is_true(attribute("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR")),
                    // Files of a reproducible image are as old as the commit they come from.
                    mtime: (!attribute("build-arg:SOURCE_DATE_EPOCH").is_empty()).then_some(Mtime::Commit),
                    ..GitOptions::default()
                };
                let name = format!("load git source {}", without_credentials(text));
                builder.add(remote::repository(&reference, &options, internal(&name)))
            }
            Some(Address::Http(url)) => {
                let file = remote::file(&url, DOWNLOAD, None, internal("load remote build context"));
                let file = builder.add(file);
                let definition = builder.definition(Some(file), None);
                let head = host
                    .read_start(definition, DOWNLOAD.to_owned(), remote::ARCHIVE_HEAD)
                    .await
                    .map_err(Problem::ReadContext)?;
                match remote::recognise(&head) {
                    Download::Archive => builder.add(unpacked(file)),
                    Download::Other => {
                        self.filename = DOWNLOAD.to_owned();
                        file
                    }
                }
            }
            None if text.is_empty() => return Ok(()),
            None => return Err(Problem::NotAContext(without_credentials(text)).into()),
        };
        let context = match attribute("contextsubdir") {
            "" => context,
            folder => builder.add(folder_of(context, folder)),
        };
        self.given = Some(builder.definition(Some(context), None));
        self.is_fetched = true;
        Ok(())
    }

    pub(super) async fn read_dockerfile<H: Host>(&mut self, host: &H) -> Result<DockerfileText, Error> {
        let name = self.filename.as_str();
        let own_ignore_file = format!("{name}.dockerignore");
        let mut paths = vec![name.to_owned(), own_ignore_file.clone()];
        // On case-sensitive file systems some projects have a `dockerfile`.
        let lower = match name.rsplit_once('/') {
            Some((folder, "Dockerfile")) => Some(format!("{folder}/dockerfile")),
            None if name == "Dockerfile" => Some("dockerfile".to_owned()),
            _ => None,
        };
        paths.extend(lower.clone());
        let forced = self.request.attributes.contains_key("dockerfilekey");
        let inputs = &self.request.inputs;
        // A context at an address has its Dockerfile with it; one that is a result has not.
        let fetched = self.given.as_ref().filter(|_| self.is_fetched);
        let given = inputs.get(DOCKERFILE).or(fetched).filter(|_| !forced);
        let definition = given.cloned().unwrap_or_else(|| {
            let name = format!("[internal] load build definition from {name}");
            self.local(self.dockerfile_local, self.dockerfile_local, &name, &paths)
        });
        let mut files = host
            .read_files(definition.clone(), paths)
            .await
            .map_err(Problem::ReadDockerfile)?;
        self.own_ignore_file = files.remove(&own_ignore_file);
        let data = files
            .remove(name)
            .or_else(|| files.remove(&lower?))
            .ok_or_else(|| Problem::NoDockerfile(name.to_owned()))?;
        let text = String::from_utf8(data.to_vec()).map_err(|_| Problem::NotText(name.to_owned()))?;
        if text.is_empty() {
            return Err(Problem::EmptyDockerfile.into());
        }
        let info = pb::SourceInfo {
            filename: name.to_owned(),
            data,
            definition: Some(definition),
            language: "Dockerfile".to_owned(),
        };
        Ok(DockerfileText { text, info })
    }

    /// The patterns of the ignore file, which is asked for only if the context is used.
    pub(super) async fn read_ignore_file<H: Host>(&self, host: &H) -> Vec<String> {
        if self.given.is_some() {
            return Vec::new();
        }
        let data = match &self.own_ignore_file {
            Some(data) => data.clone(),
            None => {
                let paths = vec![IGNORE_FILE.to_owned()];
                let definition = self.local(
                    CONTEXT,
                    "context-.dockerignore",
                    "[internal] load .dockerignore",
                    &paths,
                );
                // A client may have no context at all; if one is needed, that comes out when it is read.
                let files = host.read_files(definition, paths).await;
                let file = files.ok().and_then(|mut files| files.remove(IGNORE_FILE));
                file.unwrap_or_default()
            }
        };
        read_ignore_file(&String::from_utf8_lossy(&data))
    }

    /// The build context as an output of `builder`: complete if it came with the request, else to be completed by
    /// [`Contexts::main_operation`].
    pub(super) fn main_output(&self, builder: &mut Builder) -> Option<Output> {
        match &self.given {
            Some(definition) => builder.import(definition),
            None => Some(builder.add_open(self.local_operation(
                CONTEXT,
                CONTEXT,
                "[internal] load build context",
            ))),
        }
    }

    /// The finished context operation: what is used of it, less what is ignored.
    pub(super) fn main_operation(&self, used: &ContextUse, ignored: &[String]) -> Operation {
        let mut operation = self.local_operation(CONTEXT, CONTEXT, "[internal] load build context");
        if let pb::op::Op::Source(source) = &mut operation.kind {
            set_list(source, "local.followpaths", &used.follow_paths());
            set_list(source, "local.excludepatterns", ignored);
        }
        operation
    }

    /// The context, if it is fetched from an address or is a result.
    pub(super) fn fetched(&self) -> Option<&pb::Definition> {
        self.given.as_ref()
    }

    /// A definition that came with the request.
    pub(super) fn input(&self, name: &str) -> Option<&pb::Definition> {
        self.request.inputs.get(name)
    }

    /// Finds out what named contexts leave out: each folder has an ignore file of its own.
    pub(super) async fn read_named_ignore_files<H: Host>(
        &mut self,
        host: &H,
        folders: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let read = async |(name, local): (&String, &String)| {
            let paths = vec![IGNORE_FILE.to_owned()];
            let hint = format!("{CONTEXT}:{name}-{IGNORE_FILE}");
            let title = format!("[{CONTEXT} {name}] load {IGNORE_FILE}");
            let definition = self.local(local, &hint, &title, &paths);
            let mut files =
                host.read_files(definition, paths)
                    .await
                    .map_err(|source| Problem::ReadNamedContext {
                        name: name.clone(),
                        source,
                    })?;
            let data = files.remove(IGNORE_FILE).unwrap_or_default();
            Ok::<_, Error>((name.clone(), read_ignore_file(&String::from_utf8_lossy(&data))))
        };
        let read = try_join_all(folders.iter().map(read)).await?;
        self.ignored = read.into_iter().collect();
        Ok(())
    }

    /// The files of a folder that is a named context: what is used of it, less what is ignored.
    pub(super) fn named_operation(&self, name: &str, local: &str, used: &ContextUse) -> Operation {
        let key = self.request.attributes.get(&format!("sharedkey:localdir:{name}"));
        let hint = format!("{CONTEXT}:{name}-{}", key.map_or("", String::as_str));
        let title = format!("[{CONTEXT} {name}] load from client");
        let mut operation = self.local_operation(local, &hint, &title);
        if let pb::op::Op::Source(source) = &mut operation.kind {
            set_list(source, "local.followpaths", &used.follow_paths());
            let ignored = self.ignored.get(name).map_or(&[][..], Vec::as_slice);
            set_list(source, "local.excludepatterns", ignored);
        }
        operation
    }

    /// A small read of a local that is thrown away afterwards.
    fn local(&self, local: &str, hint: &str, name: &str, paths: &[String]) -> pb::Definition {
        let mut operation = self.local_operation(local, hint, name);
        if let pb::op::Op::Source(source) = &mut operation.kind {
            set_list(source, "local.followpaths", paths);
            source.attrs.insert("local.differ".to_owned(), "none".to_owned());
        }
        let mut builder = Builder::default();
        let head = builder.add(operation);
        builder.definition(Some(head), None)
    }

    fn local_operation(&self, local: &str, hint: &str, name: &str) -> Operation {
        let session = self.request.attributes.get(&format!("local-sessionid:{local}"));
        let attrs = BTreeMap::from([
            (
                "local.session".to_owned(),
                session.unwrap_or(&self.request.session).clone(),
            ),
            ("local.sharedkeyhint".to_owned(), hint.to_owned()),
        ]);
        Operation {
            kind: pb::op::Op::Source(pb::SourceOp {
                identifier: format!("local://{local}"),
                attrs,
            }),
            inputs: Vec::new(),
            platform: None,
            note: Note {
                name: name.to_owned(),
                ..Note::default()
            },
        }
    }
}

pub(super) fn internal(name: &str) -> Note {
    Note {
        name: format!("[internal] {name}"),
        ..Note::default()
    }
}

fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// What is in a downloaded archive.
fn unpacked(archive: Output) -> Operation {
    let copy = pb::FileActionCopy {
        src: format!("/{DOWNLOAD}"),
        attempt_unpack_docker_compatibility: true,
        ..whole_copy()
    };
    copied(archive, copy, "unpack remote build context")
}

/// A folder of a context as a context.
fn folder_of(context: Output, folder: &str) -> Operation {
    let copy = pb::FileActionCopy {
        src: dockerfile::ignore::clean(&format!("/{folder}")),
        dir_copy_contents: true,
        ..whole_copy()
    };
    copied(context, copy, "load folder of remote build context")
}

fn whole_copy() -> pb::FileActionCopy {
    pb::FileActionCopy {
        dest: "/".to_owned(),
        mode: -1,
        timestamp: -1,
        ..pb::FileActionCopy::default()
    }
}

fn copied(from: Output, copy: pb::FileActionCopy, name: &str) -> Operation {
    let action = pb::FileAction {
        input: -1,
        secondary_input: 0,
        output: 0,
        action: Some(pb::file_action::Action::Copy(copy)),
    };
    Operation {
        kind: pb::op::Op::File(pb::FileOp {
            actions: vec![action],
        }),
        inputs: vec![from],
        platform: None,
        note: internal(name),
    }
}

/// Lists in attributes are JSON; an empty one is left out.
fn set_list<S: AsRef<str>>(source: &mut pb::SourceOp, key: &str, values: &[S]) {
    if !values.is_empty() {
        let values = values.iter().map(|value| value.as_ref().into()).collect();
        source
            .attrs
            .insert(key.to_owned(), serde_json::Value::Array(values).to_string());
    }
}

/// Whether a frontend image is this frontend under another name, whatever its version.
pub(crate) fn is_built_in(image: &str) -> bool {
    let name = image.strip_prefix("docker.io/").unwrap_or(image);
    let name = name.split('@').next().unwrap_or(name);
    let name = name.split(':').next().unwrap_or(name);
    BUILT_IN.contains(&name)
}

/// `# syntax=docker/dockerfile…` is this frontend. Any other is an image, which the daemon runs.
pub(super) fn check_syntax(text: &str, attributes: &Attributes) -> Result<(), Error> {
    if attributes.syntax_settled {
        return Ok(());
    }
    let other = |image: &str, command_line: &str| Problem::Syntax {
        image: image.to_owned(),
        command_line: command_line.to_owned(),
    };
    if let Some(line) = attributes.build_args.get("BUILDKIT_SYNTAX") {
        let image = line.split_whitespace().next().unwrap_or_default();
        return if is_built_in(image) {
            Ok(())
        } else {
            Err(other(image, line).into())
        };
    }
    match syntax_directive(text) {
        Some(directive) if !is_built_in(&directive.image) => Err(Error::at(
            directive.lines,
            other(&directive.image, &directive.command_line),
        )),
        _ => Ok(()),
    }
}
