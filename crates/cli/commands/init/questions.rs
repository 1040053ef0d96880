//! The questions of `simmer init`: on a terminal, with editing and completion of paths; elsewhere the defaults.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::env;
use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal};

use rustyline::completion::{Completer, FilenameCompleter, Pair, unescape};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context as LineContext, Editor, Helper};
use simmer_hint::Hint;

use crate::failure::{Context, Failure};
use crate::output::note;
use crate::terminal::{self, is_not_utf8};

/// The person at the terminal pressed Ctrl-C or Ctrl-D.
#[derive(Debug)]
pub(super) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl Error for Interrupted {}

impl Hint for Interrupted {
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Completes the paths of files and folders.
struct Paths(FilenameCompleter);

impl Completer for Paths {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        context: &LineContext<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        self.0.complete(line, at, context)
    }
}

impl Hinter for Paths {
    type Hint = String;
}
impl Highlighter for Paths {}
impl Validator for Paths {}
impl Helper for Paths {}

/// Who answers.
enum Input {
    Terminal(Box<Editor<Paths, DefaultHistory>>),
    /// Nobody: each question has its default as the answer.
    Nobody,
    #[cfg(test)]
    Script(VecDeque<&'static str>),
}

/// Asks questions.
pub(super) struct Questions {
    input: Input,
    /// Answers that were pasted together with an earlier one, line by line.
    pasted: VecDeque<String>,
}

/// A question.
pub(super) struct Question<'a> {
    /// Its subject, as in `base model`.
    pub(super) subject: &'a str,
    /// What may be answered.
    pub(super) about: &'a str,
    /// The answer of an empty line.
    pub(super) default: &'a str,
    /// The option that answers it.
    pub(super) option: &'a str,
}

impl Questions {
    /// Questions to the terminal, unless there is none or `defaults` is set.
    pub(super) fn new(defaults: bool) -> Result<Self, Failure> {
        if defaults || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(Self::of(Input::Nobody));
        }
        terminal::keep();
        let config = Config::builder().completion_type(CompletionType::List);
        let editor = Editor::with_config(config.build()).map_err(Failure::foreign);
        let mut editor = editor.context("cannot read from the terminal")?;
        editor.set_helper(Some(Paths(FilenameCompleter::new())));
        Ok(Self::of(Input::Terminal(Box::new(editor))))
    }

    fn of(input: Input) -> Self {
        Self {
            input,
            pasted: VecDeque::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn script<const N: usize>(answers: [&'static str; N]) -> Self {
        Self::of(Input::Script(answers.into()))
    }

    /// Whether somebody is asked.
    pub(super) fn are_asked(&self) -> bool {
        !matches!(self.input, Input::Nobody)
    }

    /// The answer to a question, as `take` reads it: what the option gives, or else what is typed. A typed answer that
    /// cannot be used is reported, and the question asked again.
    pub(super) fn answer<T>(
        &mut self,
        given: Option<&str>,
        question: &Question<'_>,
        mut take: impl FnMut(&str) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Question {
            subject,
            about,
            default,
            option,
        } = *question;
        if let Some(given) = given {
            return take(given);
        }
        if !self.are_asked() {
            note(&format!(
                "{subject}: {default} ({option} names another one)"
            ));
            return take(default);
        }
        note(&format!("\n{about}"));
        loop {
            let typed = self.read(&format!("{subject} [{default}]: "))?;
            let typed = typed.trim();
            let answer = if typed.is_empty() {
                Cow::Borrowed(default)
            } else {
                plain(typed)
            };
            match take(&answer) {
                Ok(taken) => return Ok(taken),
                Err(failure) => failure.report(),
            }
            // they were meant for what follows a right answer
            self.pasted.clear();
        }
    }

    /// One answer: a line that was pasted with the one before, or else what is typed now.
    fn read(&mut self, prompt: &str) -> Result<String, Failure> {
        if let Some(line) = self.pasted.pop_front() {
            note(&format!("{prompt}{line}"));
            return Ok(line);
        }
        let typed = self.typed(prompt)?;
        let mut lines = typed.trim_end().split(['\r', '\n']).map(str::to_owned);
        let first = lines.next().unwrap_or_default();
        self.pasted.extend(lines);
        Ok(first)
    }

    fn typed(&mut self, prompt: &str) -> Result<String, Failure> {
        match &mut self.input {
            Input::Terminal(editor) => loop {
                match editor.readline(prompt) {
                    Ok(line) => return Ok(line),
                    Err(ReadlineError::Interrupted | ReadlineError::Eof) => {
                        return Err(Interrupted.into());
                    }
                    Err(error) if is_not_utf8(&error) => note(terminal::NOT_UTF8),
                    Err(error) => {
                        return Err(Failure::foreign(error))
                            .context("cannot read from the terminal");
                    }
                }
            },
            Input::Nobody => Ok(String::new()),
            #[cfg(test)]
            Input::Script(answers) => {
                let next = answers.pop_front();
                Ok(next.ok_or(Interrupted)?.to_owned())
            }
        }
    }
}

/// A typed path as a shell reads it: without the backslashes that completion puts before spaces, and with the home folder for
/// `~`.
fn plain(typed: &str) -> Cow<'_, str> {
    let typed = if cfg!(unix) {
        unescape(typed, Some('\\'))
    } else {
        Cow::Borrowed(typed)
    };
    match (typed.strip_prefix("~/"), env::home_dir()) {
        (Some(rest), Some(home)) => Cow::Owned(home.join(rest).to_string_lossy().into_owned()),
        _ => typed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::bail;

    fn ask(questions: &mut Questions, given: Option<&str>) -> Result<String, Failure> {
        let question = Question {
            subject: "data",
            about: "Data: a file.",
            default: "a.jsonl",
            option: "--data",
        };
        questions.answer(given, &question, |answer| {
            if answer == "wrong" {
                bail!("wrong: no such file");
            }
            Ok(answer.to_owned())
        })
    }

    #[test]
    fn a_wrong_answer_is_asked_for_again() {
        let mut questions = Questions::script(["wrong", " my\\ rows.csv ", ""]);
        assert_eq!(ask(&mut questions, None).unwrap(), "my rows.csv");
        assert_eq!(ask(&mut questions, None).unwrap(), "a.jsonl");
        // nobody types any more
        let stopped = ask(&mut questions, None).unwrap_err();
        assert!(stopped.downcast_ref::<Interrupted>().is_some());
    }

    #[test]
    fn pasted_lines_answer_one_question_each() {
        let mut questions =
            Questions::script(["a.csv\nb.csv\r\n\n", "c.csv\nwrong\nd.csv", "e.csv"]);
        let mut answers = || ask(&mut questions, None).unwrap();
        assert_eq!([answers(), answers()], ["a.csv", "b.csv"]);
        // what follows a wrong answer was meant for another question
        assert_eq!([answers(), answers()], ["c.csv", "e.csv"]);
    }

    #[test]
    fn an_option_is_not_asked_for() {
        let mut questions = Questions::script([]);
        assert_eq!(ask(&mut questions, Some("b.csv")).unwrap(), "b.csv");
        // its fault ends the command
        assert!(ask(&mut questions, Some("wrong")).is_err());
    }

    #[test]
    fn without_a_terminal_defaults_are_taken() {
        let mut questions = Questions::new(true).unwrap();
        assert!(!questions.are_asked());
        assert_eq!(ask(&mut questions, None).unwrap(), "a.jsonl");
    }
}
