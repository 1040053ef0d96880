//! `simmer tokenizer`: tokenizers for new models.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use simmer_data::Content;
use simmer_data::format::{self, Format};
use simmer_data::tokenizer::{TrainOptions, train};

use crate::failure::{Failure, bail};
use crate::output;

/// Train a tokenizer
#[derive(Debug, Args)]
pub(crate) struct Tokenizer {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(Train),
}

/// Train a byte-level BPE tokenizer on text
///
/// Writes tokenizer.json and tokenizer_config.json in the format of Hugging Face's tokenizers.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer tokenizer train texts.jsonl --vocab-size 8000 --out my-tokenizer")]
struct Train {
    /// Files of texts, one row {"text": ...} per line
    #[arg(required = true, value_name = "FILE.jsonl")]
    files: Vec<PathBuf>,
    /// Size of the vocabulary, including the 256 bytes and the special tokens
    #[arg(long, value_name = "N")]
    vocab_size: usize,
    /// Minimum number of times that a pair must occur to become a token
    #[arg(long, default_value_t = 2, value_name = "N")]
    min_frequency: u64,
    /// Folder to write to
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

impl Tokenizer {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Command::Train(train) = self.command;
        train.run()
    }
}

impl Train {
    fn run(self) -> Result<(), Failure> {
        let mut texts = Vec::new();
        for file in &self.files {
            for row in format::read(file, Some(Format::Text))? {
                match row.content {
                    Content::Text(text) => texts.push(text),
                    _ => bail!("{}: expected rows of {{\"text\": ...}}", file.display()),
                }
            }
        }
        let options = TrainOptions {
            vocab_size: self.vocab_size,
            min_frequency: self.min_frequency,
        };
        let tokenizer = train(&texts, &options, &self.out)?;
        output::note(&format!(
            "trained a tokenizer of {} tokens on {} texts: {}",
            tokenizer.vocab_size(),
            texts.len(),
            self.out.display()
        ));
        Ok(())
    }
}
