//! `simmer adapter diff`: compares two adapters.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use simmer_checkpoint::hub::What;
use simmer_model::adapter::difference::{AdapterDifference, Subspaces, difference};
use simmer_model::adapter::inspect::weights_path;

use super::{sha256, short, table};
use crate::failure::Failure;
use crate::{hub, output, progress};

/// Compare two adapters of one base model: configurations, and the updates s·B·A of each module
///
/// `distance` is the norm of the difference between two updates, divided by the larger of their norms. `overlap` is the
/// mean squared cosine of the principal angles between their column spaces (out) and between their row spaces (in). The
/// ranks may differ.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer adapter diff runs/a/adapter runs/b/adapter")]
pub(super) struct Diff {
    /// First adapter: a folder, a weights file, or a name on the Hugging Face Hub
    #[arg(value_name = "A")]
    first: PathBuf,
    /// Second adapter
    #[arg(value_name = "B")]
    second: PathBuf,
    /// Print the comparison as one line of JSON, with all principal angles
    #[arg(long)]
    json: bool,
}

/// The weights files of both adapters.
struct Files {
    hashes: [String; 2],
}

impl Diff {
    pub(super) fn run(self) -> Result<(), Failure> {
        let [first, second] =
            [&self.first, &self.second].map(|path| hub::locate(path, What::Adapter));
        let [first, second] = [first?, second?];
        let bar = progress::spinner("comparing");
        let found = difference(&first, &second)?;
        bar.finish_and_clear();
        let hash = |path: &Path| sha256(&weights_path(path)?);
        let files = Files {
            hashes: [hash(&first)?, hash(&second)?],
        };
        if self.json {
            return output::json(&json!({
                "identical": files.are_equal() && found.config.is_empty(),
                "sha256": files.hashes,
                "difference": found,
            }));
        }
        output::text(text(&files, &found).trim_end_matches('\n'))
    }
}

impl Files {
    fn are_equal(&self) -> bool {
        self.hashes[0] == self.hashes[1]
    }

    fn verdict(&self, found: &AdapterDifference) -> String {
        let [first, second] = &self.hashes;
        let settings = if found.config.is_empty() {
            "same configuration"
        } else {
            "different configuration"
        };
        if self.are_equal() {
            let identical = if found.config.is_empty() {
                "identical: "
            } else {
                ""
            };
            format!("{identical}same weights file (sha256 {first}), {settings}")
        } else if found.same_tensors {
            format!("same tensors in different files (sha256 {first} and {second}), {settings}")
        } else {
            format!("sha256 {first}\n       {second}")
        }
    }
}

fn text(files: &Files, found: &AdapterDifference) -> String {
    let mut text = files.verdict(found) + "\n";
    if !found.config.is_empty() {
        text.push_str("\nconfiguration:\n");
    }
    for key in &found.config {
        let _ = writeln!(text, "  {}: {} and {}", key.key, key.first, key.second);
    }
    for (names, which) in [(&found.only_first, "A"), (&found.only_second, "B")] {
        if !names.is_empty() {
            let _ = writeln!(text, "\nonly in {which} ({}):", names.len());
            for name in names {
                let _ = writeln!(text, "  {name}");
            }
        }
    }
    if files.are_equal() && found.config.is_empty() {
        return text;
    }
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    if !found.modules.is_empty() {
        let _ = write!(text, "\n{}", table(&modules(found)));
    }
    if !found.whole.is_empty() {
        let mut rows = vec![vec!["tensor".to_owned(), "distance".to_owned()]];
        let differ = found.whole.iter();
        rows.extend(differ.map(|tensor| vec![tensor.key.clone(), shown(tensor.distance)]));
        let _ = write!(text, "\n{}", table(&rows));
    }
    let _ = writeln!(
        text,
        "\nall updates: distance {}, cosine {}",
        shown(found.distance),
        shown(found.cosine)
    );
    text
}

fn modules(found: &AdapterDifference) -> Vec<Vec<String>> {
    let head = [
        "module",
        "ranks",
        "norm A",
        "norm B",
        "distance",
        "cosine",
        "overlap out",
        "in",
        "angles out",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    let overlap = |spaces: &Option<Subspaces>| shown(spaces.as_ref().map(|spaces| spaces.overlap));
    for module in &found.modules {
        let angles = module
            .outputs
            .as_ref()
            .map_or(&[][..], |spaces| &spaces.angles);
        let angles = match angles {
            [] => "-".to_owned(),
            [one] => format!("{one:.1}°"),
            [least, .., most] => format!("{least:.1}° to {most:.1}°"),
        };
        rows.push(vec![
            module.module.clone(),
            module.ranks.map(|rank| rank.to_string()).join(", "),
            short(module.norms[0]),
            short(module.norms[1]),
            shown(module.distance),
            shown(module.cosine),
            overlap(&module.outputs),
            overlap(&module.inputs),
            angles,
        ]);
    }
    rows
}
