//! Errors in words: what failed and why, on one line, for users of both programs and for the wire between them.

use std::error::Error;

use tonic::{Code, Status};

/// An error with its causes, outermost first.
///
/// Wrappers of other crates repeat their cause: what is said already is not said again.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = one(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = one(error);
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// What a status says. An ordinary failure has the code `Unknown`; any other is worth naming.
pub fn message(status: &Status) -> String {
    match status.code() {
        Code::Unknown | Code::Ok => status.message().to_owned(),
        code => format!("{code:?}: {}", status.message()),
    }
}

fn one(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<Status>() {
        Some(status) => message(status),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Failed(&'static str, Option<Box<dyn Error>>);

    impl std::fmt::Display for Failed {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Failed {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref()
        }
    }

    #[test]
    fn causes_follow_their_error_and_are_said_once() {
        let inner = || Failed("no such file", None);
        let repeating = Failed("reading x: no such file", Some(Box::new(inner())));
        let outer = Failed("cannot build", Some(Box::new(repeating)));
        assert_eq!(chain(&outer), "cannot build: reading x: no such file");
        assert_eq!(chain(&inner()), "no such file");
    }

    #[test]
    fn a_status_is_what_it_says() {
        let of = |status: Status| chain(&Failed("asking the daemon", Some(Box::new(status))));
        assert_eq!(of(Status::unknown("it is ill")), "asking the daemon: it is ill");
        assert_eq!(
            of(Status::not_found("no build")),
            "asking the daemon: NotFound: no build"
        );
    }
}
