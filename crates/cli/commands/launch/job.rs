//! What a job file says, before it has a format.

use std::path::Path;

use super::amount::{Gpus, Memory, Time};
use crate::commands::train::quoted;
use crate::failure::{Failure, bail};

/// Where the ranks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On this machine, so many.
    Local(usize),
    Slurm,
    SkyPilot,
    Kubernetes,
}

/// A run of several ranks on a cluster.
#[derive(Debug)]
pub(super) struct Job {
    /// A name that every system takes.
    pub(super) name: String,
    /// The text of the recipe.
    pub(super) text: String,
    /// The arguments of `simmer train`: the recipe, then the rest.
    pub(super) words: Vec<String>,
    /// The folder of the run.
    pub(super) folder: String,
    /// Whether the arguments have `--resume`.
    pub(super) resumes: bool,
    /// Whether the arguments have `--out`.
    pub(super) names_folder: bool,
    pub(super) ranks: usize,
    pub(super) nodes: usize,
    /// Of each rank.
    pub(super) cores: Option<usize>,
    /// Of each node.
    pub(super) gpus: Option<Gpus>,
    /// Of each node.
    pub(super) memory: Option<Memory>,
    pub(super) time: Option<Time>,
    pub(super) partition: Option<String>,
    pub(super) image: Option<String>,
    pub(super) storage: Option<String>,
    /// Seconds for a checkpoint.
    pub(super) grace: u32,
}

impl Place {
    /// The option that names it.
    pub(super) const fn option(self) -> &'static str {
        match self {
            Self::Local(_) => "--local",
            Self::Slurm => "--slurm",
            Self::SkyPilot => "--skypilot",
            Self::Kubernetes => "--kubernetes",
        }
    }

    /// The end of a job file's name.
    pub(super) const fn ending(self) -> &'static str {
        match self {
            Self::Local(_) | Self::Slurm => ".sbatch",
            Self::SkyPilot => ".sky.yaml",
            Self::Kubernetes => ".k8s.yaml",
        }
    }

    /// Whether it has a use for an option.
    pub(super) fn takes(self, option: &str) -> bool {
        option == self.option()
            || match self {
                Self::Local(_) => ["--gpus", "--grace"].contains(&option),
                Self::Slurm => !["--image", "--storage"].contains(&option),
                Self::SkyPilot => !["--partition", "--time"].contains(&option),
                Self::Kubernetes => option != "--partition",
            }
    }

    /// What to do instead.
    pub(super) fn instead(self, option: &str) -> String {
        match (self, option) {
            (Self::Local(_), "--ranks") => "--local N starts N ranks".to_owned(),
            (Self::Local(_), "--nodes") => {
                "this machine is one node; on several, start the ranks with mpirun or srun"
                    .to_owned()
            }
            (Self::Slurm, "--image") => {
                "the nodes need simmer in PATH; the script has a place for `module load`".to_owned()
            }
            (Self::Slurm, "--storage") => {
                "the nodes share a file system; --out of `simmer train` names the folder of the run"
                    .to_owned()
            }
            _ => format!("leave {option} out"),
        }
    }

    /// The command that submits a job file.
    pub(super) fn submit(self, job: &Job, file: &str) -> String {
        let file = quoted(&no_option(file));
        match self {
            Self::SkyPilot => format!("sky jobs launch --name {} {file}", job.name),
            Self::Kubernetes => format!("kubectl apply -f {file}"),
            Self::Local(_) | Self::Slurm => format!("sbatch {file}"),
        }
    }
}

/// A path that no program takes for an option.
pub(super) fn no_option(file: &str) -> String {
    if file.starts_with('-') {
        format!("./{file}")
    } else {
        file.to_owned()
    }
}

impl Job {
    /// Checks that the numbers fit each other.
    pub(super) fn checked(self) -> Result<Self, Failure> {
        let numbers = [
            ("--ranks", Some(self.ranks)),
            ("--nodes", Some(self.nodes)),
            ("--cores", self.cores),
        ];
        for (option, number) in numbers {
            if number == Some(0) {
                bail!("{option}: expected 1 or more, found 0");
            }
        }
        if !self.ranks.is_multiple_of(self.nodes) {
            let text = format!(
                "--ranks: expected a multiple of --nodes {}, found {}",
                self.nodes, self.ranks
            );
            return Err(Failure::new(text).with_hint("every node has the same number of ranks"));
        }
        if let Some(gpus) = &self.gpus
            && gpus.count != self.ranks_of_node()
        {
            let text = format!(
                "--gpus: expected {}, as many as each node has ranks, found {}",
                self.ranks_of_node(),
                gpus.count
            );
            return Err(Failure::new(text).with_hint("each rank computes on one GPU"));
        }
        if let Some(time) = self.time
            && time.seconds() <= u64::from(self.grace)
        {
            let text = format!("--time is not longer than --grace {}", self.grace);
            return Err(Failure::new(text).with_hint("raise --time, or lower --grace"));
        }
        Ok(self)
    }

    pub(super) fn ranks_of_node(&self) -> usize {
        self.ranks / self.nodes
    }

    /// Cores of each node.
    pub(super) fn cores_of_node(&self) -> Option<usize> {
        Some(self.cores? * self.ranks_of_node())
    }

    /// The arguments of `simmer train` with `--resume`, which starts at the first step where there is no checkpoint: so a job
    /// that is started again goes on.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut words = self.words.clone();
        if !self.resumes {
            words.push("--resume".to_owned());
        }
        words
    }

    /// The first line of every job file.
    pub(super) fn title(&self, place: Place) -> String {
        let on = if self.nodes > 1 {
            format!(" on {} nodes", self.nodes)
        } else {
            String::new()
        };
        let ranks = simmer_files::size::counted(self.ranks, "rank");
        let recipe = comment(&self.words[0]);
        format!(
            "{ranks} of `simmer train {recipe}`{on}, written by `simmer launch {}`.",
            place.option()
        )
    }
}

/// A text on one line of a comment.
pub(super) fn comment(text: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.replace(breaks, " ")
}

/// Words quoted for a shell.
pub(super) fn shell(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

/// The name of a recipe's job: the stem of its file in lower case letters, digits and hyphens, as Kubernetes has names.
pub(super) fn name(recipe: &Path) -> String {
    const LONGEST: usize = 40;
    let stem = recipe.file_stem().unwrap_or_default().to_string_lossy();
    let mut name = String::new();
    for c in stem.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(LONGEST);
    let name = name.trim_end_matches('-');
    // names begin with a letter
    match name.chars().next() {
        None => "simmer".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("run-{name}"),
        Some(_) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kubernetes() {
        let of = |path: &str| name(Path::new(path));
        assert_eq!(of("recipes/Alpaca_7B.toml"), "alpaca-7b");
        assert_eq!(of("it's my own.toml"), "it-s-my-own");
        assert_eq!(of("7b.toml"), "run-7b");
        assert_eq!(of("é.toml"), "simmer");
        assert_eq!(of(&format!("{}-b.toml", "a".repeat(39))), "a".repeat(39));
    }
}
