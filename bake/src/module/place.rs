//! From which folder the contexts of a target are meant, for those who want them relative to the file that names them.

use std::collections::BTreeMap;

use super::blocks::static_name;
use crate::syntax::{Access, Block, Expr, Kind};
use crate::target::Target;

pub(super) fn place(target: &mut Target, block: &Block, folder: Option<String>) {
    target.base.file.clone_from(&folder);
    if let Some(attribute) = block.body.attribute("context") {
        target.base.context.clone_from(&folder);
        target.base.context_of = context_of(&attribute.expr);
    }
    if let Some(folder) = folder
        && block.body.attribute("contexts").is_some()
    {
        target.base.contexts = target
            .contexts
            .iter()
            .flat_map(BTreeMap::keys)
            .map(|name| (name.clone(), folder.clone()))
            .collect();
    }
}

/// The name in `target.NAME.context`.
fn context_of(expr: &Expr) -> Option<String> {
    let inner = match &expr.kind {
        Kind::Wrap(inner) => inner,
        _ => expr,
    };
    let Kind::Traversal(base, steps) = &inner.kind else {
        return None;
    };
    let [first, last] = steps.as_slice() else {
        return None;
    };
    let is_target = matches!(&base.kind, Kind::Variable(root) if root == "target");
    let is_context = matches!(&last.access, Access::Attribute(name) if name == "context");
    (is_target && is_context)
        .then(|| static_name(&first.access).map(str::to_owned))
        .flatten()
}
