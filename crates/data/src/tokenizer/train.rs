//! Trains a new tokenizer on text: byte-level BPE, for models with random initialisation.

use std::path::Path;

use serde_json::json;
use tokenizers::AddedToken;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::error::library;
use super::save::write;
use super::{Tokenizer, TokenizerError};

/// The smallest byte-level vocabulary: every byte, and the special tokens.
const SMALLEST: usize = 256 + SPECIALS.len();

/// ChatML's tokens, with SmolLM2's ids: padding and unknown, BOS, EOS.
const SPECIALS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

const CHAT_TEMPLATE: &str = include_str!("../../../../data/templates/chatml.jinja");

/// The options of [`train`].
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// The number of tokens, including the 256 bytes and three special tokens; fewer if the text has no more pairs to
    /// merge.
    pub vocab_size: usize,
    /// How often a pair must occur to become a token.
    pub min_frequency: u64,
}

/// Trains a byte-level BPE tokenizer on `texts` and writes it to `folder`, as transformers' `AutoTokenizer` reads it:
/// `tokenizer.json`, and `tokenizer_config.json` with ChatML's special tokens and chat template.
///
/// The same texts and options give the same bytes.
///
/// # Errors
/// [`TokenizerError`] if `vocab_size` is too small for the bytes and special tokens, or a file cannot be written.
pub fn train<T: AsRef<str> + Sync>(
    texts: &[T],
    options: &TrainOptions,
    folder: &Path,
) -> Result<Tokenizer, TokenizerError> {
    if options.vocab_size < SMALLEST {
        return Err(TokenizerError::Invalid {
            path: folder.into(),
            problem: format!(
                "expected a vocabulary of at least {SMALLEST} tokens (all bytes and the special tokens), found {}",
                options.vocab_size
            ),
        });
    }
    let special = |token: &str| AddedToken::from(token, true);
    let trainer = BpeTrainer::builder()
        .vocab_size(options.vocab_size)
        .min_frequency(options.min_frequency)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(SPECIALS.map(special).to_vec())
        .show_progress(false)
        .build();
    let byte_level = ByteLevel::new(false, true, true);
    let mut inner = tokenizers::Tokenizer::new(BPE::default());
    inner.with_pre_tokenizer(Some(byte_level));
    inner.with_decoder(Some(byte_level));
    let mut trainer = TrainerWrapper::from(trainer);
    library(inner.train(&mut trainer, texts.iter().map(AsRef::as_ref)))?;

    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[1],
        "eos_token": SPECIALS[2],
        "pad_token": SPECIALS[0],
        "unk_token": SPECIALS[0],
        "clean_up_tokenization_spaces": false,
        "model_max_length": 1_000_000_000,
        "chat_template": CHAT_TEMPLATE,
    });
    write(folder, "tokenizer.json", &library(inner.to_string(true))?)?;
    write(folder, "tokenizer_config.json", &format!("{config:#}\n"))?;
    Tokenizer::from_folder(folder)
}
