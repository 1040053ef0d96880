//! Which rank this process is: what launchers say in variables of the environment.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Alone, Ranks, RanksError};

/// Variables that launchers set: the number of ranks, and which one this is.
const VARIABLES: [(&str, &str, &str); 5] = [
    (
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK",
        "mpirun of Open MPI",
    ),
    ("PMI_SIZE", "PMI_RANK", "mpirun of MPICH"),
    (
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_RANK",
        "mpirun of MVAPICH",
    ),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun"),
    ("WORLD_SIZE", "RANK", "torchrun"),
];

/// The variable of launchers that speak PMIx, which has no number of ranks.
const PMIX: &str = "PMIX_RANK";

/// What launchers say in a process's environment.
#[derive(Debug, Default, PartialEq, Eq)]
struct Launched {
    /// Ranks and their launcher. A launcher of one rank may have been started by another, as a shell that `salloc` opens has
    /// started `torchrun`; so the first number above one counts.
    several: Option<(usize, &'static str)>,
    /// Whether a launcher says that there is one rank.
    alone: bool,
    /// [`PMIX`].
    pmix: Option<String>,
}

impl Launched {
    /// # Errors
    /// A variable that is no number.
    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, RanksError> {
        let mut launched = Self {
            pmix: variable(PMIX),
            ..Self::default()
        };
        for (size, _, launcher) in VARIABLES {
            let Some(text) = variable(size) else { continue };
            match text.parse::<usize>() {
                Ok(ranks) if ranks > 1 => {
                    launched.several = launched.several.or(Some((ranks, launcher)));
                }
                Ok(_) => launched.alone = true,
                Err(_) => {
                    return Err(RanksError::Variable {
                        variable: size,
                        found: text,
                    });
                }
            }
        }
        Ok(launched)
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The ranks that this process was started as one of; a process that no launcher started is alone. `stop` is set when the run
/// shall end.
///
/// # Errors
/// A launcher that has started several processes that cannot work together.
pub fn join(stop: &Arc<AtomicBool>) -> Result<Rc<dyn Ranks>, RanksError> {
    let launched = Launched::read(variable)?;
    match (launched.several, launched.pmix) {
        (Some((size, launcher)), _) => on_mpi(size, launcher, stop),
        (None, Some(rank)) if !launched.alone => on_pmix(rank, stop),
        (None, _) => Ok(Rc::new(Alone)),
    }
}

/// Whether a launcher has started this process as another rank than the first: also where ranks cannot be connected.
pub fn is_another() -> bool {
    let ranks = VARIABLES.iter().map(|(_, rank, _)| *rank).chain([PMIX]);
    let mut numbers = ranks.filter_map(|name| variable(name)?.parse::<usize>().ok());
    numbers.any(|rank| rank > 0)
}

#[cfg(feature = "mpi")]
fn on_mpi(
    size: usize,
    launcher: &'static str,
    stop: &Arc<AtomicBool>,
) -> Result<Rc<dyn Ranks>, RanksError> {
    let ranks = super::mpi::Mpi::join(stop)?;
    if ranks.size() == size {
        return Ok(Rc::new(ranks));
    }
    Err(RanksError::Launcher {
        launcher,
        size,
        found: ranks.size(),
    })
}

#[cfg(not(feature = "mpi"))]
fn on_mpi(
    size: usize,
    launcher: &'static str,
    _: &Arc<AtomicBool>,
) -> Result<Rc<dyn Ranks>, RanksError> {
    Err(RanksError::NoMpi { launcher, size })
}

#[cfg(feature = "mpi")]
fn on_pmix(_: String, stop: &Arc<AtomicBool>) -> Result<Rc<dyn Ranks>, RanksError> {
    Ok(Rc::new(super::mpi::Mpi::join(stop)?))
}

#[cfg(not(feature = "mpi"))]
fn on_pmix(rank: String, _: &Arc<AtomicBool>) -> Result<Rc<dyn Ranks>, RanksError> {
    Err(RanksError::Pmix { rank })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Launched, RanksError> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Launched::read(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_launcher_of_several_ranks_counts() {
        let several = |variables: &[(&str, &str)]| read(variables).unwrap().several;
        assert_eq!(several(&[]), None);
        // a shell of salloc is a step of one task
        let shell = ("SLURM_STEP_NUM_TASKS", "1");
        assert_eq!(several(&[shell]), None);
        assert_eq!(
            several(&[shell, ("WORLD_SIZE", "4")]),
            Some((4, "torchrun"))
        );
        let mpirun = ("OMPI_COMM_WORLD_SIZE", "2");
        assert_eq!(several(&[shell, mpirun]), Some((2, "mpirun of Open MPI")));
        let srun = ("SLURM_STEP_NUM_TASKS", "8");
        assert_eq!(several(&[srun]), Some((8, "srun")));
        let wrong = read(&[("WORLD_SIZE", "two")]).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "WORLD_SIZE: expected the number of ranks, found \"two\""
        );
    }

    #[test]
    fn a_rank_without_their_number_is_noticed() {
        let pmix = ("PMIX_RANK", "3");
        let launched = read(&[pmix]).unwrap();
        assert_eq!(launched.pmix.as_deref(), Some("3"));
        assert!(!launched.alone && launched.several.is_none());
        assert!(read(&[pmix, ("SLURM_STEP_NUM_TASKS", "1")]).unwrap().alone);
    }
}
