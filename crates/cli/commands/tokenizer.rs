//! `simmer tokenizer`: the tokens of a text, the text of tokens, and tokenizers for new models.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use simmer_checkpoint::hub::What;
use simmer_data::format::{self, Format};
use simmer_data::tokenizer::{TrainOptions, train};
use simmer_data::{Content, Tokenizer as Loaded};
use simmer_files::size::counted;
use simmer_train::tokenizer;

use crate::failure::{Context, Failure, bail};
use crate::{hub, output};

/// Encode a text, decode tokens, or train a tokenizer
#[derive(Debug, Args)]
pub(crate) struct Tokenizer {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Encode(Encode),
    Decode(Decode),
    Train(Train),
}

/// Which tokenizer a command uses.
#[derive(Debug, Args)]
struct Which {
    /// Tokenizer: a model's folder, a tokenizer file, a .gguf file (a vocabulary alone suffices), or a name on the
    /// Hugging Face Hub
    #[arg(long, alias = "base", value_name = "MODEL")]
    tokenizer: PathBuf,
}

/// Print the tokens of a text: the ID, spelling and text of each
///
/// The tokens are those of training on a text: with the BOS token, if the tokenizer adds one. No weights are needed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer tokenizer encode --tokenizer data/tiny-base \"Honey tastes sweet.\"
  simmer tokenizer encode --tokenizer model.gguf --file essay.txt --json
  echo \"<|im_start|>user\" | simmer tokenizer encode --tokenizer HuggingFaceTB/SmolLM2-135M-Instruct")]
struct Encode {
    #[command(flatten)]
    which: Which,
    /// Text to encode. Default: standard input, without its last line break
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    /// File with the text, used as it is
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Treat special tokens in the text as ordinary text
    #[arg(long)]
    plain: bool,
    /// Add no token before the text
    #[arg(long)]
    no_bos: bool,
    /// Print the tokens as JSON
    #[arg(long)]
    json: bool,
}

/// Print the text of token IDs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer tokenizer decode --tokenizer data/tiny-base 1 52 67
  simmer tokenizer decode --tokenizer model.gguf --skip-special 1,15043,2
  echo \"[1, 15043]\" | simmer tokenizer decode --tokenizer meta-llama/Llama-2-7b-hf")]
struct Decode {
    #[command(flatten)]
    which: Which,
    /// Token IDs, separated by spaces or commas. Default: standard input
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Leave out special tokens
    #[arg(long)]
    skip_special: bool,
    /// Print text and tokens as JSON
    #[arg(long)]
    json: bool,
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
        match self.command {
            Command::Encode(encode) => encode.run(),
            Command::Decode(decode) => decode.run(),
            Command::Train(train) => train.run(),
        }
    }
}

impl Which {
    fn open(&self) -> Result<Loaded, Failure> {
        let path = hub::locate(&self.tokenizer, What::Tokenizer)?;
        let tokenizer = tokenizer::open(&path)?;
        for note in tokenizer.notes() {
            output::note(note);
        }
        Ok(tokenizer)
    }
}

/// Standard input as text.
fn standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .with_context(|| "standard input".to_owned())?;
    Ok(text)
}

/// The largest text that is read from a file, in bytes.
const LARGEST_TEXT: u64 = 1 << 30;

fn text_of(file: &Path) -> Result<String, Failure> {
    simmer_files::read_text(file, LARGEST_TEXT).with_context(|| file.display().to_string())
}

/// The tokens of a text, in `--json`'s keys.
#[derive(Serialize)]
struct Encoded {
    ids: Vec<u32>,
    /// As spelled in the vocabulary.
    tokens: Vec<String>,
    /// The bytes of the text that each token stands for; none for a token that is added before it.
    offsets: Vec<[usize; 2]>,
    special: Vec<bool>,
}

impl Encode {
    fn run(self) -> Result<(), Failure> {
        let tokenizer = self.which.open()?;
        let text = match (&self.text, &self.file) {
            (Some(text), _) => text.clone(),
            (None, Some(file)) => text_of(file)?,
            (None, None) => {
                let text = standard_input()?;
                let line = text.strip_suffix('\n').unwrap_or(&text);
                line.strip_suffix('\r').unwrap_or(line).to_owned()
            }
        };
        let encoded = self.encode(&tokenizer, &text)?;
        if self.json {
            return output::json(&encoded);
        }
        output::print(&encoded.table(&text))
    }

    fn encode(&self, tokenizer: &Loaded, text: &str) -> Result<Encoded, Failure> {
        let encoding = if self.plain {
            tokenizer.encode_plain(text)?
        } else {
            tokenizer.encode(text)?
        };
        let mut prefix = tokenizer.prefix();
        if self.no_bos || (!self.plain && encoding.ids.starts_with(prefix)) {
            prefix = &[];
        }
        let ids = [prefix, &encoding.ids].concat();
        let offsets = encoding
            .offsets
            .iter()
            .map(|range| [range.start, range.end]);
        let special = special_ids(tokenizer);
        Ok(Encoded {
            tokens: ids.iter().map(|&id| spelling(tokenizer, id)).collect(),
            special: ids.iter().map(|id| special.contains(id)).collect(),
            offsets: prefix.iter().map(|_| [0, 0]).chain(offsets).collect(),
            ids,
        })
    }
}

impl Encoded {
    /// A line per token: ID, spelling, text, and whether it is special.
    fn table(&self, text: &str) -> String {
        let mut lines = Vec::new();
        for (index, id) in self.ids.iter().enumerate() {
            let [start, end] = self.offsets[index];
            let said = text.get(start..end).unwrap_or_default();
            let token = &self.tokens[index];
            let special = if self.special[index] { "  special" } else { "" };
            lines.push(format!("{id:>8}  {token:<20}  {said:?}{special}\n"));
        }
        let count = self.special.iter().filter(|&&special| special).count();
        lines.push(format!(
            "{} tokens, {count} of them special; {} bytes\n",
            self.ids.len(),
            text.len()
        ));
        lines.concat()
    }
}

/// The text of tokens, in `--json`'s keys.
#[derive(Serialize)]
struct Decoded {
    text: String,
    ids: Vec<u32>,
    /// As spelled in the vocabulary.
    tokens: Vec<String>,
}

impl Decode {
    fn run(self) -> Result<(), Failure> {
        let tokenizer = self.which.open()?;
        let ids = if self.ids.is_empty() {
            numbers(&[standard_input()?])?
        } else {
            numbers(&self.ids)?
        };
        if let Some(id) = ids.iter().find(|&&id| tokenizer.token(id).is_none()) {
            bail!(
                "{}: expected a token ID up to {}, found {id}",
                tokenizer.path().display(),
                tokenizer.max_token_id()
            );
        }
        let decoded = Decoded {
            text: tokenizer.decode(&ids, self.skip_special)?,
            tokens: ids.iter().map(|&id| spelling(&tokenizer, id)).collect(),
            ids,
        };
        if self.json {
            return output::json(&decoded);
        }
        output::line(&decoded.text)
    }
}

/// Numbers that are separated by spaces or commas; a list's brackets are ignored.
fn numbers(texts: &[String]) -> Result<Vec<u32>, Failure> {
    let mut ids = Vec::new();
    for text in texts {
        let words = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']'));
        for word in words.filter(|word| !word.is_empty()) {
            match word.parse() {
                Ok(id) => ids.push(id),
                Err(_) => bail!("expected a token ID, found `{word}`"),
            }
        }
    }
    Ok(ids)
}

fn special_ids(tokenizer: &Loaded) -> BTreeSet<u32> {
    let special = tokenizer.special_tokens();
    let ids = special.iter().filter_map(|token| tokenizer.token_id(token));
    ids.collect()
}

/// A token as it is spelled in the vocabulary.
fn spelling(tokenizer: &Loaded, id: u32) -> String {
    tokenizer.token(id).unwrap_or_default()
}

/// Checks that a folder is new or empty: the files of a tokenizer that is in use are not overwritten.
fn check_new(out: &Path) -> Result<(), Failure> {
    let is_free = match out.read_dir() {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => out.symlink_metadata().is_err(),
    };
    if is_free {
        return Ok(());
    }
    let text = format!(
        "{}: already exists and is not an empty folder",
        out.display()
    );
    Err(Failure::new(text).with_hint("name another folder with --out"))
}

impl Train {
    fn run(self) -> Result<(), Failure> {
        check_new(&self.out)?;
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
            "trained a tokenizer of {} on {}: {}",
            counted(tokenizer.vocab_size(), "token"),
            counted(texts.len(), "text"),
            self.out.display()
        ));
        Ok(())
    }
}
