//! What a scanner of packages is to look at beside the result: the build context, and stages that the result rests on.
//!
//! A Dockerfile says so with the arguments `BUILDKIT_SBOM_SCAN_CONTEXT` and `BUILDKIT_SBOM_SCAN_STAGE`, above the first
//! FROM for all stages or within one; their value is a boolean or a list of stages.

use dockerfile::expand::Environment;

use super::plan::Stage;
use super::stage::Frame;

const CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
const STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";

/// The target wants the context to be scanned.
pub(super) fn is_for_context(stage: &Stage, frame: &Frame, globals: &Environment) -> bool {
    says(CONTEXT, stage, frame, globals)
}

/// The stage wants to be scanned itself.
pub(super) fn is_for_stage(stage: &Stage, frame: &Frame, globals: &Environment) -> bool {
    says(STAGE, stage, frame, globals)
}

fn says(name: &str, stage: &Stage, frame: &Frame, globals: &Environment) -> bool {
    let own = frame.args.iter().rev();
    let own = own
        .filter(|(known, _)| known == name)
        .find_map(|(_, value)| value.as_deref());
    own.or_else(|| globals.get(name))
        .is_some_and(|value| applies(value, &stage.name))
}

fn applies(value: &str, stage: &str) -> bool {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        list => list.split(',').any(|name| name == stage),
    }
}

#[cfg(test)]
mod tests {
    use super::applies;

    #[test]
    fn values_are_for_all_stages_or_for_those_they_name() {
        for (value, expected) in [
            ("true", true),
            ("0", false),
            ("base,app", true),
            ("base", false),
            ("", false),
        ] {
            assert_eq!(applies(value, "app"), expected, "{value:?}");
        }
    }
}
