//! `checkpoints/step-000400/`: a training checkpoint, everything that a run needs to resume bit for bit.
//!
//! ```text
//! trainable.safetensors   the trained tensors
//! optimizer.safetensors   the optimizer's moments: mean.NAME, square.NAME
//! start.safetensors       what the adapter started with, if that is a part of the weights (PiSSA, OLoRA)
//! adapter/                the same weights in PEFT's layout (method.lora)
//! state.json              the training state, and checksums of the files above
//! ```
//!
//! A checkpoint is written to a temporary folder, synced and renamed. If it is damaged nevertheless (a failing disk, a
//! truncated copy), its checksums show it, and the checkpoint before it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use simmer_checkpoint::{MAX_TEXT_BYTES, PT_METADATA, SafetensorsFile};
use simmer_files::digest::{sha256, sha256_of_file};
use simmer_files::size::counted;
use simmer_files::{Existing, StagedFolder};
use simmer_model::Parameters;
use simmer_model::tensor_file::{ReadData, write_safetensors};

use crate::error::TrainError;
use crate::folder::{CHECKPOINTS_FOLDER, RunFolder};
use crate::optimizer::Moments;
use crate::training_state::TrainingState;

const TRAINABLE_FILE: &str = "trainable.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const START_FILE: &str = "start.safetensors";
const STATE_FILE: &str = "state.json";

/// The content of `state.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    state: TrainingState,
    /// SHA-256 of the run's resolved recipe.
    recipe: String,
    /// SHA-256 of the checkpoint's other files.
    files: BTreeMap<String, String>,
    /// SHA-256 of all of the above, as JSON.
    sha256: String,
}

/// A training checkpoint in memory.
#[derive(Debug)]
pub(crate) struct TrainingCheckpoint {
    pub(crate) state: TrainingState,
    /// SHA-256 of the run's resolved recipe.
    pub(crate) recipe: String,
    pub(crate) parameters: Parameters,
    pub(crate) moments: Moments,
    /// What the adapter started with, if that is a part of the weights.
    pub(crate) starts: Parameters,
}

/// The training checkpoints of a run.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints {
    folder: PathBuf,
}

/// Writes more files into the folder of a checkpoint.
pub(crate) type WriteMore<'a> = &'a dyn Fn(&Path) -> Result<(), TrainError>;

impl Checkpoints {
    /// The checkpoints in a run's folder.
    pub(crate) fn of(run: &RunFolder) -> Self {
        Self {
            folder: run.path().join(CHECKPOINTS_FOLDER),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the checkpoint after a step is.
    pub(crate) fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:06}"))
    }

    /// The steps that have a checkpoint, the last first.
    pub(crate) fn steps(&self) -> Result<Vec<u64>, TrainError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(TrainError::io(&self.folder, "read")(error)),
        };
        let mut steps = Vec::new();
        for entry in entries {
            let name = entry
                .map_err(TrainError::io(&self.folder, "read"))?
                .file_name();
            let step = name.to_str().and_then(|name| name.strip_prefix("step-"));
            steps.extend(step.and_then(|step| step.parse::<u64>().ok()));
        }
        steps.sort_unstable();
        steps.reverse();
        Ok(steps)
    }

    /// Writes a checkpoint. An earlier one of the same step stays until the new one is complete.
    ///
    /// # Errors
    /// Those of the operating system, such as a full disk; no part of the checkpoint is left then. A weight that is not
    /// finite.
    pub(crate) fn save(
        &self,
        checkpoint: &TrainingCheckpoint,
        shapes: &BTreeMap<String, Vec<usize>>,
        more: WriteMore<'_>,
    ) -> Result<PathBuf, TrainError> {
        let path = self.path(checkpoint.state.step);
        let staged = StagedFolder::new(&path, Existing::Replace)?;
        let trainable = on_host(&checkpoint.parameters, "", shapes);
        self.check_finite(checkpoint.state.step, &trainable)?;
        let mut moments = on_host(&checkpoint.moments.mean, "mean.", shapes);
        moments.extend(on_host(&checkpoint.moments.square, "square.", shapes));
        write_safetensors(staged.path().join(TRAINABLE_FILE), &trainable, PT_METADATA)?;
        write_safetensors(staged.path().join(OPTIMIZER_FILE), &moments, PT_METADATA)?;
        if !checkpoint.starts.is_empty() {
            let starts = on_host(&checkpoint.starts, "", &BTreeMap::new());
            write_safetensors(staged.path().join(START_FILE), &starts, PT_METADATA)?;
        }
        more(staged.path())?;

        let mut file = StateFile {
            state: checkpoint.state.clone(),
            recipe: checkpoint.recipe.clone(),
            files: checksums(staged.path(), "")?,
            sha256: String::new(),
        };
        file.sha256 = file.own_sha256();
        let json = serde_json::to_string_pretty(&file)
            .map_err(|error| TrainError::io(&path, "write")(error.into()))?;
        staged.write(STATE_FILE, json.as_bytes())?;
        staged.commit()?;
        Ok(path)
    }

    /// Refuses weights that are not finite: their checkpoint must not displace good ones.
    fn check_finite(
        &self,
        step: u64,
        tensors: &BTreeMap<String, TensorData>,
    ) -> Result<(), TrainError> {
        for (name, data) in tensors {
            if let Some(value) = data.iter::<f64>().find(|value| !value.is_finite()) {
                let what = format!("an element of {name} is {value}");
                return Err(self.diverged(step, step, what)?);
            }
        }
        Ok(())
    }

    /// The error of a step that diverged. The weights that diverged are those after step `made`, so only a checkpoint
    /// before it is good.
    pub(crate) fn diverged(
        &self,
        step: u64,
        made: u64,
        what: String,
    ) -> Result<TrainError, TrainError> {
        let good = self.steps()?.into_iter().find(|earlier| *earlier < made);
        let checkpoint = good.map(|step| self.path(step));
        Ok(TrainError::Diverged {
            step,
            what,
            checkpoint,
        })
    }

    /// The last checkpoint that is intact, and the problems of later ones. Those are renamed to `damaged-step-...`, so
    /// that they neither count as the last one nor displace intact ones.
    ///
    /// # Errors
    /// All checkpoints are damaged; nothing is renamed then.
    pub(crate) fn last(
        &self,
        device: &Device,
    ) -> Result<(Option<TrainingCheckpoint>, Vec<String>), TrainError> {
        let mut damaged = Vec::new();
        let mut problems = Vec::new();
        let steps = self.steps()?;
        for step in &steps {
            match self.load(*step, device) {
                Ok(checkpoint) => {
                    damaged
                        .into_iter()
                        .try_for_each(|step| self.rename_damaged(step))?;
                    return Ok((Some(checkpoint), problems));
                }
                Err(problem) => {
                    damaged.push(*step);
                    problems.push(format!("{}: {problem}", self.path(*step).display()));
                }
            }
        }
        if steps.is_empty() {
            return Ok((None, problems));
        }
        Err(TrainError::NoCheckpoint {
            folder: self.folder.clone(),
            problems,
        })
    }

    fn rename_damaged(&self, step: u64) -> Result<(), TrainError> {
        let path = self.path(step);
        let damaged = self.folder.join(format!("damaged-step-{step:06}"));
        let removed = if damaged.exists() {
            fs::remove_dir_all(&damaged)
        } else {
            Ok(())
        };
        removed
            .and_then(|()| fs::rename(&path, &damaged))
            .map_err(TrainError::io(&path, "rename"))
    }

    /// Reads the checkpoint after a step.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub(crate) fn load(&self, step: u64, device: &Device) -> Result<TrainingCheckpoint, String> {
        let folder = self.path(step);
        let text_of = |error: &dyn std::error::Error| error.to_string();
        let text = simmer_files::read(&folder.join(STATE_FILE), MAX_TEXT_BYTES)
            .map_err(|error| format!("cannot read {STATE_FILE}: {error}"))?;
        let file: StateFile = serde_json::from_slice(&text)
            .map_err(|error| format!("{STATE_FILE} is damaged: {error}"))?;
        if file.own_sha256() != file.sha256 || file.state.step != step {
            return Err(format!(
                "{STATE_FILE} is damaged: its checksum does not match its content"
            ));
        }
        for (name, sha256) in &file.files {
            match sha256_of_file(&folder.join(name)) {
                Ok(found) if found == *sha256 => {}
                Ok(_) => return Err(format!("{name} is damaged: its SHA-256 is not {sha256}")),
                Err(error) => return Err(format!("cannot read {name}: {error}")),
            }
        }
        let open = |name: &str| SafetensorsFile::open(folder.join(name)).map_err(|e| text_of(&e));
        let trainable = open(TRAINABLE_FILE)?;
        let moments = open(OPTIMIZER_FILE)?;
        let starts = if file.files.contains_key(START_FILE) {
            Some(open(START_FILE)?)
        } else {
            None
        };
        let read = |file: &SafetensorsFile, prefix: &str| {
            from_file(file, prefix, device).map_err(|error| text_of(&error))
        };
        Ok(TrainingCheckpoint {
            parameters: read(&trainable, "")?,
            starts: match starts {
                Some(file) => read(&file, "")?,
                None => Parameters::new(),
            },
            moments: Moments {
                updates: file.state.updates(),
                mean: read(&moments, "mean.")?,
                square: read(&moments, "square.")?,
            },
            state: file.state,
            recipe: file.recipe,
        })
    }

    /// Removes all checkpoints but the last `keep` and the one after step `best`.
    pub(crate) fn retain(&self, keep: usize, best: Option<u64>) -> Result<(), TrainError> {
        for step in self.steps()?.into_iter().skip(keep) {
            if Some(step) == best {
                continue;
            }
            let path = self.path(step);
            // Renamed first, so that a kill during the removal leaves no partial checkpoint.
            let doomed = self.folder.join(format!(".step-{step:06}.tmp-removed"));
            fs::rename(&path, &doomed)
                .and_then(|()| fs::remove_dir_all(&doomed))
                .map_err(TrainError::io(&path, "remove"))?;
        }
        Ok(())
    }
}

impl TrainingCheckpoint {
    /// Checks that its tensors have the sizes of those that are trained now; accepted changes of the recipe may alter
    /// those.
    ///
    /// # Errors
    /// Every tensor with another size.
    pub(crate) fn check_sizes(
        &self,
        shapes: &BTreeMap<String, Vec<usize>>,
        of: &Checkpoints,
    ) -> Result<(), TrainError> {
        let size = |name: &String| {
            shapes
                .get(name)
                .map(|shape| shape.iter().product::<usize>())
        };
        let held = |name: &String| self.parameters.get(name).map(|value| value.dims()[0]);
        let names: BTreeSet<&String> = shapes.keys().chain(self.parameters.keys()).collect();
        let shown = |count: Option<usize>| {
            count.map_or_else(|| "none".to_owned(), |count| counted(count, "element"))
        };
        let wrong = names.into_iter().filter(|name| size(name) != held(name));
        let problems: Vec<String> = wrong
            .map(|name| {
                let [held, size] = [held(name), size(name)].map(shown);
                format!("{name}: {held} in the checkpoint, {size} in the model")
            })
            .collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(TrainError::NoCheckpoint {
            folder: of.path(self.state.step),
            problems,
        })
    }

    /// Checks that it has what the adapter started with: a start that is computed anew may differ in its last bits.
    ///
    /// # Errors
    /// Every start that is missing or has another size.
    pub(crate) fn check_starts(
        &self,
        starts: &Parameters,
        of: &Checkpoints,
    ) -> Result<(), TrainError> {
        let sizes = starts.iter().map(|(name, start)| (name, start.dims()[0]));
        let wrong = sizes.filter_map(|(name, size)| {
            let held = self.starts.get(name).map(|start| start.dims()[0]);
            match held {
                Some(held) if held == size => None,
                None => Some(format!(
                    "{name}: missing in {START_FILE}; the adapter is what was trained since its start, which cannot be told \
                     without it"
                )),
                Some(held) => Some(format!(
                    "{name}: {} in {START_FILE}, {} in the model",
                    counted(held, "element"),
                    counted(size, "element")
                )),
            }
        });
        let without = self
            .starts
            .keys()
            .filter(|name| !starts.contains_key(*name));
        let without =
            without.map(|name| format!("{name}: in {START_FILE}, but the model has no start"));
        let problems: Vec<String> = wrong.chain(without).collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(TrainError::NoCheckpoint {
            folder: of.path(self.state.step),
            problems,
        })
    }
}

impl StateFile {
    fn own_sha256(&self) -> String {
        let content = serde_json::json!([self.state, self.recipe, self.files]);
        sha256(content.to_string().as_bytes())
    }
}

/// The SHA-256 of every file below a folder, by path.
fn checksums(folder: &Path, below: &str) -> Result<BTreeMap<String, String>, TrainError> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(TrainError::io(folder, "read"))? {
        let path = entry.map_err(TrainError::io(folder, "read"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            found.extend(checksums(&path, &format!("{below}{name}/"))?);
        } else {
            let sha256 = sha256_of_file(&path).map_err(TrainError::io(&path, "read"))?;
            found.insert(format!("{below}{name}"), sha256);
        }
    }
    Ok(found)
}

/// Tensors in their own shapes, with a prefix on their names, ready to be written.
fn on_host(
    tensors: &Parameters,
    prefix: &str,
    shapes: &BTreeMap<String, Vec<usize>>,
) -> BTreeMap<String, TensorData> {
    let named = tensors.iter().map(|(name, value)| {
        let values: Vec<f32> = value.to_data().iter::<f32>().collect();
        let size = values.len();
        let shape = shapes.get(name).cloned().unwrap_or_else(|| vec![size]);
        (format!("{prefix}{name}"), TensorData::new(values, shape))
    });
    named.collect()
}

/// The tensors whose names have a prefix, flat, on a device.
fn from_file(
    file: &SafetensorsFile,
    prefix: &str,
    device: &Device,
) -> Result<Parameters, simmer_checkpoint::CheckpointError> {
    let mut found = Parameters::new();
    for key in file.names() {
        let Some(name) = key.strip_prefix(prefix) else {
            continue;
        };
        // A copy: the file may be removed while the run continues.
        let values: Vec<f32> = file.data(key)?.iter::<f32>().collect();
        let data = TensorData::new(values, [file.info(key)?.shape.iter().product::<usize>()]);
        found.insert(name.to_owned(), Tensor::from_data(data, device));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training_state::Best;
    use proptest::prelude::*;

    fn checkpoint(step: u64, loss: f64) -> TrainingCheckpoint {
        let tensor = |values: &[f32]| Tensor::from_data(values, &Device::flex());
        let named = |values: &[f32]| Parameters::from([("w".to_owned(), tensor(values))]);
        TrainingCheckpoint {
            state: TrainingState {
                step,
                best: Some(Best { step, loss }),
                ..TrainingState::default()
            },
            recipe: "abc".to_owned(),
            parameters: named(&[1.0, -2.5]),
            starts: Parameters::new(),
            moments: Moments {
                updates: step,
                mean: named(&[0.1, f32::MIN_POSITIVE]),
                square: named(&[1e-12, 3.0]),
            },
        }
    }

    fn in_folder(folder: &Path) -> Checkpoints {
        Checkpoints {
            folder: folder.to_owned(),
        }
    }

    fn save(
        checkpoints: &Checkpoints,
        checkpoint: &TrainingCheckpoint,
    ) -> Result<PathBuf, TrainError> {
        let shapes = [("w".to_owned(), vec![1, 2])].into();
        checkpoints.save(checkpoint, &shapes, &|_| Ok(()))
    }

    fn values(parameters: &Parameters) -> Vec<f32> {
        parameters["w"].to_data().try_to_vec().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_loaded_is_what_was_saved(step in 1_u64..2_000_000, loss in 0.0_f64..20.0) {
            let folder = tempfile::tempdir().unwrap();
            let checkpoints = in_folder(&folder.path().join("checkpoints"));
            let saved = checkpoint(step, loss);
            save(&checkpoints, &saved).unwrap();
            let (loaded, problems) = checkpoints.last(&Device::flex()).unwrap();
            let loaded = loaded.unwrap();
            prop_assert!(problems.is_empty());
            prop_assert_eq!(&loaded.state, &saved.state);
            prop_assert_eq!(values(&loaded.parameters), values(&saved.parameters));
            prop_assert_eq!(values(&loaded.moments.mean), values(&saved.moments.mean));
            prop_assert_eq!(values(&loaded.moments.square), values(&saved.moments.square));
            prop_assert_eq!(loaded.moments.updates, step);
        }
    }

    #[test]
    fn a_weight_that_overflowed_is_not_saved() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = in_folder(folder.path());
        save(&checkpoints, &checkpoint(1, 2.0)).unwrap();
        let mut broken = checkpoint(2, 2.0);
        let value = Tensor::from_data([1.0, f32::INFINITY].as_slice(), &Device::flex());
        broken.parameters.insert("w".to_owned(), value);
        let error = save(&checkpoints, &broken).unwrap_err().to_string();
        assert!(
            error.starts_with("step 2: an element of w is inf; the last good"),
            "{error}"
        );
        assert!(error.ends_with("step-000001"), "{error}");
        assert_eq!(checkpoints.steps().unwrap(), [1]);
    }

    #[test]
    fn damaged_checkpoints_do_not_push_whole_ones_out() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = in_folder(folder.path());
        for step in [2, 4, 6] {
            save(&checkpoints, &checkpoint(step, 2.0)).unwrap();
        }
        for step in [4, 6] {
            fs::write(checkpoints.path(step).join(TRAINABLE_FILE), "").unwrap();
        }
        let (loaded, problems) = checkpoints.last(&Device::flex()).unwrap();
        assert_eq!((loaded.unwrap().state.step, problems.len()), (2, 2));
        checkpoints.retain(1, None).unwrap();
        assert_eq!(checkpoints.steps().unwrap(), [2]);
        fs::write(checkpoints.path(2).join(TRAINABLE_FILE), "").unwrap();
        checkpoints.last(&Device::flex()).unwrap_err();
        assert_eq!(checkpoints.steps().unwrap(), [2]);
    }

    #[test]
    fn retention_keeps_the_last_and_the_best() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = in_folder(folder.path());
        for step in [2, 4, 6, 1_000_000] {
            save(&checkpoints, &checkpoint(step, 2.0)).unwrap();
        }
        checkpoints.retain(2, Some(2)).unwrap();
        assert_eq!(checkpoints.steps().unwrap(), [1_000_000, 6, 2]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
