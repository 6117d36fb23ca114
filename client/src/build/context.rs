//! The context and the Dockerfile: what the positional argument and `--file` mean. Everything that can be checked here
//! is checked before a daemon is contacted.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use registry::Digest;
use sha2::Digest as _;

use crate::layout::{self, Layout};

/// The attributes that describe them, and the folders that the session offers.
#[derive(Debug, Default)]
pub struct Inputs {
    pub attributes: BTreeMap<String, String>,
    pub folders: BTreeMap<String, PathBuf>,
    /// OCI layouts, by the names that the daemon asks for.
    pub layouts: BTreeMap<String, Layout>,
    /// The Dockerfile's path as the user knows it; the daemon knows only its name.
    pub dockerfile: Option<PathBuf>,
    /// Keeps a Dockerfile that came from standard input.
    _scratch: Option<tempfile::TempDir>,
}

/// What a frontend must know for named contexts, or hand on to one that does.
const NAMED_CONTEXTS: &str = "moby.buildkit.frontend.contexts+forward";
/// Nobody writes one this long; what is this long is something else.
const LARGEST_DOCKERFILE: u64 = 16 << 20;

/// What flags say about inputs.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub context: &'a str,
    pub file: Option<&'a str>,
    /// The Dockerfile itself.
    pub inline: Option<&'a str>,
    /// `NAME=TARGET`
    pub named: &'a [String],
}

/// Where the Dockerfile is.
enum Dockerfile<'a> {
    Inline(&'a str),
    StandardInput,
    File(Option<&'a str>),
}

pub fn resolve(request: &Request<'_>) -> anyhow::Result<Inputs> {
    let mut inputs = Inputs::default();
    let (context, file) = (request.context, request.file);
    let dockerfile = match (request.inline, file) {
        (Some(text), _) => Dockerfile::Inline(text),
        (None, Some("-")) => Dockerfile::StandardInput,
        (None, file) => Dockerfile::File(file),
    };
    if context == "-" {
        ensure!(
            file != Some("-"),
            "invalid argument: can't use stdin for both build context and dockerfile"
        );
        ensure!(
            file.is_none(),
            "a context from standard input is a Dockerfile alone: leave --file out"
        );
        from_standard_input(&mut inputs)?;
    } else if is_remote(context) {
        inputs.attributes.insert("context".to_owned(), context.to_owned());
        match dockerfile {
            Dockerfile::Inline(text) => from_text(&mut inputs, text.as_bytes())?,
            Dockerfile::StandardInput => from_standard_input(&mut inputs)?,
            Dockerfile::File(Some(file)) => {
                inputs.attributes.insert("filename".to_owned(), file.to_owned());
            }
            Dockerfile::File(None) => {}
        }
        if inputs.folders.contains_key("dockerfile") {
            inputs
                .attributes
                .insert("dockerfilekey".to_owned(), "dockerfile".to_owned());
        }
    } else {
        let folder = Path::new(context);
        let metadata = std::fs::metadata(folder)
            .ok()
            .with_context(|| format!("unable to prepare context: path \"{context}\" not found"))?;
        ensure!(
            metadata.is_dir(),
            "unable to prepare context: path \"{context}\" must be a directory"
        );
        inputs.folders.insert("context".to_owned(), folder.to_owned());
        match dockerfile {
            Dockerfile::Inline(text) => from_text(&mut inputs, text.as_bytes())?,
            Dockerfile::StandardInput => from_standard_input(&mut inputs)?,
            Dockerfile::File(file) => from_file(&mut inputs, folder, file)?,
        }
    }
    for value in request.named {
        let (name, target) = value
            .split_once('=')
            .with_context(|| format!("invalid context value: {value}, expected key=value"))?;
        named_context(&mut inputs, name, target)?;
    }
    Ok(inputs)
}

fn from_file(inputs: &mut Inputs, context: &Path, file: Option<&str>) -> anyhow::Result<()> {
    let mut path = file.map_or_else(|| context.join("Dockerfile"), PathBuf::from);
    if !path.exists() && path.file_name().is_some_and(|name| name == "Dockerfile") {
        let lower = path.with_file_name("dockerfile");
        if lower.exists() {
            path = lower;
        }
    }
    ensure!(
        !path.is_dir(),
        "failed to read dockerfile: {} is a directory",
        path.display()
    );
    std::fs::File::open(&path)
        .with_context(|| format!("failed to read dockerfile: open {}", path.display()))?;
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .context("the name of the Dockerfile is no text")?;
    inputs.attributes.insert("filename".to_owned(), name.to_owned());
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    inputs.folders.insert("dockerfile".to_owned(), folder.to_owned());
    inputs.dockerfile = Some(path);
    Ok(())
}

fn from_standard_input(inputs: &mut Inputs) -> anyhow::Result<()> {
    let mut text = Vec::new();
    std::io::stdin()
        .take(LARGEST_DOCKERFILE)
        .read_to_end(&mut text)
        .context("reading the Dockerfile from standard input")?;
    ensure!(
        !is_archive(&text),
        "an archive on standard input is not supported as a context: unpack it, and name the folder"
    );
    from_text(inputs, &text)
}

fn from_text(inputs: &mut Inputs, text: &[u8]) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("making a folder for the Dockerfile")?;
    std::fs::write(scratch.path().join("Dockerfile"), text).context("writing the Dockerfile")?;
    inputs
        .attributes
        .insert("filename".to_owned(), "Dockerfile".to_owned());
    inputs
        .folders
        .insert("dockerfile".to_owned(), scratch.path().to_owned());
    // Without a context of its own, such a Dockerfile has an empty one.
    if !inputs.attributes.contains_key("context") && !inputs.folders.contains_key("context") {
        let empty = scratch.path().join("context");
        std::fs::create_dir(&empty).context("making an empty context")?;
        inputs.folders.insert("context".to_owned(), empty);
    }
    inputs._scratch = Some(scratch);
    Ok(())
}

/// A tar file, or one of the ways to compress it.
fn is_archive(bytes: &[u8]) -> bool {
    let starts: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    starts.iter().any(|start| bytes.starts_with(start)) || bytes.get(257..262) == Some(b"ustar")
}

fn named_context(inputs: &mut Inputs, name: &str, target: &str) -> anyhow::Result<()> {
    ensure!(
        !name.is_empty(),
        "invalid context value: ={target}, expected key=value"
    );
    // Names of images are compared without the tag that is meant anyway.
    let name = name.strip_suffix(":latest").unwrap_or(name);
    let key = format!("context:{name}");
    inputs
        .attributes
        .insert("frontend.caps".to_owned(), NAMED_CONTEXTS.to_owned());
    if is_remote(target)
        || ["docker-image://", "target:"]
            .iter()
            .any(|start| target.starts_with(start))
    {
        inputs.attributes.insert(key, target.to_owned());
        return Ok(());
    }
    if let Some(layout) = target.strip_prefix("oci-layout://") {
        let value = layout_context(inputs, layout);
        let value = value.with_context(|| format!("failed to get build context {name}"))?;
        inputs.attributes.insert(key, value);
        return Ok(());
    }
    let folder = Path::new(target);
    ensure!(
        folder.is_dir(),
        "failed to get build context {name}: {target} is not a directory"
    );
    // These two names are taken by the main context.
    let local = if matches!(name, "context" | "dockerfile") {
        format!("_{name}")
    } else {
        name.to_owned()
    };
    inputs.attributes.insert(key, format!("local:{local}"));
    inputs
        .attributes
        .insert(format!("sharedkey:localdir:{name}"), shared_key(folder));
    inputs.folders.insert(local, folder.to_owned());
    Ok(())
}

/// `PATH[:TAG][@DIGEST]`: the daemon is told the digest, and asks the session for the rest.
fn layout_context(inputs: &mut Inputs, text: &str) -> anyhow::Result<String> {
    let (rest, digest) = match text.rsplit_once('@') {
        Some((rest, digest)) => {
            let parsed: Result<Digest, _> = digest.parse();
            (
                rest,
                Some(parsed.with_context(|| format!("invalid digest {digest:?}"))?),
            )
        }
        None => (text, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !Path::new(rest).is_dir() => (path, Some(tag)),
        _ => (rest, None),
    };
    let folder = Path::new(path);
    let digest = match digest {
        Some(digest) => digest,
        None => layout::find(folder, tag)?.with_context(|| format!("{path} is no OCI layout"))?,
    };
    ensure!(
        layout::blob(folder, &digest).is_file(),
        "{path} does not have {digest}"
    );
    let name = format!("layout-{}", &shared_key(folder)[..24]);
    let layout = Layout {
        folder: folder.to_owned(),
        writable: false,
    };
    inputs.layouts.insert(format!("oci:{name}"), layout);
    let tag = tag.unwrap_or(layout::DEFAULT_TAG);
    Ok(format!("oci-layout://{name}:{tag}@{digest}"))
}

/// Stable for one folder of one machine.
pub fn shared_key(folder: &Path) -> String {
    let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let mut hash = sha2::Sha256::new();
    hash.update(folder.as_os_str().as_encoded_bytes());
    hash.update(std::fs::read("/etc/machine-id").unwrap_or_default());
    hex::encode(hash.finalize())[..32].to_owned()
}

/// A Git repository or an archive that the daemon fetches by itself.
fn is_remote(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/"]
        .iter()
        .any(|start| text.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(context: &str, file: Option<&str>, named: &[String]) -> anyhow::Result<Inputs> {
        super::resolve(&Request {
            context,
            file,
            inline: None,
            named,
        })
    }

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "FROM scratch\n").unwrap();
        }
        folder
    }

    #[test]
    fn the_dockerfile_is_in_the_context_or_where_the_flag_says() {
        let root = folder(&["Dockerfile", "sub/Other"]);
        let context = root.path().to_str().unwrap();
        let inputs = resolve(context, None, &[]).unwrap();
        assert_eq!(inputs.attributes["filename"], "Dockerfile");
        assert_eq!(inputs.folders["dockerfile"], root.path());
        let other = format!("{context}/sub/Other");
        let inputs = resolve(context, Some(&other), &[]).unwrap();
        assert_eq!(inputs.attributes["filename"], "Other");
        assert_eq!(inputs.folders["dockerfile"], root.path().join("sub"));
        let lower = folder(&["dockerfile"]);
        let inputs = resolve(lower.path().to_str().unwrap(), None, &[]).unwrap();
        assert_eq!(inputs.attributes["filename"], "dockerfile");
    }

    #[test]
    fn what_is_missing_is_named() {
        let root = folder(&["file"]);
        let context = root.path().to_str().unwrap();
        let file = format!("{context}/file");
        for (context, file, part) in [
            ("/nowhere/x", None, "path \"/nowhere/x\" not found"),
            (file.as_str(), None, "must be a directory"),
            (context, None, "failed to read dockerfile: open"),
            (context, Some("/nowhere/D"), "open /nowhere/D"),
        ] {
            let error = resolve(context, file, &[]).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
    }

    #[test]
    fn named_contexts_are_folders_or_addresses() {
        let root = folder(&["Dockerfile", "sub/x"]);
        let context = root.path().to_str().unwrap();
        let named = [
            format!("lib={context}/sub"),
            "base:latest=docker-image://alpine".to_owned(),
        ];
        let inputs = resolve(context, None, &named).unwrap();
        assert_eq!(inputs.attributes["context:lib"], "local:lib");
        assert_eq!(inputs.folders["lib"], root.path().join("sub"));
        assert_eq!(inputs.attributes["context:base"], "docker-image://alpine");
        for wrong in ["lib", "lib=/nowhere/x", "lib=oci-layout://x"] {
            assert!(resolve(context, None, &[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn archives_are_told_from_dockerfiles() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for (bytes, expected) in [
            (&b"FROM x"[..], false),
            (b"", false),
            (&tar, true),
            (b"\x1f\x8bx", true),
            (b"BZh9", true),
        ] {
            assert_eq!(is_archive(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_remote_context_is_left_to_the_daemon() {
        let inputs = resolve("https://github.com/a/b.git#main:sub", Some("x/Dockerfile"), &[]).unwrap();
        assert_eq!(
            inputs.attributes["context"],
            "https://github.com/a/b.git#main:sub"
        );
        assert_eq!(inputs.attributes["filename"], "x/Dockerfile");
        assert!(inputs.folders.is_empty());
    }
}
