//! `simmer init`: writes a recipe for a base model and rows.

mod base;
mod plan;
mod purpose;
mod questions;
mod rows;
mod screen;
mod settings;
mod survey;
#[cfg(test)]
mod tests;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use simmer_data::{DataError, Format, Template};
use simmer_model::device;
use simmer_train::Recipe;
use simmer_train::estimate::parse_bytes;

use super::train::quoted;
use crate::commands::fields::Names;
use crate::commands::row_hints::unknown_keys;
use crate::failure::Failure;
use crate::output::{self, note};
use crate::{interrupt, new_file};
use base::BaseModel;
use plan::{Machine, Plan, check_purpose, named_purpose};
use purpose::Purpose;
use questions::{Interrupted, Question, Questions};
use rows::Rows;

/// The base model and the rows that are part of the program.
const BASE: &str = "data/tiny-base";
const DATA: &str = "data/kitchen/instructions.json";

/// Write a recipe for a base model and your rows
///
/// Asks for base model, data, purpose and file, unless options name them; without a terminal, or with
/// --yes, the defaults are taken. Reads every row, chooses a prompt template, shows three examples as the
/// model sees them, and writes a commented recipe whose values fit the rows and the memory of this machine.
/// No existing file is overwritten. Of a model on the Hugging Face Hub, no weights are downloaded.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer init
  simmer init --base HuggingFaceTB/SmolLM2-135M-Instruct --data rows.jsonl
  simmer init --base models/llama --data texts --purpose domain --out my.toml --yes")]
pub(crate) struct Init {
    /// Base model: a folder, a .gguf file, or a name on the Hugging Face Hub. Default: data/tiny-base, which is part of
    /// simmer
    #[arg(long, value_name = "MODEL")]
    base: Option<String>,
    /// Rows: a file, a folder, a pattern, or a dataset on the Hugging Face Hub. Default: data/kitchen/instructions.json,
    /// which is part of simmer
    #[arg(long, value_name = "PATH")]
    data: Option<String>,
    /// The rows' own names for the keys of a format, such as instruction=question,output=answer. Default: the usual names
    #[arg(long, value_name = "KEY=NAME,...", value_parser = Names::parse)]
    fields: Option<Names>,
    /// What the model shall learn. Default: by the format of the rows
    #[arg(long, value_enum, value_name = "PURPOSE")]
    purpose: Option<Purpose>,
    /// Prompt template. Default: the chat template of the base model, or else one that fits the rows
    #[arg(long, value_name = "TEMPLATE")]
    template: Option<String>,
    /// Recipe to write. Default: the name of the data with .toml, in the current folder
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Device to compute on: auto, cpu, libtorch, libtorch-cuda:N. Default: auto
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Memory of the device, such as 24GiB. Default: that of the chosen device
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Ask nothing: take the defaults
    #[arg(long, short)]
    yes: bool,
}

impl Init {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let mut questions = Questions::new(self.yes)?;
        match self.write(&mut questions) {
            Err(failure) if failure.downcast_ref::<Interrupted>().is_some() => {
                note("nothing was written");
                Ok(interrupt::exit_code())
            }
            done => done.map(|()| ExitCode::SUCCESS),
        }
    }

    /// Asks, reads, shows and writes.
    fn write(&self, questions: &mut Questions) -> Result<(), Failure> {
        // faults of options before any work
        self.out.as_deref().map(free).transpose()?;
        self.device.as_deref().map(device::check).transpose()?;
        let template = self.template.as_deref();
        template.map(Template::check_name).transpose()?;

        let model = self.model(questions)?;
        let rows = self.rows(questions)?;
        let name = rows.recipe_name();
        if self.out.is_none() && !questions.are_asked() {
            free(Path::new(&name))?;
        }
        let purpose = self.purpose(questions, &rows)?;
        let machine = Machine {
            device: self.device.clone(),
            memory: self.memory,
        };
        let plan = Plan::of(&model, &rows, purpose, template, &machine)?;
        let screen = plan.screen(&model, console::colors_enabled_stderr())?;
        note(&screen.head);
        output::note_as_it_is(&screen.examples);
        note(&screen.choices);

        let out = self.file(questions, &name)?;
        let text = plan.settings.text(&out);
        // what is written can be trained
        Recipe::parse(&out, &text, &[])?;
        new_file::write(&out, &text, &name, OTHER)?;
        output::line(&out.display().to_string())?;
        note(&next(&out));
        Ok(())
    }

    fn model(&self, questions: &mut Questions) -> Result<BaseModel, Failure> {
        let question = Question {
            subject: "base model",
            about: "Base model to fine-tune: a folder, a .gguf file, or a name on the Hugging Face Hub.",
            default: BASE,
            option: "--base",
        };
        questions.answer(self.base.as_deref(), &question, BaseModel::open)
    }

    fn rows(&self, questions: &mut Questions) -> Result<Rows, Failure> {
        let here = questions.are_asked().then(rows::only_file).flatten();
        let question = Question {
            subject: "data",
            about: "Rows to train on: a file (.jsonl, .json, .csv, .parquet, .txt ...), a folder, or a dataset on the hub.",
            default: here.as_deref().unwrap_or(DATA),
            option: "--data",
        };
        let names = self.fields.clone().unwrap_or_default();
        let is_asked = questions.are_asked() && self.fields.is_none();
        // of rows that fit no format, the names of the keys are asked for
        let opened =
            questions.answer(self.data.as_deref(), &question, |path| {
                match Rows::open(path, &names) {
                    Err(failure) if is_asked && keys(&failure).is_some() => {
                        Ok(Err((path.to_owned(), failure)))
                    }
                    opened => opened.map(Ok),
                }
            })?;
        match opened {
            Ok(rows) => Ok(rows),
            Err((path, failure)) => named(questions, &path, &failure),
        }
    }

    fn purpose(&self, questions: &mut Questions, rows: &Rows) -> Result<Purpose, Failure> {
        let usual = Purpose::of(rows.format);
        if let Some(purpose) = self.purpose {
            check_purpose(rows, purpose)?;
            return Ok(purpose);
        }
        // of text there is one use; elsewhere the screen says which purpose was chosen
        if rows.format == Format::Text || !questions.are_asked() {
            return Ok(usual);
        }
        let question = Question {
            subject: "purpose",
            about: "What shall it learn? instruct: answer questions; chat: hold conversations; domain: know the texts.",
            default: &usual.to_string(),
            option: "--purpose",
        };
        questions.answer(None, &question, |name| named_purpose(rows, name))
    }

    fn file(&self, questions: &mut Questions, name: &str) -> Result<PathBuf, Failure> {
        if let Some(out) = &self.out {
            return Ok(out.clone());
        }
        if !questions.are_asked() {
            return Ok(name.into());
        }
        let question = Question {
            subject: "recipe",
            about: "File to write the recipe to.",
            default: &unused(name),
            option: "--out",
        };
        questions.answer(None, &question, |out| {
            let out = PathBuf::from(out);
            free(&out).map_err(|failure| failure.with_hint("type another name"))?;
            Ok(out)
        })
    }
}

/// The keys of the row that fits no format.
fn keys(failure: &Failure) -> Option<&[String]> {
    unknown_keys(failure.downcast_ref::<DataError>()?)
}

/// Asks for the names of the keys of rows that fit no format.
fn named(questions: &mut Questions, path: &str, failure: &Failure) -> Result<Rows, Failure> {
    failure.report();
    let guess = keys(failure).and_then(Names::guess);
    let question = Question {
        subject: "keys",
        about: "Which keys hold what? instruction=...,output=... of questions and answers (input=... beside them); \
                text=... of texts; messages=... of conversations.",
        default: &guess.unwrap_or_else(|| "instruction=question,output=answer".to_owned()),
        option: "--fields",
    };
    questions.answer(None, &question, |names| {
        let names = Names::parse(names).map_err(Failure::new)?;
        Rows::open(path, &names)
    })
}

/// What to do about a file that exists.
const OTHER: &str = "name another file: --out FILE";

/// Checks that a file can be created.
fn free(out: &Path) -> Result<(), Failure> {
    new_file::check(out, "my.toml", OTHER)
}

/// A file name that nothing has: `rows.toml`, `rows-2.toml`, ...
fn unused(name: &str) -> String {
    let stem = name.strip_suffix(".toml").unwrap_or(name);
    let names = (2..100).map(|number| format!("{stem}-{number}.toml"));
    let mut names = std::iter::once(name.to_owned()).chain(names);
    let free = names.find(|name| Path::new(name).symlink_metadata().is_err());
    free.unwrap_or_else(|| name.to_owned())
}

/// The next commands.
fn next(out: &Path) -> String {
    let file = quoted(&out.display().to_string());
    let lines = ["data preview", "estimate", "train"];
    let lines = lines.map(|command| format!("\n  simmer {command} {file}"));
    format!("\nnext:{}", lines.concat())
}
