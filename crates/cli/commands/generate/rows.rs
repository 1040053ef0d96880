//! Answers to the rows of a file, several at a time: each step reads the weights once for all of them.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use simmer_data::example::prompt_tokens;
use simmer_data::format::{Reader, Reading};
use simmer_data::{Content, Conversation, Origin, Role, Template};
use simmer_kernels::{Decoding, mix};
use simmer_model::{Generated, KeptPrefix, PAGE, Prompt, Running, Sampling, Texts};

use super::{Generate, Tokens, stop};
use crate::commands::fields::Names;
use crate::commands::row_hints::hinted;
use crate::failure::{Context, Failure};
use crate::loaded::Loaded;
use crate::{new_file, output, progress};

/// The rows that are answered, and where the answers go.
#[derive(Debug, Args)]
pub(super) struct RowArgs {
    /// Answer each row of this file (JSON, JSON Lines, CSV, Parquet, or text with a prompt per line), with a
    /// line of JSON each
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "system"])]
    pub(super) file: Option<PathBuf>,
    /// The rows' own names for the keys of a format: instruction=question,output=answer. Default: the usual
    /// names
    #[arg(long, value_name = "KEY=NAME,...", value_parser = Names::parse, conflicts_with = "prompt")]
    fields: Option<Names>,
    /// New file for the answers to --file. Default: standard output
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    output: Option<PathBuf>,
    /// Rows of --file that are answered at the same time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..),
        conflicts_with = "prompt"
    )]
    batch: u16,
}

/// A row whose prompt is continued.
struct Asked {
    origin: Origin,
    prompt: String,
    tokens: Vec<u32>,
    reference: Option<String>,
    sampling: Sampling,
}

/// The answer to a row, as it is written.
#[derive(Serialize)]
struct Answered<'a> {
    row: usize,
    prompt: &'a str,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    tokens: Option<Tokens<'a>>,
    stop: &'static str,
}

impl Generate {
    pub(super) fn answer_rows(&self, file: &Path, sampling: &Sampling) -> Result<(), Failure> {
        if let Some(out) = &self.rows.output {
            new_file::check(out, USUAL, OTHER)?;
        }
        let rows = self.rows.read(file)?;
        let loaded = self.model.load()?;
        let template = self.chosen_template(&loaded)?;
        let ask = |row| Asked::new(row, template.as_ref(), &loaded, sampling);
        let asked: Vec<Asked> = rows.into_iter().map(ask).collect::<Result<_, _>>()?;
        let mut out = self.rows.out()?;
        let bar = progress::steps(asked.len() as u64);
        let mut write = |row: &Asked, answer: &Generated| {
            let line = self.line(&loaded, row, answer)?;
            out.write_all(&line)?;
            out.flush()?;
            bar.inc(1);
            Ok(())
        };
        if self.answer.max_new_tokens == 0 || Decoding::is_default(&loaded.model.device()) {
            return self.in_batches(&loaded, &asked, &mut write);
        }
        self.one_after_another(&loaded, &asked, &mut write)
    }

    /// Answers rows in batches, each of which ends with its longest answer: a GPU records its steps as a graph, which another row would end.
    fn in_batches(
        &self,
        loaded: &Loaded,
        asked: &[Asked],
        write: &mut dyn FnMut(&Asked, &Generated) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut kept = KeptPrefix::default();
        let length = self.answer.max_new_tokens;
        for asked in asked.chunks(usize::from(self.rows.batch)) {
            let prompts = asked.iter().map(|row| Prompt {
                tokens: &row.tokens,
                sampling: &row.sampling,
            });
            let prompts: Vec<Prompt<'_>> = prompts.collect();
            let mut go_on = |_, _| ControlFlow::Continue(());
            let (model, eos) = (&loaded.model, &loaded.eos);
            let answers =
                model.generate_batch_after(&mut kept, &prompts, length, eos, &mut go_on)?;
            for (row, answer) in asked.iter().zip(&answers) {
                write(row, answer)?;
            }
        }
        Ok(())
    }

    /// Begins with the next row as soon as the answer to another one has ended.
    fn one_after_another(
        &self,
        loaded: &Loaded,
        asked: &[Asked],
        write: &mut dyn FnMut(&Asked, &Generated) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let batch = usize::from(self.rows.batch);
        let length = self.answer.max_new_tokens;
        let context = loaded.model.config().max_position_embeddings;
        let longest = asked.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
        // one more than a row has, so that its length ends it and not the context
        let longest = longest
            .saturating_add(length)
            .saturating_add(1)
            .min(context);
        // a text ends in the middle of a page, and may begin in that of another one
        let places = batch.saturating_mul(longest + 2 * PAGE);
        let mut running = Running::new(&loaded.model, &loaded.eos, longest, places);
        let mut rows = Rows {
            asked,
            next: asked.iter(),
            length,
            write,
        };
        running.each(batch, &mut rows)
    }

    /// The line of a row.
    fn line(&self, loaded: &Loaded, row: &Asked, answer: &Generated) -> Result<Vec<u8>, Failure> {
        let answered = Answered {
            row: row.origin.row,
            prompt: &row.prompt,
            text: loaded.tokenizer.decode(&answer.tokens, true)?,
            reference: row.reference.as_deref(),
            tokens: self.json.then(|| Tokens::of(&row.tokens, answer)),
            stop: stop(answer.stop),
        };
        let mut line = serde_json::to_vec(&answered).map_err(Failure::foreign)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// Rows that are answered one after another.
struct Rows<'a, 'w> {
    asked: &'a [Asked],
    next: std::slice::Iter<'a, Asked>,
    /// The most new tokens.
    length: usize,
    write: &'w mut dyn FnMut(&Asked, &Generated) -> Result<(), Failure>,
}

impl Texts for Rows<'_, '_> {
    type Error = Failure;

    fn next(&mut self) -> Option<Result<simmer_model::Asked, Failure>> {
        let row = self.next.next()?;
        Some(Ok(simmer_model::Asked {
            tokens: row.tokens.clone(),
            max_new_tokens: self.length,
            sampling: row.sampling.clone(),
            top: 0,
            scores_prompt: false,
        }))
    }

    fn done(&mut self, number: usize, answer: Generated) -> Result<(), Failure> {
        (self.write)(&self.asked[number], &answer)
    }
}

/// The usual name of the file for the answers.
const USUAL: &str = "answers.jsonl";

/// The hint where that file exists.
const OTHER: &str = "name another file with --output";

impl RowArgs {
    fn read(&self, file: &Path) -> Result<Vec<Conversation>, Failure> {
        let reading = Reading {
            fields: self.fields.clone().unwrap_or_default().fields(),
            without_answers: true,
            ..Reading::default()
        };
        let files = files(file)?;
        let reader = Reader::open(&files, &reading).map_err(hinted)?;
        reader.rest().map_err(hinted)
    }

    fn out(&self) -> Result<Box<dyn Write>, Failure> {
        Ok(match &self.output {
            None => Box::new(io::stdout()),
            Some(path) => Box::new(new_file::create(path, USUAL, OTHER)?),
        })
    }
}

/// Of a folder, the files that a recipe's `train` takes.
fn files(file: &Path) -> Result<Vec<PathBuf>, Failure> {
    let found = simmer_data::file::split_files(file, false)?;
    for (file, why) in &found.unread {
        output::note(&format!("not read: {} ({why})", file.display()));
    }
    Ok(found.files)
}

impl Asked {
    /// # Errors
    /// If a row needs a template, cannot be rendered, or is longer than the model takes.
    fn new(
        row: Conversation,
        template: Option<&Template>,
        loaded: &Loaded,
        sampling: &Sampling,
    ) -> Result<Self, Failure> {
        let origin = row.origin.clone();
        let reference = reference(&row);
        let (prompt, tokens) = prompt(row, template, loaded)?;
        let checked = loaded.model.check_tokens(&tokens);
        checked.with_context(|| format!("{origin}: cannot be answered"))?;
        let seed = mix(mix(origin.row as u64) ^ sampling.seed);
        Ok(Self {
            origin,
            prompt,
            tokens,
            reference,
            sampling: Sampling { seed, ..*sampling },
        })
    }
}

/// The prompt of a row, as text and tokens.
fn prompt(
    row: Conversation,
    template: Option<&Template>,
    loaded: &Loaded,
) -> Result<(String, Vec<u32>), Failure> {
    let tokenizer = &loaded.tokenizer;
    let Some(template) = template else {
        let prompt = plain(row)?;
        let tokens = tokenizer.encode_with_prefix(&prompt)?;
        return Ok((prompt, tokens));
    };
    let row = prompted(row);
    let rendered = template.prompt(&row).with_context(|| {
        let name = template.name();
        format!("{}: template {name} cannot render it", row.origin)
    })?;
    let tokens = prompt_tokens(&rendered, tokenizer)?;
    Ok((rendered.text, tokens))
}

/// The row's own answer, if it has one: it is not shown to the model.
fn reference(row: &Conversation) -> Option<String> {
    let last = row.messages()?.pop()?;
    (last.role == Role::Assistant).then_some(last.content)
}

/// The row as a template renders it: a text is a prompt.
fn prompted(row: Conversation) -> Conversation {
    match row.content {
        Content::Text(text) => Conversation {
            content: Conversation::prompt(text).content,
            ..row
        },
        _ => row,
    }
}

/// The prompt of a row that is continued as it is.
fn plain(row: Conversation) -> Result<String, Failure> {
    let layout = row.layout();
    match row.content {
        Content::Completion { prompt, .. } => Ok(prompt),
        Content::Text(text) => Ok(text),
        _ => {
            let text = format!("{}: a row of {layout} needs a prompt template", row.origin);
            Err(Failure::new(text).and_hint("use --chat or --template NAME"))
        }
    }
}
