//! Whether an adapter was trained on the questions that it is asked.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;
use simmer_data::Conversation;
use simmer_eval::report::Contamination;
use simmer_eval::{Asked, Question};
use simmer_lint::EvaluationSet;
use simmer_train::{COUNTS_FILE, Counts, RECIPE_FILE, Recipe};

use crate::failure::Failure;
use crate::output;

/// The largest `counts.json` that is read, in bytes.
const LARGEST: u64 = 64 << 20;

/// The rows that an adapter was trained on.
pub(crate) struct TrainedOn(Vec<Conversation>);

impl TrainedOn {
    /// The rows that the folder of the adapter's run lists, if the adapter is in one. Says so if they cannot be read.
    pub(crate) fn of(adapter: &Path) -> Option<Self> {
        let counts = adapter.parent()?.join(COUNTS_FILE);
        if !adapter.is_dir() || !counts.is_file() {
            return None;
        }
        match rows(adapter.parent()?) {
            Ok(rows) => Some(Self(rows)),
            Err(problem) => {
                output::note(&format!(
                    "{}: its training rows are not compared with the tasks: {problem}",
                    adapter.display()
                ));
                None
            }
        }
    }

    /// For each model, how many rows have words of these questions.
    pub(crate) fn overlaps(
        models: &[Option<Self>],
        questions: &[Question],
    ) -> Vec<Option<Contamination>> {
        if models.iter().all(Option::is_none) {
            return vec![None; models.len()];
        }
        let rows: Vec<Value> = questions.iter().map(row).collect();
        let set = EvaluationSet::new(&rows);
        let of_model = |model: &Option<Self>| {
            let Self(rows) = model.as_ref()?;
            let found = rows.par_iter().filter(|row| set.overlaps(row)).count();
            Some(Contamination {
                rows: found,
                of: rows.len(),
            })
        };
        models.iter().map(of_model).collect()
    }
}

/// The training rows of a run, read as its recipe says.
fn rows(run: &Path) -> Result<Vec<Conversation>, Failure> {
    let text = simmer_files::read_text(&run.join(COUNTS_FILE), LARGEST)?;
    let counts: Counts = serde_json::from_str(&text).map_err(Failure::foreign)?;
    let mut data = Recipe::from_file(&run.join(RECIPE_FILE), &[])?.data;
    let mut rows = Vec::new();
    for (index, source) in data.train.iter_mut().enumerate() {
        // data sets of the hub are files here
        let files = counts.train.get(index).map(|counts| &counts.files);
        let files = files.into_iter().flatten().map(|(file, _)| file.into());
        let files: Vec<PathBuf> = files.collect();
        if !files.is_empty() && files.iter().all(|file| file.exists()) {
            source.locate(files);
        }
        rows.extend(source.read(data.bad_rows)?);
    }
    Ok(rows)
}

/// The fields of a question; of a conversation, what the user says.
fn row(question: &Question) -> Value {
    let Asked::Instruction(conversation) = &question.asked else {
        return Value::Object(question.fields.clone());
    };
    let messages = conversation.messages().unwrap_or_default().into_iter();
    let asked = messages.filter(|message| message.role == simmer_data::Role::User);
    let texts: Vec<String> = asked.map(|message| message.content).collect();
    serde_json::json!({ "instruction": texts.join("\n") })
}
