//! Variables that exist before any stage does: platform arguments, and ARGs above the first FROM.

use std::collections::BTreeMap;

use binfmt::Platform;
use dockerfile::Dockerfile;
use dockerfile::expand::{Environment, Expander};
use proto::pb;

use super::{Attributes, Error, Problem};

/// The global scope for one target platform. Build arguments override every one of them.
pub(super) fn global(
    file: &Dockerfile,
    attributes: &Attributes,
    build_args: &BTreeMap<String, String>,
    target: &Platform,
    target_stage: &str,
) -> Result<Environment, Error> {
    let build = &attributes.build_platform;
    let (build_text, target_text) = (build.to_string(), target.to_string());
    let automatic = [
        ("BUILDPLATFORM", build_text.as_str()),
        ("BUILDOS", build.os()),
        ("BUILDOSVERSION", ""),
        ("BUILDARCH", build.architecture()),
        ("BUILDVARIANT", build.variant()),
        ("TARGETPLATFORM", target_text.as_str()),
        ("TARGETOS", target.os()),
        ("TARGETOSVERSION", ""),
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
    let expander = Expander::new(file.escape);
    for declaration in &file.global_args {
        for arg in &declaration.args {
            if let Some(value) = given(&arg.name) {
                scope.set(&arg.name, value);
            } else if let Some(default) = &arg.default {
                let value = expander.word(default, &scope);
                let value =
                    value.map_err(|failed| Error::at(declaration.lines, Problem::Expansion(failed)))?;
                scope.set(&arg.name, &value.text);
            }
        }
    }
    Ok(scope)
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
