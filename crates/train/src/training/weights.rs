//! Writes the weights of a run: training checkpoints and the result.

use std::path::{Path, PathBuf};

use simmer_checkpoint::Dtype;
use simmer_files::Existing;
use simmer_model::adapter::{self, Card, QuantisedBase};
use simmer_model::base::Precision;
use simmer_model::export;

use super::Training;
use crate::card::card;
use crate::config::Weights;
use crate::error::TrainError;
use crate::recipe::Method;
use crate::training_checkpoint::TrainingCheckpoint;

impl Training<'_> {
    /// Writes a checkpoint.
    pub(super) fn save(&mut self) -> Result<(), TrainError> {
        self.metrics.sync()?;
        let model = self.trainer.model();
        let checkpoint = TrainingCheckpoint {
            state: self.state.clone(),
            recipe: self.recipe_sha256.clone(),
            parameters: model.trainable(),
            moments: self.trainer.optimizer().state(),
            starts: model.starts(),
        };
        let card = self.card()?;
        let more = |folder: &Path| match &self.adapter {
            None => Ok(()),
            Some(config) => {
                let out = folder.join("adapter");
                adapter::save(model, config, &out, &self.beside, &card, Existing::Refuse)?;
                Ok(())
            }
        };
        if let Some(files) = &self.files {
            // weights trained on a base model whose files changed meanwhile are not kept
            files.check_unchanged()?;
        }
        let shapes = model.trainable_shapes();
        let path = self.checkpoints.save(&checkpoint, &shapes, &more)?;
        self.saved_at = Some(self.state.step);
        self.observer.on_checkpoint(self.state.step, &path);
        Ok(())
    }

    /// Removes the checkpoints beyond `train.keep`. Called only after a step has shown that the weights of the last
    /// checkpoint work; until then, the one before it is the last good one.
    pub(super) fn prune(&self) -> Result<(), TrainError> {
        let best = self.state.best.map(|best| best.step);
        self.checkpoints.retain(self.config.keep, best)
    }

    /// The README of the adapter, after the steps so far.
    fn card(&self) -> Result<Card, TrainError> {
        let losses = self.metrics.losses(self.state.step)?;
        Ok(card(
            self.recipe,
            &self.templates,
            QuantisedBase::of(&self.recipe.base, self.files.as_ref()),
            &self.manifest,
            &self.state,
            losses,
        ))
    }

    /// Writes the adapter, or the whole model for `method.full`.
    pub(super) fn write_weights(self) -> Result<PathBuf, TrainError> {
        let card = self.card()?;
        let mut model = self.trainer.into_model();
        let best = self
            .state
            .best
            .filter(|_| self.config.weights == Weights::Best);
        if let Some(best) = best.filter(|best| best.step != self.state.step) {
            let loaded = self.checkpoints.load(best.step, &self.device);
            let loaded = loaded.map_err(|problem| TrainError::NoCheckpoint {
                folder: self.checkpoints.folder().to_owned(),
                problems: vec![format!(
                    "{}: {problem}",
                    self.checkpoints.path(best.step).display()
                )],
            })?;
            // its start is that of the model
            model = model.with_trainable(&loaded.parameters);
        }
        match (&self.recipe.method, &self.adapter) {
            (Method::Full(full), _) => self.folder.replace("model", |folder| {
                Ok(export::save_model(
                    &model,
                    folder,
                    dtype(full.precision),
                    &self.beside,
                )?)
            }),
            (_, Some(config)) => {
                let out = self.folder.path().join("adapter");
                let limits =
                    adapter::save(&model, config, &out, &self.beside, &card, Existing::Replace)?;
                let merged = match config.kind.cannot_merge {
                    None => "; merged into its base model, it does",
                    Some(_) => "",
                };
                for limit in limits {
                    self.observer.on_notice(&format!("{limit}{merged}"));
                }
                Ok(out)
            }
            (_, None) => unreachable!("every other method attaches an adapter"),
        }
    }
}

fn dtype(precision: Precision) -> Dtype {
    match precision {
        Precision::F32 => Dtype::F32,
        Precision::Bf16 => Dtype::BF16,
        Precision::F16 => Dtype::F16,
    }
}
