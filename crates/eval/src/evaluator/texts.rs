//! Questions that are answered by generated text.

use std::collections::HashMap;
use std::ops::ControlFlow;

use simmer_data::example::prompt_tokens;
use simmer_data::tokenizer::StopTexts;
use simmer_kernels::{Decoding, mix};
use simmer_model::{Generated, KeptPrefix, PAGE, Prompt, Running, Sampling, Texts};

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
        if generation.max_new_tokens > 0 && !Decoding::is_default(&self.model.device()) {
            return self.one_after_another(questions, open, prompt, generation, batches);
        }
        // a GPU records the steps of a batch as a graph, which another text would end
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

    /// Begins with the next text as soon as another one has ended.
    fn one_after_another(
        &self,
        questions: &[Question],
        open: &[usize],
        prompt: &dyn Fn(usize) -> Result<Open, EvalError>,
        generation: &Generation,
        batches: &mut Batches<'_>,
    ) -> Result<(), EvalError> {
        let open: Vec<Open> = open
            .iter()
            .map(|place| prompt(*place))
            .collect::<Result<_, _>>()?;
        let longest = open.iter().map(|open| open.tokens.len()).max().unwrap_or(0);
        // one more, so that the most new tokens end a text and not the context
        let longest = (longest + generation.max_new_tokens + 1).min(self.limit());
        let places = BATCH * (longest + 2 * PAGE);
        let mut running = Running::new(self.model, self.eos, longest, places);
        let mut written = Written {
            evaluator: self,
            questions,
            open: &open,
            generation,
            batches,
            next: 0,
            streams: HashMap::new(),
            texts: Vec::new(),
        };
        running.each(BATCH, &mut written)
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
            let question = &questions[text.question];
            (0..samples).map(|sample| sampling(question, sample, generation))
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
        let answers = texts.into_iter().map(|text| {
            let texts = written.by_ref().take(samples).collect();
            text.answer(&questions[text.question], texts)
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

impl Open {
    fn answer(&self, question: &Question, texts: Vec<String>) -> Answer {
        Answer {
            row: question.number,
            asked: question.id(),
            texts,
            reference: self.reference,
            cut: self.cut,
            ..Answer::default()
        }
    }
}

/// How the tokens of one of several samples are chosen.
fn sampling(question: &Question, sample: usize, generation: &Generation) -> Sampling {
    Sampling {
        temperature: generation.temperature,
        seed: mix(mix(question.number as u64) ^ sample as u64),
        ..Sampling::default()
    }
}

/// Texts of questions that are generated one after another: all samples of a question follow each other.
struct Written<'a, 'b, 'e> {
    evaluator: &'a Evaluator<'e>,
    questions: &'a [Question],
    open: &'a [Open],
    generation: &'a Generation,
    batches: &'a mut Batches<'b>,
    /// The number of the next text.
    next: usize,
    /// Those that are generated.
    streams: HashMap<usize, StopTexts<'a>>,
    /// Those of the first question that has no answer yet.
    texts: Vec<String>,
}

impl Written<'_, '_, '_> {
    fn samples(&self) -> usize {
        self.generation.samples.max(1)
    }
}

impl Texts for Written<'_, '_, '_> {
    type Error = EvalError;

    fn next(&mut self) -> Option<Result<simmer_model::Asked, EvalError>> {
        let (question, sample) = (self.next / self.samples(), self.next % self.samples());
        let open = self.open.get(question)?;
        if let Err(interrupted) = self.batches.check() {
            return Some(Err(interrupted));
        }
        let stream = StopTexts::new(self.evaluator.tokenizer, 1, &self.generation.until);
        self.streams.insert(self.next, stream);
        self.next += 1;
        Some(Ok(simmer_model::Asked {
            tokens: open.tokens.clone(),
            max_new_tokens: self.generation.max_new_tokens,
            sampling: sampling(&self.questions[open.question], sample, self.generation),
            top: 0,
            scores_prompt: false,
        }))
    }

    fn token(&mut self, number: usize, token: u32) -> ControlFlow<()> {
        let stream = self.streams.get_mut(&number);
        stream.map_or(ControlFlow::Continue(()), |stream| stream.push(0, token))
    }

    fn done(&mut self, number: usize, generated: Generated) -> Result<(), EvalError> {
        if let Some(stream) = self.streams.remove(&number) {
            self.texts.extend(stream.finish([&generated.tokens[..]])?);
        }
        if self.texts.len() < self.samples() {
            return Ok(());
        }
        let open = &self.open[number / self.samples()];
        let texts = std::mem::take(&mut self.texts);
        let answer = open.answer(&self.questions[open.question], texts);
        (self.batches.keep)(vec![answer])
    }
}
