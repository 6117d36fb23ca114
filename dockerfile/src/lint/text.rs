//! Rules that need nothing but the text.

use std::collections::{BTreeMap, BTreeSet};

use super::{Linter, Rule};
use crate::instruction::{Command, Dockerfile, Instruction, Stage};
use crate::parser::Lines;

const RESERVED: [&str; 2] = ["context", "scratch"];

impl Linter {
    /// Reports what the text of a file shows.
    pub fn check(&mut self, file: &Dockerfile) {
        for empty in &file.empty_continuations {
            let message = "Empty continuation line".to_owned();
            self.report(Rule::NoEmptyContinuation, message, Lines::at(empty.line), &[]);
        }
        self.stage_names(file);
        self.casing(file);
        for stage in &file.stages {
            self.said_twice(stage);
            stage.commands.iter().for_each(|command| self.command(command));
        }
    }

    fn stage_names(&mut self, file: &Dockerfile) {
        let mut seen = BTreeSet::new();
        for stage in &file.stages {
            let (Some(name), words) = (&stage.name, words(&stage.code)) else {
                continue;
            };
            let at = (stage.lines, stage.comments.as_slice());
            if let [.., keyword, written] = words.as_slice() {
                if *written != written.to_lowercase() {
                    let message = format!("Stage name '{written}' should be lowercase");
                    self.report(Rule::StageNameCasing, message, at.0, at.1);
                }
                let from = words[0];
                let same_case = |fold: fn(&str) -> String| fold(from) != from || fold(keyword) == **keyword;
                if is_consistent(from) && !(same_case(str::to_lowercase) && same_case(str::to_uppercase)) {
                    let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
                    self.report(Rule::FromAsCasing, message, at.0, at.1);
                }
            }
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
        let is_lower = |word: &str| word == word.to_lowercase();
        let lower = keywords.iter().filter(|(word, ..)| is_lower(word)).count();
        let upper = keywords
            .iter()
            .filter(|(word, ..)| is_consistent(word) && !is_lower(word))
            .count();
        for (word, lines, comments) in keywords {
            let (right, name) = match lower > upper {
                true => (word.to_lowercase(), "lowercase"),
                false => (word.to_uppercase(), "uppercase"),
            };
            if word != right {
                let message =
                    format!("Command '{word}' should match the case of the command majority ({name})");
                self.report(Rule::ConsistentInstructionCasing, message, lines, comments);
            }
        }
    }

    /// Of these instructions only the last one counts; the earlier one is to blame.
    fn said_twice(&mut self, stage: &Stage) {
        let mut last: BTreeMap<&str, &Command> = BTreeMap::new();
        for command in &stage.commands {
            let name = match &command.instruction {
                Instruction::Cmd(_) => "CMD",
                Instruction::Entrypoint(_) => "ENTRYPOINT",
                Instruction::Healthcheck(_) => "HEALTHCHECK",
                _ => continue,
            };
            if let Some(earlier) = last.insert(name, command) {
                let message = format!(
                    "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                    keyword(&command.code)
                );
                self.report(
                    Rule::MultipleInstructionsDisallowed,
                    message,
                    earlier.lines,
                    &command.comments,
                );
            }
        }
    }

    fn command(&mut self, command: &Command) {
        let (rule, message) = match &command.instruction {
            Instruction::Maintainer(_) => (
                Rule::MaintainerDeprecated,
                "Maintainer instruction is deprecated in favor of using label".to_owned(),
            ),
            Instruction::Env(pairs) | Instruction::Label(pairs) if pairs.iter().any(|pair| pair.old_form) => {
                let word = keyword(&command.code);
                let message = format!(
                    "\"{word} key=value\" should be used instead of legacy \"{word} key value\" format"
                );
                (Rule::LegacyKeyValueFormat, message)
            }
            _ => return,
        };
        self.report(rule, message, command.lines, &command.comments);
    }
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
        linter.check(&file);
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
                "FROM a\nCMD x\nCMD y",
                vec![
                    "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
                ],
            ),
            (
                "FROM a\nMAINTAINER x",
                vec![
                    "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
                ],
            ),
            (
                "FROM a\nENV x y",
                vec![
                    "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
                ],
            ),
            (
                "FROM a\nRUN x \\\n\n y",
                vec!["NoEmptyContinuation: Empty continuation line (line 4)"],
            ),
            ("# check=skip=all\nFROM a\nENV x y", vec![]),
            ("# check=skip=LegacyKeyValueFormat\nFROM a\nENV x y", vec![]),
            ("FROM a\n# check=skip=LegacyKeyValueFormat\nENV x y", vec![]),
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
