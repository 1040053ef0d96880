//! What a command returns when it fails, and what the user reads then: the causes and a hint.

use std::error::Error;
use std::fmt;

use simmer_hint::Hint;

use crate::output;

/// Why a command failed, and what the user can do about it.
///
/// `?` and [`Context`] turn any error that implements [`Hint`] into a failure and keep its hint. An error type that does
/// not implement it does not compile there, so that no hint is lost silently; [`Failure::foreign`] takes the errors of
/// other libraries.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the program was doing, the outermost last.
    contexts: Vec<String>,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

/// Returns a [`Failure`] with a message, which is formatted as by `format!`.
macro_rules! bail {
    ($($text:tt)*) => {
        return Err($crate::failure::Failure::new(format!($($text)*)))
    };
}
pub(crate) use bail;

impl<E: Hint + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            contexts: Vec::new(),
            hint: error.hint(),
            error: Box::new(error),
        }
    }
}

impl Failure {
    /// A failure with a message.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            contexts: Vec::new(),
            error: text.into().into(),
            hint: None,
        }
    }

    /// A failure from an error of another library, which has no hints.
    pub(crate) fn foreign(error: impl Error + Send + Sync + 'static) -> Self {
        Self {
            contexts: Vec::new(),
            error: Box::new(error),
            hint: None,
        }
    }

    /// Adds an instruction to the hint.
    pub(crate) fn and_hint(mut self, text: &str) -> Self {
        self.hint = Some(match self.hint {
            Some(hint) => format!("{hint}\n      {text}"),
            None => text.to_owned(),
        });
        self
    }

    /// The same with a hint, instead of the one that it has.
    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// The same on one of several ranks, whose messages arrive in one place.
    pub(crate) fn of_rank(self, rank: usize) -> Self {
        Self {
            contexts: Vec::new(),
            error: format!("rank {rank}: {self}").into(),
            hint: self.hint,
        }
    }

    /// The error that it was created from, if it is of that type.
    pub(crate) fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.error.downcast_ref()
    }

    /// Prints the message, its causes and the hint.
    pub(crate) fn report(&self) {
        output::error(&self.text());
    }

    /// The message, its causes and the hint, as they are printed.
    pub(crate) fn text(&self) -> String {
        let lines = format!("error: {}", self.causes().join("\n  because: "));
        match &self.hint {
            Some(hint) => format!("{lines}\nhint: {hint}"),
            None => lines,
        }
    }

    /// The message, then each cause that says more than the one before it.
    fn causes(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.contexts.iter().rev().cloned().collect();
        let mut error: Option<&dyn Error> = Some(self.error.as_ref());
        while let Some(cause) = error {
            texts.push(cause.to_string());
            error = cause.source();
        }
        // an error often contains the text of its source
        texts.dedup_by(|text, before| before.contains(text.as_str()));
        texts
    }

    /// Says what the program was doing.
    pub(crate) fn within(mut self, context: String) -> Self {
        self.contexts.push(context);
        self
    }
}

impl fmt::Display for Failure {
    /// The message and its causes on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.causes().join(": "))
    }
}

/// Says what the program was doing when an error occurred.
pub(crate) trait Context<T> {
    /// The value, or a failure in this context.
    fn context(self, context: impl Into<String>) -> Result<T, Failure>;

    /// The value, or a failure in a context that is computed only then.
    fn with_context(self, context: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> Context<T> for Result<T, E> {
    fn context(self, context: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| error.into().within(context.into()))
    }

    fn with_context(self, context: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| error.into().within(context()))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, context: impl Into<String>) -> Result<T, Failure> {
        self.ok_or_else(|| Failure::new(context))
    }

    fn with_context(self, context: impl FnOnce() -> String) -> Result<T, Failure> {
        self.ok_or_else(|| Failure::new(context()))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug)]
    struct Unreadable(io::Error);

    impl fmt::Display for Unreadable {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "cannot read x.json: {}", self.0)
        }
    }

    impl Error for Unreadable {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    impl Hint for Unreadable {
        fn hint(&self) -> Option<String> {
            Some("check the path".to_owned())
        }
    }

    #[test]
    fn a_failure_keeps_hint_and_causes() {
        let fails = || -> Result<(), Failure> {
            let error = io::Error::other("it is gone");
            Err(Unreadable(error)).context("nothing was written")?;
            Ok(())
        };
        let failure = fails().unwrap_err();
        // the source's text is in the message already
        assert_eq!(
            failure.to_string(),
            "nothing was written: cannot read x.json: it is gone"
        );
        assert_eq!(failure.hint.as_deref(), Some("check the path"));
        assert!(failure.downcast_ref::<Unreadable>().is_some());
    }
}
