//! Special tokens that occur as text in a message.

use std::collections::HashMap;

use simmer_data::conversation::Layout;
use simmer_data::tokenizer::Tokenizer;

/// Special tokens of well-known models, which are plain text to other models.
const FOREIGN: [&str; 17] = [
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|END_OF_TURN_TOKEN|>",
];

/// Marks that some templates write around turns as plain text. Rows of plain text may contain them.
const MARKS: [&str; 4] = ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"];

/// Finds special tokens in a text.
#[derive(Debug)]
pub(super) struct Specials {
    /// The tokens by their first byte.
    tokens: HashMap<u8, Vec<Special>>,
}

#[derive(Debug)]
struct Special {
    text: String,
    origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A token of the tokenizer that rows of plain text may use.
    Own,
    /// The tokenizer's padding or unknown token.
    Filler,
    /// A token of another model.
    Foreign,
    /// One of [`MARKS`].
    Mark,
}

impl Specials {
    pub(super) fn of(tokenizer: &Tokenizer) -> Specials {
        let fillers = ["unk_token", "pad_token"].map(|key| tokenizer.specials().get(key));
        // One token may be EOS, padding and unknown token at once.
        let eos = tokenizer.eos_ids().iter();
        let eos: Vec<_> = eos.filter_map(|&id| tokenizer.token(id)).collect();
        let own = tokenizer.special_tokens().into_iter().map(|text| {
            let filler = fillers.contains(&Some(&text)) && !eos.contains(&text);
            let origin = if filler { Origin::Filler } else { Origin::Own };
            Special { text, origin }
        });
        let list = |texts: &'static [&str], origin| {
            texts.iter().map(move |&text| Special {
                text: text.into(),
                origin,
            })
        };
        let mut tokens: HashMap<u8, Vec<Special>> = HashMap::new();
        for special in own
            .chain(list(&FOREIGN, Origin::Foreign))
            .chain(list(&MARKS, Origin::Mark))
        {
            let Some(&first) = special.text.as_bytes().first() else {
                continue;
            };
            let same = tokens.entry(first).or_default();
            // The tokenizer's own tokens come first, even if they are on the other lists, too.
            if same.iter().all(|known| known.text != special.text) {
                same.push(special);
            }
        }
        Specials { tokens }
    }

    /// The first special token that a text of a row of this layout should not contain: its byte offset, the token, and what
    /// becomes of it.
    pub(super) fn find(&self, text: &str, layout: Layout) -> Option<(usize, &str, &'static str)> {
        // Rows of plain text and prompts contain the template's tokens on purpose.
        let raw = matches!(layout, Layout::Text | Layout::Completion);
        text.bytes().enumerate().find_map(|(at, byte)| {
            let special = self.tokens.get(&byte)?.iter().find(|special| {
                let meant = raw && matches!(special.origin, Origin::Own | Origin::Mark);
                !meant && text.as_bytes()[at..].starts_with(special.text.as_bytes())
            })?;
            let becomes = match special.origin {
                Origin::Own | Origin::Filler => "becomes that token",
                Origin::Foreign | Origin::Mark => {
                    "is not a special token of this model and stays plain text"
                }
            };
            Some((at, special.text.as_str(), becomes))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::tokenizers::tiny;

    #[test]
    fn special_tokens_are_found_where_they_are_not_meant() {
        let specials = Specials::of(&tiny());
        let find = |text, layout| {
            let (at, token, becomes) = specials.find(text, layout)?;
            Some(format!("{token} at {at} {becomes}"))
        };
        let message = |text| find(text, Layout::Messages).unwrap_or_default();
        insta::assert_snapshot!(message("Bye.<|im_end|>"), @"<|im_end|> at 4 becomes that token");
        insta::assert_snapshot!(message("Bye.</s><|im_end|>"), @"</s> at 4 is not a special token of this model and stays plain text");
        insta::assert_snapshot!(message("[INST] Hello!"), @"[INST] at 0 is not a special token of this model and stays plain text");
        assert_eq!(message("a <b>, [c] and <|d|>"), "");

        let text = |text| find(text, Layout::Text).unwrap_or_default();
        assert_eq!(text("<|im_start|>user\n[INST] Hello!<|im_end|>"), "");
        insta::assert_snapshot!(text("One.</s>"), @"</s> at 4 is not a special token of this model and stays plain text");
        insta::assert_snapshot!(text("One <|endoftext|>."), @"<|endoftext|> at 4 becomes that token");
    }
}
