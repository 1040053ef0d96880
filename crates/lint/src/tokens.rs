//! Checks of the tokens of one row.

use std::collections::HashSet;
use std::ops::Range;

use simmer_data::RowView;
use simmer_data::conversation::{Content, Conversation, Role};
use simmer_data::example::{Example, Outcome, prompt_tokens};
use simmer_data::tokenizer::{Tokenizer, TokenizerError};
use simmer_files::size::{are, counted};

use super::Kind;
use super::excerpt::{around, beginning, ending, line};

/// The tokens of a tokenizer that have a special meaning.
#[derive(Debug)]
pub(super) struct Meanings {
    bos: Option<u32>,
    eos: Vec<u32>,
    unk: Option<u32>,
    special: HashSet<u32>,
}

/// Tokens that are never the EOS token if a model's files are right.
const NO_ENDS: [&str; 8] = [
    "<s>",
    "<unk>",
    "<pad>",
    "[PAD]",
    "[UNK]",
    "<|begin_of_text|>",
    "<|im_start|>",
    "<|startoftext|>",
];

/// The number of tokens shown of the end of an answer.
const SHOWN: usize = 6;

/// Bytes compared on each side of the end of a prompt.
const AROUND: usize = 32;

/// One in this many rows is tokenised again as a whole.
const FULL: usize = 64;

impl Meanings {
    pub(super) fn of(tokenizer: &Tokenizer) -> Meanings {
        let unk = tokenizer.specials().get("unk_token");
        let special = tokenizer.special_tokens();
        Meanings {
            bos: tokenizer.bos_id(),
            eos: tokenizer.eos_ids().to_vec(),
            unk: unk.and_then(|token| tokenizer.token_id(token)),
            special: special
                .iter()
                .filter_map(|token| tokenizer.token_id(token))
                .collect(),
        }
    }

    /// What is wrong with the EOS token itself.
    pub(super) fn end_token(&self, tokenizer: &Tokenizer) -> Option<String> {
        let (id, token) = self.eos.iter().find_map(|&id| {
            let token = tokenizer.token(id)?;
            let other = NO_ENDS.contains(&token.as_str());
            (other || tokenizer.prefix().contains(&id)).then_some((id, token))
        })?;
        Some(format!(
            "the EOS token of the tokenizer in {} is token {id}, `{}`",
            tokenizer.path().display(),
            line(&token)
        ))
    }

    /// Finds what is wrong with the tokens of a row.
    ///
    /// # Errors
    /// [`TokenizerError`] if the tokenizers library fails.
    pub(super) fn check(
        &self,
        view: &RowView<'_>,
        found: &mut Vec<(Kind, String)>,
    ) -> Result<(), TokenizerError> {
        let (tokenizer, outcomes) = (view.tokenizer, view.outcomes);
        for outcome in outcomes {
            match outcome {
                Outcome::Kept {
                    example,
                    cut,
                    cut_targets,
                    ..
                } => {
                    if *cut > 0 {
                        let what = format!(
                            "{} cut off, including {}",
                            are(*cut, "token"),
                            counted(*cut_targets, "trained token")
                        );
                        found.push((Kind::Truncated, what));
                    }
                    self.surroundings(example, tokenizer, found)?;
                }
                Outcome::Overlong { tokens } => {
                    found.push((Kind::Dropped, format!("has {}", counted(*tokens, "token"))));
                }
                Outcome::Untrained { tokens, targets: 0 } => {
                    found.push((
                        Kind::Untrained,
                        format!("has {tokens} tokens, none of them trained"),
                    ));
                }
                Outcome::Weightless { .. } => {
                    found.push((Kind::Untrained, "all answers have weight 0".to_owned()));
                }
                Outcome::Untrained { tokens, targets } => {
                    let what = format!(
                        "has {}; all {} cut off",
                        counted(*tokens, "token"),
                        are(*targets, "trained token")
                    );
                    found.push((Kind::Untrained, what));
                }
            }
        }
        // A truncated row has no EOS token; it is reported as truncated only.
        if let Some(Outcome::Kept {
            example, cut: 0, ..
        }) = outcomes.last()
        {
            self.ends(example, tokenizer, found)?;
        }
        if let [Outcome::Kept { .. }] = outcomes
            && let Some(asked) = asked(view.row)
        {
            found.extend(prompt_fault(&asked, view)?);
        }
        Ok(())
    }

    fn surroundings(
        &self,
        example: &Example,
        tokenizer: &Tokenizer,
        found: &mut Vec<(Kind, String)>,
    ) -> Result<(), TokenizerError> {
        let tokens = &example.tokens;
        let twice = |is: &dyn Fn(u32) -> bool| {
            let mut pairs = tokens.windows(2);
            pairs.position(|pair| is(pair[0]) && is(pair[1]))
        };
        if let Some(at) = twice(&|token| Some(token) == self.bos && !self.eos.contains(&token)) {
            found.push((Kind::DoubledBeginning, shown(tokenizer, &tokens[at..])?));
        }
        if let Some(unk) = self.unk
            && let Some(at) = tokens.iter().position(|&token| token == unk)
            // Some tokenizers use one token as unknown, BOS and EOS token.
            && !self.eos.contains(&unk)
            && self.bos != Some(unk)
        {
            let what = format!("after {}", ending(&tokenizer.decode(&tokens[..at], false)?));
            found.push((Kind::UnknownTokens, what));
        }
        Ok(())
    }

    /// Checks how answers end.
    fn ends(
        &self,
        example: &Example,
        tokenizer: &Tokenizer,
        found: &mut Vec<(Kind, String)>,
    ) -> Result<(), TokenizerError> {
        let tokens = &example.tokens;
        let answers = runs(&example.trained);
        let Some((last, before)) = answers.split_last() else {
            return Ok(());
        };
        let is_end = |token: &u32| self.eos.contains(token);
        let last = last.start..self.end_of(last, tokens, tokenizer)?;
        let until = |end: usize| shown(tokenizer, &tokens[end.saturating_sub(SHOWN)..end]);
        if !is_end(&tokens[last.end - 1]) {
            let what = match tokens.get(last.end).filter(|token| is_end(token)) {
                Some(_) => format!(
                    "ends with {}, but the EOS token is masked",
                    until(last.end + 1)?
                ),
                None => format!("ends with {}", until(last.end)?),
            };
            found.push((Kind::EndMissing, what));
        } else if let [.., end, _] = &tokens[last.clone()]
            && self.special.contains(end)
        {
            found.push((Kind::DoubledEnd, format!("ends with {}", until(last.end)?)));
        }
        if let Some(answer) = before
            .iter()
            .find(|answer| !is_end(&tokens[answer.end - 1]))
        {
            found.push((
                Kind::TurnEndMissing,
                format!("ends with {}", until(answer.end)?),
            ));
        }
        Ok(())
    }

    /// The end of an answer, without white space after its EOS token: many chat templates put a line break there, which is
    /// trained on if everything is.
    fn end_of(
        &self,
        answer: &Range<usize>,
        tokens: &[u32],
        tokenizer: &Tokenizer,
    ) -> Result<usize, TokenizerError> {
        let mut end = answer.end;
        while end > answer.start {
            if self.eos.contains(&tokens[end - 1]) {
                return Ok(end);
            }
            if !tokenizer
                .decode(&tokens[end - 1..end], false)?
                .trim()
                .is_empty()
            {
                break;
            }
            end -= 1;
        }
        Ok(answer.end)
    }
}

/// The ranges of tokens that are trained on.
fn runs(trained: &[bool]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
    for same in trained.chunk_by(|a, b| a == b) {
        if same[0] {
            runs.push(start..start + same.len());
        }
        start += same.len();
    }
    runs
}

/// The row up to its last answer, which generation would have to give. `None` if it has no answer.
fn asked(row: &Conversation) -> Option<Conversation> {
    match &row.content {
        Content::Text(_)
        | Content::Instruction { output: None, .. }
        | Content::Completion {
            completion: None, ..
        } => None,
        Content::Instruction { .. } | Content::Completion { .. } => Some(row.clone()),
        Content::Messages(messages) => {
            let last = messages
                .iter()
                .rposition(|message| message.role == Role::Assistant)?;
            let mut row = row.clone();
            row.content = Content::Messages(messages[..=last].to_vec());
            Some(row)
        }
    }
}

/// How the text before the answer in training differs from the generation prompt.
fn prompt_fault(
    asked: &Conversation,
    view: &RowView<'_>,
) -> Result<Option<(Kind, String)>, TokenizerError> {
    let (tokenizer, rendered) = (view.tokenizer, view.rendered);
    let prompt = match view.template.prompt(asked) {
        Ok(prompt) => prompt,
        Err(error) => {
            return Ok(Some((
                Kind::PromptText,
                format!("the template has no generation prompt for this row: {error}"),
            )));
        }
    };
    if !rendered.text.starts_with(&prompt.text) {
        let (asked, trained) = apart(&prompt.text, &rendered.text);
        let what = format!("generation starts from {asked}, training has {trained}");
        return Ok(Some((Kind::PromptText, what)));
    }
    if let Some(answer) = rendered
        .trained
        .last()
        .filter(|answer| answer.start > prompt.text.len())
    {
        let skipped = beginning(&rendered.text[prompt.text.len()..answer.start]);
        let what = format!("the model has to write {skipped} first, but is not trained on it");
        return Ok(Some((Kind::PromptText, what)));
    }
    let full = asked.origin.row % FULL == 1;
    if !full && joins_cleanly(&prompt.text, &rendered.text, tokenizer)? {
        return Ok(None);
    }
    let prompt = prompt_tokens(&prompt, tokenizer)?;
    // the example may be a part of the row
    let tokens = prompt_tokens(rendered, tokenizer)?;
    let pairs = prompt.iter().zip(&tokens);
    let same = pairs.take_while(|(a, b)| a == b).count();
    if same == prompt.len().min(tokens.len()) {
        return Ok(None);
    }
    let [asked, trained] = [&prompt, &tokens].map(|tokens| spelled(tokenizer, tokens, same));
    let what = format!("generation starts from the tokens {asked}, training has {trained}");
    Ok(Some((Kind::PromptTokens, what)))
}

/// Whether the prompt has the same tokens with and without the answer.
///
/// A merge reaches no further than the length of a token, so a piece of text on each side of the edge is enough.
fn joins_cleanly(prompt: &str, text: &str, tokenizer: &Tokenizer) -> Result<bool, TokenizerError> {
    let boundary = |at: usize| {
        (0..=at)
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(0)
    };
    let start = boundary(prompt.len().saturating_sub(AROUND));
    let end = boundary(text.len().min(prompt.len() + AROUND));
    let alone = tokenizer.encode(&text[start..prompt.len()])?.ids;
    let joined = tokenizer.encode(&text[start..end])?.ids;
    Ok(joined.starts_with(&alone))
}

/// Two texts around the place where they begin to differ.
fn apart(a: &str, b: &str) -> (String, String) {
    let same = a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y);
    let at = same.map_or(a.len().min(b.len()), |((at, _), _)| at);
    (around(a, at), around(b, at))
}

/// The first of some tokens as text.
fn shown(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<String, TokenizerError> {
    let tokens = &tokens[..tokens.len().min(SHOWN + 1)];
    Ok(format!("`{}`", line(&tokenizer.decode(tokens, false)?)))
}

/// Tokens as the vocabulary spells them, around position `at`.
fn spelled(tokenizer: &Tokenizer, tokens: &[u32], at: usize) -> String {
    let around = at.saturating_sub(2)..tokens.len().min(at + 3);
    let token = |id: &u32| tokenizer.token(*id).unwrap_or_default();
    let tokens: Vec<String> = tokens[around].iter().map(token).collect();
    format!("`{}`", line(&tokens.join("|")))
}
