//! The end of a run by an error: a checkpoint of its last finished step is written first.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use simmer_files::size::readable;

use super::{End, Training};
use crate::error::TrainError;

impl Training<'_> {
    /// Runs the remaining steps. If an error ends them, a checkpoint of the last finished step is written before it is
    /// returned, unless the error is one of the weights.
    pub(super) fn steps_or_checkpoint(&mut self) -> Result<End, TrainError> {
        // A panic inside a step leaves weights, moments and state as they were after the step before, or is noticed by
        // the count of updates.
        let panic = match catch_unwind(AssertUnwindSafe(|| self.steps_to_the_end())) {
            Ok(steps) => return steps.map_err(|error| self.ended(error)),
            Err(panic) => panic,
        };
        if let Some(message) = out_of_memory(&*panic) {
            let folder = self.folder.path().to_owned();
            let expected = readable(self.expected);
            return Err(self.ended(TrainError::OutOfMemory {
                folder,
                expected,
                message,
            }));
        }
        // A fault of the program: the finished steps are kept all the same.
        if let Ok(Ok(Some(path))) = self.try_keep() {
            self.observer.on_notice(&format!(
                "the run ends after step {}; checkpoint: {}",
                self.state.step,
                path.display()
            ));
        }
        resume_unwind(panic)
    }

    /// The error of a run that ends with it, after a checkpoint of the last finished step has been written.
    fn ended(&mut self, error: TrainError) -> TrainError {
        if self.state.step == 0 || error.is_of_the_weights() {
            return error;
        }
        let not_kept = match self.try_keep() {
            Ok(Ok(_)) => None,
            Ok(Err(why)) => Some(why.to_string()),
            Err(_) => Some("the device is out of memory".to_owned()),
        };
        // A checkpoint that failed for the same reason as the run says nothing new.
        let not_kept = not_kept.filter(|why| *why != error.to_string());
        let checkpoint = self.last_saved();
        error.after(self.state.step, checkpoint, not_kept)
    }

    /// The last checkpoint on disk: its step and folder.
    pub(super) fn last_saved(&self) -> Option<(u64, PathBuf)> {
        let steps = self.checkpoints.steps().ok()?;
        let step = *steps.first()?;
        Some((step, self.checkpoints.path(step)))
    }

    /// [`Training::keep`], on a device that may be out of memory.
    fn try_keep(&mut self) -> Result<Result<Option<PathBuf>, TrainError>, Box<dyn Any + Send>> {
        catch_unwind(AssertUnwindSafe(|| self.keep()))
    }

    /// Writes a checkpoint of the last finished step, if there is none yet. `None` if no step is finished, or if an
    /// update was broken off halfway.
    fn keep(&mut self) -> Result<Option<PathBuf>, TrainError> {
        let step = self.state.step;
        let whole = self.trainer.optimizer().updates() == self.state.updates();
        if step == 0 || !whole {
            return Ok(None);
        }
        if self.saved_at != Some(step) {
            self.save()?;
        }
        Ok(Some(self.checkpoints.path(step)))
    }
}

/// The message of a device that is out of memory; libtorch's errors arrive as panics.
pub(crate) fn out_of_memory(panic: &(dyn Any + Send)) -> Option<String> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied())?;
    simmer_kernels::out_of_memory(text).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_memory_is_recognised() {
        let said = |text: &str| out_of_memory(&text.to_owned());
        let gpu = "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to allocate 2.00 GiB\")";
        assert_eq!(said(gpu).as_deref(), Some(gpu));
        assert_eq!(said("index out of bounds"), None);
        assert_eq!(out_of_memory(&7), None);
    }
}
