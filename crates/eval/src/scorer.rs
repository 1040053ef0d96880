//! Scores of texts by a program that the user names.
//!
//! The program reads one JSON object a line, `{"text": "..."}`, and writes one line for each: a number from 0 to 1, or an
//! object with the key `score`.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};

use crate::error::EvalError;

/// A program that scores texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scorer {
    /// The command line, for the system's shell.
    pub command: String,
}

impl Scorer {
    /// The score of each text, from 0 to 1.
    ///
    /// # Errors
    /// If the program fails, or writes anything but a score for each text.
    pub fn scores(&self, texts: &[&str]) -> Result<Vec<f64>, EvalError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let output = self
            .answer(texts)
            .map_err(|error| self.wrong(error.to_string()))?;
        let lines = output.lines().filter(|line| !line.trim().is_empty());
        let scores = lines.enumerate().map(|(number, line)| {
            score(line).ok_or_else(|| {
                let found: String = line.chars().take(100).collect();
                self.wrong(format!(
                    "line {}: expected a number from 0 to 1, or {{\"score\": number}}, found `{found}`",
                    number + 1
                ))
            })
        });
        let scores = scores.collect::<Result<Vec<f64>, EvalError>>()?;
        if scores.len() != texts.len() {
            return Err(self.wrong(format!(
                "expected a line for each of {} texts, found {}",
                texts.len(),
                scores.len()
            )));
        }
        Ok(scores)
    }

    /// What the program writes.
    fn answer(&self, texts: &[&str]) -> io::Result<String> {
        let mut program = self
            .shell()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let stdin = program.stdin.take();
        let (sent, output) = thread::scope(|scope| {
            let sent = scope.spawn(move || -> io::Result<()> {
                let Some(mut stdin) = stdin else {
                    return Ok(());
                };
                for text in texts {
                    writeln!(stdin, "{}", json!({"text": text}))?;
                }
                Ok(())
            });
            (sent.join(), program.wait_with_output())
        });
        let output = output?;
        if !output.status.success() {
            return Err(io::Error::other(format!("ended with {}", output.status)));
        }
        match sent {
            Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
        String::from_utf8(output.stdout).map_err(io::Error::other)
    }

    fn shell(&self) -> Command {
        let (shell, flag) = if cfg!(windows) {
            ("cmd", "/C")
        } else {
            ("sh", "-c")
        };
        let mut command = Command::new(shell);
        command.args([flag, &self.command]);
        command
    }

    fn wrong(&self, problem: String) -> EvalError {
        EvalError::Scorer {
            command: self.command.clone(),
            problem,
        }
    }
}

fn score(line: &str) -> Option<f64> {
    let value: Value = serde_json::from_str(line).ok()?;
    let number = value.as_f64().or_else(|| value.get("score")?.as_f64())?;
    (0.0..=1.0).contains(&number).then_some(number)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn of(command: &str) -> Scorer {
        Scorer {
            command: command.to_owned(),
        }
    }

    #[test]
    fn each_text_gets_the_score_of_its_line() {
        let scorer = of(
            r#"while read -r line; do case "$line" in *bad*) echo '{"score": 0.75}';; *) echo 0.25;; esac; done"#,
        );
        assert_eq!(
            scorer.scores(&["good\nday", "bad", "é"]).unwrap(),
            [0.25, 0.75, 0.25]
        );
        assert!(scorer.scores(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_scorer_that_does_not_score_is_reported() {
        let wrong = |command: &str| of(command).scores(&["a", "b"]).unwrap_err().to_string();
        insta::assert_snapshot!(wrong("cat >/dev/null; echo 1"), @"scorer `cat >/dev/null; echo 1`: expected a line for each of 2 texts, found 1");
        insta::assert_snapshot!(wrong("cat >/dev/null; echo 7"), @r#"scorer `cat >/dev/null; echo 7`: line 1: expected a number from 0 to 1, or {"score": number}, found `7`"#);
        assert!(wrong("exit 3").contains("exit status: 3"));
    }
}
