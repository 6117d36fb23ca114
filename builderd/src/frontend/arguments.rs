//! Variables that exist before any stage does: platform arguments, and ARGs above the first FROM.

use std::collections::{BTreeMap, BTreeSet};

use binfmt::Platform;
use dockerfile::Dockerfile;
use dockerfile::expand::{Environment, Expander};
use dockerfile::instruction::{Arg, GlobalArg};
use dockerfile::lint::description;
use proto::pb;

use super::outline::Declared;
use super::{Attributes, Error, Problem, epoch};

/// The global scope: what variables are set, and what the file says about those that it declares.
#[derive(Clone, Debug, Default)]
pub(super) struct Globals {
    pub(super) scope: Environment,
    pub(super) declared: BTreeMap<String, Declared>,
}

/// The global scope for one target platform. Build arguments override every one of them.
pub(super) fn global(
    file: &Dockerfile,
    attributes: &Attributes,
    build_args: &BTreeMap<String, String>,
    target: &Platform,
    target_stage: &str,
) -> Result<Globals, Error> {
    let build = &attributes.build_platform;
    let (build_text, target_text) = (build.to_string(), target.to_string());
    let automatic = [
        ("BUILDPLATFORM", build_text.as_str()),
        ("BUILDOS", build.os()),
        ("BUILDOSVERSION", build.os_version()),
        ("BUILDARCH", build.architecture()),
        ("BUILDVARIANT", build.variant()),
        ("TARGETPLATFORM", target_text.as_str()),
        ("TARGETOS", target.os()),
        ("TARGETOSVERSION", target.os_version()),
        ("TARGETARCH", target.architecture()),
        ("TARGETVARIANT", target.variant()),
        (
            "TARGETSTAGE",
            if target_stage.is_empty() {
                "default"
            } else {
                target_stage
            },
        ),
    ];
    let given = |name: &str| build_args.get(name).map(String::as_str);
    let mut scope = Environment::new();
    for (name, value) in automatic {
        scope.set(name, given(name).unwrap_or(value));
    }
    let mut globals = Globals {
        scope,
        ..Globals::default()
    };
    let expander = Expander::new(file.escape);
    for declaration in &file.global_args {
        for arg in &declaration.args {
            let (value, uses) = match (given(&arg.name), &arg.default) {
                (Some(value), _) => (Some(value.to_owned()), BTreeSet::new()),
                (None, Some(default)) => {
                    let value = expander.word(default, &globals.scope);
                    let value =
                        value.map_err(|failed| Error::at(declaration.lines, Problem::Expansion(failed)))?;
                    (Some(value.text), value.used)
                }
                (None, None) => (None, BTreeSet::new()),
            };
            globals.declare(arg, value, uses, declaration);
        }
    }
    if let Some(epoch) = attributes.epoch
        && globals.scope.get(epoch::NAME).is_some()
    {
        match epoch {
            Some(seconds) => globals.scope.set(epoch::NAME, &seconds.to_string()),
            None => globals.scope.unset(epoch::NAME),
        }
    }
    Ok(globals)
}

impl Globals {
    fn declare(
        &mut self,
        arg: &Arg,
        value: Option<String>,
        mut uses: BTreeSet<String>,
        declaration: &GlobalArg,
    ) {
        // A value made of the one before is made of what that was made of.
        if uses.remove(&arg.name)
            && let Some(before) = self.declared.get(&arg.name)
        {
            uses.extend(before.uses.iter().cloned());
        }
        if let Some(value) = &value {
            self.scope.set(&arg.name, value);
        }
        let declared = Declared {
            value: value.unwrap_or_default(),
            description: description(&declaration.comments, &arg.name).to_owned(),
            uses,
            lines: declaration.lines,
        };
        self.declared.insert(arg.name.clone(), declared);
    }
}

/// Proxy settings among the build arguments: they reach steps without being declared, and leave no trace.
pub(super) fn proxy(attributes: &Attributes) -> Option<pb::ProxyEnv> {
    let mut proxy = pb::ProxyEnv::default();
    let mut any = false;
    for (name, value) in &attributes.build_args {
        let field = match name.to_ascii_lowercase().as_str() {
            "http_proxy" => &mut proxy.http_proxy,
            "https_proxy" => &mut proxy.https_proxy,
            "ftp_proxy" => &mut proxy.ftp_proxy,
            "no_proxy" => &mut proxy.no_proxy,
            "all_proxy" => &mut proxy.all_proxy,
            _ => continue,
        };
        field.clone_from(value);
        any = true;
    }
    any.then_some(proxy)
}
