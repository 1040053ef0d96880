//! Answers: of a model, or of a file.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use simmer_data::file::{FileRow, rows};
use simmer_data::{Message, Role};
use simmer_instruct::{
    Ask, Completion, Completions, Finish, InstructError, Journal, Prompt, Sampling, Stop, ask,
};

use crate::error::JudgeError;
use crate::fields;
use crate::prompts::Prompts;
use crate::question::Question;
use crate::recipe::{JudgeRecipe, ModelConfig, seed_of};

/// The answers to the turns of a question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// One for each turn.
    pub turns: Vec<String>,
    /// Why each ended; empty for answers of a file.
    pub finish: Vec<Finish>,
}

/// Where files of answers have the texts: one, or a list of one for each turn. A new form needs a place here.
const TEXTS: [&str; 8] = [
    // FastChat
    "/choices/0/turns",
    "/turns",
    "/answers",
    "/answer",
    // AlpacaEval, and files of Self-Instruct
    "/output",
    "/response",
    "/completion",
    // Vicuna's first file
    "/text",
];
/// Where they have the name of the question.
const IDS: [&str; 2] = ["/question_id", "/id"];
/// Where they repeat its text, if they have no name.
const QUESTIONS: [&str; 3] = ["/instruction", "/question", "/prompt"];

/// The answers of a file.
#[derive(Debug)]
pub struct FileAnswers {
    /// One for each question, in their order.
    pub answers: Vec<Answer>,
    /// How many are answers to other questions.
    pub others: usize,
}

/// The answers of a file to some questions.
///
/// # Errors
/// If the file cannot be read, an answer cannot be used, or a question has none.
pub fn read(path: &Path, questions: &[Question]) -> Result<FileAnswers, JudgeError> {
    let mut found: Vec<Option<Answer>> = vec![None; questions.len()];
    let Matched { answers, others } = matched(path, questions)?;
    for (question, answer) in answers {
        found[question] = Some(answer);
    }
    let missing: Vec<&str> = questions
        .iter()
        .zip(&found)
        .filter(|(_, answer)| answer.is_none())
        .map(|(question, _)| question.id.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(FileAnswers {
            answers: found.into_iter().flatten().collect(),
            others,
        });
    }
    let first = missing[..missing.len().min(5)].join(", ");
    Err(JudgeError::Unanswered {
        path: path.to_owned(),
        of: questions.len(),
        missing: missing.len(),
        first: first + if missing.len() > 5 { ", ..." } else { "" },
    })
}

/// Answers, each with the number of its question.
pub(crate) struct Matched {
    pub(crate) answers: Vec<(usize, Answer)>,
    /// How many are answers to other questions; they are left out.
    pub(crate) others: usize,
}

/// The answers of a file, by their questions.
pub(crate) fn matched(path: &Path, questions: &[Question]) -> Result<Matched, JudgeError> {
    let by_id = numbers(questions, |question| &question.id);
    let by_text = numbers(questions, |question| &question.turns[0]);
    let mut before: HashMap<usize, usize> = HashMap::new();
    let mut answers = Vec::new();
    let mut others = 0;
    for row in rows(path, None)? {
        let wrong = |problem: String| JudgeError::Answer {
            origin: row.origin.clone(),
            problem,
        };
        let id = fields::id(&row, &IDS).map_err(wrong)?;
        let text = QUESTIONS.iter().find_map(|key| fields::text(&row, key));
        let number = match (&id, text) {
            (Some(id), _) => by_id.get(id.as_str()),
            (None, Some(text)) => by_text.get(text),
            (None, None) => {
                return Err(wrong(
                    "expected the name of a question under `question_id` or `id`, or its text under `instruction`, \
                     `question` or `prompt`, found none of these keys"
                        .to_owned(),
                ));
            }
        };
        let Some(&number) = number else {
            others += 1;
            continue;
        };
        let answer = answer(&row, &questions[number]).map_err(wrong)?;
        if let Some(first) = before.insert(number, row.origin.row) {
            let id = &questions[number].id;
            return Err(wrong(format!(
                "expected one answer to a question, found a second one to `{id}`; row {first} has the first"
            )));
        }
        answers.push((number, answer));
    }
    Ok(Matched { answers, others })
}

/// The number of each question, by a text of it.
fn numbers<'a>(
    questions: &'a [Question],
    key: impl Fn(&'a Question) -> &'a str,
) -> HashMap<&'a str, usize> {
    let all = questions.iter().enumerate();
    all.map(|(number, question)| (key(question), number))
        .collect()
}

fn answer(row: &FileRow, question: &Question) -> Result<Answer, String> {
    let place = TEXTS.iter().find(|key| fields::at(row, key).is_some());
    let place = place.ok_or_else(|| {
        let known: Vec<String> = TEXTS.iter().map(|key| fields::shown(key)).collect();
        format!(
            "expected an answer under one of the keys `{}`, found none",
            known.join("`, `")
        )
    })?;
    let turns = fields::texts(row, place)?;
    if turns.len() < question.turns.len() {
        return Err(format!(
            "key `{}`: expected {} answers, one for each turn of question `{}`, found {}",
            fields::shown(place),
            question.turns.len(),
            question.id,
            turns.len()
        ));
    }
    Ok(Answer {
        turns: turns[..question.turns.len()].to_vec(),
        finish: Vec::new(),
    })
}

/// Which answer a completion of the journal is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AnswerKey {
    /// The name of the question.
    pub question: String,
    /// The turn, from 1.
    pub turn: usize,
}

impl fmt::Display for AnswerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { question, turn } = self;
        write!(f, "turn {turn} of question `{question}`")
    }
}

/// What answers the questions of a recipe.
pub struct Answering<'a> {
    /// The recipe.
    pub recipe: &'a JudgeRecipe,
    /// The table of the model.
    pub model: &'a ModelConfig,
    /// The questions.
    pub questions: &'a [Question],
    /// The prompts of the judge, which name temperatures.
    pub prompts: &'a Prompts,
    /// The answers so far.
    pub journal: &'a mut Journal<AnswerKey>,
    /// The model.
    pub completions: &'a mut dyn Completions,
    /// Whether to stop.
    pub stop: Stop<'a>,
    /// Called with the number of answers so far, and of all.
    pub progress: &'a mut dyn FnMut(usize, usize),
}

impl Answering<'_> {
    /// Answers all questions, first turns first. Answers that the journal has are not asked for again.
    ///
    /// # Errors
    /// If a question cannot be answered, or the work is interrupted. The journal has all answers so far.
    pub fn run(mut self) -> Result<Vec<Answer>, InstructError> {
        let questions = self.questions;
        let total = questions.iter().map(|question| question.turns.len()).sum();
        let mut answers = vec![
            Answer {
                turns: Vec::new(),
                finish: Vec::new(),
            };
            questions.len()
        ];
        let mut done = 0;
        for turn in 0..2 {
            let asked: Vec<usize> = (0..questions.len())
                .filter(|number| questions[*number].turns.len() > turn)
                .collect();
            let size = self.recipe.batch_size(self.completions, asked.len());
            for batch in asked.chunks(size) {
                let before = done;
                (self.progress)(done, total);
                let found = self.turn(turn, batch, &answers, before, total)?;
                done += batch.len();
                for (number, completion) in batch.iter().zip(found) {
                    answers[*number].turns.push(completion.text);
                    answers[*number].finish.push(completion.finish);
                }
            }
        }
        Ok(answers)
    }

    fn turn(
        &mut self,
        turn: usize,
        batch: &[usize],
        answers: &[Answer],
        before: usize,
        total: usize,
    ) -> Result<Vec<Completion>, InstructError> {
        let talks = batch.iter().map(|number| {
            let (question, answer) = (&self.questions[*number], &answers[*number]);
            let system = self.model.system.iter();
            let mut messages: Vec<Message> = system
                .map(|text| Message::new(Role::System, text))
                .collect();
            for (place, text) in question.turns[..=turn].iter().enumerate() {
                messages.push(Message::new(Role::User, text));
                if let Some(text) = answer.turns.get(place) {
                    messages.push(Message::new(Role::Assistant, text));
                }
            }
            let category = question.category.as_deref();
            (messages, self.sampling(category))
        });
        let talks: Vec<(Vec<Message>, Sampling)> = talks.collect();
        let asks = batch
            .iter()
            .zip(&talks)
            .map(|(number, (messages, sampling))| {
                let key = AnswerKey {
                    question: self.questions[*number].id.clone(),
                    turn: turn + 1,
                };
                Ask {
                    prompt: Prompt::Chat(messages),
                    sampling,
                    seed: seed_of(self.recipe.seed, &key),
                    key,
                }
            });
        let asks: Vec<Ask<'_, AnswerKey>> = asks.collect();
        let mut count = before;
        let mut arrived = || {
            count += 1;
            (self.progress)(count, total);
        };
        ask(
            self.journal,
            self.completions,
            &asks,
            self.stop,
            &mut arrived,
        )
    }

    fn sampling(&self, category: Option<&str>) -> Sampling {
        let temperature = self.model.temperature;
        Sampling {
            max_tokens: self.model.max_tokens,
            temperature: temperature.unwrap_or_else(|| self.prompts.temperature(category)),
            top_p: self.model.top_p,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            stop: self.model.stop.clone(),
            logit_bias: BTreeMap::new(),
        }
    }
}
