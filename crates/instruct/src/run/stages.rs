//! The stages of the methods.

use simmer_data::Random;

use super::{Ask, Dropped, Ended, Found, Kept, Made, Outcome, Row, Run, random};
use crate::completion::Completion;
use crate::dialogue::{self, Dialogue};
use crate::error::InstructError;
use crate::filter::{Filter, Reason};
use crate::instances;
use crate::joint;
use crate::journal::{Key, Stage};
use crate::method::{Joint, SelfChat, Staged};
use crate::pool::{Place, Pool, sample};
use crate::seeds::{Example, Seed};
use crate::staged;

/// An instruction with a number of the caller's, or what is dropped.
type Parsed = Result<(String, usize), (String, Reason)>;

impl Run<'_> {
    pub(super) fn joint(
        &mut self,
        joint: &Joint,
        filter: &Filter,
    ) -> Result<Outcome, InstructError> {
        self.seeds.at_least(joint.seeds, &self.recipe.seeds)?;
        let seeds = self.seeds;
        let examples: Vec<Example> = seeds.all.iter().map(Seed::example).collect();
        let mut candidates = Vec::new();
        let ask = |_: &Pool, mut random: Random| {
            let chosen = sample(examples.len(), joint.seeds, &mut random);
            let shown: Vec<&Example> = chosen.iter().map(|number| &examples[*number]).collect();
            Ask {
                prompt: joint::prompt(joint.prompt.get(), &shown),
                sampling: &joint.sampling,
                seed: random.next(),
                examples: chosen
                    .iter()
                    .map(|number| seeds.all[*number].id.clone())
                    .collect(),
            }
        };
        let mut parse = |completion: &Completion| {
            let parsed = joint::parse(completion, joint.seeds, filter).into_iter();
            let instruction = |found: Result<joint::Candidate, _>| {
                found.map(|candidate| {
                    candidates.push(candidate);
                    (
                        candidates[candidates.len() - 1].instruction.clone(),
                        candidates.len() - 1,
                    )
                })
            };
            parsed.map(instruction).collect()
        };
        let mut found = self.instructions(filter, ask, true, &mut parse)?;
        let rows = found
            .outcome
            .instructions
            .iter()
            .zip(&found.candidates)
            .enumerate();
        let rows = rows.map(|(number, (kept, candidate))| Row {
            instruction: kept.text.clone(),
            input: std::mem::take(&mut candidates[*candidate].input),
            output: std::mem::take(&mut candidates[*candidate].output),
            of: Some(number),
            key: Some(kept.key),
        });
        found.outcome.made = Made::Rows(rows.collect());
        Ok(self.with_seeds(found.outcome))
    }

    pub(super) fn staged(
        &mut self,
        stages: &Staged,
        filter: &Filter,
    ) -> Result<Outcome, InstructError> {
        let first = &stages.instructions;
        self.seeds.at_least(first.seeds, &self.recipe.seeds)?;
        let seeds = self.seeds;
        let ask = |pool: &Pool, mut random: Random| {
            let chosen = pool.sample(first.seeds, first.generated, &mut random);
            let shown: Vec<&str> = chosen.iter().map(|number| pool.text(*number)).collect();
            let name = |number: &usize| match seeds.all.get(*number) {
                Some(seed) => seed.id.clone(),
                None => format!("instruction {}", number - seeds.all.len() + 1),
            };
            Ask {
                prompt: staged::prompt(first.prompt.get(), &shown),
                sampling: &first.sampling,
                seed: random.next(),
                examples: chosen.iter().map(name).collect(),
            }
        };
        let mut parse = |completion: &Completion| {
            let parsed = staged::instructions(completion, filter, first.capitalize).into_iter();
            parsed.map(|found| found.map(|text| (text, 0))).collect()
        };
        let mut outcome = self.instructions(filter, ask, false, &mut parse)?.outcome;
        self.classify(stages, &mut outcome)?;
        let rows = self.instances(stages, &mut outcome)?;
        outcome.made = Made::Rows(rows);
        Ok(self.with_seeds(outcome))
    }

    /// Asks for instructions until there are enough. Prompts may be known before the completions of earlier ones
    /// (`are_known`).
    fn instructions<'m>(
        &mut self,
        filter: &Filter,
        ask: impl Fn(&Pool, Random) -> Ask<'m>,
        are_known: bool,
        parse: &mut dyn FnMut(&Completion) -> Vec<Parsed>,
    ) -> Result<Found, InstructError> {
        let recipe = self.recipe;
        let mut pool = Pool::new(self.seeds, filter.max_rouge_l);
        let (mut kept, mut candidates, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
        let (mut batch, mut barren) = (0, 0);
        let ended = loop {
            if pool.generated() >= recipe.target {
                break Ended::Target;
            }
            if recipe.max_batches > 0 && batch >= recipe.max_batches {
                break Ended::MaxBatches;
            }
            if barren >= recipe.patience {
                break Ended::Patience;
            }
            (self.watch.progress)(Stage::Instructions, pool.generated(), recipe.target);
            let of = |batch: usize| -> Vec<Ask<'m>> {
                let random = |place| random(recipe.seed, Stage::Instructions, batch, place);
                let places = 0..recipe.batch;
                places.map(|place| ask(&pool, random(place))).collect()
            };
            let following = |batch: usize| {
                let is_asked = recipe.max_batches == 0 || batch < recipe.max_batches;
                if are_known && is_asked {
                    of(batch)
                } else {
                    Vec::new()
                }
            };
            let asks = of(batch);
            let completions = self.ask(Stage::Instructions, batch, &asks, &following)?;
            let before = pool.generated();
            for (place, (ask, completion)) in asks.iter().zip(&completions).enumerate() {
                let key = Key {
                    stage: Stage::Instructions,
                    batch,
                    place,
                };
                for (part, parsed) in parse(completion).into_iter().enumerate() {
                    let added = parsed.and_then(|(text, candidate)| match pool.add(&text) {
                        Ok(place) => Ok((text, candidate, place)),
                        Err(reason) => Err((text, reason)),
                    });
                    match added {
                        Err((text, reason)) => dropped.push(Dropped { key, text, reason }),
                        Ok((text, candidate, place)) => {
                            kept.push((text, key, part, ask.examples.clone(), place));
                            candidates.push(candidate);
                        }
                    }
                }
            }
            batch += 1;
            barren = if pool.generated() > before {
                0
            } else {
                barren + 1
            };
        };
        let texts = pool.into_texts();
        let instructions = kept.into_iter().map(|(text, key, part, examples, place)| {
            let Place { nearest, mean } = place;
            let nearest = nearest
                .into_iter()
                .map(|(number, score)| (texts[number].clone(), score));
            Kept {
                text,
                key,
                part,
                examples,
                nearest: nearest.collect(),
                mean,
                is_classification: None,
            }
        });
        Ok(Found {
            outcome: Outcome {
                made: Made::Rows(Vec::new()),
                instructions: instructions.collect(),
                dropped,
                ended,
            },
            candidates,
        })
    }

    /// Asks of each instruction whether it is a classification task.
    fn classify(&mut self, stages: &Staged, outcome: &mut Outcome) -> Result<(), InstructError> {
        let (stage, seed) = (Stage::Classification, self.recipe.seed);
        let about = &stages.classification;
        let total = outcome.instructions.len();
        let size = self.recipe.batch;
        for batch in 0..total.div_ceil(size) {
            (self.watch.progress)(stage, batch * size, total);
            let of = |batch: usize| -> Vec<Ask<'_>> {
                let kept = outcome.instructions.iter().skip(batch * size).take(size);
                let asks = kept.enumerate().map(|(place, kept)| Ask {
                    prompt: staged::classification(about.prompt.get(), &kept.text, &about.question),
                    sampling: &about.sampling,
                    seed: random(seed, stage, batch, place).next(),
                    examples: Vec::new(),
                });
                asks.collect()
            };
            let completions = self.ask(stage, batch, &of(batch), &of)?;
            let kept = outcome.instructions.iter_mut().skip(batch * size);
            for (kept, completion) in kept.zip(completions) {
                let answer = crate::python::strip(&completion.text);
                kept.is_classification = Some(about.yes.iter().any(|yes| yes == answer));
            }
        }
        Ok(())
    }

    /// Asks for the instances of each instruction.
    fn instances(
        &mut self,
        stages: &Staged,
        outcome: &mut Outcome,
    ) -> Result<Vec<Row>, InstructError> {
        let (stage, seed) = (Stage::Instances, self.recipe.seed);
        let about = &stages.instances;
        let total = outcome.instructions.len();
        let mut rows = Vec::new();
        let size = self.recipe.batch;
        let of = |instructions: &[Kept], batch: usize| -> Vec<Ask<'_>> {
            let kept = instructions.iter().skip(batch * size).take(size);
            let asks = kept.enumerate().map(|(place, kept)| {
                let is_classification = kept.is_classification == Some(true);
                let prompted = if is_classification {
                    &about.output_first
                } else {
                    &about.input_first
                };
                Ask {
                    prompt: staged::instances(prompted.prompt.get(), &kept.text),
                    sampling: &prompted.sampling,
                    seed: random(seed, stage, batch, place).next(),
                    examples: Vec::new(),
                }
            });
            asks.collect()
        };
        let Outcome {
            instructions,
            dropped,
            ..
        } = outcome;
        let instructions = &instructions[..];
        for (batch, kept) in instructions.chunks(size).enumerate() {
            let first = batch * size;
            (self.watch.progress)(stage, first, total);
            let following = |batch| of(instructions, batch);
            let completions = self.ask(stage, batch, &following(batch), &following)?;
            for (place, (kept, completion)) in kept.iter().zip(&completions).enumerate() {
                let key = Key {
                    stage,
                    batch,
                    place,
                };
                let found = match kept.is_classification {
                    Some(true) => instances::classified(completion),
                    _ => instances::generated(completion),
                };
                let mut drop = |text, reason| dropped.push(Dropped { key, text, reason });
                found
                    .dropped
                    .into_iter()
                    .for_each(|(text, reason)| drop(text, reason));
                let mut random = random(seed, stage, batch, place);
                random.next();
                let chosen = sample(found.kept.len(), about.max_instances, &mut random);
                for (number, (input, output)) in found.kept.into_iter().enumerate() {
                    if !chosen.contains(&number) {
                        drop(format!("{input}\n{output}"), Reason::Surplus);
                        continue;
                    }
                    let instruction = crate::python::strip(&kept.text).to_owned();
                    rows.push(Row {
                        instruction,
                        input,
                        output,
                        of: Some(first + place),
                        key: Some(key),
                    });
                }
            }
        }
        Ok(rows)
    }

    pub(super) fn dialogues(&mut self, chat: &SelfChat) -> Result<Outcome, InstructError> {
        self.seeds.at_least(1, &self.recipe.seeds)?;
        let (stage, seed, seeds) = (Stage::Dialogue, self.recipe.seed, self.seeds);
        let (mut made, mut dropped, mut barren) = (Vec::new(), Vec::new(), 0);
        let mut ended = Ended::Seeds;
        let (size, max_batches) = (self.recipe.batch, self.recipe.max_batches);
        let of = |batch: usize| -> Vec<Ask<'_>> {
            if max_batches > 0 && batch >= max_batches {
                return Vec::new();
            }
            let topics = seeds.all.iter().skip(batch * size).take(size);
            let asks = topics.enumerate().map(|(place, topic)| Ask {
                prompt: dialogue::prompt(chat.prompt.get(), &topic.instruction),
                sampling: &chat.sampling,
                seed: random(seed, stage, batch, place).next(),
                examples: vec![topic.id.clone()],
            });
            asks.collect()
        };
        for (batch, topics) in seeds.all.chunks(self.recipe.batch).enumerate() {
            if made.len() >= self.recipe.target {
                ended = Ended::Target;
                break;
            }
            if self.recipe.max_batches > 0 && batch >= self.recipe.max_batches {
                ended = Ended::MaxBatches;
                break;
            }
            if barren >= self.recipe.patience {
                ended = Ended::Patience;
                break;
            }
            (self.watch.progress)(stage, made.len(), self.recipe.target);
            let before = made.len();
            let completions = self.ask(stage, batch, &of(batch), &of)?;
            for (place, completion) in completions.into_iter().enumerate() {
                let key = Key {
                    stage,
                    batch,
                    place,
                };
                match dialogue::turns(&completion, &chat.human, &chat.ai) {
                    Ok(turns) => {
                        let topic = topics[place].instruction.clone();
                        made.push((Dialogue { topic, turns }, key));
                    }
                    Err(reason) => dropped.push(Dropped {
                        key,
                        text: completion.text,
                        reason,
                    }),
                }
            }
            barren = if made.len() > before { 0 } else { barren + 1 };
        }
        if made.len() >= self.recipe.target {
            ended = Ended::Target;
        }
        Ok(Outcome {
            made: Made::Dialogues(made),
            instructions: Vec::new(),
            dropped,
            ended,
        })
    }
}
