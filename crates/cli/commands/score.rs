//! `simmer score`: the log-probability of a given text.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use simmer_data::Content;
use simmer_data::format::{self, Format};
use simmer_files::size::counted;

use crate::failure::{Context, Failure, bail};
use crate::loaded::{Loaded, ModelArgs};
use crate::output;

/// Print the log-probability of each token of a text after the first, and the perplexity
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer score --base data/tiny-base --text 'The honey tastes sweet.'
  simmer score --base data/tiny-base --adapter runs/quickstart/adapter texts.jsonl --json")]
pub(crate) struct Score {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to score
    #[arg(long, value_name = "TEXT", required_unless_present = "file")]
    text: Option<String>,
    /// File of texts to score, one row {"text": ...} per line
    #[arg(value_name = "FILE.jsonl", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Print token IDs and log-probabilities as JSON, one line per text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Scored {
    ids: Vec<u32>,
    /// Natural logarithms, one for each token after the first.
    logprobs: Vec<f32>,
    perplexity: f64,
}

impl Score {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let texts = self.texts()?;
        let loaded = self.model.load()?;
        let (mut sum, mut count) = (0.0, 0);
        for (index, text) in texts.iter().enumerate() {
            let scored = score(&loaded, text).with_context(|| format!("text {}", index + 1))?;
            sum += scored.logprobs.iter().map(|x| f64::from(*x)).sum::<f64>();
            count += scored.logprobs.len();
            if self.json {
                output::json(&scored)?;
            } else {
                output::line(&table(&loaded, &scored))?;
            }
        }
        if !self.json && texts.len() > 1 {
            let perplexity = (-sum / count as f64).exp();
            output::line(&format!(
                "{} texts, {}: perplexity {perplexity:.4}",
                texts.len(),
                counted(count, "token")
            ))?;
        }
        Ok(())
    }

    fn texts(&self) -> Result<Vec<String>, Failure> {
        let Some(file) = &self.file else {
            return Ok(self.text.iter().cloned().collect());
        };
        texts(file)
    }
}

/// The texts of a file with one row `{"text": ...}` per line.
pub(super) fn texts(file: &Path) -> Result<Vec<String>, Failure> {
    let source = format::read(file, Some(Format::Text))?;
    let rows = source.into_iter().map(|row| match row.content {
        Content::Text(text) => Ok(text),
        _ => bail!("{}: expected rows of {{\"text\": ...}}", file.display()),
    });
    rows.collect()
}

fn score(loaded: &Loaded, text: &str) -> Result<Scored, Failure> {
    let ids = [
        loaded.tokenizer.prefix(),
        &loaded.tokenizer.encode(text)?.ids,
    ]
    .concat();
    if ids.len() < 2 {
        bail!(
            "the text has {} token; at least 2 are needed to score one",
            ids.len()
        );
    }
    let log_probs = loaded.model.score(&ids)?;
    let mean = log_probs.iter().map(|x| f64::from(*x)).sum::<f64>() / log_probs.len() as f64;
    Ok(Scored {
        ids,
        logprobs: log_probs,
        perplexity: (-mean).exp(),
    })
}

fn table(loaded: &Loaded, scored: &Scored) -> String {
    let mut lines: Vec<String> = scored.ids[1..]
        .iter()
        .zip(&scored.logprobs)
        .map(|(id, log_prob)| {
            let token = loaded.tokenizer.token(*id).unwrap_or_default();
            format!("{log_prob:>10.4}  {token}")
        })
        .collect();
    lines.push(format!(
        "{}: sum {:.4}, perplexity {:.4}",
        counted(scored.logprobs.len(), "token"),
        scored.logprobs.iter().map(|x| f64::from(*x)).sum::<f64>(),
        scored.perplexity
    ));
    lines.join("\n")
}
