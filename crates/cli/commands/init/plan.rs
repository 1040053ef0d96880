//! Chooses the values of a new recipe, from the rows, the base model and the memory of the machine.

use burn::tensor::DType;
use simmer_data::dataset::Dataset;
use simmer_data::{Overlong, Steps};
use simmer_files::size::{grouped, readable};
use simmer_lint::LintReport;
use simmer_model::{Recompute, device};
use simmer_train::Recipe;
use simmer_train::estimate::{Estimate, Known, Rate, Room, estimate};

use super::base::BaseModel;
use super::purpose::Purpose;
use super::rows::Rows;
use super::settings::{Held, Settings};
use super::survey::{self, Survey};
use super::text::counted;
use crate::failure::{Failure, bail};
use crate::progress;

/// Rows longer than this are cut or split, if most are shorter.
const LONG: usize = 512;
/// The share of the rows that keep their whole length.
const WHOLE: f64 = 0.99;
/// The pieces of a long text.
const PIECE: usize = 1024;
/// Lengths are rounded up to multiples of this.
const ROUND: usize = 64;
/// The shortest length that is tried if the memory is short.
const SHORTEST: usize = 256;
/// The fewest rows of which some are held out.
const FEWEST: usize = 20;
/// The most rows that are held out.
const MOST_HELD: usize = 500;
/// Steps per epoch from which on a run is validated within its epochs, and how often it is then.
const LONG_EPOCH: usize = 400;
const VALIDATIONS: usize = 10;
/// The fraction of the free memory that a run may take.
const PART: f64 = 0.85;

/// The machine that trains.
pub(super) struct Machine {
    /// The device, as the user names it.
    pub(super) device: Option<String>,
    /// Its memory in bytes, if given.
    pub(super) memory: Option<u64>,
}

/// The values of a recipe, and what they were chosen from.
pub(super) struct Plan {
    pub(super) settings: Settings,
    pub(super) data: Dataset,
    pub(super) lint: LintReport,
    /// The bytes that the run needs, on which device, of which memory.
    pub(super) needed: u64,
    pub(super) device: String,
    pub(super) room: Option<Room>,
}

impl Plan {
    /// Reads all rows and chooses.
    pub(super) fn of(
        model: &BaseModel,
        rows: &Rows,
        purpose: Purpose,
        template: Option<&str>,
        machine: &Machine,
    ) -> Result<Self, Failure> {
        let mut settings = Settings::new(&model.name, &rows.path);
        settings.purpose = purpose;
        settings.fields.clone_from(&rows.fields);
        settings.everything =
            purpose == Purpose::Domain && rows.format != simmer_data::Format::Text;
        settings.on(machine)?;
        let spinner = progress::spinner("reading");
        let surveyed = survey::choose(settings, rows, model, template);
        spinner.finish_and_clear();
        let (mut settings, survey) = surveyed?;
        settings.of_rows(&survey, model);
        settings.limit(&survey, model);
        settings.fitting(&survey, rows, model, machine)
    }
}

impl Settings {
    /// Names the device, if it is not the one that every machine has.
    fn on(&mut self, machine: &Machine) -> Result<(), Failure> {
        let can = device::capabilities(machine.device.as_deref().unwrap_or("auto"))?;
        // of processors, few are faster in bf16
        self.bf16 = !can.memory.is_main() && can.computes.contains(&DType::BF16);
        if self.bf16 || machine.device.is_some() {
            self.device = Some(can.name());
        }
        Ok(())
    }

    /// What follows from the number of rows and the width of the model.
    fn of_rows(&mut self, survey: &Survey, model: &BaseModel) {
        let rows = survey.rows();
        self.batch_size = match rows {
            ..200 => 4,
            200..2000 => 8,
            2000..20_000 => 16,
            20_000.. => 32,
        };
        self.epochs = self.purpose.epochs(rows);
        self.learning_rate = self.purpose.learning_rate(model.base.config.hidden_size);
        let unread = survey.report.iter().flat_map(|report| &report.unread);
        let has_split = unread.into_iter().any(|(_, why)| why == "validation");
        self.validation = match rows {
            _ if has_split => Held::Split,
            ..FEWEST => Held::Nothing,
            FEWEST..400 => Held::Fraction(0.1),
            400..=10_000 => Held::Fraction(0.05),
            _ => Held::Rows(MOST_HELD),
        };
        self.prompts.clone_from(&survey.prompts);
        self.system.clone_from(&survey.system);
        if rows_have_answers(self) {
            let answer = survey.target_count(0.9).next_multiple_of(16);
            self.max_new_tokens = answer.clamp(32, 256);
        }
    }

    /// The longest example, from the lengths of the rows and the context of the model.
    fn limit(&mut self, survey: &Survey, model: &BaseModel) {
        let is_text = !rows_have_answers(self);
        let whole = survey.length(1.0).next_multiple_of(ROUND);
        let most = survey.length(WHOLE).next_multiple_of(ROUND);
        let wanted = if is_text {
            whole.min(PIECE)
        } else if whole <= LONG || whole <= 2 * most {
            whole
        } else {
            most
        };
        self.overlong = if is_text || self.purpose == Purpose::Chat {
            Overlong::Split
        } else {
            Overlong::Truncate
        };
        let context = model.base.config.max_position_embeddings;
        self.limit_to(wanted.min(context).max(2), survey);
    }

    fn limit_to(&mut self, max_tokens: usize, survey: &Survey) {
        self.max_tokens = max_tokens;
        let longest = grouped(survey.length(1.0) as u64);
        let long = survey.longer_than(max_tokens);
        if long == 0 {
            self.overlong = Overlong::Truncate;
            self.lengths = format!("the rows have up to {longest} tokens, so none is cut");
            return;
        }
        let share = 100.0 * long as f64 / survey.rows() as f64;
        let becomes = match self.overlong {
            Overlong::Split => "split",
            Overlong::Truncate | Overlong::Drop => "cut",
        };
        self.lengths = format!(
            "{} of {} ({share:.1}%) have more, up to {longest}, and are {becomes}",
            grouped(long as u64),
            counted(survey.rows(), "row")
        );
    }

    /// Chooses what fits into the memory: the tokens of a pass, then gradient checkpointing, then shorter examples.
    ///
    /// # Errors
    /// If nothing fits.
    fn fitting(
        mut self,
        survey: &Survey,
        rows: &Rows,
        model: &BaseModel,
        machine: &Machine,
    ) -> Result<Plan, Failure> {
        loop {
            let mut recipe = self.recipe()?;
            for source in recipe.data.sources_mut() {
                rows.locate(source);
            }
            let steps = Steps {
                batch_size: recipe.train.batch_size,
                seed: recipe.train.seed,
            };
            let spinner = progress::spinner("reading and checking");
            let loaded = simmer_lint::load(&recipe.data, &model.tokenizer, steps);
            spinner.finish_and_clear();
            let (mut data, lint) = loaded?;
            self.steps_per_epoch = data.steps_per_epoch().unwrap_or(0);
            if self.steps_per_epoch > LONG_EPOCH {
                let every = self.steps() / VALIDATIONS;
                self.every = Some(every.next_multiple_of(50));
            }
            let mut last = None;
            for (tokens, recompute) in passes(self.bf16) {
                (self.micro_batch_tokens, self.recompute) = (tokens, recompute);
                let recipe = self.recipe()?;
                let found = found(&recipe, model, &mut data, machine)?;
                let needed = needed(&found, model);
                let fits = found
                    .room
                    .is_none_or(|room| needed as f64 <= PART * room.available as f64);
                if fits {
                    return Ok(Plan {
                        settings: self,
                        data,
                        lint,
                        needed,
                        device: found.device,
                        room: found.room,
                    });
                }
                last = Some((found, needed));
            }
            if self.max_tokens > SHORTEST {
                let shorter = (self.max_tokens / 2).next_multiple_of(ROUND);
                self.limit_to(shorter.max(SHORTEST), survey);
                self.lengths += "; longer examples do not fit into memory";
                continue;
            }
            return Err(match last {
                Some((found, needed)) => too_large(&found, needed),
                None => Failure::new("no setting was tried"),
            });
        }
    }
}

/// Whether the rows are more than text.
fn rows_have_answers(settings: &Settings) -> bool {
    settings.purpose != Purpose::Domain || settings.everything
}

/// Settings that take less and less memory, the fastest first.
fn passes(gpu: bool) -> Vec<(usize, Recompute)> {
    let (most, least) = if gpu { (16384, 2048) } else { (4096, 512) };
    let down_to = |least: usize| {
        std::iter::successors(Some(most), move |tokens| {
            Some(tokens / 2).filter(|half| *half >= least)
        })
    };
    let plain = down_to(least).map(|tokens| (tokens, Recompute::None));
    let mlp = down_to(least).map(|tokens| (tokens, Recompute::Mlp));
    let layer = down_to(SHORTEST).map(|tokens| (tokens, Recompute::Layer));
    plain.chain(mlp).chain(layer).collect()
}

fn found(
    recipe: &Recipe,
    model: &BaseModel,
    data: &mut Dataset,
    machine: &Machine,
) -> Result<Estimate, Failure> {
    let known = Known {
        memory: machine.memory,
        rate: Rate::Unknown,
    };
    let mut base = model.base.clone();
    base.set_compute(recipe.base.compute);
    base.choose_compute(&recipe.device.capabilities()?);
    Ok(estimate(recipe, &base, &model.tokenizer, data, known)?)
}

/// The bytes that a run needs. Weights that stay mapped from their files are not counted, and on a processor those that are
/// still to be downloaded will be.
fn needed(estimate: &Estimate, model: &BaseModel) -> u64 {
    let mapped = match model.not_downloaded {
        Some(_) if !estimate.device.contains("cuda") => estimate.parts.weights,
        _ => estimate.parts.mapped,
    };
    estimate.peak.saturating_sub(mapped)
}

fn too_large(found: &Estimate, needed: u64) -> Failure {
    let room = found.room.map_or(0, |room| room.available);
    let text = format!(
        "the run does not fit in memory: with the smallest settings it needs {}, and {} are free on {}",
        readable(needed),
        readable(room),
        found.device
    );
    // the smallest settings have been tried
    let smaller = "close other programs, choose a smaller base model (--base), or use a device with more memory";
    let other = "for another machine, name its memory (--memory 24GiB) and its device (--device libtorch-cuda:0)";
    Failure::new(text).and_hint(smaller).and_hint(other)
}

/// Checks that rows of a format can serve a purpose.
pub(super) fn check_purpose(rows: &Rows, purpose: Purpose) -> Result<(), Failure> {
    if rows.format == simmer_data::Format::Text && purpose != Purpose::Domain {
        let text = format!(
            "{}: rows of format text have no questions and answers, so they cannot serve the purpose {purpose}",
            rows.path
        );
        let hint = "use --purpose domain, or rows with answers (docs/guide/your-own-data.md lists the formats)";
        return Err(Failure::new(text).and_hint(hint));
    }
    Ok(())
}

/// The purpose with a name, if the rows can serve it.
pub(super) fn named_purpose(rows: &Rows, name: &str) -> Result<Purpose, Failure> {
    let Some(purpose) = Purpose::named(name) else {
        bail!("purpose: expected instruct, chat or domain, found {name}");
    };
    check_purpose(rows, purpose)?;
    Ok(purpose)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_and_less_memory() {
        let tried = passes(false);
        assert_eq!(tried.first(), Some(&(4096, Recompute::None)));
        assert_eq!(tried.last(), Some(&(256, Recompute::Layer)));
        assert!(tried.contains(&(512, Recompute::Mlp)));
        assert_eq!(passes(true)[3], (2048, Recompute::None));
    }
}
