//! `--output`, `--push` and `--load`: what the daemon is to export, and where bytes that come back are put.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};

use bake::csv;

/// What happens to the bytes of an export that come to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Nothing comes: the daemon keeps or pushes the result.
    Daemon,
    Folder(PathBuf),
    File(PathBuf),
    StandardOutput,
    /// The image store of the Docker engine.
    Engine,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The exporter's name on the wire.
    pub kind: String,
    pub attributes: BTreeMap<String, String>,
    pub destination: Destination,
}

impl Output {
    fn of(kind: &str, attributes: &[(&str, &str)], destination: Destination) -> Self {
        let attributes = attributes
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self {
            kind: kind.to_owned(),
            attributes,
            destination,
        }
    }

    pub fn pushes(&self) -> bool {
        // A key without a value means true.
        self.kind == "image"
            && self
                .attributes
                .get("push")
                .is_some_and(|value| matches!(value.as_str(), "" | "true" | "1"))
    }

    pub fn holds_image(&self) -> bool {
        matches!(self.kind.as_str(), "image" | "oci" | "docker")
    }
}

/// All outputs of a build.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shorthands {
    pub push: bool,
    pub load: bool,
}

pub fn parse(values: &[String], shorthands: Shorthands) -> anyhow::Result<Vec<Output>> {
    let mut outputs = values
        .iter()
        .map(|value| one(value))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if shorthands.push {
        let mut images = outputs
            .iter_mut()
            .filter(|output| output.kind == "image")
            .peekable();
        if images.peek().is_none() {
            outputs.push(Output::of(
                "image",
                &[("push", "true"), ("unpack", "false")],
                Destination::Daemon,
            ));
        } else {
            for output in images {
                output
                    .attributes
                    .entry("push".to_owned())
                    .or_insert_with(|| "true".to_owned());
            }
        }
    }
    let loads = outputs
        .iter()
        .any(|output| output.destination == Destination::Engine);
    if shorthands.load && !loads {
        outputs.push(Output::of("docker", &[], Destination::Engine));
    }
    let to_standard_output = outputs
        .iter()
        .filter(|output| output.destination == Destination::StandardOutput)
        .count();
    ensure!(
        to_standard_output <= 1,
        "only one output can go to standard output"
    );
    Ok(outputs)
}

fn one(value: &str) -> anyhow::Result<Output> {
    if value == "-" {
        return Ok(Output::of("tar", &[], Destination::StandardOutput));
    }
    let fields = csv::fields(value, ',')?;
    if let [single] = fields.as_slice()
        && !single.contains('=')
    {
        return Ok(Output::of("local", &[], Destination::Folder(single.into())));
    }
    let mut attributes = BTreeMap::new();
    for field in fields {
        let (name, value) = field
            .split_once('=')
            .with_context(|| format!("invalid value {field}, expected k=v"))?;
        attributes.insert(name.trim().to_ascii_lowercase(), value.to_owned());
    }
    let kind = attributes.remove("type").context("type is required for output")?;
    let target = attributes.remove("dest");
    let (kind, destination) = match (kind.as_str(), target.as_deref()) {
        ("registry", None) => {
            attributes
                .entry("push".to_owned())
                .or_insert_with(|| "true".to_owned());
            ("image", Destination::Daemon)
        }
        ("image" | "cacheonly", None) => (kind.as_str(), Destination::Daemon),
        ("image" | "registry" | "cacheonly", Some(_)) => bail!("output type {kind} takes no dest"),
        ("local", Some("-")) => bail!("dest cannot be stdout for local exporter"),
        ("local", Some(folder)) => ("local", Destination::Folder(folder.into())),
        ("local", None) => bail!("dest is required for local exporter"),
        ("docker", None) => ("docker", Destination::Engine),
        ("tar" | "oci" | "docker", target) => {
            if attributes
                .get("tar")
                .is_some_and(|value| matches!(value.as_str(), "false" | "0"))
            {
                bail!(
                    "output type={kind},tar=false is not supported: leave tar=false out and unpack the archive"
                );
            }
            match target {
                None | Some("-") => (kind.as_str(), Destination::StandardOutput),
                Some(path) => (kind.as_str(), Destination::File(path.into())),
            }
        }
        (other, _) => {
            bail!("unsupported output type \"{other}\", use registry, image, local, tar, oci or docker")
        }
    };
    Ok(Output {
        kind: kind.to_owned(),
        attributes,
        destination,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(values: &[&str], push: bool, load: bool) -> anyhow::Result<Vec<Output>> {
        let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
        parse(&values, Shorthands { push, load })
    }

    #[test]
    fn outputs_become_exporters() {
        use Destination::{Daemon, Engine, File, Folder, StandardOutput};
        for (values, push, load, expected) in [
            (vec![], false, false, vec![]),
            (
                vec![],
                true,
                false,
                vec![Output::of(
                    "image",
                    &[("push", "true"), ("unpack", "false")],
                    Daemon,
                )],
            ),
            (vec![], false, true, vec![Output::of("docker", &[], Engine)]),
            (
                vec!["out"],
                false,
                false,
                vec![Output::of("local", &[], Folder("out".into()))],
            ),
            (
                vec!["-"],
                false,
                false,
                vec![Output::of("tar", &[], StandardOutput)],
            ),
            (
                vec!["type=local,dest=a"],
                false,
                false,
                vec![Output::of("local", &[], Folder("a".into()))],
            ),
            (
                vec!["type=oci,dest=x.tar"],
                false,
                false,
                vec![Output::of("oci", &[], File("x.tar".into()))],
            ),
            (
                vec!["type=docker"],
                false,
                true,
                vec![Output::of("docker", &[], Engine)],
            ),
            (
                vec!["type=registry"],
                false,
                false,
                vec![Output::of("image", &[("push", "true")], Daemon)],
            ),
            (
                vec!["type=image,compression=zstd"],
                true,
                false,
                vec![Output::of(
                    "image",
                    &[("compression", "zstd"), ("push", "true")],
                    Daemon,
                )],
            ),
        ] {
            assert_eq!(outputs(&values, push, load).unwrap(), expected, "{values:?}");
        }
    }

    #[test]
    fn impossible_outputs_are_refused_by_name() {
        for (value, part) in [
            ("type=local", "dest is required"),
            ("type=local,dest=-", "stdout"),
            ("dest=x", "type is required"),
            ("type=sif,dest=x", "\"sif\""),
            ("type=oci,tar=false,dest=x", "tar=false"),
            ("type=image,dest=x", "takes no dest"),
            ("a,b", "expected k=v"),
        ] {
            let error = outputs(&[value], false, false).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(outputs(&["-", "type=oci"], false, false).is_err());
    }
}
