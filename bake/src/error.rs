//! What can be wrong with a definition. Texts of diagnostics have the form that HCL users know: place, summary, detail.

use crate::source::{File, Place, Span};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", summary(.0))]
    Diagnostics(Vec<Diagnostic>),
    #[error("{0}")]
    Invalid(String),
    #[error("reading {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// The place that an excerpt should show.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Diagnostics(diagnostics) => diagnostics
                .iter()
                .find_map(|diagnostic| diagnostic.place.as_ref()),
            _ => None,
        }
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    pub(crate) fn of(problems: Vec<Problem>, files: &[File]) -> Self {
        Self::Diagnostics(
            problems
                .into_iter()
                .map(|problem| Diagnostic {
                    place: problem.span.and_then(|span| Place::of(span, files)),
                    summary: problem.summary,
                    detail: problem.detail,
                })
                .collect(),
        )
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub place: Option<Place>,
    pub summary: String,
    pub detail: String,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.summary)?;
        if !self.detail.is_empty() {
            write!(f, "; {}", self.detail)?;
        }
        Ok(())
    }
}

fn summary(diagnostics: &[Diagnostic]) -> String {
    match diagnostics {
        [] => "invalid definition".to_owned(),
        [one] => one.to_string(),
        [first, others @ ..] => format!("{first}, and {} other diagnostic(s)", others.len()),
    }
}

/// A diagnostic while its file is known by number only.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub summary: String,
    pub detail: String,
    pub span: Option<Span>,
    /// Ends the evaluation also where a failure would be allowed, as in `try`: cycles and limits.
    pub fatal: bool,
}

pub(crate) type Outcome<T> = Result<T, Box<Problem>>;

impl Problem {
    pub fn new(summary: &str, detail: impl Into<String>, span: Span) -> Box<Self> {
        Box::new(Self {
            summary: summary.to_owned(),
            detail: detail.into(),
            span: Some(span),
            fatal: false,
        })
    }

    pub fn fatal(summary: &str, detail: impl Into<String>, span: Span) -> Box<Self> {
        let mut problem = Self::new(summary, detail, span);
        problem.fatal = true;
        problem
    }
}
