//! Instructions formatted by a prompt template: reference answers and generated answers.

use std::collections::{BTreeMap, HashMap};

use simmer_data::example::{Outcome, prompt_tokens};
use simmer_data::{Conversation, Limits, Overlong, Template, TrainOn, encode};

use super::{BATCH, Batches, Evaluator};
use crate::answer::{Answer, Reference};
use crate::error::EvalError;
use crate::question::{Asked, Question};
use crate::score::{Row, score};
use crate::task::{Generation, Instruction};

impl Evaluator<'_> {
    pub(super) fn instruct(
        &self,
        questions: &[Question],
        open: &[usize],
        instruction: &Instruction,
        batches: &mut Batches<'_>,
    ) -> Result<(), EvalError> {
        let template = match &instruction.template_text {
            Some(text) => Template::kept(&instruction.template, text, self.tokenizer)?,
            None => Template::named(&instruction.template, self.tokenizer)?,
        };
        let generation = Generation::of_instruction(instruction);
        if instruction.max_new_tokens > 0 {
            let prompt = |place: usize| {
                let question = &questions[place];
                let tokens = self.instruction_prompt(question, &template)?;
                let mut text = self.open(place, tokens, instruction.max_new_tokens);
                let reference = self.references(&[question], &template)?;
                text.reference = reference[0].0;
                text.cut = text.cut.max(reference[0].1);
                Ok(text)
            };
            return self.generate(questions, open, &prompt, &generation, batches);
        }
        for places in open.chunks(BATCH) {
            batches.check()?;
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
            (batches.keep)(new.collect())?;
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

    /// The model's score of each reference answer, and the number of tokens truncated at the start of its row. Rows without a
    /// token to predict have no score.
    fn references(
        &self,
        questions: &[&Question],
        template: &Template,
    ) -> Result<Vec<(Option<Reference>, usize)>, EvalError> {
        let limits = Limits {
            max_tokens: usize::MAX,
            overlong: Overlong::Truncate,
            train_on: TrainOn::LastAnswer,
        };
        let mut rows = HashMap::new();
        for (place, question) in questions.iter().enumerate() {
            let rendered = template.render(conversation(question)?, limits.train_on);
            let rendered = rendered.map_err(|error| EvalError::render(&question.origin, &error))?;
            if let Outcome::Kept { example, .. } = encode(&rendered, self.tokenizer, &limits)? {
                let row = Row::from_end(&example.tokens, &example.trained, self.limit());
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

impl Generation {
    fn of_instruction(instruction: &Instruction) -> Self {
        Self {
            prompt: String::new(),
            start: None,
            answers: None,
            wrong: None,
            program: None,
            votes: Vec::new(),
            pass_at: Vec::new(),
            until: Vec::new(),
            max_new_tokens: instruction.max_new_tokens,
            samples: 1,
            temperature: 0.0,
            extract: BTreeMap::new(),
            normalise: instruction.normalise.clone(),
            metrics: Vec::new(),
        }
    }
}

fn conversation(question: &Question) -> Result<&Conversation, EvalError> {
    match &question.asked {
        Asked::Instruction(conversation) => Ok(conversation),
        _ => Err(EvalError::row(
            &question.origin,
            "the row is not a conversation",
        )),
    }
}
