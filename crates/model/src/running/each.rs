//! Many texts, some at a time.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::{Asked, Running, TextId};
use crate::generate::{GenerateError, Generated, Stop};

/// A text that has begun, and what it has so far.
struct Begun {
    number: usize,
    text: TextId,
    generated: Generated,
    ended: bool,
}

/// Texts that are continued one after another, some at a time. They are counted from 0.
pub trait Texts {
    /// Why a text cannot be continued, or what became of it cannot be kept.
    type Error: From<GenerateError>;

    /// The next text to continue; `None` after the last one.
    fn next(&mut self) -> Option<Result<Asked, Self::Error>>;

    /// A text has a new token, which may end it.
    fn token(&mut self, _number: usize, _token: u32) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// A text has ended. Called in the order of the numbers.
    ///
    /// # Errors
    /// If it cannot be kept.
    fn done(&mut self, number: usize, generated: Generated) -> Result<(), Self::Error>;
}

impl Running<'_> {
    /// Continues texts, `together` at a time: when one has ended, the next begins.
    ///
    /// # Errors
    /// Those of the texts, and if one cannot be continued.
    pub fn each<T: Texts>(&mut self, together: usize, texts: &mut T) -> Result<(), T::Error> {
        let mut begun: VecDeque<Begun> = VecDeque::new();
        let mut count = 0;
        loop {
            while self.len() < together.max(1)
                && let Some(asked) = texts.next()
            {
                begun.push_back(Begun {
                    number: count,
                    text: self.begin(asked?)?,
                    generated: Generated {
                        tokens: Vec::new(),
                        log_probs: Vec::new(),
                        stop: Stop::Caller,
                    },
                    ended: false,
                });
                count += 1;
            }
            if self.is_empty() {
                return Ok(());
            }
            for next in self.step() {
                let found = begun.iter_mut().find(|begun| begun.text == next.text);
                let Some(begun) = found else { continue };
                if let Some(stop) = next.stop {
                    begun.generated.stop = stop;
                    begun.ended = true;
                }
                let Some(chosen) = next.chosen else { continue };
                begun.generated.tokens.push(chosen.token);
                begun.generated.log_probs.push(chosen.log_prob);
                if texts.token(begun.number, chosen.token).is_break() {
                    begun.generated.stop = Stop::Caller;
                    begun.ended = true;
                    self.end(next.text);
                }
            }
            while let Some(first) = begun.pop_front_if(|begun| begun.ended) {
                texts.done(first.number, first.generated)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::Device;
    use serde_json::json;
    use simmer_checkpoint::config::ModelConfig;

    use super::*;
    use crate::base::{BaseConfig, load};
    use crate::sampler::Sampling;

    /// Texts of so many tokens, which end at a token.
    struct Prompts<'a> {
        lengths: &'a [usize],
        next: usize,
        until: u32,
        done: Vec<Generated>,
    }

    impl Texts for Prompts<'_> {
        type Error = GenerateError;

        fn next(&mut self) -> Option<Result<Asked, GenerateError>> {
            let length = *self.lengths.get(self.next)?;
            self.next += 1;
            Some(Ok(Asked {
                tokens: (0..length as u32).map(|place| place * 7 % 40).collect(),
                max_new_tokens: 30 - length,
                sampling: Sampling::default(),
                top: 0,
                scores_prompt: false,
            }))
        }

        fn token(&mut self, _number: usize, token: u32) -> ControlFlow<()> {
            if token == self.until {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }

        fn done(&mut self, number: usize, generated: Generated) -> Result<(), GenerateError> {
            assert_eq!(number, self.done.len());
            self.done.push(generated);
            Ok(())
        }
    }

    #[test]
    fn texts_end_in_their_order_whatever_is_computed_together() {
        let json = json!({
            "vocab_size": 40, "hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 4, "initializer_range": 0.6, "max_position_embeddings": 64
        });
        let mut base = BaseConfig::default();
        base.init = Some(ModelConfig::from_json(&json, Path::new("config.json")).unwrap());
        let model = load(&base, 7, &Device::flex()).unwrap();
        let lengths = [3, 29, 12, 5, 20, 20, 1];
        let all = |together, until| {
            let mut texts = Prompts {
                lengths: &lengths,
                next: 0,
                until,
                done: Vec::new(),
            };
            let mut running = Running::new(&model, &[], 64, 0);
            running.each(together, &mut texts).unwrap();
            texts.done
        };
        let alone = all(1, 99);
        for (found, length) in alone.iter().zip(lengths) {
            assert_eq!(
                (found.tokens.len(), found.stop),
                (30 - length, Stop::Length)
            );
        }
        for together in [2, 16] {
            for (found, expected) in all(together, 99).iter().zip(&alone) {
                assert_eq!(found.tokens, expected.tokens);
            }
        }
        let until = alone[0].tokens[4];
        let cut = all(3, until);
        assert_eq!(cut[0].stop, Stop::Caller);
        let place = alone[0]
            .tokens
            .iter()
            .position(|token| *token == until)
            .unwrap();
        assert_eq!(cut[0].tokens, alone[0].tokens[..=place]);
        // a text that cannot be continued
        let mut texts = Prompts {
            lengths: &[3, 0],
            next: 0,
            until: 99,
            done: Vec::new(),
        };
        let failed = Running::new(&model, &[], 64, 0).each(1, &mut texts);
        assert_eq!(failed, Err(GenerateError::EmptyPrompt));
    }
}
