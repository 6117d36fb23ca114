//! `--call`: a question to the frontend in place of a build, and its answer.

use anyhow::{Context as _, bail};
use bake::csv;
use serde::Deserialize;

use super::solve::Response;
use crate::error::Failed;
use crate::output;

/// What the frontend must know to be asked, if only to pass it on to one that does.
pub const CAPABILITY: &str = "moby.buildkit.frontend.subrequests+forward";
pub const REQUEST: &str = "requestid";

const CHECK: &str = "lint";

/// A question and how its answer is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `lint`, `outline`, `targets`, or what else the frontend knows.
    name: String,
    json: bool,
    /// What was found does not make the command fail.
    ignore_status: bool,
}

impl Call {
    /// `check`, `outline,format=json`; nothing for `build`.
    pub fn parse(text: &str) -> anyhow::Result<Option<Self>> {
        let fields =
            csv::fields(text, ',').with_context(|| format!("invalid value \"{text}\" for --call"))?;
        let mut call = Self {
            name: String::new(),
            json: false,
            ignore_status: false,
        };
        for field in fields {
            match field.split_once('=') {
                None if call.name.is_empty() => call.name = field,
                Some(("format", "json")) => call.json = true,
                Some(("format", "text" | "")) => call.json = false,
                Some(("ignorestatus", value)) => {
                    call.ignore_status = value.parse().with_context(|| {
                        format!("invalid value \"{value}\" for ignorestatus: true or false")
                    })?;
                }
                _ => bail!(
                    "invalid field \"{field}\" in --call={text}: known are format=json and ignorestatus=true"
                ),
            }
        }
        if call.name == "check" {
            CHECK.clone_into(&mut call.name);
        }
        Ok(Some(call).filter(|call| !matches!(call.name.as_str(), "" | "build")))
    }

    /// The attribute that asks.
    pub fn request(&self) -> String {
        match self.name.split_once('.') {
            Some(("frontend", _)) => self.name.clone(),
            _ => format!("frontend.{}", self.name),
        }
    }

    /// Only the JSON is to be shown.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints the answer. What it says about the Dockerfile may make the command fail.
    pub fn print(&self, answer: &Response) -> anyhow::Result<()> {
        let get = |key: &str| answer.get(key).map(String::as_str);
        let json = get("result.json")
            .context("the builder's answer is empty: its frontend may be too old to be asked")?;
        let found = (self.name == CHECK).then(|| serde_json::from_str::<Found>(json));
        let found = found.transpose().context("cannot read the builder's answer")?;
        if self.json {
            output::data(&format!("{json}\n"))?;
        } else {
            if let Some(found) = &found {
                output::data(&found.heading())?;
            }
            output::data(get("result.txt").unwrap_or(json))?;
        }
        if let Some(error) = found.and_then(|found| found.error) {
            bail!("{}", error.message);
        }
        let status = get("result.statuscode")
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        if status != 0 && !self.ignore_status {
            return Err(Failed(status).into());
        }
        Ok(())
    }
}

/// What a check found, as far as it is told here and not by the builder's text.
#[derive(Debug, Deserialize)]
struct Found {
    warnings: Option<Vec<serde::de::IgnoredAny>>,
    #[serde(rename = "buildError")]
    error: Option<BuildError>,
}

#[derive(Debug, Deserialize)]
struct BuildError {
    message: String,
}

impl Found {
    fn heading(&self) -> String {
        match self.warnings.as_ref().map_or(0, Vec::len) {
            0 if self.error.is_some() => String::new(),
            0 => "Check complete, no warnings found.\n".to_owned(),
            1 => "Check complete, 1 warning has been found!\n".to_owned(),
            count => format!("Check complete, {count} warnings have been found!\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_as_buildx_reads_them() {
        let parse = |text: &str| Call::parse(text).unwrap();
        assert_eq!(parse("build"), None);
        assert_eq!(parse(""), None);
        let check = parse("check,format=json,ignorestatus=true").unwrap();
        assert_eq!(check.request(), "frontend.lint");
        assert!(check.json && check.ignore_status);
        assert_eq!(
            parse("subrequests.describe").unwrap().request(),
            "frontend.subrequests.describe"
        );
        for wrong in ["check,outline", "check,format=xml", "check,ignorestatus=perhaps"] {
            assert!(Call::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn findings_make_a_check_fail() {
        let answer = |json: &str, status: &str| {
            Response::from([
                ("result.json".to_owned(), json.to_owned()),
                ("result.txt".to_owned(), String::new()),
                ("result.statuscode".to_owned(), status.to_owned()),
            ])
        };
        let check = Call::parse("check").unwrap().unwrap();
        check.print(&answer(r#"{"warnings":null}"#, "0")).unwrap();
        let found = check.print(&answer(r#"{"warnings":[{}]}"#, "1")).unwrap_err();
        assert_eq!(found.downcast_ref::<Failed>().map(|failed| failed.0), Some(1));
        let lenient = Call::parse("check,ignorestatus=true").unwrap().unwrap();
        lenient.print(&answer(r#"{"warnings":[{}]}"#, "1")).unwrap();
        let broken = r#"{"warnings":null,"buildError":{"message":"no x","location":{}}}"#;
        assert_eq!(
            lenient.print(&answer(broken, "1")).unwrap_err().to_string(),
            "no x"
        );
        assert!(check.print(&Response::new()).is_err());
    }
}
