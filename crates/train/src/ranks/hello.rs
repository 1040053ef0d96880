//! What ranks tell each other at the start: they must run one program on one recipe and base model.

use std::collections::BTreeMap;

use burn::tensor::DType;
use serde::{Deserialize, Serialize};
use simmer_files::digest::sha256;
use simmer_model::device::Devices;

use super::place::{self, Place};
use super::{Ranks, RanksError};
use crate::error::TrainError;
use crate::manifest::{Fingerprint, Manifest};
use crate::program;
use crate::recipe::Recipe;

/// What a rank is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Version and commit of the program.
    program: String,
    /// SHA-256 of the recipe, without its device.
    recipe: String,
    /// SHA-256 of the base model's files, by name.
    base: BTreeMap<String, String>,
    /// Parameters that are trained.
    parameters: usize,
    /// The dtype that its layers compute in.
    compute: String,
    /// Where it computes.
    place: Place,
}

impl Hello {
    /// Of a recipe as it was read, before a run fills in what it leaves open.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub(crate) fn new(
        recipe: &Recipe,
        base: &BTreeMap<String, Fingerprint>,
        parameters: usize,
        compute: DType,
    ) -> Self {
        let place = Place::of(&recipe.device);
        let mut recipe = recipe.clone();
        // ranks may compute on different devices
        recipe.device = Devices::default();
        let base = base.iter();
        Self {
            program: format!("{} {}", program::VERSION, program::COMMIT),
            recipe: sha256(recipe.resolved().as_bytes()),
            base: base
                .map(|(name, print)| (name.clone(), print.sha256.clone()))
                .collect(),
            parameters,
            compute: compute.name().to_owned(),
            place,
        }
    }

    /// The same, with the base model's files read.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub(crate) fn read(
        recipe: &Recipe,
        parameters: usize,
        compute: DType,
    ) -> Result<Self, TrainError> {
        let base = Manifest::base_of(recipe, None)?;
        Ok(Self::new(recipe, &base, parameters, compute))
    }

    /// What differs from that of another rank.
    fn check(&self, rank: usize, theirs: &Self) -> Result<(), RanksError> {
        let differs = |what, ours: String, theirs: String| {
            Err(RanksError::Differs {
                rank,
                what,
                ours,
                theirs,
            })
        };
        if self.program != theirs.program {
            return differs("program", self.program.clone(), theirs.program.clone());
        }
        if self.recipe != theirs.recipe {
            let [ours, theirs] =
                [&self.recipe, &theirs.recipe].map(|hash| format!("sha256 {hash}"));
            return differs("recipe", ours, theirs);
        }
        if self.base != theirs.base {
            let names = self.base.keys().chain(theirs.base.keys());
            let name = names
                .clone()
                .find(|name| self.base.get(*name) != theirs.base.get(*name));
            let of = |base: &BTreeMap<String, String>| {
                let name = name.map_or("", String::as_str);
                let hash = base.get(name).map_or("missing", String::as_str);
                format!("{name} {hash}")
            };
            return differs("base model", of(&self.base), of(&theirs.base));
        }
        if self.parameters != theirs.parameters {
            let [ours, theirs] =
                [self.parameters, theirs.parameters].map(|count| count.to_string());
            return differs("number of trained parameters", ours, theirs);
        }
        if self.compute != theirs.compute {
            return Err(RanksError::OtherCompute {
                rank,
                ours: self.compute.clone(),
                theirs: theirs.compute.clone(),
            });
        }
        Ok(())
    }
}

/// What a rank tells rank 0 when its model is loaded, or why it cannot be.
pub(crate) fn tell(ranks: &dyn Ranks, hello: Result<&Hello, String>) -> Result<(), RanksError> {
    // texts and numbers always have a text
    ranks.send(0, serde_json::to_vec(&hello).unwrap_or_default())
}

/// Waits for all other ranks; where each rank computes.
///
/// # Errors
/// A rank that has failed, or was started with something else or on the GPU of another one.
pub(crate) fn hear(ranks: &dyn Ranks, ours: &Hello) -> Result<Vec<Place>, RanksError> {
    let mut places = vec![ours.place.clone()];
    for rank in 1..ranks.size() {
        let bytes = ranks.receive(rank)?;
        let theirs: Result<Hello, String> =
            serde_json::from_slice(&bytes).map_err(|error| RanksError::Message {
                rank,
                why: error.to_string(),
            })?;
        match theirs {
            Ok(theirs) => {
                ours.check(rank, &theirs)?;
                places.push(theirs.place);
            }
            Err(why) => return Err(RanksError::Failed { rank, why }),
        }
    }
    place::check(&places)?;
    Ok(places)
}

#[cfg(test)]
mod tests {
    use simmer_hint::Hint;

    use super::*;
    use crate::ranks::Threads;

    fn hello() -> Hello {
        Hello {
            program: "0.1.0 abc".to_owned(),
            recipe: "r".to_owned(),
            base: BTreeMap::from([("config.json".to_owned(), "c".to_owned())]),
            parameters: 7,
            compute: "f32".to_owned(),
            place: Place::of(&Devices::One("cpu".to_owned())),
        }
    }

    #[test]
    fn ranks_that_disagree_are_refused() {
        let said = |theirs: Result<Hello, String>| {
            let ranks = Threads::of(2);
            tell(&ranks[1], theirs.as_ref().map_err(String::clone)).unwrap();
            let heard = hear(&ranks[0], &hello());
            heard.map_err(|error| match error {
                RanksError::OtherCompute { .. } => {
                    format!("{error}\nhint: {}", error.hint().unwrap())
                }
                _ => error.to_string(),
            })
        };
        assert_eq!(said(Ok(hello())).unwrap().len(), 2);
        let with = |change: fn(&mut Hello)| {
            let mut theirs = hello();
            change(&mut theirs);
            said(Ok(theirs)).unwrap_err()
        };
        let all = [
            with(|theirs| theirs.program = "0.2.0 abc".to_owned()),
            with(|theirs| theirs.recipe = "x".to_owned()),
            with(|theirs| theirs.base.clear()),
            with(|theirs| theirs.parameters = 8),
            with(|theirs| theirs.compute = "bf16".to_owned()),
            said(Err("model.safetensors: no such file".to_owned())).unwrap_err(),
        ];
        insta::assert_snapshot!(all.join("\n"), @r"
        rank 1 has another program: 0.2.0 abc, rank 0 has 0.1.0 abc
        rank 1 has another recipe: sha256 x, rank 0 has sha256 r
        rank 1 has another base model: config.json missing, rank 0 has config.json c
        rank 1 has another number of trained parameters: 8, rank 0 has 7
        rank 1 has another dtype of activations: bf16, rank 0 has f32
        hint: set base.compute in the recipe, so that all ranks compute in one dtype
        rank 1: model.safetensors: no such file
        ");
    }
}
