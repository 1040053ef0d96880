//! The values of a new recipe, and its text with a comment for each key.

use std::fmt::Write as _;
use std::path::Path;

use simmer_data::Overlong;
use simmer_model::Recompute;
use simmer_train::Recipe;

use super::purpose::Purpose;
use super::rows::Candidate;
use super::text::{Lines, counted, line, quoted};
use crate::commands::train::quoted as word;
use crate::failure::Failure;

/// A length that no row exceeds, while the lengths are not known: the most that a recipe may say.
pub(super) const LONGEST: usize = 1 << 30;

/// The rank of the adapter, and twice that as its alpha.
const RANK: usize = 16;
/// The fraction of the steps in which the learning rate rises.
const WARMUP: f64 = 0.05;
/// The fewest steps that have a warmup.
const WARMUP_STEPS: usize = 20;

/// Which rows are held out for validation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Held {
    /// None.
    Nothing,
    /// This fraction of the rows.
    Fraction(f64),
    /// So many of them.
    Rows(usize),
    /// The validation split of the folder.
    Split,
}

/// The values of a recipe.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) base: String,
    pub(super) data: String,
    pub(super) purpose: Purpose,
    /// The device, unless it is the default.
    pub(super) device: Option<String>,
    /// Whether the device computes fastest in bf16.
    pub(super) bf16: bool,
    pub(super) template: Candidate,
    /// The rows' own names for the keys of their format.
    pub(super) fields: Option<String>,
    /// Whether the rows of a text are its paragraphs.
    pub(super) paragraphs: bool,
    /// Whether prompts are trained on as well.
    pub(super) everything: bool,
    /// Rows that cannot be used.
    pub(super) left_out: usize,
    pub(super) validation: Held,
    pub(super) max_tokens: usize,
    /// Why so many.
    pub(super) lengths: String,
    pub(super) overlong: Overlong,
    pub(super) epochs: u32,
    pub(super) batch_size: usize,
    pub(super) steps_per_epoch: usize,
    pub(super) learning_rate: f64,
    pub(super) micro_batch_tokens: usize,
    pub(super) recompute: Recompute,
    /// Steps between validations, unless they are those of an epoch.
    pub(super) every: Option<usize>,
    pub(super) prompts: Vec<String>,
    /// The system message before them.
    pub(super) system: Option<String>,
    pub(super) max_new_tokens: usize,
}

impl Settings {
    /// The values before anything is known of base model and data.
    pub(super) fn new(base: &str, data: &str) -> Self {
        Self {
            base: base.to_owned(),
            data: data.to_owned(),
            purpose: Purpose::Instruct,
            device: None,
            bf16: false,
            template: Candidate {
                name: "completion".to_owned(),
                why: String::new(),
            },
            fields: None,
            paragraphs: false,
            everything: false,
            left_out: 0,
            validation: Held::Nothing,
            max_tokens: LONGEST,
            lengths: String::new(),
            overlong: Overlong::Truncate,
            epochs: 1,
            batch_size: 8,
            steps_per_epoch: 0,
            learning_rate: 1e-4,
            micro_batch_tokens: 4096,
            recompute: Recompute::None,
            every: None,
            prompts: Vec::new(),
            system: None,
            max_new_tokens: 64,
        }
    }

    /// The recipe.
    pub(super) fn recipe(&self) -> Result<Recipe, Failure> {
        let path = Path::new("the new recipe");
        Ok(Recipe::parse(path, &self.text(path), &[])?)
    }

    /// The steps of the whole run.
    pub(super) fn steps(&self) -> usize {
        self.steps_per_epoch * self.epochs as usize
    }

    /// The text of the recipe, as the file `out`.
    pub(super) fn text(&self, out: &Path) -> String {
        let tables = [
            self.header(out),
            self.base_table(),
            method_table(),
            self.data_table(),
            self.train_table(),
            self.samples_table(),
        ];
        let tables = tables.into_iter().filter(|table| !table.is_empty());
        tables.collect::<Vec<_>>().join("\n")
    }

    fn header(&self, out: &Path) -> String {
        let file = line(&word(&out.display().to_string()));
        let title = format!(
            "# LoRA on {}: it learns to {}.\n# Written by `simmer init` for {}; change what you like.",
            line(&self.base),
            self.purpose.learns(),
            line(&self.data)
        );
        let mut lines = Lines::default();
        for (command, what) in [
            ("data preview", "the examples as the model sees them"),
            ("estimate", "memory and time of the run"),
            ("train", "writes the adapter to runs/"),
        ] {
            lines.add(format!("#   simmer {command} {file}"), what);
        }
        format!(
            "{title}\n#\n{lines}#\n# `simmer show {file}` lists all keys with their defaults, docs/reference/recipe.md explains them.\n"
        )
    }

    fn base_table(&self) -> String {
        let mut lines = Lines::default();
        if let Some(device) = &self.device {
            let about = "auto, cpu, libtorch or libtorch-cuda:N";
            lines.add(format!("device = {}", quoted(device)), about);
            lines.blank();
        }
        lines.head("[base]");
        lines.add(
            format!("path = {}", quoted(&self.base)),
            "the model to fine-tune: a folder, a .gguf file or a name on the hub",
        );
        if self.bf16 {
            let about = "dtype of the layers: half the memory of f32, and faster on a GPU";
            lines.add("compute = \"bf16\"", about);
        }
        lines.to_string()
    }

    /// The table of a source, in braces.
    fn source(&self) -> String {
        let mut source = format!(
            "path = {}, template = {}",
            quoted(&self.data),
            quoted(&self.template.name)
        );
        if let Some(fields) = &self.fields {
            let _ = write!(source, ", fields = {fields}");
        }
        if self.paragraphs {
            source += ", sample_by = \"paragraph\"";
        }
        format!("{{ {source} }}")
    }

    fn data_table(&self) -> String {
        let mut lines = Lines::default();
        lines.head("[data]");
        lines.add(
            format!("train = [{}]", self.source()),
            &format!("template `{}`: {}", self.template.name, self.template.why),
        );
        match self.validation {
            Held::Nothing => lines.note(
                "validation = { fraction = 0.05 } would hold out rows; there are too few of them",
            ),
            Held::Fraction(part) => lines.add(
                format!("validation = {{ fraction = {part} }}"),
                "rows for the validation loss, which are not trained on",
            ),
            Held::Rows(rows) => lines.add(
                format!("validation = {{ rows = {rows} }}"),
                "rows for the validation loss, which are not trained on",
            ),
            Held::Split => lines.add(
                format!("validation = {{ files = [{}] }}", self.source()),
                "the files of the validation split",
            ),
        }
        lines.add(
            format!("max_tokens = {}", self.max_tokens),
            &format!("limit per example: {}", self.lengths),
        );
        if self.overlong == Overlong::Split {
            let about = "longer rows become several examples; \"truncate\" cuts them";
            lines.add("overlong = \"split\"", about);
        }
        if self.everything {
            let about = "every token of a row, the prompt too; \"answers\" are the answers alone";
            lines.add("train_on = \"everything\"", about);
        }
        if self.left_out > 0 {
            let rows = counted(self.left_out, "row");
            lines.add(
                "bad_rows = \"drop\"",
                &format!("{rows} cannot be used: left out, and counted"),
            );
        }
        lines.to_string()
    }

    fn train_table(&self) -> String {
        let mut lines = Lines::default();
        lines.head("[train]");
        lines.add(
            format!("epochs = {}", self.epochs),
            "passes over the rows; too many overfit: the validation loss rises",
        );
        lines.add(
            format!("batch_size = {}", self.batch_size),
            &format!(
                "rows per step: {} per epoch",
                counted(self.steps_per_epoch, "step")
            ),
        );
        lines.add(
            format!("learning_rate = {:e}", self.learning_rate),
            "the peak; half of it if the loss jumps, twice if it hardly falls",
        );
        if self.steps() >= WARMUP_STEPS {
            lines.add(
                format!("schedule = {{ cosine = {{ warmup_ratio = {WARMUP} }} }}"),
                "rises over the first steps, then falls to 0",
            );
        } else {
            lines.add("schedule = \"cosine\"", "falls to 0 until the last step");
        }
        lines.add(
            format!("micro_batch_tokens = {}", self.micro_batch_tokens),
            "tokens per forward and backward pass: memory, not the result",
        );
        let again = "gradient checkpointing: less memory, more time; the same result";
        match self.recompute {
            Recompute::None => {}
            Recompute::Mlp => lines.add("recompute = \"mlp\"", again),
            Recompute::Layer => lines.add("recompute = \"layer\"", again),
        }
        if let Some(steps) = self.every {
            lines.add(
                format!("validate_every = {{ steps = {steps} }}"),
                "how often the validation loss is measured",
            );
            lines.add(
                format!("checkpoint_every = {{ steps = {steps} }}"),
                "how often the run is saved, for --resume",
            );
        }
        if self.validation != Held::Nothing {
            let about = "the adapter of the lowest validation loss; \"last\" of the last step";
            lines.add("weights = \"best\"", about);
        }
        lines.add("seed = 42", "of everything random");
        lines.to_string()
    }

    fn samples_table(&self) -> String {
        if self.prompts.is_empty() {
            return String::new();
        }
        let mut lines = Lines::default();
        lines.note(
            "Prompts that the base model and the trained model answer at the end, side by side.",
        );
        lines.head("[samples]");
        lines.head("prompts = [");
        for prompt in &self.prompts {
            lines.head(&format!("    {},", quoted(prompt)));
        }
        lines.head("]");
        if let Some(system) = &self.system {
            lines.add(format!("system = {}", quoted(system)), "before each prompt");
        }
        lines.add(
            format!("max_new_tokens = {}", self.max_new_tokens),
            "the longest answer",
        );
        lines.to_string()
    }
}

/// The adapter: the same for every purpose.
fn method_table() -> String {
    let mut lines = Lines::default();
    lines.head("[method.lora]");
    lines.add(
        format!("rank = {RANK}"),
        "size of the adapter: a higher rank can learn more, and takes more memory",
    );
    lines.add(
        format!("alpha = {}", 2 * RANK),
        "the adapter's output is scaled by alpha / rank",
    );
    lines.add(
        "targets = \"all-linear\"",
        "the modules that get an adapter: all linear ones; fewer: [\"q_proj\", \"v_proj\"]",
    );
    lines.to_string()
}
