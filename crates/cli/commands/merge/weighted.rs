//! Adapters with weights on the command line.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use simmer_checkpoint::Pretrained;
use simmer_checkpoint::hub::What;
use simmer_model::adapter::QuantisedBase;
use simmer_model::adapter::combine::WeightedAdapter;
use simmer_model::adapter::peft::AdapterFolder;
use simmer_model::export::tokenizer_files;

use crate::failure::Failure;
use crate::hub;
use crate::output::note;

/// Adapters with weights.
#[derive(Debug, Args)]
pub(in crate::commands) struct AdapterArgs {
    /// Adapter in PEFT's layout: a folder, or a name on the Hugging Face Hub; repeatable
    #[arg(long, value_name = "ADAPTER", required = true)]
    adapter: Vec<PathBuf>,
    /// Weight of each adapter, in the same order; may be negative. Required for several adapters. Default for one: 1
    #[arg(
        long,
        value_name = "NUMBER",
        allow_hyphen_values = true,
        value_delimiter = ','
    )]
    weight: Vec<f64>,
}

impl AdapterArgs {
    /// The adapters on this machine.
    pub(in crate::commands) fn locate(&self) -> Result<Vec<WeightedAdapter>, Failure> {
        let weights = self.weights()?;
        let located = self.adapter.iter().zip(weights).map(|(adapter, weight)| {
            let folder = hub::locate(adapter, What::Adapter)?;
            Ok(WeightedAdapter { folder, weight })
        });
        located.collect()
    }

    fn weights(&self) -> Result<Vec<f64>, Failure> {
        let (adapters, weights) = (self.adapter.len(), self.weight.len());
        if adapters == 1 && weights == 0 {
            return Ok(vec![1.0]);
        }
        if adapters != weights {
            let error = format!(
                "--weight: expected one for each --adapter, {adapters} in all, found {weights}"
            );
            return Err(Failure::new(error).with_hint(
                "weights of 1 add the adapters, weights that sum to 1 average them; one below 0 subtracts",
            ));
        }
        Ok(self.weight.clone())
    }
}

/// The adapters, opened.
pub(super) fn opened(adapters: &[WeightedAdapter]) -> Result<Vec<AdapterFolder>, Failure> {
    let opened = adapters.iter();
    let opened = opened.map(|adapter| Ok(AdapterFolder::open(&adapter.folder)?));
    opened.collect()
}

/// The quantised base model that the adapters were trained on.
pub(super) fn trained_on(folders: &[AdapterFolder]) -> Result<Option<&QuantisedBase>, Failure> {
    let base = |folder: &'_ AdapterFolder| -> Option<QuantisedBase> {
        folder.trained_with().and_then(|with| with.base.clone())
    };
    let Some((first, others)) = folders.split_first() else {
        return Ok(None);
    };
    if let Some(other) = others.iter().find(|other| base(other) != base(first)) {
        let kind = |folder| {
            base(folder).map_or_else(
                || "weights that were not quantised".to_owned(),
                |base| base.kind,
            )
        };
        return Err(Failure::new(format!(
            "{} was trained on {}, {} on {}: a merge has one of them",
            first.folder().display(),
            kind(first),
            other.folder().display(),
            kind(other)
        ))
        .with_hint("merge adapters that were trained on the same weights"));
    }
    Ok(first.trained_with().and_then(|with| with.base.as_ref()))
}

/// The adapter whose tokenizer the merged model gets: the one that adds tokens, or the first that has a tokenizer.
pub(super) fn with_tokenizer<'a>(
    base: &Path,
    base_tokens: Option<usize>,
    folders: &'a [AdapterFolder],
) -> Result<&'a AdapterFolder, Failure> {
    let config = Pretrained::open(base)?.config;
    let adds_tokens = |folder: &&AdapterFolder| folder.adds_tokens(&config, base_tokens);
    let has_own = |folder: &&AdapterFolder| {
        folder.tokenizer_path().is_some() || folder.has_tokenizer_settings()
    };
    let chosen = folders.iter().find(adds_tokens);
    let chosen = chosen.or_else(|| folders.iter().find(has_own));
    let Some(chosen) = chosen.or(folders.first()) else {
        return Err(Failure::new("no adapter is given"));
    };
    let others = folders.iter().filter(has_own).map(AdapterFolder::folder);
    warn_of_tokenizers(chosen.folder(), others, "the merged model");
    Ok(chosen)
}

/// Says which adapters have another tokenizer than the one that is chosen.
pub(in crate::commands) fn warn_of_tokenizers<'a>(
    chosen: &Path,
    others: impl Iterator<Item = &'a Path>,
    result: &str,
) {
    for other in others {
        if let Some(file) = differing_file(chosen, other) {
            note(&format!(
                "warning: {file} of {} and of {} differ; {result} has the first",
                chosen.display(),
                other.display()
            ));
        }
    }
}

/// The first file of a tokenizer that both folders have, and that differs.
fn differing_file(one: &Path, other: &Path) -> Option<String> {
    let files = tokenizer_files(one).into_iter();
    let mut names = files.filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned()));
    names.find(|name| {
        let [one, other] = [one, other].map(|folder| fs::read(folder.join(name)));
        matches!((one, other), (Ok(one), Ok(other)) if one != other)
    })
}
