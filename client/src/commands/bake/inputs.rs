//! The contexts of targets as paths and addresses: cleaned, and moved to the repository if the definition is in one.

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use bake::{Selection, Target, paths};

use super::files::{LOCAL, Source};
use super::remote::Address;

/// What a target reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    pub context: String,
    pub dockerfile: String,
    /// By name.
    pub contexts: BTreeMap<String, String>,
}

/// Of all targets, whose contexts then are as they are printed.
pub fn all(selection: &mut Selection, source: &Source) -> anyhow::Result<BTreeMap<String, Inputs>> {
    let mut all = BTreeMap::new();
    for (name, target) in &mut selection.targets {
        let inputs = of(target, source)?;
        target.context = Some(inputs.context.clone());
        all.insert(name.clone(), inputs);
    }
    Ok(all)
}

fn of(target: &Target, source: &Source) -> anyhow::Result<Inputs> {
    let context = target.context.as_deref().unwrap_or(".");
    let dockerfile = target.dockerfile.as_deref().unwrap_or("Dockerfile");
    ensure!(context != "-", "context from stdin not allowed in bake");
    ensure!(dockerfile != "-", "dockerfile from stdin not allowed in bake");
    let is_elsewhere = |path: &str| path.starts_with(LOCAL) || paths::is_remote(path);
    let context = if is_elsewhere(context) {
        context.to_owned()
    } else {
        paths::clean(context)
    };
    let was_local = context.starts_with(LOCAL);
    let mut inputs = Inputs {
        context: moved(&context, source),
        dockerfile: String::new(),
        contexts: BTreeMap::new(),
    };
    if let Some(path) = inputs.context.strip_prefix(LOCAL) {
        inputs.context = paths::clean(path);
    }
    inputs.dockerfile = match dockerfile.strip_prefix(LOCAL) {
        Some(path) => std::path::absolute(paths::clean(path))?.display().to_string(),
        None if paths::is_remote(dockerfile) => {
            bail!("the Dockerfile {dockerfile} is remote: use a remote context that has it")
        }
        None => {
            let dockerfile = paths::clean(dockerfile);
            let is_of_folder = !paths::is_remote(&inputs.context) && !dockerfile.starts_with('/');
            if is_of_folder && was_local && source.remote.is_some() {
                // The definition means a file beside itself, of which the builder knows nothing here.
                let path = std::path::Path::new(&inputs.context).join(&dockerfile);
                ensure!(
                    !path.exists(),
                    "reading a dockerfile for a remote build invocation is currently not supported: write cwd://{dockerfile}"
                );
            }
            if is_of_folder {
                paths::clean(&format!("{}/{dockerfile}", inputs.context))
            } else {
                dockerfile
            }
        }
    };
    for (name, path) in target.contexts.iter().flatten() {
        let path = moved(path, source);
        let path = match path.strip_prefix(LOCAL) {
            Some(path) => paths::clean(path),
            None => path,
        };
        inputs.contexts.insert(name.clone(), path);
    }
    Ok(inputs)
}

/// A path of a remote definition is one of its repository.
fn moved(path: &str, source: &Source) -> String {
    let Some(address) = &source.remote else {
        return path.to_owned();
    };
    let schemes = [LOCAL, "target:", "docker-image:", "oci-layout:"];
    if paths::is_remote(path) || schemes.iter().any(|scheme| path.starts_with(scheme)) {
        return path.to_owned();
    }
    Address::inside(address, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(context: &str, dockerfile: &str, remote: Option<&str>) -> Inputs {
        let mut target = Target::default();
        target.context = Some(context.to_owned());
        target.dockerfile = Some(dockerfile.to_owned());
        target.contexts = Some(BTreeMap::from([("src".to_owned(), "lib".to_owned())]));
        let source = Source {
            remote: remote.map(str::to_owned),
            context: LOCAL.to_owned(),
        };
        of(&target, &source).unwrap()
    }

    #[test]
    fn contexts_are_where_the_definition_is() {
        let local = inputs("./a/../b/", "x/../Dockerfile", None);
        assert_eq!(
            (local.context.as_str(), local.dockerfile.as_str()),
            ("b", "b/Dockerfile")
        );
        assert_eq!(local.contexts["src"], "lib");
        let address = "https://h/x.git#v1";
        let remote = inputs(".", "Dockerfile", Some(address));
        assert_eq!(
            (remote.context.as_str(), remote.dockerfile.as_str()),
            (address, "Dockerfile")
        );
        assert_eq!(remote.contexts["src"], "https://h/x.git#v1:lib");
        let here = inputs("cwd://nowhere", "Dockerfile", Some(address));
        assert_eq!(here.context, "nowhere");
    }
}
