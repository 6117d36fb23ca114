//! COPY and ADD to one file operation: an action per source.

use dockerfile::address::{Address, GitReference, file_name, without_credentials};
use dockerfile::expand::{Expander, Quotes};
use dockerfile::glob::has_wildcards;
use dockerfile::ignore::clean;
use dockerfile::instruction::{Add, Copy, Transfer};
use proto::pb;

use super::Problem;
use super::image::{Layer, commit};
use super::lower::Lowering;
use super::name::shown;
use super::plan::Step;
use super::remote::{self, GitOptions};
use super::stage::{Frame, join, ownership};
use crate::graph::builder::{Note, Operation, Output};
use crate::graph::digest_of;

/// A remote file whose address says nothing about its name.
pub(super) const UNNAMED: &str = "__unnamed__";

/// What COPY and ADD differ in.
struct Manner {
    keyword: &'static str,
    parents: bool,
    unpack: bool,
    /// What may be said of sources that are fetched; nothing if there can be none.
    remote: Option<RemoteFlags>,
}

/// The flags of ADD that are about sources elsewhere.
struct RemoteFlags {
    checksum: Option<String>,
    keep_git_dir: Option<bool>,
    unpack: bool,
}

/// Inputs and actions of a file operation under construction.
#[derive(Default)]
struct Actions {
    inputs: Vec<Output>,
    /// Secondary input of each action, and what it does.
    copies: Vec<(i64, pb::FileActionCopy)>,
}

impl Frame {
    pub(super) fn copy(
        &mut self,
        step: &Step,
        copy: &Copy,
        lowering: &mut Lowering<'_>,
    ) -> Result<(), Problem> {
        let manner = Manner {
            keyword: "COPY",
            parents: copy.parents,
            unpack: false,
            remote: None,
        };
        let source = match step.sources.first() {
            Some(Some(stage)) => {
                let later = || Problem::CopyFromLater {
                    from: copy.from.clone().unwrap_or_default(),
                    stage: self.prefix.stage.clone(),
                };
                Source::Stage(*stage, lowering.finished(*stage).ok_or_else(later)?)
            }
            _ => Source::Context,
        };
        self.transfer(step, &copy.files, source, &manner, lowering)
    }

    pub(super) fn add(&mut self, step: &Step, add: &Add, lowering: &mut Lowering<'_>) -> Result<(), Problem> {
        let checksum = add
            .checksum
            .as_deref()
            .map(|checksum| self.expand(checksum, &lowering.expander))
            .transpose()?;
        let manner = Manner {
            keyword: "ADD",
            parents: false,
            // Archives that come from elsewhere stay as they are unless somebody asks.
            unpack: add.unpack.unwrap_or(true),
            remote: Some(RemoteFlags {
                checksum: checksum.filter(|checksum| !checksum.is_empty()),
                keep_git_dir: add.keep_git_dir,
                unpack: add.unpack.unwrap_or(false),
            }),
        };
        self.transfer(step, &add.files, Source::Context, &manner, lowering)
    }

    fn transfer(
        &mut self,
        step: &Step,
        files: &Transfer,
        source: Source,
        manner: &Manner,
        lowering: &mut Lowering<'_>,
    ) -> Result<(), Problem> {
        let expander = lowering.expander;
        let expand = |text: &str| self.expand(text, &expander);
        let optional = |text: &Option<String>| text.as_deref().map(expand).transpose();
        let (chown, chmod) = (optional(&files.chown)?, optional(&files.chmod)?);
        let sources = files
            .sources
            .iter()
            .map(|source| expand(source))
            .collect::<Result<Vec<_>, _>>()?;
        let destination = expand(&files.destination)?;
        let mode = chmod.as_deref().map_or(Ok(Mode::Kept), Mode::parse)?;
        let addresses = addresses(&sources, manner)?;

        let mut history = String::from(manner.keyword);
        if manner.parents {
            history.push_str(" --parents");
        }
        for (flag, value) in [("chown", &chown), ("chmod", &chmod)] {
            if let Some(value) = value {
                history.push_str(&format!(" --{flag}={value}"));
            }
        }
        let note = self.note(step, lowering);
        // A link does not see what is below it, so that it stays the same whatever that is.
        let below = self.root.filter(|_| !files.link || chmod.is_some());
        let base = if below.is_some() { 0 } else { -1 };
        let template = pb::FileActionCopy {
            dest: self.destination(&destination),
            owner: chown.as_deref().map(|chown| ownership(chown, base)),
            mode: mode.number(),
            mode_str: mode.text(),
            create_dest_path: true,
            timestamp: -1,
            exclude_patterns: files.excludes.clone(),
            ..pb::FileActionCopy::default()
        };
        let mut actions = Actions {
            inputs: below.into_iter().collect(),
            copies: Vec::new(),
        };
        for (path, address) in sources.iter().zip(&addresses) {
            // Everybody who has the image can read it.
            history.push_str(&format!(" {}", without_credentials(path)));
            if let (Some(address), Some(flags)) = (address, &manner.remote) {
                let note = Note {
                    ignore_cache: false,
                    ..note.clone()
                };
                let (operation, copy) = remote_copy(address, flags, note, &template)?;
                actions.push(Some(lowering.builder.add(operation)), copy);
                continue;
            }
            let from = match source {
                Source::Stage(stage, root) => {
                    lowering.note_use(stage, path);
                    root
                }
                Source::Context => {
                    lowering.context_use.add(path);
                    lowering.context()
                }
            };
            actions.push(from, local_copy(path, manner, &template));
        }
        for document in &files.documents {
            history.push_str(&format!(" <<{}", document.name));
            let mut text = document.body();
            if document.expand {
                // Quotes mean nothing in a document, and its escape character is always the backslash.
                let expander = Expander {
                    quotes: Quotes::Ignored,
                    ..Expander::new('\\')
                };
                text = self.expand(&text, &expander)?;
            }
            let file = inline_document(&document.name, 0o644, text.into_bytes());
            let from = lowering.builder.add(file);
            actions.push(
                Some(from),
                pb::FileActionCopy {
                    src: join(&document.name, "/"),
                    ..template.clone()
                },
            );
        }
        history.push_str(&format!(" {destination} # buildkit"));
        self.root = Some(match self.root.filter(|_| below.is_none()) {
            Some(root) => self.linked(step, root, actions.operation(base, note), lowering),
            None => lowering.builder.add(actions.operation(base, note)),
        });
        commit(&mut self.history, history, Layer::Made);
        Ok(())
    }

    /// Lays what `copy` makes on its own over `root`. Displays show both as one step.
    fn linked(
        &mut self,
        step: &Step,
        root: Output,
        mut copy: Operation,
        lowering: &mut Lowering<'_>,
    ) -> Output {
        let id = digest_of(copy.note.name.as_bytes());
        let group = |weak| {
            Some(pb::ProgressGroup {
                id: id.clone(),
                name: copy.note.name.clone(),
                weak,
            })
        };
        let text = format!(
            "LINK {}",
            shown(&step.command.code, &lowering.expander, &self.environment)
        );
        let merge = Note {
            name: self
                .prefix
                .again(&text, &self.platform, &self.environment, step.on_build),
            group: group(false),
            ..copy.note.clone()
        };
        copy.note.group = group(true);
        let copied = lowering.builder.add(copy);
        let inputs = (0..2).map(|input| pb::MergeInput { input }).collect();
        lowering.builder.add(Operation {
            kind: pb::op::Op::Merge(pb::MergeOp { inputs }),
            inputs: vec![root, copied],
            platform: None,
            note: merge,
        })
    }

    /// The destination as an absolute path; a slash at its end says that it is a folder, and stays.
    fn destination(&self, path: &str) -> String {
        let path = if path.is_empty() || path == "." {
            "./"
        } else {
            path
        };
        let mut joined = join(path, &self.directory);
        if path.ends_with('/') && !joined.ends_with('/') {
            joined.push('/');
        } else if path.ends_with("/.") {
            joined.push_str(if joined == "/" { "." } else { "/." });
        }
        joined
    }
}

#[derive(Clone, Copy)]
enum Source {
    Context,
    Stage(usize, Option<Output>),
}

/// `--chmod`: bits, or a symbolic change.
enum Mode {
    Kept,
    Bits(i32),
    Symbolic(String),
}

impl Mode {
    fn parse(text: &str) -> Result<Self, Problem> {
        let invalid = || Problem::Chmod(text.to_owned());
        if text.chars().all(|ch| ch.is_ascii_digit()) {
            let bits = i32::from_str_radix(text, 8).map_err(|_| invalid())?;
            return if bits <= 0o7777 {
                Ok(Self::Bits(bits))
            } else {
                Err(invalid())
            };
        }
        let clause = |clause: &str| {
            let rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
            rest.starts_with(['+', '-', '='])
                && rest.chars().all(|ch| {
                    matches!(
                        ch,
                        '+' | '-' | '=' | 'r' | 'w' | 'x' | 'X' | 's' | 't' | 'u' | 'g' | 'o'
                    )
                })
        };
        if text.split(',').all(clause) {
            Ok(Self::Symbolic(text.to_owned()))
        } else {
            Err(invalid())
        }
    }

    fn number(&self) -> i32 {
        match self {
            Self::Kept => -1,
            Self::Bits(bits) => *bits,
            Self::Symbolic(_) => 0,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Symbolic(text) => text.clone(),
            _ => String::new(),
        }
    }
}

impl Actions {
    fn push(&mut self, from: Option<Output>, copy: pb::FileActionCopy) {
        let input = match from {
            None => -1,
            Some(from) => {
                let known = self.inputs.iter().position(|input| *input == from);
                let at = known.unwrap_or_else(|| {
                    self.inputs.push(from);
                    self.inputs.len() - 1
                });
                index(at)
            }
        };
        self.copies.push((input, copy));
    }

    /// Each action goes on from the one before; only the last one's result is an output.
    fn operation(self, base: i64, note: Note) -> Operation {
        let (inputs, last) = (self.inputs.len(), self.copies.len() - 1);
        let action = |(at, (secondary_input, copy)): (usize, (i64, pb::FileActionCopy))| pb::FileAction {
            input: if at == 0 { base } else { index(inputs + at - 1) },
            secondary_input,
            output: if at == last { 0 } else { -1 },
            action: Some(pb::file_action::Action::Copy(copy)),
        };
        let actions = self.copies.into_iter().enumerate().map(action).collect();
        Operation {
            kind: pb::op::Op::File(pb::FileOp { actions }),
            inputs: self.inputs,
            platform: None,
            note,
        }
    }
}

fn index(at: usize) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

fn local_copy(path: &str, manner: &Manner, template: &pb::FileActionCopy) -> pb::FileActionCopy {
    let mut copy = pb::FileActionCopy {
        src: join(path, "/"),
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack_docker_compatibility: manner.unpack,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..template.clone()
    };
    if manner.parents {
        // `a/./b/c` keeps `b/c`; without the pivot everything is kept.
        let (root, pattern) = path.split_once("/./").unwrap_or(("/", path));
        let pattern = join(pattern, "/");
        copy.src = join(root, "/");
        if !has_wildcards(root) && !has_wildcards(&pattern) {
            copy.required_paths = vec![clean(&format!("{}{pattern}", copy.src))];
        }
        copy.include_patterns = vec![pattern.trim_start_matches('/').to_owned()];
    }
    copy
}

/// A folder with nothing but this file in it.
pub(super) fn inline_document(name: &str, mode: i32, data: Vec<u8>) -> Operation {
    let file = pb::FileActionMkFile {
        path: join(name, "/"),
        mode,
        data: data.into(),
        owner: None,
        timestamp: -1,
    };
    let action = pb::FileAction {
        input: -1,
        secondary_input: -1,
        output: 0,
        action: Some(pb::file_action::Action::Mkfile(file)),
    };
    Operation {
        kind: pb::op::Op::File(pb::FileOp {
            actions: vec![action],
        }),
        inputs: Vec::new(),
        platform: None,
        note: Note {
            name: "[internal] preparing inline document".to_owned(),
            ..Note::default()
        },
    }
}

/// For each source where it is to be fetched from, if it is.
fn addresses(sources: &[String], manner: &Manner) -> Result<Vec<Option<Address>>, Problem> {
    let addresses = sources
        .iter()
        .map(|source| {
            let address = Address::parse(source).map_err(|problem| Problem::AddSource {
                source_path: source.clone(),
                source: problem,
            })?;
            // Where paths are meant, `github.com/…` is one.
            Ok(address.filter(|address| !matches!(address, Address::Git(git) if git.like_a_path)))
        })
        .collect::<Result<Vec<_>, _>>()?;
    match &manner.remote {
        None => match addresses.iter().flatten().next() {
            Some(Address::Git(_)) => return Err(Problem::Copy("source can't be a git ref for COPY")),
            Some(Address::Http(_)) => return Err(Problem::Copy("source can't be a URL for COPY")),
            None => {}
        },
        Some(flags) if flags.checksum.is_some() => match addresses.as_slice() {
            [Some(_)] => {}
            [None] => return Err(Problem::Copy("checksum requires HTTP(S) or Git sources")),
            _ => return Err(Problem::Copy("checksum can't be specified for multiple sources")),
        },
        Some(_) => {}
    }
    Ok(addresses)
}

/// What fetches a source, and what copies it.
fn remote_copy(
    address: &Address,
    flags: &RemoteFlags,
    note: Note,
    template: &pb::FileActionCopy,
) -> Result<(Operation, pb::FileActionCopy), Problem> {
    match address {
        Address::Git(reference) => {
            let options = git_options(reference, flags)?;
            let copy = pb::FileActionCopy {
                src: "/".to_owned(),
                ..template.clone()
            };
            Ok((remote::repository(reference, &options, note), copy))
        }
        Address::Http(url) => {
            if let Some(checksum) = &flags.checksum {
                let parsed: Result<registry::Digest, _> = checksum.parse();
                parsed.map_err(Problem::Checksum)?;
            }
            let name = file_name(url).unwrap_or_else(|| UNNAMED.to_owned());
            let copy = pb::FileActionCopy {
                src: join(&name, "/"),
                attempt_unpack_docker_compatibility: flags.unpack,
                ..template.clone()
            };
            Ok((remote::file(url, &name, flags.checksum.as_deref(), note), copy))
        }
    }
}

fn git_options(reference: &GitReference, flags: &RemoteFlags) -> Result<GitOptions, Problem> {
    if let (Some(flag), Some(address)) = (flags.keep_git_dir, reference.keep_git_dir)
        && flag != address
    {
        return Err(Problem::Copy("inconsistent keep-git-dir configuration"));
    }
    if let (Some(flag), Some(address)) = (&flags.checksum, &reference.checksum)
        && flag != address
    {
        return Err(Problem::Checksums {
            flag: flag.clone(),
            address: address.clone(),
        });
    }
    Ok(GitOptions {
        keep_git_dir: flags.keep_git_dir == Some(true),
        checksum: flags.checksum.clone(),
        mtime: None,
    })
}
