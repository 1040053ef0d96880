//! The first steps of a run, packed as training packs them.

use simmer_data::{Cursor, Dataset, Example, MicroBatch, pack};

use crate::error::TrainError;
use crate::recipe::Recipe;

/// Calls `each` with the micro-batches of the first steps, `most` of them if the run has so many, and returns their number. The
/// rows must be in memory; `budget`: `train.micro_batch_tokens`.
///
/// # Errors
/// As [`Dataset::batch`].
pub(crate) fn first_steps(
    recipe: &Recipe,
    data: &mut Dataset,
    budget: usize,
    most: usize,
    mut each: impl FnMut(Vec<MicroBatch>),
) -> Result<usize, TrainError> {
    let steps = data.steps_per_epoch().unwrap_or(most);
    let all = recipe.train.total_steps(steps as u64);
    let steps = most.min(usize::try_from(all).unwrap_or(most));
    let mut cursor = Cursor::default();
    for _ in 0..steps {
        let (batch, examples) = data.batch(cursor)?;
        cursor = batch.next;
        let chosen: Vec<&Example> = examples.iter().collect();
        each(pack(&chosen, budget));
    }
    Ok(steps)
}
