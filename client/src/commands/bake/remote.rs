//! Definitions in a Git repository, read with the `git` program: `https://host/repository.git#REF:FOLDER`.
//!
//! Only the files of the definition are read here; contexts are fetched by the builder.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use bake::target::Secret;
use bake::{DEFAULT_FILES, File};
use base64::Engine as _;
use tokio::process::Command;

use super::files;
use crate::settings::Settings;

/// The parts of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub repository: String,
    /// Empty for what the repository names.
    pub reference: String,
    pub folder: String,
}

impl Address {
    /// Nothing for an address that is no repository.
    pub fn parse(text: &str) -> Option<Self> {
        let (base, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
        let is_http = base.starts_with("http://") || base.starts_with("https://");
        if is_http && !base.ends_with(".git") {
            return None;
        }
        let repository = match base.strip_prefix("github.com/") {
            Some(_) => format!("https://{base}"),
            None => base.to_owned(),
        };
        Some(Self {
            repository,
            reference: reference.to_owned(),
            folder: folder.trim_matches('/').to_owned(),
        })
    }

    /// The address of a folder of what this is the address of.
    pub fn inside(text: &str, folder: &str) -> String {
        let folder = bake::paths::clean(folder);
        if folder == "." {
            return text.to_owned();
        }
        let (base, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, known) = fragment.split_once(':').unwrap_or((fragment, ""));
        let folder = bake::paths::clean(&format!("{known}/{folder}").replace("//", "/"));
        format!("{base}#{reference}:{}", folder.trim_start_matches('/'))
    }
}

/// These files of the repository, or those of the usual ones that are there.
pub async fn read(address: &str, names: &[&str], settings: &Settings) -> anyhow::Result<Vec<File>> {
    let parsed = Address::parse(address).with_context(|| {
        format!(
            "{address} is not the address of a Git repository, which ends with .git: download the file and name it with --file"
        )
    })?;
    let folder = tempfile::tempdir().context("making a folder for the remote definition")?;
    let git = Git {
        folder: folder.path(),
        settings,
        repository: &parsed.repository,
    };
    git.run(&["init", "--quiet", "."]).await?;
    let reference = if parsed.reference.is_empty() {
        "HEAD"
    } else {
        &parsed.reference
    };
    ensure!(
        !reference.starts_with('-') && !parsed.repository.starts_with('-'),
        "invalid address {address}"
    );
    let shallow = [
        "fetch",
        "--quiet",
        "--no-tags",
        "--depth=1",
        "--",
        &parsed.repository,
        reference,
    ];
    if git.run(&shallow).await.is_err() {
        // A web server that only has files knows nothing of depths.
        let whole = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--",
            &parsed.repository,
            reference,
        ];
        git.run(&whole)
            .await
            .with_context(|| format!("reading the definition from {address}"))?;
    }
    let mut files = Vec::new();
    let given = !names.is_empty();
    let names: &[&str] = if given { names } else { &DEFAULT_FILES };
    for name in names {
        let path = bake::paths::clean(format!("{}/{name}", parsed.folder).trim_start_matches('/'));
        ensure!(!path.starts_with(".."), "{name} lies outside of {address}");
        let object = format!("FETCH_HEAD:{path}");
        if !given && git.run(&["cat-file", "-e", &object]).await.is_err() {
            continue;
        }
        let bytes = git
            .run(&["cat-file", "blob", &object])
            .await
            .with_context(|| format!("reading {name} from {address}"))?;
        files.push(files::file(name, bytes)?);
    }
    Ok(files)
}

/// Who the definition's host lets in; the names are those of buildx.
const TOKEN: &str = "BUILDX_BAKE_GIT_AUTH_TOKEN";
const HEADER: &str = "BUILDX_BAKE_GIT_AUTH_HEADER";

/// The secrets with which the builder fetches a context from the host that the definition came from.
pub fn secrets(address: &str, context: &str, settings: &Settings) -> Vec<Secret> {
    let Some(host) = host(address).filter(|own| host(context).as_ref() == Some(own)) else {
        return Vec::new();
    };
    [("GIT_AUTH_TOKEN", TOKEN), ("GIT_AUTH_HEADER", HEADER)]
        .into_iter()
        .filter(|(_, variable)| settings.get(variable).is_some())
        .map(|(id, variable)| Secret {
            id: format!("{id}.{host}"),
            variable: variable.to_owned(),
            ..Secret::default()
        })
        .collect()
}

fn host(address: &str) -> Option<String> {
    let repository = Address::parse(address)?.repository;
    let (_, rest) = repository.split_once("://")?;
    let authority = rest.split('/').next()?;
    let host = authority.rsplit('@').next()?.to_lowercase();
    (!host.is_empty()).then_some(host)
}

struct Git<'a> {
    folder: &'a Path,
    settings: &'a Settings,
    repository: &'a str,
}

impl Git<'_> {
    async fn run(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let mut command = Command::new("git");
        command
            .current_dir(self.folder)
            .args(arguments)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE")
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        if let Some(header) = self.header() {
            // In the environment, where other users do not see it, and for this repository only.
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env(
                    "GIT_CONFIG_KEY_0",
                    format!("http.{}.extraHeader", self.repository),
                )
                .env("GIT_CONFIG_VALUE_0", header);
        }
        if let Some(keys) = self.settings.get("BUILDX_BAKE_GIT_SSH") {
            // The socket of an agent that is meant for this.
            command.env("SSH_AUTH_SOCK", keys);
        }
        let output = command
            .output()
            .await
            .context("running git, which remote definitions need: install it")?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            bail!("git {} failed: {}", arguments.first().unwrap_or(&""), why.trim());
        }
        Ok(output.stdout)
    }

    fn header(&self) -> Option<String> {
        if !self.repository.starts_with("http") {
            return None;
        }
        if let Some(value) = self.settings.get(HEADER) {
            return Some(format!("Authorization: {value}"));
        }
        let token = self.settings.get(TOKEN)?;
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{token}"));
        Some(format!("Authorization: basic {encoded}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_for_their_own_host() {
        let settings = Settings::of(&[(TOKEN, "x")]);
        let ids = |context: &str| -> Vec<String> {
            let found = secrets("https://h.example/x.git#v1", context, &settings);
            found.into_iter().map(|secret| secret.flag()).collect()
        };
        assert_eq!(
            ids("https://me@H.example/x.git#v1:a"),
            ["id=GIT_AUTH_TOKEN.h.example,env=BUILDX_BAKE_GIT_AUTH_TOKEN"]
        );
        assert!(ids("https://other.example/x.git").is_empty() && ids("folder").is_empty());
    }

    #[test]
    fn addresses_have_a_reference_and_a_folder() {
        let of = |text: &str| {
            Address::parse(text).map(|address| (address.repository, address.reference, address.folder))
        };
        let texts = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(of("https://h/x.git"), texts("https://h/x.git", "", ""));
        assert_eq!(
            of("https://h/x.git#v1:a/b"),
            texts("https://h/x.git", "v1", "a/b")
        );
        assert_eq!(of("github.com/o/r#:a"), texts("https://github.com/o/r", "", "a"));
        assert_eq!(of("https://h/bake.hcl"), None);
        for (text, folder, expected) in [
            ("https://h/x.git", ".", "https://h/x.git"),
            ("https://h/x.git", "a", "https://h/x.git#:a"),
            ("https://h/x.git#v1", "./a/", "https://h/x.git#v1:a"),
            ("https://h/x.git#v1:a", "b", "https://h/x.git#v1:a/b"),
            ("https://h/x.git#v1:a", "../b", "https://h/x.git#v1:b"),
        ] {
            assert_eq!(Address::inside(text, folder), expected);
        }
    }
}
