//! Rendered conversations into tokens, each trained on or not.
//!
//! The whole text becomes tokens once; the spans are carried over by the bytes that each token stands for. Prompt and answer
//! are never tokenised apart, so training sees the tokens that the text has.
//!
//! A token that straddles the edge of a span belongs to where its first byte lies: one that begins in the prompt and ends in
//! the answer is part of the prompt, as it is for those who mask the first n tokens. Straddling tokens are counted.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::conversation::Origin;
use crate::template::{Rendered, TrainOn};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// One conversation as tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Example {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Which tokens the model is to predict; as many as `tokens`. Never the first, which nothing precedes.
    pub trained: Vec<bool>,
    /// The row it came from.
    pub origin: Origin,
}

impl Example {
    /// How many tokens the model is to predict.
    pub fn targets(&self) -> usize {
        self.trained.iter().filter(|&&trained| trained).count()
    }
}

/// What becomes of a row with more than `max_tokens` tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlong {
    /// Its end is cut off.
    #[default]
    Truncate,
    /// It is left out.
    Drop,
}

/// How rendered conversations become examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most tokens of a row.
    pub max_tokens: usize,
    /// What becomes of a row with more.
    pub overlong: Overlong,
    /// Which tokens are trained on.
    pub train_on: TrainOn,
}

/// What became of a rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An example, perhaps cut.
    Kept {
        /// The example; its origin is the caller's to set.
        example: Example,
        /// Tokens cut off its end.
        cut: usize,
        /// Tokens to be predicted among those.
        cut_targets: usize,
        /// Tokens that straddle the edge of an answer.
        straddling: usize,
    },
    /// Left out, having more than `max_tokens` tokens.
    Overlong {
        /// How many it has.
        tokens: usize,
    },
    /// Left out, having no token to train on.
    Untrained {
        /// Tokens in all, before the cut.
        tokens: usize,
        /// Tokens to be predicted among those, all of them cut off.
        targets: usize,
    },
}

/// The tokens of a text that the model goes on from.
///
/// # Errors
/// [`TokenizerError`] when the tokenizers library refuses.
pub fn prompt_tokens(prompt: &Rendered, tokenizer: &Tokenizer) -> Result<Vec<u32>, TokenizerError> {
    let tokens = tokenizer.encode(&prompt.text)?.ids;
    let prefix = prefix(prompt, tokenizer, &tokens);
    Ok([prefix, &tokens].concat())
}

/// Makes an example of a rendered conversation.
///
/// A finished answer is followed by the end-of-sequence token, trained on, unless it ends with one already. The
/// tokenizer's own prefix (LLaMA's beginning of sequence) stands first, unless the text spells out its special tokens.
///
/// # Errors
/// [`TokenizerError`] when the tokenizers library refuses, or the tokenizer has no end of sequence.
pub fn encode(
    rendered: &Rendered,
    tokenizer: &Tokenizer,
    limits: &Limits,
) -> Result<Outcome, TokenizerError> {
    let encoding = tokenizer.encode(&rendered.text)?;
    let marks = carry(&rendered.trained, &encoding.offsets);
    let prefix = prefix(rendered, tokenizer, &encoding.ids);

    let mut trained = vec![false; prefix.len()];
    trained.extend(&marks.trained);
    let mut tokens = [prefix, &encoding.ids].concat();
    if rendered.complete && !ends(&tokens, &trained, tokenizer.eos_ids()) {
        tokens.push(tokenizer.eos_id()?);
        trained.push(true);
    }
    if limits.train_on == TrainOn::Everything {
        trained.fill(true);
    }
    if let Some(first) = trained.first_mut() {
        *first = false;
    }
    Ok(limits.apply(tokens, trained, marks.straddling))
}

impl Limits {
    fn apply(&self, mut tokens: Vec<u32>, mut trained: Vec<bool>, straddling: usize) -> Outcome {
        let count = |trained: &[bool]| trained.iter().filter(|&&trained| trained).count();
        let (all, targets) = (tokens.len(), count(&trained));
        if all > self.max_tokens && self.overlong == Overlong::Drop {
            return Outcome::Overlong { tokens: all };
        }
        tokens.truncate(self.max_tokens);
        trained.truncate(self.max_tokens);
        let kept = count(&trained);
        if kept == 0 {
            return Outcome::Untrained {
                tokens: all,
                targets,
            };
        }
        Outcome::Kept {
            cut: all - tokens.len(),
            cut_targets: targets - kept,
            straddling,
            example: Example {
                tokens,
                trained,
                origin: Origin::default(),
            },
        }
    }
}

/// The tokens to put before `tokens`: none where the text begins with them or spells out its own.
fn prefix<'t>(rendered: &Rendered, tokenizer: &'t Tokenizer, tokens: &[u32]) -> &'t [u32] {
    let prefix = tokenizer.prefix();
    if rendered.own_specials || tokens.starts_with(prefix) {
        &[]
    } else {
        prefix
    }
}

/// Whether the last answer ends with an end-of-sequence token.
fn ends(tokens: &[u32], trained: &[bool], eos: &[u32]) -> bool {
    let last = trained.iter().rposition(|&trained| trained);
    last.is_some_and(|last| eos.contains(&tokens[last]))
}

struct Marks {
    trained: Vec<bool>,
    straddling: usize,
}

/// Marks the tokens whose first byte lies in one of `spans`, which are in order.
fn carry(spans: &[Range<usize>], offsets: &[Range<usize>]) -> Marks {
    let mut straddling = 0;
    let mut spans = spans.iter().peekable();
    let trained = offsets.iter().map(|token| {
        while spans.next_if(|span| span.end <= token.start).is_some() {}
        let Some(span) = spans.peek() else {
            return false;
        };
        let crosses = |edge: usize| token.start < edge && edge < token.end;
        straddling += usize::from(crosses(span.start) || crosses(span.end));
        span.contains(&token.start)
    });
    Marks {
        trained: trained.collect(),
        straddling,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::{Content, Conversation, Message, Role};
    use crate::template::Template;
    use crate::tokenizer::tests::{tiny, tiny_with_bos};
    use proptest::prelude::*;

    const WHOLE: Limits = Limits {
        max_tokens: 1000,
        overlong: Overlong::Truncate,
        train_on: TrainOn::Answers,
    };

    fn completion(prompt: &str, answer: &str) -> Conversation {
        Conversation::new(Content::Completion {
            prompt: prompt.into(),
            completion: Some(answer.into()),
        })
    }

    fn outcome(
        tokenizer: &Tokenizer,
        template: &str,
        row: &Conversation,
        limits: &Limits,
    ) -> Outcome {
        let template = Template::named(template, tokenizer).unwrap();
        encode(&template.render(row).unwrap(), tokenizer, limits).unwrap()
    }

    fn example(
        tokenizer: &Tokenizer,
        template: &str,
        row: &Conversation,
        limits: &Limits,
    ) -> Example {
        match outcome(tokenizer, template, row, limits) {
            Outcome::Kept { example, .. } => example,
            other => panic!("{other:?}"),
        }
    }

    /// Tokens with bars between them, those trained on between ⟦ and ⟧.
    fn shown(tokenizer: &Tokenizer, example: &Example) -> String {
        let token = |(&id, &trained): (&u32, &bool)| {
            let text = tokenizer.decode(&[id], false).unwrap();
            if trained {
                format!("⟦{text}⟧")
            } else {
                text
            }
        };
        let shown: Vec<_> = example
            .tokens
            .iter()
            .zip(&example.trained)
            .map(token)
            .collect();
        shown.join("|")
    }

    #[test]
    fn answers_are_trained_on_and_end() {
        let tokenizer = tiny();
        let row = completion("capital? ", "Paris.");
        insta::assert_snapshot!(shown(&tokenizer, &example(&tokenizer, "completion", &row, &WHOLE)), @"c|ap|ital|?| |⟦P⟧|⟦a⟧|⟦r⟧|⟦is⟧|⟦.⟧|⟦<|im_end|>⟧");
        insta::assert_snapshot!(shown(&tokenizer, &example(&tokenizer, "chat", &row, &WHOLE)), @"
    <|im_start|>|u|s|e|r|
    |c|ap|ital|?| |<|im_end|>|
    |<|im_start|>|a|s|s|is|t|an|t|
    |⟦P⟧|⟦a⟧|⟦r⟧|⟦is⟧|⟦.⟧|⟦<|im_end|>⟧|
    ");
        let empty = completion("capital? ", "");
        insta::assert_snapshot!(shown(&tokenizer, &example(&tokenizer, "completion", &empty, &WHOLE)), @"c|ap|ital|?| |⟦<|im_end|>⟧");
    }

    #[test]
    fn everything_can_be_trained_on_but_the_first_token() {
        let tokenizer = tiny();
        let everything = Limits {
            train_on: TrainOn::Everything,
            ..WHOLE
        };
        let row = completion("capital? ", "Paris.");
        insta::assert_snapshot!(shown(&tokenizer, &example(&tokenizer, "completion", &row, &everything)), @"c|⟦ap⟧|⟦ital⟧|⟦?⟧|⟦ ⟧|⟦P⟧|⟦a⟧|⟦r⟧|⟦is⟧|⟦.⟧|⟦<|im_end|>⟧");
        // The end after the last answer is not doubled for what follows it.
        let chat = example(&tokenizer, "chat", &row, &everything);
        assert_eq!(
            chat.tokens,
            example(&tokenizer, "chat", &row, &WHOLE).tokens
        );
    }

    #[test]
    fn text_is_trained_on_from_its_second_token() {
        let text = Conversation::new(Content::Text("Paris.".into()));
        let (bare, with_bos) = (tiny(), tiny_with_bos());
        insta::assert_snapshot!(shown(&bare, &example(&bare, "completion", &text, &WHOLE)), @"P|⟦a⟧|⟦r⟧|⟦is⟧|⟦.⟧|⟦<|im_end|>⟧");
        insta::assert_snapshot!(shown(&with_bos, &example(&with_bos, "completion", &text, &WHOLE)), @"<|im_start|>|⟦P⟧|⟦a⟧|⟦r⟧|⟦is⟧|⟦.⟧|⟦<|im_end|>⟧");
    }

    #[test]
    fn beginning_and_end_are_never_doubled() {
        let tokenizer = tiny_with_bos();
        let count = |row: &Conversation| {
            let tokens = example(&tokenizer, "completion", row, &WHOLE).tokens;
            [1, 2].map(|special| tokens.iter().filter(|&&token| token == special).count())
        };
        assert_eq!(count(&completion("capital? ", "Paris.")), [1, 1]);
        assert_eq!(
            count(&completion("<|im_start|>capital? ", "Paris.<|im_end|>")),
            [1, 1]
        );
    }

    #[test]
    fn chat_templates_write_their_own_beginning() {
        let tokenizer = tiny_with_bos();
        let prompt = Rendered {
            text: "capital?".into(),
            trained: Vec::new(),
            complete: false,
            own_specials: true,
        };
        let tokens = prompt_tokens(&prompt, &tokenizer).unwrap();
        let plain = Rendered {
            own_specials: false,
            ..prompt
        };
        assert_eq!(
            prompt_tokens(&plain, &tokenizer).unwrap(),
            [&[1], &tokens[..]].concat()
        );
    }

    #[test]
    fn a_question_without_answer_has_no_end() {
        let tokenizer = tiny();
        let turn = |role, text: &str| Message::new(role, text);
        let row = Conversation::chat(vec![
            turn(Role::User, "Hello!"),
            turn(Role::Assistant, "Bye!"),
            turn(Role::User, "capital?"),
        ]);
        insta::assert_snapshot!(shown(&tokenizer, &example(&tokenizer, "chat", &row, &WHOLE)), @"
    <|im_start|>|u|s|e|r|
    |H|el|l|o|!|<|im_end|>|
    |<|im_start|>|a|s|s|is|t|an|t|
    |⟦B⟧|⟦y⟧|⟦e⟧|⟦!⟧|⟦<|im_end|>⟧|
    |<|im_start|>|u|s|e|r|
    |c|ap|ital|?|<|im_end|>|
    ");
    }

    #[test]
    fn a_token_belongs_to_where_it_begins() {
        // Tokens 0..3, 3..7, 7..9; the answer is 5..8.
        let marks = carry(std::slice::from_ref(&(5..8)), &[0..3, 3..7, 7..9]);
        assert_eq!(marks.trained, [false, false, true]);
        assert_eq!(marks.straddling, 2);
        // The tokens of one character all have its bytes.
        let marks = carry(&[0..1, 3..7], &[0..1, 1..3, 3..7, 3..7, 7..8]);
        assert_eq!(marks.trained, [true, false, true, true, false]);
        assert_eq!(marks.straddling, 0);
    }

    #[test]
    fn what_is_cut_is_counted() {
        let tokenizer = tiny();
        let row = completion("capital? ", "Paris. Paris.");
        let whole = example(&tokenizer, "completion", &row, &WHOLE);
        let (tokens, targets) = (whole.tokens.len(), whole.targets());
        let cut_to = |max_tokens, overlong| {
            outcome(
                &tokenizer,
                "completion",
                &row,
                &Limits {
                    max_tokens,
                    overlong,
                    ..WHOLE
                },
            )
        };
        let Outcome::Kept {
            example,
            cut: 2,
            cut_targets: 2,
            straddling: 0,
        } = cut_to(tokens - 2, Overlong::Truncate)
        else {
            panic!("not cut by two");
        };
        assert_eq!(example.tokens, whole.tokens[..tokens - 2]);
        assert!(!example.tokens.contains(&2), "a cut answer has no end");
        assert_eq!(
            cut_to(tokens - 1, Overlong::Drop),
            Outcome::Overlong { tokens }
        );
        assert!(matches!(
            cut_to(tokens, Overlong::Drop),
            Outcome::Kept { cut: 0, .. }
        ));
        assert_eq!(
            cut_to(tokens - targets, Overlong::Truncate),
            Outcome::Untrained { tokens, targets }
        );
    }

    proptest! {
        #[test]
        fn trained_tokens_say_the_answer(prompt in "[ -~é🦙]{0,30}", answer in "[ -~é🦙]{0,30}") {
            let tokenizer = tiny();
            // A letter before and a space after the edge keep tokens from straddling it.
            let row = completion(&format!("{prompt}a"), &format!(" {answer}"));
            let example = example(&tokenizer, "completion", &row, &WHOLE);
            let pairs = example.tokens.iter().zip(&example.trained);
            let trained: Vec<u32> = pairs.filter(|(_, trained)| **trained).map(|(&id, _)| id).collect();
            prop_assert_eq!(tokenizer.decode(&trained, false).unwrap(), format!(" {answer}<|im_end|>"));
            prop_assert_eq!(tokenizer.decode(&example.tokens, false).unwrap(), format!("{prompt}a {answer}<|im_end|>"));
        }
    }
}
