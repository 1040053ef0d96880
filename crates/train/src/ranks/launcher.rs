//! Which rank this process is: what launchers say in variables of the environment.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::torchrun::Torchrun;
use super::{Ranks, RanksError, pmix};

/// Variables that launchers of MPI set, with the number of ranks.
const SIZES: [(&str, &str); 4] = [
    ("OMPI_COMM_WORLD_SIZE", "mpirun of Open MPI"),
    ("PMI_SIZE", "mpirun of MPICH"),
    ("MV2_COMM_WORLD_SIZE", "mpirun of MVAPICH"),
    ("SLURM_STEP_NUM_TASKS", "srun"),
];

/// What has started this process.
#[derive(Debug, PartialEq, Eq)]
enum Launch {
    /// Nothing that starts several.
    Alone,
    /// A launcher of MPI.
    Mpi { launcher: &'static str, size: usize },
    /// `torchrun`, or variables as it sets them.
    Torchrun(Torchrun),
}

impl Launch {
    /// `torchrun` comes first where it has started this very process: `mpirun` or `srun` may have started it. Otherwise MPI's
    /// launchers do, except in a build without MPI (`has_mpi`) if the variables of a rank of `torchrun` are there.
    ///
    /// # Errors
    /// A variable that is missing or wrong.
    fn read(has_mpi: bool, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, RanksError> {
        let size_in = |name| match variable(name) {
            None => Ok(1),
            Some(found) => found.parse::<usize>().map_err(|_| RanksError::Variable {
                variable: name,
                expected: "the number of ranks".to_owned(),
                found,
            }),
        };
        let torchrun_is_inner =
            variable("TORCHELASTIC_RUN_ID").is_some() || (!has_mpi && variable("RANK").is_some());
        if !torchrun_is_inner {
            for (name, launcher) in SIZES {
                let size = size_in(name)?;
                if size > 1 {
                    return Ok(Self::Mpi { launcher, size });
                }
            }
        }
        match size_in("WORLD_SIZE")? {
            0 | 1 => Ok(Self::Alone),
            size => Ok(Self::Torchrun(Torchrun::read(size, variable)?)),
        }
    }
}

/// The command that starts so many ranks with the launcher that has started this process, as far as its variables tell; `None` for one
/// rank.
pub fn launched_by(ranks: usize) -> Option<String> {
    (ranks > 1).then(|| words(ranks, &|name| std::env::var(name).ok()))
}

fn words(ranks: usize, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let number = |name| variable(name).and_then(|text| text.parse::<usize>().ok());
    match Launch::read(cfg!(feature = "mpi"), variable) {
        Ok(Launch::Torchrun(_)) => {
            let here = number("LOCAL_WORLD_SIZE").filter(|here| *here > 0);
            let here = here.unwrap_or(ranks);
            let nodes = if here < ranks {
                format!("--nnodes {} ", ranks.div_ceil(here))
            } else {
                String::new()
            };
            format!("torchrun {nodes}--nproc-per-node {here} --no-python")
        }
        Ok(Launch::Mpi {
            launcher: "srun", ..
        }) => "srun --mpi=pmix".to_owned(),
        _ => format!("mpirun -n {ranks}"),
    }
}

/// The ranks that this process was started as one of; a process that no launcher started is alone. `stop` is set when the run
/// shall end.
///
/// # Errors
/// A launcher that has started several processes that cannot work together.
pub fn join(stop: &Arc<AtomicBool>) -> Result<Rc<dyn Ranks>, RanksError> {
    match Launch::read(cfg!(feature = "mpi"), &|name| std::env::var(name).ok())? {
        Launch::Alone => pmix::join(stop),
        Launch::Mpi { launcher, size } => on_mpi(size, launcher, stop),
        Launch::Torchrun(torchrun) => on_c10d(torchrun, stop),
    }
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

#[cfg(feature = "libtorch")]
fn on_c10d(torchrun: Torchrun, stop: &Arc<AtomicBool>) -> Result<Rc<dyn Ranks>, RanksError> {
    Ok(Rc::new(super::c10d::C10d::join(torchrun, stop)?))
}

#[cfg(not(feature = "libtorch"))]
fn on_c10d(torchrun: Torchrun, _: &Arc<AtomicBool>) -> Result<Rc<dyn Ranks>, RanksError> {
    Err(RanksError::NoLibtorch {
        size: torchrun.size,
    })
}

#[cfg(test)]
mod tests {
    use simmer_hint::Hint;

    use super::*;

    /// What a process with these variables is, besides those of rank 1 of 2 of `torchrun` if `torch`.
    fn read(has_mpi: bool, torch: bool, more: &[(&str, &str)]) -> Result<Launch, RanksError> {
        let torch: &[(&str, &str)] = if torch {
            &[
                ("WORLD_SIZE", "2"),
                ("RANK", "1"),
                ("MASTER_ADDR", "a1"),
                ("MASTER_PORT", "29500"),
            ]
        } else {
            &[]
        };
        Launch::read(has_mpi, &|name| {
            let mut all = more.iter().chain(torch);
            let (_, value) = all.find(|(known, _)| *known == name)?;
            Some((*value).to_owned())
        })
    }

    fn rank_1() -> Torchrun {
        Torchrun {
            rank: 1,
            size: 2,
            host: "a1".to_owned(),
            port: 29500,
            agent_serves: false,
            attempt: "0".to_owned(),
        }
    }

    #[test]
    fn the_innermost_launcher_counts() {
        let mpirun = ("OMPI_COMM_WORLD_SIZE", "4");
        let on_mpi = Launch::Mpi {
            launcher: "mpirun of Open MPI",
            size: 4,
        };
        let on_torch = || Ok(Launch::Torchrun(rank_1()));
        let srun = Launch::Mpi {
            launcher: "srun",
            size: 8,
        };
        let inner = ("TORCHELASTIC_RUN_ID", "none");
        assert_eq!(read(true, false, &[]), Ok(Launch::Alone));
        assert_eq!(read(true, false, &[("WORLD_SIZE", "1")]), Ok(Launch::Alone));
        assert_eq!(read(true, false, &[mpirun]), Ok(on_mpi));
        assert_eq!(read(true, true, &[]), on_torch());
        let outer = ("SLURM_STEP_NUM_TASKS", "8");
        assert_eq!(read(true, true, &[outer]), Ok(srun));
        assert_eq!(read(true, true, &[outer, inner]), on_torch());
        assert_eq!(read(false, true, &[outer]), on_torch());
        assert_eq!(
            read(true, true, &[("SLURM_STEP_NUM_TASKS", "1")]),
            on_torch()
        );
    }

    #[test]
    fn the_command_that_starts_ranks_is_known() {
        let of = |ranks, more: &[(&str, &str)]| {
            let find = |name: &str| more.iter().find(|(known, _)| *known == name);
            words(ranks, &|name| {
                find(name).map(|(_, value)| (*value).to_owned())
            })
        };
        let torch = |here| {
            [
                ("TORCHELASTIC_RUN_ID", "none"),
                ("WORLD_SIZE", "4"),
                ("RANK", "0"),
                ("MASTER_ADDR", "a1"),
                ("MASTER_PORT", "29500"),
                ("LOCAL_WORLD_SIZE", here),
            ]
        };
        assert_eq!(of(4, &[("OMPI_COMM_WORLD_SIZE", "4")]), "mpirun -n 4");
        assert_eq!(of(4, &[("SLURM_STEP_NUM_TASKS", "4")]), "srun --mpi=pmix");
        let one = "torchrun --nproc-per-node 4 --no-python";
        assert_eq!(of(4, &torch("4")), one);
        let two = "torchrun --nnodes 2 --nproc-per-node 2 --no-python";
        assert_eq!(of(4, &torch("2")), two);
    }

    #[test]
    fn torchrun_may_serve_the_store_and_start_ranks_again() {
        let again = [
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
        ];
        let expected = Torchrun {
            agent_serves: true,
            attempt: "2".to_owned(),
            ..rank_1()
        };
        assert_eq!(read(true, true, &again), Ok(Launch::Torchrun(expected)));
    }

    #[test]
    fn variables_that_are_missing_or_wrong_are_named() {
        let said = |more: &[(&str, &str)]| {
            let error = read(true, true, more).unwrap_err();
            format!("{error}\nhint: {}", error.hint().unwrap_or_default())
        };
        let all = [
            said(&[("WORLD_SIZE", "two")]),
            said(&[("RANK", "")]),
            said(&[("RANK", "first")]),
            said(&[("RANK", "2")]),
            said(&[("MASTER_ADDR", "")]),
            said(&[("MASTER_PORT", "70000")]),
            said(&[("MASTER_PORT", "0")]),
        ];
        insta::assert_snapshot!(all.join("\n"), @r#"
        WORLD_SIZE: expected the number of ranks, found "two"
        hint: start the ranks with torchrun, mpirun or srun, or remove the variable to run on one
        WORLD_SIZE is 2, and RANK is not set
        hint: start the ranks with torchrun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT as it does; to run on one, remove WORLD_SIZE
        RANK: expected a rank from 0 to 1, found "first"
        hint: start the ranks with torchrun, mpirun or srun, or remove the variable to run on one
        RANK: expected a rank from 0 to 1, found "2"
        hint: start the ranks with torchrun, mpirun or srun, or remove the variable to run on one
        WORLD_SIZE is 2, and MASTER_ADDR is not set
        hint: start the ranks with torchrun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT as it does; to run on one, remove WORLD_SIZE
        MASTER_PORT: expected a port from 1 to 65535, found "70000"
        hint: start the ranks with torchrun, mpirun or srun, or remove the variable to run on one
        MASTER_PORT: expected a port from 1 to 65535, found "0"
        hint: start the ranks with torchrun, mpirun or srun, or remove the variable to run on one
        "#);
    }
}
