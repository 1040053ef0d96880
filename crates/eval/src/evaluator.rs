//! Questions to a model, many at a time, answers as they come.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use simmer_data::example::{Outcome, prompt_tokens};
use simmer_data::tokenizer::DecodeStream;
use simmer_data::{
    Conversation, Example, Limits, Message, Overlong, Role, Template, Tokenizer, TrainOn, encode,
};
use simmer_kernels::mix;
use simmer_model::{LlamaForCausalLM, Prompt, Sampling, Scored};

use crate::answer::{Answer, Answers, Reference};
use crate::error::EvalError;
use crate::question::{Asked, Pair, Question};
use crate::score::{Row, log_likelihood, score};
use crate::task::{Generation, Instruction, Task};

/// Tokens that a model sees at a time, those that rows have in common counted once.
const RUN: usize = 4096;
/// Texts that are generated together.
const BATCH: usize = 16;

/// A model with what it needs to be asked.
#[derive(Debug, Clone, Copy)]
pub struct Evaluator<'a> {
    /// The model.
    pub model: &'a LlamaForCausalLM,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Tokens that end an answer.
    pub eos: &'a [u32],
    /// What the prompts of generation tasks are put into.
    pub chat: Option<&'a Template>,
}

/// What an evaluation tells while it runs, and what it looks at.
pub struct Watch<'a> {
    /// Told how many of how many questions are answered.
    pub progress: &'a mut dyn FnMut(usize, usize),
    /// Whether somebody asked to stop.
    pub stop: &'a AtomicBool,
    /// Where results are, for the message.
    pub folder: PathBuf,
}

/// A question's rows: what is asked of the model.
struct Asking {
    question: usize,
    pairs: Vec<Row>,
    without: Vec<Row>,
}

/// A text that is to be continued.
struct Open {
    question: usize,
    tokens: Vec<u32>,
    cut: usize,
    reference: Option<Reference>,
}

impl Evaluator<'_> {
    /// Answers the questions that have no answer yet.
    ///
    /// # Errors
    /// [`EvalError`] where a question cannot be asked, and where somebody asked to stop.
    pub fn answer(
        &self,
        task: &Task,
        questions: &[Question],
        answers: &mut Answers,
        watch: &mut Watch<'_>,
    ) -> Result<(), EvalError> {
        let mut open = Vec::new();
        for (place, question) in questions.iter().enumerate() {
            if answers.find(question)?.is_none() {
                open.push(place);
            }
        }
        (watch.progress)(questions.len() - open.len(), questions.len());
        match (&task.generation, &task.instruction) {
            (Some(generation), _) => {
                let prompt = |place: usize| self.text(&questions[place], place, generation);
                self.generate(questions, &open, &prompt, generation, answers, watch)
            }
            (None, Some(instruction)) => {
                self.instruct(questions, &open, instruction, answers, watch)
            }
            (None, None) => self.choose(questions, &open, answers, watch),
        }
    }

    /// What the model makes of the trained tokens of each example; of one without any, nothing.
    pub fn examples(&self, examples: &[Example]) -> Vec<Option<Reference>> {
        let rows = examples.iter().map(|example| Row {
            tokens: example.tokens.clone(),
            asked: example.trained.clone(),
            cut: 0,
        });
        let rows: Vec<Row> = rows.collect();
        let mut found = Vec::with_capacity(rows.len());
        let mut begin = 0;
        while begin < rows.len() {
            let mut tokens = 0;
            let together = rows[begin..].iter().take_while(|row| {
                tokens += row.tokens.len();
                tokens <= RUN
            });
            let end = begin + together.count().max(1);
            let together: Vec<&Row> = rows[begin..end].iter().collect();
            let scored = score(self.model, &together);
            found.extend(scored.iter().map(|scored| Reference::of(scored)));
            begin = end;
        }
        found
    }

    fn limit(&self) -> usize {
        self.model.config().max_position_embeddings
    }

    // Choices.

    fn choose(
        &self,
        questions: &[Question],
        open: &[usize],
        answers: &mut Answers,
        watch: &mut Watch<'_>,
    ) -> Result<(), EvalError> {
        let mut together: Vec<Asking> = Vec::new();
        let mut tokens = 0;
        for place in open {
            let asking = self.asking(questions, *place)?;
            let last = together.last().and_then(|asking| asking.pairs.last());
            let more = asking.new_tokens(last);
            if tokens + more > RUN && !together.is_empty() {
                self.finish(&together, questions, answers, watch)?;
                together.clear();
                tokens = asking.new_tokens(None);
            } else {
                tokens += more;
            }
            together.push(asking);
        }
        self.finish(&together, questions, answers, watch)
    }

    fn asking(&self, questions: &[Question], place: usize) -> Result<Asking, EvalError> {
        let rows = |pairs: &[Pair]| -> Result<Vec<Row>, EvalError> {
            let rows = pairs
                .iter()
                .map(|pair| Row::of(pair, self.tokenizer, self.limit()));
            Ok(rows.collect::<Result<_, _>>()?)
        };
        let (pairs, without) = match &questions[place].asked {
            Asked::Choice { pairs, without, .. } => (rows(pairs)?, rows(without)?),
            _ => (Vec::new(), Vec::new()),
        };
        Ok(Asking {
            question: place,
            pairs,
            without,
        })
    }

    fn finish(
        &self,
        together: &[Asking],
        questions: &[Question],
        answers: &mut Answers,
        watch: &mut Watch<'_>,
    ) -> Result<(), EvalError> {
        check(watch)?;
        let rows = together
            .iter()
            .flat_map(|asking| asking.pairs.iter().chain(&asking.without));
        let rows: Vec<&Row> = rows.collect();
        if rows.is_empty() {
            return Ok(());
        }
        let scored = score(self.model, &rows);
        let mut found = scored.iter().map(|scored| log_likelihood(scored));
        let new = together.iter().map(|asking| Answer {
            row: questions[asking.question].number,
            asked: questions[asking.question].id(),
            log_likelihoods: found.by_ref().take(asking.pairs.len()).collect(),
            without: found.by_ref().take(asking.without.len()).collect(),
            cut: asking.pairs.iter().map(|row| row.cut).max().unwrap_or(0),
            ..Answer::default()
        });
        answers.add(new.collect())?;
        (watch.progress)(answers.len(), questions.len());
        Ok(())
    }

    // Texts.

    fn text(
        &self,
        question: &Question,
        place: usize,
        generation: &Generation,
    ) -> Result<Open, EvalError> {
        let Asked::Text { prompt, .. } = &question.asked else {
            return Err(EvalError::row(&question.origin, "no prompt"));
        };
        let tokens = match self.chat {
            Some(chat) => {
                let message = Message::new(Role::User, prompt.clone());
                let rendered = chat.prompt(&Conversation::chat(vec![message]));
                let rendered =
                    rendered.map_err(|error| EvalError::render(&question.origin, &error))?;
                prompt_tokens(&rendered, self.tokenizer)?
            }
            None => {
                let ids = self.tokenizer.encode(prompt)?.ids;
                [self.tokenizer.prefix(), &ids].concat()
            }
        };
        Ok(self.open(place, tokens, generation.max_new_tokens))
    }

    /// A prompt with room for an answer behind it.
    fn open(&self, question: usize, tokens: Vec<u32>, max_new_tokens: usize) -> Open {
        let room = self.limit().saturating_sub(max_new_tokens).max(1);
        let cut = tokens.len().saturating_sub(room);
        Open {
            question,
            tokens: tokens[cut..].to_vec(),
            cut,
            reference: None,
        }
    }

    fn generate(
        &self,
        questions: &[Question],
        open: &[usize],
        prompt: &dyn Fn(usize) -> Result<Open, EvalError>,
        generation: &Generation,
        answers: &mut Answers,
        watch: &mut Watch<'_>,
    ) -> Result<(), EvalError> {
        let together = (BATCH / generation.samples.max(1)).max(1);
        for places in open.chunks(together) {
            check(watch)?;
            let texts = places.iter().map(|place| prompt(*place));
            let texts: Vec<Open> = texts.collect::<Result<_, _>>()?;
            let new = self.answers(questions, texts, generation)?;
            answers.add(new)?;
            (watch.progress)(answers.len(), questions.len());
        }
        Ok(())
    }

    fn answers(
        &self,
        questions: &[Question],
        texts: Vec<Open>,
        generation: &Generation,
    ) -> Result<Vec<Answer>, EvalError> {
        let samples = generation.samples.max(1);
        let sampling = texts.iter().flat_map(|text| {
            let number = questions[text.question].number as u64;
            (0..samples).map(move |sample| Sampling {
                temperature: generation.temperature,
                seed: mix(mix(number) ^ sample as u64),
                ..Sampling::default()
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
        let mut written = self.written(&prompts, generation)?.into_iter();
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

    /// What follows each prompt, up to a text that ends it.
    fn written(
        &self,
        prompts: &[Prompt<'_>],
        generation: &Generation,
    ) -> Result<Vec<String>, EvalError> {
        let mut streams: Vec<(DecodeStream<'_>, String)> = prompts
            .iter()
            .map(|_| (self.tokenizer.decode_stream(true), String::new()))
            .collect();
        let mut failure = None;
        let mut on_token = |number: usize, token| {
            let (stream, text) = &mut streams[number];
            match stream.push(token) {
                Ok(piece) => text.push_str(&piece),
                Err(error) => {
                    failure.get_or_insert(error);
                    return ControlFlow::Break(());
                }
            }
            match generation.until.iter().any(|end| text.contains(end)) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let length = generation.max_new_tokens;
        let generated = self
            .model
            .generate_batch(prompts, length, self.eos, &mut on_token)?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        let texts = generated.iter().map(|generated| {
            let text = self.tokenizer.decode(&generated.tokens, true)?;
            Ok(until(text, &generation.until))
        });
        texts.collect()
    }

    // Instructions.

    fn instruct(
        &self,
        questions: &[Question],
        open: &[usize],
        instruction: &Instruction,
        answers: &mut Answers,
        watch: &mut Watch<'_>,
    ) -> Result<(), EvalError> {
        let template = Template::named(&instruction.template, self.tokenizer)?;
        let generation = Generation::of_instruction(instruction);
        if instruction.max_new_tokens > 0 {
            let prompt = |place: usize| {
                let question = &questions[place];
                let tokens = self.instruction_prompt(question, &template)?;
                let mut text = self.open(place, tokens, instruction.max_new_tokens);
                let reference = self.references(&[question], &template)?;
                text.reference = reference[0].0;
                Ok(text)
            };
            return self.generate(questions, open, &prompt, &generation, answers, watch);
        }
        for places in open.chunks(BATCH) {
            check(watch)?;
            let asked: Vec<&Question> = places.iter().map(|place| &questions[*place]).collect();
            let found = self.references(&asked, &template)?;
            let new = asked
                .iter()
                .zip(found)
                .map(|(question, (reference, cut))| Answer {
                    row: question.number,
                    asked: question.id(),
                    reference,
                    cut,
                    ..Answer::default()
                });
            answers.add(new.collect())?;
            (watch.progress)(answers.len(), questions.len());
        }
        Ok(())
    }

    fn instruction_prompt(
        &self,
        question: &Question,
        template: &Template,
    ) -> Result<Vec<u32>, EvalError> {
        let conversation = conversation(question)?;
        let prompt = template.prompt(conversation);
        let prompt = prompt.map_err(|error| EvalError::render(&question.origin, &error))?;
        Ok(prompt_tokens(&prompt, self.tokenizer)?)
    }

    /// What the model makes of the answers that are given, and tokens cut off their ends; of rows without a token to
    /// predict nothing.
    fn references(
        &self,
        questions: &[&Question],
        template: &Template,
    ) -> Result<Vec<(Option<Reference>, usize)>, EvalError> {
        let limits = Limits {
            max_tokens: self.limit(),
            overlong: Overlong::Truncate,
            train_on: TrainOn::LastAnswer,
        };
        let mut rows = HashMap::new();
        for (place, question) in questions.iter().enumerate() {
            let rendered = template.render(conversation(question)?, limits.train_on);
            let rendered = rendered.map_err(|error| EvalError::render(&question.origin, &error))?;
            if let Outcome::Kept { example, cut, .. } = encode(&rendered, self.tokenizer, &limits)?
            {
                let row = Row {
                    tokens: example.tokens,
                    asked: example.trained,
                    cut,
                };
                rows.insert(place, row);
            }
        }
        let order: Vec<usize> = (0..questions.len())
            .filter(|place| rows.contains_key(place))
            .collect();
        let asked: Vec<&Row> = order.iter().map(|place| &rows[place]).collect();
        let mut found = vec![(None, 0); questions.len()];
        for (place, scored) in order.iter().zip(score(self.model, &asked)) {
            found[*place] = (Reference::of(&scored), rows[place].cut);
        }
        Ok(found)
    }
}

impl Reference {
    fn of(scored: &[Scored]) -> Option<Self> {
        let likeliest = scored.iter().filter(|token| token.is_likeliest);
        (!scored.is_empty()).then(|| Self {
            log_prob: log_likelihood(scored),
            tokens: scored.len(),
            likeliest: likeliest.count(),
        })
    }
}

impl Generation {
    fn of_instruction(instruction: &Instruction) -> Self {
        Self {
            prompt: String::new(),
            answers: None,
            until: Vec::new(),
            max_new_tokens: instruction.max_new_tokens,
            samples: 1,
            temperature: 0.0,
            extract: std::collections::BTreeMap::new(),
            normalise: instruction.normalise.clone(),
            metrics: Vec::new(),
        }
    }
}

impl Asking {
    /// Tokens of its rows, without what each has in common with the row before it.
    fn new_tokens(&self, before: Option<&Row>) -> usize {
        let rows = self.pairs.iter().chain(&self.without);
        let mut before = before;
        let counts = rows.map(|row| {
            let common = before.map_or(0, |before| {
                let pairs = before.tokens.iter().zip(&row.tokens);
                pairs.take_while(|(a, b)| a == b).count()
            });
            before = Some(row);
            row.tokens.len() - common
        });
        counts.sum()
    }
}

fn check(watch: &Watch<'_>) -> Result<(), EvalError> {
    if watch.stop.load(Ordering::Relaxed) {
        return Err(EvalError::Interrupted {
            folder: watch.folder.clone(),
        });
    }
    Ok(())
}

fn conversation(question: &Question) -> Result<&Conversation, EvalError> {
    match &question.asked {
        Asked::Instruction(conversation) => Ok(conversation),
        _ => Err(EvalError::row(&question.origin, "no conversation")),
    }
}

/// The text before the first of the texts that end it.
fn until(mut text: String, ends: &[String]) -> String {
    for end in ends.iter().filter(|end| !end.is_empty()) {
        if let Some(place) = text.find(end.as_str()) {
            text.truncate(place);
        }
    }
    text
}
