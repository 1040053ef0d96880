//! What every rank but the first does.

use std::rc::Rc;

use super::{Hello, Message, Ranks, RanksError, hello};
use crate::error::TrainError;
use crate::observer::Silent;
use crate::prepared;
use crate::ranks::Order;
use crate::recipe::Recipe;
use crate::trainer::Trainer;

/// Loads the model of a recipe, and computes what rank 0 asks for until the run has ended.
///
/// # Errors
/// As [`crate::train`] before the first step, but for the data, which only rank 0 reads; a rank that has ended.
pub fn work(recipe: &Recipe, ranks: &Rc<dyn Ranks>) -> Result<(), TrainError> {
    match load(recipe, ranks) {
        Ok((mut trainer, hello)) => {
            hello::tell(&**ranks, Ok(&hello))?;
            Ok(serve(&mut trainer, &**ranks)?)
        }
        Err(error) => {
            refuse(&**ranks, error.to_string());
            Err(error)
        }
    }
}

/// Tells rank 0 why this rank cannot take part, and waits: rank 0 reports it, and its end is that of all ranks. Returns if
/// rank 0 has ended in another way, or is silent.
pub fn refuse(ranks: &dyn Ranks, why: String) {
    if hello::tell(ranks, Err(why)).is_ok() {
        let _ = ranks.receive(0);
    }
}

fn load(recipe: &Recipe, ranks: &Rc<dyn Ranks>) -> Result<(Trainer, Hello), TrainError> {
    let model = prepared::model(&mut recipe.clone(), &mut Silent)?;
    let trainer = Trainer::new(model, &recipe.train)?.with_ranks(Rc::clone(ranks), Order::Tree)?;
    let hello = Hello::read(recipe, trainer.parameters(), trainer.model().computes_in())?;
    Ok((trainer, hello))
}

fn serve(trainer: &mut Trainer, ranks: &dyn Ranks) -> Result<(), RanksError> {
    loop {
        match Message::decode(&ranks.receive(0)?, 0)? {
            Message::Gpus(id) => trainer.connect_gpus(&id)?,
            Message::Weights => trainer.receive_trained()?,
            Message::Step(share) => trainer.compute_share(share)?,
            Message::Measure(parts) => {
                let losses = trainer.measure_parts(parts);
                let bytes = losses.iter().flat_map(|loss| loss.to_le_bytes());
                ranks.send(0, bytes.collect())?;
            }
            Message::End => {
                ranks.end();
                return Ok(());
            }
        }
    }
}
