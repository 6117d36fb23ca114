//! Requests that are answered with words instead of a build: what a Dockerfile offers, and what is wrong with it.
//!
//! Names, versions and the form of the answers are BuildKit's: metadata with the answer as JSON and as text.

mod answers;
mod text;

use std::collections::BTreeMap;

use super::work::{Purpose, Work};
use super::{Attributes, Error, Host, Problem, Request};
use answers::{Answer, BuildError, Findings, Location, Outlined, Targets};

const DESCRIBE: &str = "frontend.subrequests.describe";
const OUTLINE: &str = "frontend.outline";
const TARGETS: &str = "frontend.targets";
const LINT: &str = "frontend.lint";

/// Every answer has the form of its first version.
const VERSION: &str = "1.0.0";

/// An answer by BuildKit's keys: `result.json`, `result.txt`, `version`.
pub type Metadata = BTreeMap<String, Vec<u8>>;

/// Answers the request `name`, which is one of the attributes.
pub async fn answer<H: Host>(host: &H, request: &Request, name: &str) -> Result<Metadata, Error> {
    match name {
        DESCRIBE => answers::describe().metadata(),
        OUTLINE => outline(host, request).await?.metadata(),
        TARGETS => targets(host, request).await?.metadata(),
        LINT => lint(host, request).await?.metadata(),
        _ => Err(Problem::UnknownRequest(name.to_owned()).into()),
    }
}

async fn outline<H: Host>(host: &H, request: &Request) -> Result<Outlined, Error> {
    let attributes = Attributes::read(request)?;
    let mut work = Work::open(host, request, &attributes).await?;
    let lowered = work.lower(Purpose::Outline).await?;
    let outline = lowered
        .platforms
        .into_iter()
        .next()
        .map(|lowered| lowered.outline);
    Ok(Outlined::new(outline.unwrap_or_default(), work.source()))
}

async fn targets<H: Host>(host: &H, request: &Request) -> Result<Targets, Error> {
    let attributes = Attributes::read(request)?;
    let work = Work::open(host, request, &attributes).await?;
    let file = dockerfile::parse(work.text()).map_err(|error| work.parse_error(error))?;
    Ok(Targets::new(&file, work.source()))
}

async fn lint<H: Host>(host: &H, request: &Request) -> Result<Findings, Error> {
    let attributes = Attributes::read(request)?;
    let mut work = Work::open(host, request, &attributes).await?;
    let error = work.lower(Purpose::Check).await.err();
    let error = error.map(|error| BuildError {
        message: proto::chain(&error),
        location: error
            .location
            .map_or_else(Location::default, |place| Location::of(&place.lines)),
    });
    Ok(Findings::new(work.findings(), error, work.source()))
}
