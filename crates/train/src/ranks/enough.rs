//! Whether the steps of a run have enough micro-batches for its ranks.

use simmer_data::Dataset;

use super::RanksError;
use crate::config::MicroBatchTokens;
use crate::error::TrainError;
use crate::estimate::first_steps;
use crate::observer::Silent;
use crate::prepared::load_data;
use crate::recipe::Recipe;
use crate::vocabulary::Vocabulary;

/// Checks before ranks are started that each of them has a micro-batch of the first step. Reads the data, and no weights.
///
/// # Errors
/// Fewer micro-batches than ranks, full fine-tuning on several, and what is wrong with data, base model or tokenizer.
pub fn check(recipe: &Recipe, ranks: usize) -> Result<(), TrainError> {
    check_recipe(recipe, ranks)?;
    if ranks == 1 {
        return Ok(());
    }
    let mut recipe = recipe.clone();
    let mut base = recipe.base.open()?;
    let vocabulary = Vocabulary::open(&mut recipe, &mut base, &mut Silent)?;
    let (mut data, _) = load_data(&mut recipe, &vocabulary.tokenizer)?;
    check_first_step(&recipe, &mut data, ranks)
}

/// The same, as far as the recipe alone tells.
///
/// # Errors
/// Fewer rows in a step than ranks, and full fine-tuning on several.
pub fn check_recipe(recipe: &Recipe, ranks: usize) -> Result<(), RanksError> {
    let rows = recipe.train.batch_size;
    if ranks > 1 && recipe.method.adapter().is_none() {
        return Err(RanksError::Full { ranks });
    }
    if rows < ranks {
        return Err(RanksError::FewRows { rows, ranks });
    }
    Ok(())
}

/// The same for data that is read. Of a stream, or where the device decides how large a micro-batch is, nothing is known yet.
///
/// # Errors
/// Fewer micro-batches than ranks.
pub(crate) fn check_first_step(
    recipe: &Recipe,
    data: &mut Dataset,
    ranks: usize,
) -> Result<(), TrainError> {
    let MicroBatchTokens::Tokens(budget) = recipe.train.micro_batch_tokens else {
        return Ok(());
    };
    if ranks == 1 || data.examples().is_none() {
        return Ok(());
    }
    let mut micro_batches = ranks;
    first_steps(recipe, data, budget, 1, |step| micro_batches = step.len())?;
    if micro_batches < ranks {
        return Err(RanksError::TooMany {
            micro_batches,
            ranks,
        }
        .into());
    }
    Ok(())
}
