//! Launchers that speak PMIx say which rank a process is, but not how many there are; and the variables of other launchers that
//! say which rank a process is.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Alone, Ranks, RanksError};

/// The rank of PMIx.
const PMIX: &str = "PMIX_RANK";
/// The ranks of other launchers.
const RANKS: [&str; 5] = [
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
    "MV2_COMM_WORLD_RANK",
    "SLURM_PROCID",
    "RANK",
];
/// The numbers of ranks of launchers that may speak PMIx, too.
const SIZES: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"];

/// The ranks of a process that no launcher calls one of several.
///
/// # Errors
/// A rank of PMIx, in a build that cannot connect it.
pub(super) fn join(stop: &Arc<AtomicBool>) -> Result<Rc<dyn Ranks>, RanksError> {
    match uncounted(variable) {
        None => Ok(Rc::new(Alone)),
        Some(rank) => connected(rank, stop),
    }
}

/// Whether a launcher has started this process as another rank than the first: also where ranks cannot be connected.
pub fn is_another() -> bool {
    let numbers = RANKS.into_iter().chain([PMIX]).filter_map(variable);
    let mut numbers = numbers.filter_map(|text| text.parse::<usize>().ok());
    numbers.any(|rank| rank > 0)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The rank of a launcher that says no number of them.
fn uncounted(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let is_counted = SIZES.iter().any(|name| variable(name).is_some());
    variable(PMIX).filter(|_| !is_counted)
}

#[cfg(feature = "mpi")]
fn connected(_: String, stop: &Arc<AtomicBool>) -> Result<Rc<dyn Ranks>, RanksError> {
    Ok(Rc::new(super::mpi::Mpi::join(stop)?))
}

#[cfg(not(feature = "mpi"))]
fn connected(rank: String, _: &Arc<AtomicBool>) -> Result<Rc<dyn Ranks>, RanksError> {
    Err(RanksError::Pmix { rank })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_without_their_number_is_noticed() {
        let read = |variables: &[(&str, &str)]| {
            let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
            uncounted(|name| find(name).map(|(_, value)| (*value).to_owned()))
        };
        let pmix = (PMIX, "3");
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[pmix]).as_deref(), Some("3"));
        assert_eq!(read(&[pmix, ("SLURM_STEP_NUM_TASKS", "1")]), None);
    }
}
