//! Which rank this process is: what launchers say in variables of the environment.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Alone, Ranks, RanksError};

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
    let found = SIZES.iter().find_map(|(variable, launcher)| {
        let text = std::env::var(variable).ok()?;
        Some((*variable, *launcher, text))
    });
    let Some((variable, launcher, text)) = found else {
        return Ok(Rc::new(Alone));
    };
    let size: usize = text.parse().map_err(|_| RanksError::Variable {
        variable,
        found: text,
    })?;
    if size <= 1 {
        return Ok(Rc::new(Alone));
    }
    on_mpi(size, launcher, stop)
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
