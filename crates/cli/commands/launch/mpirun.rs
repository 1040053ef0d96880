//! The `mpirun` of this machine, and what it is started with.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use simmer_files::size::counted;

use super::amount::Gpus;
use super::job::Job;
use crate::failure::{Context, Failure};

/// The variables that limit the threads of a rank: those of simmer, and of libtorch.
const THREADS: [&str; 2] = ["RAYON_NUM_THREADS", "OMP_NUM_THREADS"];
/// Gives each rank of a node its GPU, of those that `CUDA_VISIBLE_DEVICES` names, if it is set.
const ONE_GPU: &str = "rank=${OMPI_COMM_WORLD_LOCAL_RANK:-${MPI_LOCALRANKID:-0}}; \
    if [ -n \"${CUDA_VISIBLE_DEVICES:-}\" ]; then \
    rank=$(echo \"$CUDA_VISIBLE_DEVICES\" | cut -d, -f$((rank + 1))); fi; \
    CUDA_VISIBLE_DEVICES=$rank exec \"$0\" \"$@\"";

/// The program that starts the ranks.
#[derive(Debug)]
pub(super) struct Mpirun {
    pub(super) path: PathBuf,
    /// What it says of itself.
    pub(super) version: String,
    kind: Kind,
}

/// Whose options it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    OpenMpi,
    /// MPICH, and Intel's MPI.
    Hydra,
    Other,
}

/// The processor cores of each rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// 0 if there are more ranks than cores.
    pub(super) cores: usize,
    /// Whether cores can be named. A container with a limit on processor time has no cores of its own.
    pub(super) is_bound: bool,
}

impl Mpirun {
    /// The one that the variable `MPIRUN` names, or the first in `PATH`.
    ///
    /// # Errors
    /// There is none, or it does not start.
    pub(super) fn find() -> Result<Self, Failure> {
        let given = env::var_os("MPIRUN").map(PathBuf::from);
        let path = match &given {
            Some(path) => path.clone(),
            None => in_path("mpirun").ok_or_else(|| {
                Failure::new("cannot start ranks: there is no mpirun in PATH").with_hint(
                    "install that of the MPI that simmer was built with, or name it: MPIRUN=/path/to/mpirun; \
                     a checkout has `eval \"$(tools/mpi)\"`",
                )
            })?,
        };
        let output = Command::new(&path)
            .arg("--version")
            .stdin(Stdio::null())
            .output();
        let output = output.map_err(Failure::foreign).with_context(|| {
            let variable = if given.is_some() {
                " (variable MPIRUN)"
            } else {
                ""
            };
            format!("cannot start {}{variable}", path.display())
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().next().unwrap_or_default().trim().to_owned();
        let kind = Kind::of(&text);
        Ok(Self {
            path,
            version,
            kind,
        })
    }

    /// A command that starts a program as so many ranks.
    pub(super) fn command(&self, ranks: usize, share: Share) -> Command {
        let mut command = Command::new(&self.path);
        command.args(["-n", &ranks.to_string()]);
        command.args(self.kind.places(share));
        if self.kind == Kind::OpenMpi && is_root() {
            // who has started simmer as root has answered this
            command.env("OMPI_ALLOW_RUN_AS_ROOT", "1");
            command.env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        }
        if !share.is_bound || self.kind == Kind::Other {
            for name in THREADS {
                if env::var_os(name).is_none() {
                    command.env(name, share.cores.max(1).to_string());
                }
            }
        }
        command
    }
}

impl Kind {
    fn of(version: &str) -> Self {
        if version.contains("Open MPI") || version.contains("OpenRTE") {
            Self::OpenMpi
        } else if version.contains("HYDRA") || version.contains("Intel(R) MPI") {
            Self::Hydra
        } else {
            Self::Other
        }
    }

    /// Options that give each rank its cores.
    fn places(self, share: Share) -> Vec<String> {
        let cores = share.cores;
        let options = match (self, share.is_bound) {
            (Self::OpenMpi, true) => {
                format!("--use-hwthread-cpus --bind-to hwthread --map-by slot:PE={cores}")
            }
            (Self::OpenMpi, false) => "--oversubscribe --bind-to none".to_owned(),
            (Self::Hydra, true) => format!("-bind-to hwthread:{cores} -map-by hwthread:{cores}"),
            (Self::Hydra, false) => "-bind-to none".to_owned(),
            (Self::Other, _) => String::new(),
        };
        options.split_whitespace().map(str::to_owned).collect()
    }
}

impl Share {
    /// The share of each of so many ranks on this machine.
    pub(super) fn of(ranks: usize) -> Self {
        let may_use = std::thread::available_parallelism().map_or(1, usize::from);
        let cores = may_use / ranks;
        Self {
            cores,
            is_bound: cores > 0 && allowed().is_none_or(|allowed| allowed <= may_use),
        }
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.cores, self.is_bound) {
            (0, _) => f.write_str("which share the processor cores"),
            (cores, true) => write!(f, "each bound to {}", counted(cores, "processor core")),
            (cores, false) => write!(f, "each with {}", counted(cores, "thread")),
        }
    }
}

/// `simmer launch --local` for the ranks of a job of one node.
pub(super) fn launch(job: &Job, train: &[String]) -> Vec<String> {
    let (ranks, grace) = (job.ranks.to_string(), job.grace.to_string());
    let mut words = ["simmer", "launch", "--local", &ranks, "--grace", &grace]
        .map(str::to_owned)
        .to_vec();
    if let Some(gpus) = &job.gpus {
        words.extend(["--gpus".to_owned(), gpus.count.to_string()]);
    }
    words.extend_from_slice(train);
    words
}

/// The arguments of Open MPI's `mpirun` for the ranks of a job of several nodes, but for where they are.
///
/// # Errors
/// No cores, where a node has several ranks.
pub(super) fn on_nodes(job: &Job, train: &[String]) -> Result<Vec<String>, Failure> {
    let ranks = job.ranks.to_string();
    let mut words = ["--allow-run-as-root", "-n", &ranks, "--bind-to", "none"]
        .map(str::to_owned)
        .to_vec();
    match job.cores {
        Some(cores) => {
            for name in THREADS {
                words.extend(["-x".to_owned(), format!("{name}={cores}")]);
            }
        }
        None if job.ranks_of_node() > 1 => {
            return Err(
                Failure::new("--cores is missing: the processor cores of each rank")
                    .with_hint("a node has several ranks, which divide its cores"),
            );
        }
        None => {}
    }
    if job.gpus.is_some() {
        words.extend(["sh", "-c", ONE_GPU].map(str::to_owned));
    }
    words.extend(["simmer", "train"].map(str::to_owned));
    words.extend_from_slice(train);
    Ok(words)
}

/// The words before a program that give each rank of this machine its GPU.
pub(super) fn one_gpu(gpus: Option<&Gpus>) -> &'static [&'static str] {
    match gpus {
        Some(_) => &["sh", "-c", ONE_GPU],
        None => &[],
    }
}

/// The first program of a name in `PATH`.
fn in_path(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    let mut files = env::split_paths(&folders).map(|folder| folder.join(name));
    files.find(|file| is_program(file))
}

#[cfg(unix)]
fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(file: &Path) -> bool {
    file.is_file()
}

#[cfg(unix)]
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

/// The processor cores that the system lets this process run on, limits on its time aside.
#[cfg(target_os = "linux")]
fn allowed() -> Option<usize> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).ok()?;
    let all = 0..nix::sched::CpuSet::count();
    Some(
        all.filter(|core| set.is_set(*core).unwrap_or(false))
            .count(),
    )
}

#[cfg(not(target_os = "linux"))]
fn allowed() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mpi_has_its_options() {
        let bound = Share {
            cores: 4,
            is_bound: true,
        };
        let free = Share {
            cores: 0,
            is_bound: false,
        };
        let places = |version: &str, share| Kind::of(version).places(share).join(" ");
        let open = "mpirun (Open MPI) 5.0.11\n";
        assert_eq!(
            places(open, bound),
            "--use-hwthread-cpus --bind-to hwthread --map-by slot:PE=4"
        );
        assert_eq!(places(open, free), "--oversubscribe --bind-to none");
        let hydra = "HYDRA build details:\n    Version: 4.2.1\n";
        assert_eq!(
            places(hydra, bound),
            "-bind-to hwthread:4 -map-by hwthread:4"
        );
        assert_eq!(places(hydra, free), "-bind-to none");
        assert_eq!(places("mpirun of another", bound), "");
    }

    #[test]
    fn ranks_share_the_cores() {
        assert_eq!(Share::of(1_000_000).cores, 0);
        assert!(Share::of(1).cores > 0);
        assert!(!Share::of(1_000_000).is_bound);
    }
}
