//! Questions that are answered by generated text.

use simmer_data::example::prompt_tokens;
use simmer_data::tokenizer::StopTexts;
use simmer_kernels::mix;
use simmer_model::{KeptPrefix, Prompt, Sampling};

use super::{BATCH, Batches, Evaluator};
use crate::answer::{Answer, Reference};
use crate::error::EvalError;
use crate::question::{Asked, Question};
use crate::task::Generation;

/// A prompt to continue.
pub(super) struct Open {
    question: usize,
    tokens: Vec<u32>,
    pub(super) cut: usize,
    pub(super) reference: Option<Reference>,
}

impl Evaluator<'_> {
    pub(super) fn text(
        &self,
        question: &Question,
        place: usize,
        generation: &Generation,
    ) -> Result<Open, EvalError> {
        let Asked::Text { turns, .. } = &question.asked else {
            return Err(EvalError::row(&question.origin, "the row has no prompt"));
        };
        let tokens = if let Some(chat) = self.chat {
            let rendered = turns.in_chat(chat);
            let rendered = rendered.map_err(|error| EvalError::render(&question.origin, &error))?;
            prompt_tokens(&rendered, self.tokenizer)?
        } else {
            self.tokenizer.encode_with_prefix(&turns.text())?
        };
        Ok(self.open(place, tokens, generation.max_new_tokens))
    }

    /// A prompt, truncated at the start so that the answer fits into the model's context.
    pub(super) fn open(&self, question: usize, tokens: Vec<u32>, max_new_tokens: usize) -> Open {
        let room = self.limit().saturating_sub(max_new_tokens).max(1);
        let cut = tokens.len().saturating_sub(room);
        Open {
            question,
            tokens: tokens[cut..].to_vec(),
            cut,
            reference: None,
        }
    }

    pub(super) fn generate(
        &self,
        questions: &[Question],
        open: &[usize],
        prompt: &dyn Fn(usize) -> Result<Open, EvalError>,
        generation: &Generation,
        batches: &mut Batches<'_>,
    ) -> Result<(), EvalError> {
        let together = (BATCH / generation.samples.max(1)).max(1);
        // the worked examples of a task are computed once
        let mut kept = KeptPrefix::default();
        for places in open.chunks(together) {
            batches.check()?;
            let texts = places.iter().map(|place| prompt(*place));
            let texts: Vec<Open> = texts.collect::<Result<_, _>>()?;
            let new = self.answers(questions, texts, generation, &mut kept)?;
            (batches.keep)(new)?;
        }
        Ok(())
    }

    fn answers(
        &self,
        questions: &[Question],
        texts: Vec<Open>,
        generation: &Generation,
        kept: &mut KeptPrefix,
    ) -> Result<Vec<Answer>, EvalError> {
        let samples = generation.samples.max(1);
        let sampling = texts.iter().flat_map(|text| {
            let number = questions[text.question].number as u64;
            (0..samples).map(move |sample| Sampling {
                seed: mix(mix(number) ^ sample as u64),
                ..generation.sampling()
            })
        });
        let sampling: Vec<Sampling> = sampling.collect();
        let prompts = texts
            .iter()
            .flat_map(|text| std::iter::repeat_n(&text.tokens, samples));
        let prompts: Vec<Prompt<'_>> = prompts
            .zip(&sampling)
            .map(|(tokens, sampling)| Prompt { tokens, sampling })
            .collect();
        let mut written = self.written(&prompts, generation, kept)?.into_iter();
        let answers = texts.into_iter().map(|text| Answer {
            row: questions[text.question].number,
            asked: questions[text.question].id(),
            texts: written.by_ref().take(samples).collect(),
            reference: text.reference,
            cut: text.cut,
            ..Answer::default()
        });
        Ok(answers.collect())
    }

    /// The generated text of each prompt, up to the first stop sequence.
    fn written(
        &self,
        prompts: &[Prompt<'_>],
        generation: &Generation,
        kept: &mut KeptPrefix,
    ) -> Result<Vec<String>, EvalError> {
        let mut texts = StopTexts::new(self.tokenizer, prompts.len(), &generation.until);
        let mut on_token = |number, token| texts.push(number, token);
        let length = generation.max_new_tokens;
        let generated =
            self.model
                .generate_batch_after(kept, prompts, length, self.eos, &mut on_token)?;
        let tokens = generated.iter().map(|generated| &generated.tokens[..]);
        Ok(texts.finish(tokens)?)
    }
}
