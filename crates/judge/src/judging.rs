//! The judge is asked for verdicts.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use simmer_data::{Message, Role};
use simmer_instruct::{
    Ask, Completion, Completions, Finish, InstructError, Journal, Prompt, Sampling, Stop, ask,
};

use crate::answer::Answer;
use crate::error::JudgeError;
use crate::prompts::{JudgePrompt, Prompts, Set};
use crate::question::Question;
use crate::recipe::{JudgeRecipe, Mode, seed_of};
use crate::verdict::{Verdict, preference, rating, without_thoughts};

/// The temperature at which a judge is asked again: one that takes the most likely token would say the same.
const AGAIN: f64 = 0.7;
/// The system message that says nothing; it does not go into the prompt.
const PLAIN_SYSTEM: &str = "You are a helpful assistant.";

/// Which answers a judge is shown, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// That of the first model alone.
    First,
    /// That of the second model alone.
    Second,
    /// That of the first model as A, that of the second as B.
    FirstSecond,
    /// That of the second model as A, that of the first as B.
    SecondFirst,
}

/// Which verdict a completion of the journal is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VerdictKey {
    /// The name of the question.
    pub question: String,
    /// The turn, from 1.
    pub turn: usize,
    /// What the judge is shown.
    pub shown: Shown,
    /// Which time it is judged, from 1.
    pub repeat: usize,
    /// Which time the judge is asked for this verdict, from 1.
    pub attempt: usize,
}

impl fmt::Display for VerdictKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            question,
            turn,
            shown,
            repeat,
            attempt,
        } = self;
        write!(
            f,
            "the judge's prompt for turn {turn} of question `{question}` (answers shown: {shown:?}, repeat {repeat}, attempt {attempt})"
        )
    }
}

/// What a judge said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// The number of the question, from 0.
    #[serde(skip)]
    pub question: usize,
    /// The turn, from 0.
    #[serde(skip)]
    pub turn: usize,
    /// What it was shown.
    pub shown: Shown,
    /// Which time, from 1.
    pub repeat: usize,
    /// The name of the prompt.
    pub prompt: String,
    /// How often the judge was asked.
    pub attempts: usize,
    /// The verdict; `None` if the judge's text has none, also after all attempts.
    pub verdict: Option<Verdict>,
    /// Why its text ended.
    pub finish: Finish,
    /// Its text.
    pub text: String,
}

/// A verdict to ask for.
struct Wanted<'a> {
    question: usize,
    turn: usize,
    shown: Shown,
    repeat: usize,
    prompt: &'a JudgePrompt,
    messages: Vec<Message>,
}

/// What judges the answers of a recipe.
pub struct Judging<'a> {
    /// The recipe.
    pub recipe: &'a JudgeRecipe,
    /// The questions.
    pub questions: &'a [Question],
    /// For each model, an answer to each question.
    pub answers: &'a [Vec<Answer>],
    /// The prompts.
    pub prompts: &'a Prompts,
}

/// What a judgement is watched with.
pub struct Watch<'a> {
    /// Whether to stop.
    pub stop: Stop<'a>,
    /// Called with the number of verdicts so far, and of all.
    pub progress: &'a mut dyn FnMut(usize, usize),
}

impl Judging<'_> {
    /// Checks that there is a prompt for each turn.
    ///
    /// # Errors
    /// If the prompts have none for the mode, or for a second turn.
    pub fn check(&self) -> Result<&Set, JudgeError> {
        let mode = self.recipe.mode;
        let lacks = |what: String| JudgeError::Prompts {
            name: self.recipe.prompts.clone(),
            problem: format!("expected {what}, found none"),
        };
        let set = self.prompts.set(mode);
        let set = set.ok_or_else(|| lacks(format!("a table [{}]", mode.name())))?;
        let has_two = self
            .questions
            .iter()
            .any(|question| question.turns.len() > 1);
        if has_two && set.second.is_none() {
            return Err(lacks(format!(
                "a table [{}.second] for questions of two turns",
                mode.name()
            )));
        }
        Ok(set)
    }

    /// The number of questions that are to be judged beside a reference answer, and have none.
    pub fn without_reference(&self) -> usize {
        let lacks =
            |question: &&Question| self.wants_reference(question) && question.references.is_empty();
        self.questions.iter().filter(lacks).count()
    }

    fn wants_reference(&self, question: &Question) -> bool {
        let category = question.category.as_deref();
        match &self.recipe.reference_categories {
            None => self.prompts.wants_reference(category),
            Some(wanted) => wanted
                .iter()
                .any(|wanted| wanted == "*" || Some(wanted.as_str()) == category),
        }
    }

    /// Asks for all verdicts. Those that the journal has are not asked for again.
    ///
    /// # Errors
    /// If the judge cannot be asked, or the work is interrupted. The journal has everything so far.
    pub fn run(
        &self,
        journal: &mut Journal<VerdictKey>,
        completions: &mut dyn Completions,
        watch: Watch<'_>,
    ) -> Result<Vec<Judgement>, JudgeError> {
        let set = self.check()?;
        let wanted = self.wanted(set);
        let mut said: Vec<Option<(usize, Completion)>> = vec![None; wanted.len()];
        let mut pending: Vec<usize> = (0..wanted.len()).collect();
        for attempt in 1..=self.recipe.judge.retries + 1 {
            let size = self.recipe.batch_size(completions, pending.len());
            let mut again = Vec::new();
            let mut done = wanted.len() - pending.len();
            for batch in pending.chunks(size) {
                let prompts: Vec<&Wanted<'_>> =
                    batch.iter().map(|number| &wanted[*number]).collect();
                let mut arrived = done;
                let mut progress = || {
                    arrived += 1;
                    (watch.progress)(arrived, wanted.len());
                };
                let texts = self.ask(
                    journal,
                    completions,
                    &prompts,
                    attempt,
                    watch.stop,
                    &mut progress,
                )?;
                done += batch.len();
                (watch.progress)(done, wanted.len());
                for (&number, completion) in batch.iter().zip(texts) {
                    // a prompt that is too long stays too long
                    let has_none = self.verdict(set, &completion.text).is_none();
                    if has_none && completion.finish != Finish::TooLong {
                        again.push(number);
                    }
                    said[number] = Some((attempt, completion));
                }
            }
            pending = again;
        }
        let judged = wanted.into_iter().zip(said);
        let judged = judged.filter_map(|(wanted, said)| {
            let (attempts, completion) = said?;
            Some(Judgement {
                question: wanted.question,
                turn: wanted.turn,
                shown: wanted.shown,
                repeat: wanted.repeat,
                prompt: wanted.prompt.name.clone(),
                attempts,
                verdict: self.verdict(set, &completion.text),
                finish: completion.finish,
                text: completion.text,
            })
        });
        Ok(judged.collect())
    }

    /// All verdicts to ask for, question by question.
    fn wanted<'a>(&self, set: &'a Set) -> Vec<Wanted<'a>> {
        let shown: &[Shown] = match (self.recipe.mode, self.answers.len()) {
            (Mode::Pairwise, _) => &[Shown::FirstSecond, Shown::SecondFirst],
            (Mode::Single, 1) => &[Shown::First],
            (Mode::Single, _) => &[Shown::First, Shown::Second],
        };
        let mut all = Vec::new();
        for (number, question) in self.questions.iter().enumerate() {
            let with_reference = self.wants_reference(question) && !question.references.is_empty();
            for turn in 0..question.turns.len() {
                let Some(prompt) = set.prompt(turn, with_reference) else {
                    continue;
                };
                for repeat in 1..=self.recipe.judge.repeats {
                    all.extend(shown.iter().map(|&shown| Wanted {
                        question: number,
                        turn,
                        shown,
                        repeat,
                        prompt,
                        messages: self.messages(prompt, number, shown),
                    }));
                }
            }
        }
        all
    }

    fn messages(&self, prompt: &JudgePrompt, number: usize, shown: Shown) -> Vec<Message> {
        let text = prompt.filled(|blank| self.blank(blank, number, shown));
        if !self.recipe.judge.system_in_prompt {
            return vec![
                Message::new(Role::System, prompt.system.as_str()),
                Message::new(Role::User, text),
            ];
        }
        let text = if prompt.system == PLAIN_SYSTEM {
            text
        } else {
            format!("[Instruction]\n{}\n\n{text}", prompt.system)
        };
        vec![Message::new(Role::User, text)]
    }

    /// What a blank of a prompt is filled with.
    fn blank(&self, blank: &str, number: usize, shown: Shown) -> String {
        let (a, b) = match shown {
            Shown::First => (0, 0),
            Shown::Second => (1, 1),
            Shown::FirstSecond => (0, 1),
            Shown::SecondFirst => (1, 0),
        };
        let question = &self.questions[number];
        let answer = |model: usize, turn: usize| {
            let turns = self
                .answers
                .get(model)
                .map(|answers| &answers[number].turns);
            turns.and_then(|turns| turns.get(turn)).cloned()
        };
        let text = match blank {
            "question" | "question_1" => question.turns.first().cloned(),
            "question_2" => question.turns.get(1).cloned(),
            "ref_answer_1" => question.references.first().cloned(),
            "ref_answer_2" => question.references.get(1).cloned(),
            "answer" | "answer_1" | "answer_a" | "answer_a_1" => answer(a, 0),
            "answer_2" | "answer_a_2" => answer(a, 1),
            "answer_b" | "answer_b_1" => answer(b, 0),
            "answer_b_2" => answer(b, 1),
            _ => None,
        };
        // `Prompts` refuses other blanks, and each turn has its answers
        text.unwrap_or_default()
    }

    fn verdict(&self, set: &Set, text: &str) -> Option<Verdict> {
        let text = without_thoughts(text)?;
        match self.recipe.mode {
            Mode::Pairwise => preference(text).map(Verdict::Preference),
            Mode::Single => {
                let within = |value: &f64| {
                    set.scale
                        .is_none_or(|[low, high]| (low..=high).contains(value))
                };
                rating(text).filter(within).map(Verdict::Rating)
            }
        }
    }

    fn ask(
        &self,
        journal: &mut Journal<VerdictKey>,
        completions: &mut dyn Completions,
        wanted: &[&Wanted<'_>],
        attempt: usize,
        stop: Stop<'_>,
        arrived: &mut dyn FnMut(),
    ) -> Result<Vec<Completion>, InstructError> {
        let judge = &self.recipe.judge;
        let temperature = if attempt == 1 {
            judge.temperature
        } else {
            judge.temperature.max(AGAIN)
        };
        let sampling = Sampling {
            max_tokens: judge.max_tokens,
            temperature,
            top_p: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            stop: Vec::new(),
            logit_bias: BTreeMap::new(),
        };
        let asks = wanted.iter().map(|wanted| {
            let key = VerdictKey {
                question: self.questions[wanted.question].id.clone(),
                turn: wanted.turn + 1,
                shown: wanted.shown,
                repeat: wanted.repeat,
                attempt,
            };
            Ask {
                prompt: Prompt::Chat(&wanted.messages),
                sampling: &sampling,
                seed: seed_of(self.recipe.seed, &key),
                key,
            }
        });
        let asks: Vec<Ask<'_, VerdictKey>> = asks.collect();
        ask(journal, completions, &asks, stop, arrived)
    }
}
