//! Makes questions from rows.

use std::sync::Arc;

use serde_json::{Map, Value};
use simmer_data::{Content, Conversation, Origin};
use simmer_ifeval::PythonRandom;

use super::filters::whole;
use super::texts::{Texts, text};
use super::{Asked, Pair, Question, Shot, Turns, rows};
use crate::error::EvalError;
use crate::task::{Choice, ChoiceMetric, Generation, Instruction, Shots, TextMetric};

impl Texts<'_> {
    pub(super) fn question(
        &self,
        number: usize,
        origin: Origin,
        fields: Map<String, Value>,
    ) -> Result<Question, EvalError> {
        let asked = match (&self.task.choice, &self.task.generation) {
            (Some(choice), _) => self.choice(choice, &origin, &fields)?,
            (None, Some(generation)) => self.generation(generation, &origin, &fields)?,
            (None, None) => unreachable!("a task is one of three kinds"),
        };
        let groups = self
            .optional(text::GROUP, &origin, &fields)?
            .unwrap_or_default();
        let groups = groups.lines().filter(|group| !group.is_empty());
        Ok(Question {
            origin,
            number,
            groups: groups.map(str::to_owned).collect(),
            fields,
            asked,
        })
    }

    fn choice(
        &self,
        choice: &Choice,
        origin: &Origin,
        fields: &Map<String, Value>,
    ) -> Result<Asked, EvalError> {
        let choices = self.list("choices", &choice.choices, origin, fields)?;
        if choices.len() < 2 {
            return Err(EvalError::row(
                origin,
                "`choices`: expected at least 2 choices, found 1",
            ));
        }
        let right = self.value("answer", &choice.answer, origin, fields)?;
        let right = right_ones(&right, choices.len())
            .map_err(|problem| EvalError::row(origin, format!("`answer`: {problem}")))?;
        let before = self.before(origin, fields)?.text();
        let mut pairs = Vec::new();
        let mut without = Vec::new();
        let compares = choice.metrics.contains(&ChoiceMetric::AccMutualInfo);
        for one in &choices {
            let mut fields = fields.clone();
            fields.insert("choice".to_owned(), Value::String(one.clone()));
            let continuation = self.text(text::CONTINUATION, origin, &fields)?;
            if continuation.is_empty() {
                return Err(EvalError::row(
                    origin,
                    "the continuation of a choice is empty",
                ));
            }
            let prompt = self.text(text::PROMPT, origin, &fields)?;
            if compares && let Some(context) = self.optional(text::WITHOUT, origin, &fields)? {
                without.push(Pair {
                    context,
                    continuation: continuation.clone(),
                });
            }
            pairs.push(Pair {
                context: format!("{before}{prompt}"),
                continuation,
            });
        }
        Ok(Asked::Choice {
            pairs,
            without,
            choices,
            right,
        })
    }

    fn generation(
        &self,
        generation: &Generation,
        origin: &Origin,
        fields: &Map<String, Value>,
    ) -> Result<Asked, EvalError> {
        if generation.metrics.contains(&TextMetric::Instructions) {
            // instructions that cannot be checked are reported before anything is generated
            simmer_ifeval::of_row(fields).map_err(|problem| EvalError::row(origin, problem))?;
        }
        let turns = Turns {
            question: self.text(text::PROMPT, origin, fields)?,
            start: self
                .optional(text::START, origin, fields)?
                .unwrap_or_default(),
            ..self.before(origin, fields)?
        };
        let answers = generation.answers.as_ref();
        let answers = answers.map(|answers| self.list("answers", answers, origin, fields));
        Ok(Asked::Text {
            turns,
            answers: answers.transpose()?.unwrap_or_default(),
        })
    }

    /// A row as an instruction and its answer.
    pub(super) fn conversation(
        &self,
        instruction: &Instruction,
        row: rows::Row,
    ) -> Result<Conversation, EvalError> {
        let (origin, fields) = self.completed(row)?;
        let part = |name: &str| {
            let expression = instruction.row.get(name);
            let text = expression.map(|text| self.list(name, text, &origin, &fields));
            let text = text.transpose()?.and_then(|texts| texts.into_iter().next());
            Ok::<_, EvalError>(text.unwrap_or_default())
        };
        let content = Content::Instruction {
            system: None,
            instruction: part("instruction")?,
            input: Some(part("input")?).filter(|input| !input.is_empty()),
            output: Some(part("output")?),
        };
        let mut conversation = Conversation::new(content);
        conversation.origin = origin;
        Ok(conversation)
    }

    /// The head and few-shot examples before a question.
    fn before(&self, origin: &Origin, fields: &Map<String, Value>) -> Result<Turns, EvalError> {
        let head = self.optional(text::HEAD, origin, fields)?;
        let shots = match &self.task.shots {
            Some(shots) if shots.count > 0 => self.shots_before(shots, origin, fields)?,
            _ => Vec::new(),
        };
        Ok(Turns {
            head: head.unwrap_or_default(),
            shots,
            ..Turns::default()
        })
    }

    fn shots_before(
        &self,
        shots: &Shots,
        origin: &Origin,
        fields: &Map<String, Value>,
    ) -> Result<Vec<Arc<Shot>>, EvalError> {
        if let Some(random) = &self.drawn {
            return self.drawn_examples(shots, origin, fields, &mut random.borrow_mut());
        }
        let same = self.optional(text::SAME, origin, fields)?;
        if let Some(examples) = self.examples.borrow().get(&same) {
            return Ok(examples.clone());
        }
        let examples = self.examples(shots, origin, same.as_deref())?;
        self.examples.borrow_mut().insert(same, examples.clone());
        Ok(examples)
    }

    /// The few-shot examples of one question.
    fn drawn_examples(
        &self,
        shots: &Shots,
        origin: &Origin,
        fields: &Map<String, Value>,
        random: &mut PythonRandom,
    ) -> Result<Vec<Arc<Shot>>, EvalError> {
        let (count, found) = (shots.count + usize::from(shots.spare), self.shots.len());
        if count > found {
            let spare = if shots.spare {
                " (one more than are shown, in case the question is among them)"
            } else {
                ""
            };
            let problem = format!(
                "few-shot examples: expected {count} rows to draw{spare}, found {found} in {}",
                shots.files.join(" or ")
            );
            return Err(EvalError::row(origin, problem));
        }
        let drawn = random.sample(found, count).into_iter();
        let others = drawn.filter(|at| !(shots.spare && rows::same(&self.shots[*at], fields)));
        let examples = others.take(shots.count).map(|at| self.example(shots, at));
        examples.collect()
    }

    /// The few-shot examples of questions with this value of `shots.same`.
    fn examples(
        &self,
        shots: &Shots,
        origin: &Origin,
        same: Option<&str>,
    ) -> Result<Vec<Arc<Shot>>, EvalError> {
        let sames = self.sames()?.iter().enumerate();
        let found = sames.filter(|(_, of_shot)| of_shot.as_deref() == same);
        let examples = found
            .take(shots.count)
            .map(|(at, _)| self.example(shots, at));
        let examples = examples.collect::<Result<Vec<_>, _>>()?;
        let count = examples.len();
        if count < shots.count {
            let of = same.map_or(String::new(), |same| format!(" for `{same}`"));
            let problem = format!(
                "expected {} few-shot examples, found {count}{of}",
                shots.count
            );
            return Err(EvalError::row(origin, problem));
        }
        Ok(examples)
    }

    /// The value of `shots.same` for each row of examples, computed once.
    fn sames(&self) -> Result<&[Option<String>], EvalError> {
        if let Some(known) = self.sames.get() {
            return Ok(known);
        }
        let sames = self.shot_places.iter().zip(&self.shots);
        let sames = sames.map(|(origin, shot)| self.optional(text::SAME, origin, shot));
        let sames = sames.collect::<Result<Vec<_>, _>>()?;
        Ok(self.sames.get_or_init(|| sames))
    }

    /// The few-shot example of row `at`; each row is filled in once.
    fn example(&self, shots: &Shots, at: usize) -> Result<Arc<Shot>, EvalError> {
        if let Some(known) = self.rendered.borrow().get(&at) {
            return Ok(known.clone());
        }
        let (question, answer) = self.shot(&self.shot_places[at], &self.shots[at])?;
        let shot = Arc::new(Shot {
            question,
            answer,
            between: shots.between.clone(),
        });
        self.rendered.borrow_mut().insert(at, shot.clone());
        Ok(shot)
    }

    /// Prompt and right answer of a few-shot example.
    fn shot(
        &self,
        origin: &Origin,
        shot: &Map<String, Value>,
    ) -> Result<(String, String), EvalError> {
        let chosen = match &self.task.choice {
            Some(choice) => self.right_choice(choice, origin, shot)?,
            None => None,
        };
        let mut fields = shot.clone();
        if let Some(right) = &chosen {
            fields.insert("choice".to_owned(), Value::String(right.clone()));
        }
        let prompt = if self.blanks.has(text::SHOT_PROMPT) {
            self.text(text::SHOT_PROMPT, origin, &fields)?
        } else {
            self.text(text::PROMPT, origin, &fields)?
        };
        if self.blanks.has(text::SHOT_ANSWER) {
            let start = self.optional(text::START, origin, shot)?;
            let answer = self.text(text::SHOT_ANSWER, origin, shot)?;
            return Ok((prompt, start.unwrap_or_default() + &answer));
        }
        let answer = match (&self.task.choice, &self.task.generation) {
            (Some(_), _) if chosen.is_some() => self.text(text::CONTINUATION, origin, &fields)?,
            (Some(_), _) => {
                let problem = "a few-shot example has no right answer";
                return Err(EvalError::row(origin, problem));
            }
            (None, Some(generation)) => {
                let answers = generation.answers.as_deref().unwrap_or("answer");
                let answers = self.list("answers", answers, origin, shot)?;
                format!(" {}", answers.first().map_or("", String::as_str))
            }
            (None, None) => String::new(),
        };
        Ok((prompt, answer))
    }

    /// The right choice of a few-shot example.
    fn right_choice(
        &self,
        choice: &Choice,
        origin: &Origin,
        shot: &Map<String, Value>,
    ) -> Result<Option<String>, EvalError> {
        let choices = self.list("choices", &choice.choices, origin, shot)?;
        let right = self.value("answer", &choice.answer, origin, shot)?;
        let right = right_ones(&right, choices.len())
            .map_err(|problem| EvalError::row(origin, format!("`answer`: {problem}")))?;
        Ok(right.first().map(|one| choices[*one].clone()))
    }
}

/// The indices of the right choices, from a number or a list of numbers.
fn right_ones(value: &Value, choices: usize) -> Result<Vec<usize>, String> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        other => std::slice::from_ref(other),
    };
    let numbers = items.iter().map(|item| {
        let number = whole(item).and_then(|number| usize::try_from(number).ok());
        let number = number.filter(|number| *number < choices);
        number.ok_or_else(|| format!("expected a number from 0 to {}, found {item}", choices - 1))
    });
    let numbers = numbers.collect::<Result<Vec<usize>, String>>()?;
    if numbers.is_empty() {
        return Err("the list is empty".to_owned());
    }
    Ok(numbers)
}
