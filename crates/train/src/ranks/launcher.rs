//! Which rank this process is: what launchers say in variables of the environment.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Ranks, RanksError, pmix};

/// Variables that launchers set, with the number of ranks.
const SIZES: [(&str, &str); 5] = [
    ("OMPI_COMM_WORLD_SIZE", "mpirun of Open MPI"),
    ("PMI_SIZE", "mpirun of MPICH"),
    ("MV2_COMM_WORLD_SIZE", "mpirun of MVAPICH"),
    ("SLURM_STEP_NUM_TASKS", "srun"),
    ("WORLD_SIZE", "torchrun"),
];

/// The ranks that this process was started as one of; a process that no launcher started is alone. `stop` is set when the run
/// shall end.
///
/// # Errors
/// A launcher that has started several processes that cannot work together.
pub fn join(stop: &Arc<AtomicBool>) -> Result<Rc<dyn Ranks>, RanksError> {
    match several(|name| std::env::var(name).ok())? {
        Some((size, launcher)) => on_mpi(size, launcher, stop),
        None => pmix::join(stop),
    }
}

/// The number of ranks and their launcher, if there are several. A launcher of one may be within another one: a shell of `salloc`
/// is a step of one task.
fn several(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<(usize, &'static str)>, RanksError> {
    for (name, launcher) in SIZES {
        let Some(found) = variable(name) else {
            continue;
        };
        match found.parse::<usize>() {
            Ok(0 | 1) => {}
            Ok(size) => return Ok(Some((size, launcher))),
            Err(_) => {
                let variable = name;
                return Err(RanksError::Variable { variable, found });
            }
        }
    }
    Ok(None)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launcher_of_several_ranks_counts() {
        let read = |variables: &[(&str, &str)]| {
            let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
            several(|name| find(name).map(|(_, value)| (*value).to_owned()))
        };
        let shell = ("SLURM_STEP_NUM_TASKS", "1");
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[shell]), Ok(None));
        let torchrun = read(&[shell, ("WORLD_SIZE", "4")]);
        assert_eq!(torchrun, Ok(Some((4, "torchrun"))));
        let mpirun = read(&[shell, ("OMPI_COMM_WORLD_SIZE", "2")]);
        assert_eq!(mpirun, Ok(Some((2, "mpirun of Open MPI"))));
        let wrong = read(&[("WORLD_SIZE", "two")]).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "WORLD_SIZE: expected the number of ranks, found \"two\""
        );
    }
}
