//! Rules that need nothing but the text.

use std::collections::BTreeSet;

use super::{Linter, Rule};
use crate::instruction::{Arg, Command, Dockerfile, Instruction, Stage};
use crate::parser::Lines;

const RESERVED: [&str; 2] = ["context", "scratch"];

impl Linter {
    /// Reports what the text of a file shows. Of a file that could not be read to its end, only what can be said of an
    /// instruction alone.
    pub fn check(&mut self, file: &Dockerfile, complete: bool) {
        for empty in &file.empty_continuations {
            let message = "Empty continuation line".to_owned();
            self.report(Rule::NoEmptyContinuation, message, Lines::at(empty.line), &[]);
        }
        for arg in &file.global_args {
            self.described("ARG", &names(&arg.args), arg.lines, &arg.comments);
        }
        for stage in &file.stages {
            self.from(stage);
            stage.commands.iter().for_each(|command| self.command(command));
        }
        if complete {
            self.stage_names(file);
            self.casing(file);
        }
    }

    fn from(&mut self, stage: &Stage) {
        let (Some(name), words) = (&stage.name, words(&stage.code)) else {
            return;
        };
        let at = (stage.lines, stage.comments.as_slice());
        if let [from, .., keyword, written] = words.as_slice() {
            if *written != written.to_lowercase() {
                let message = format!("Stage name '{written}' should be lowercase");
                self.report(Rule::StageNameCasing, message, at.0, at.1);
            }
            let same_case = |fold: fn(&str) -> String| fold(from) != *from || fold(keyword) == **keyword;
            if is_consistent(from) && !(same_case(str::to_lowercase) && same_case(str::to_uppercase)) {
                let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
                self.report(Rule::FromAsCasing, message, at.0, at.1);
            }
        }
        self.described("FROM", &[name], at.0, at.1);
    }

    /// The last comment above a definition is taken for its description.
    fn described(&mut self, keyword: &str, names: &[&str], lines: Lines, comments: &[String]) {
        let (Some(comment), [first, ..]) = (comments.last(), names) else {
            return;
        };
        if names.contains(&comment.split(' ').next().unwrap_or_default()) {
            return;
        }
        let name = if names.len() == 1 { first } else { "<arg_key>" };
        let message = format!("Comment for {keyword} should follow the format: `# {name} <description>`");
        self.report(Rule::InvalidDefinitionDescription, message, lines, comments);
    }

    fn stage_names(&mut self, file: &Dockerfile) {
        let mut seen = BTreeSet::new();
        for stage in &file.stages {
            let Some(name) = &stage.name else { continue };
            let at = (stage.lines, stage.comments.as_slice());
            if RESERVED.contains(&name.as_str()) {
                let message = format!("Stage name should not use the same name as reserved stage {name:?}");
                self.report(Rule::ReservedStageName, message, at.0, at.1);
            }
            if !seen.insert(name) {
                let message = format!("Duplicate stage name {name:?}, stage names should be unique");
                self.report(Rule::DuplicateStageName, message, at.0, at.1);
            }
        }
    }

    /// All keywords in the case of most of them.
    fn casing(&mut self, file: &Dockerfile) {
        let mut keywords = Vec::new();
        for stage in &file.stages {
            keywords.push((keyword(&stage.code), stage.lines, &stage.comments));
            let commands = stage.commands.iter();
            keywords
                .extend(commands.map(|command| (keyword(&command.code), command.lines, &command.comments)));
        }
        // Keywords that were read are ASCII.
        let is_lower = |word: &str| !word.contains(|ch: char| ch.is_ascii_uppercase());
        let is_upper = |word: &str| !word.contains(|ch: char| ch.is_ascii_lowercase());
        let lower = keywords.iter().filter(|(word, ..)| is_lower(word)).count();
        let upper = keywords.iter().filter(|(word, ..)| is_upper(word)).count();
        for (word, lines, comments) in keywords {
            let (is_right, name) = match lower > upper {
                true => (is_lower(word), "lowercase"),
                false => (is_upper(word), "uppercase"),
            };
            if !is_right {
                let message =
                    format!("Command '{word}' should match the case of the command majority ({name})");
                self.report(Rule::ConsistentInstructionCasing, message, lines, comments);
            }
        }
    }

    fn command(&mut self, command: &Command) {
        match &command.instruction {
            Instruction::Maintainer(_) => {
                let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
                self.report(
                    Rule::MaintainerDeprecated,
                    message,
                    command.lines,
                    &command.comments,
                );
            }
            Instruction::Arg(args) => self.described("ARG", &names(args), command.lines, &command.comments),
            _ => {}
        }
    }
}

fn names(args: &[Arg]) -> Vec<&str> {
    args.iter().map(|arg| arg.name.as_str()).collect()
}

fn words(code: &str) -> Vec<&str> {
    code.split_whitespace().collect()
}

fn keyword(code: &str) -> &str {
    code.split_whitespace().next().unwrap_or_default()
}

/// All small or all capital letters.
fn is_consistent(word: &str) -> bool {
    word == word.to_lowercase() || word == word.to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, SettingsError, names_a_secret};
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let file = crate::parse(text).unwrap();
        let mut linter = Linter::new(Settings::parse(file.check.as_deref().unwrap_or_default()).unwrap());
        linter.check(&file, true);
        linter
            .findings()
            .iter()
            .map(super::super::Finding::summary)
            .collect()
    }

    #[test]
    fn rules_of_the_text() {
        for (text, expected) in [
            ("FROM a AS b\nRUN x", vec![]),
            (
                "FROM a as b",
                vec!["FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"],
            ),
            (
                "FROM a AS Bc",
                vec!["StageNameCasing: Stage name 'Bc' should be lowercase (line 1)"],
            ),
            (
                "FROM a AS context",
                vec![
                    "ReservedStageName: Stage name should not use the same name as reserved stage \"context\" (line 1)",
                ],
            ),
            (
                "FROM a AS b\nFROM a AS b",
                vec!["DuplicateStageName: Duplicate stage name \"b\", stage names should be unique (line 2)"],
            ),
            (
                "FROM a\nrun x\nRUN y",
                vec![
                    "ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 2)",
                ],
            ),
            (
                "from a\nrun x\nRUN y",
                vec![
                    "ConsistentInstructionCasing: Command 'RUN' should match the case of the command majority (lowercase) (line 3)",
                ],
            ),
            (
                "FROM a\nMAINTAINER x",
                vec![
                    "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
                ],
            ),
            (
                "FROM a\nRUN x \\\n\n y",
                vec!["NoEmptyContinuation: Empty continuation line (line 4)"],
            ),
            ("# check=skip=all\nFROM a as b", vec![]),
            ("# check=skip=FromAsCasing\nFROM a as b", vec![]),
            ("FROM a\n# check=skip=MaintainerDeprecated\nMAINTAINER x", vec![]),
            ("# b is described\nARG a\nFROM a", vec![]),
            (
                "# check=skip=all;experimental=all\n# b is described\nARG a\n# a is described\nARG a\nFROM a",
                vec![
                    "InvalidDefinitionDescription: Comment for ARG should follow the format: `# a <description>` (line 3)",
                ],
            ),
            (
                "FROM a\n# check=experimental=InvalidDefinitionDescription\nARG a b",
                vec![
                    "InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>` (line 3)",
                ],
            ),
        ] {
            assert_eq!(findings(text), expected, "{text}");
        }
    }

    #[test]
    fn settings_are_read_and_wrong_ones_named() {
        let mut linter = Linter::new(Settings::parse("error=true; skip=A,B").unwrap());
        assert_eq!(linter.violation(), None);
        linter.report(Rule::UndefinedVar, String::new(), Lines::at(1), &[]);
        assert_eq!(linter.violation().as_deref(), Some("UndefinedVar"));
        assert_eq!(
            Settings::parse("skip").unwrap_err(),
            SettingsError::Option("skip".to_owned())
        );
        assert_eq!(
            Settings::parse("error=maybe").unwrap_err(),
            SettingsError::Boolean("error=maybe".to_owned())
        );
    }

    #[test]
    fn names_of_secrets() {
        for (name, expected) in [
            ("API_KEY", true),
            ("DATABASE_PASSWORD", true),
            ("auth", true),
            ("TOKEN", true),
            ("PUBLIC_KEY", false),
            ("KEY_FILE", false),
            ("MONKEY", false),
            ("TOKENS", false),
        ] {
            assert_eq!(names_a_secret(name), expected, "{name}");
        }
    }
}
