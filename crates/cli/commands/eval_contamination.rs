//! Whether an adapter was trained on the questions that it is asked.

use std::path::Path;

use rayon::prelude::*;
use serde_json::Value;
use simmer_data::{Conversation, Format, format};
use simmer_eval::report::Contamination;
use simmer_eval::{Asked, Question};
use simmer_lint::EvaluationSet;
use simmer_train::{COUNTS_FILE, Counts};

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
        let rows = || -> Result<Vec<Conversation>, String> {
            let text =
                simmer_files::read_text(&counts, LARGEST).map_err(|error| error.to_string())?;
            let counts: Counts = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let mut rows = Vec::new();
            for source in &counts.train {
                let of = serde_json::from_value::<Format>(source.format.as_str().into()).ok();
                let read = format::read(Path::new(&source.path), of);
                rows.extend(read.map_err(|error| error.to_string())?);
            }
            Ok(rows)
        };
        match rows() {
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
