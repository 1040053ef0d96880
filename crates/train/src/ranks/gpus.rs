//! Sums and copies between the GPUs of ranks, where each has one of its own.
//!
//! Axes: N elements.

use std::fmt;
use std::rc::Rc;

use burn::tensor::{Device, Tensor};

use super::place::Place;
use super::{Ranks, RanksError};

/// What GPUs do together, without a way through main memory. All ranks call the same method at the same time.
pub trait Gpus: fmt::Debug {
    /// Adds up a tensor of each rank, in any order. Rank 0 gets the sum; those of the others are used up.
    ///
    /// # Shapes
    /// `values` and result: `[N]`.
    ///
    /// # Errors
    /// If a rank has ended, or the sum fails.
    fn sum(&self, values: Tensor<1>) -> Result<Tensor<1>, RanksError>;

    /// The tensor of rank 0 on all ranks.
    ///
    /// # Shapes
    /// `values` and result: `[N]`.
    ///
    /// # Errors
    /// As [`Gpus::sum`].
    fn copy_of_first(&self, values: Tensor<1>) -> Result<Tensor<1>, RanksError>;
}

/// What a rank has of NCCL: its version, or why it has none.
pub(super) type Found = Result<String, String>;

/// Waits until all ranks have come here. A rank that has ended is noticed here, and not while GPUs wait for it.
///
/// # Errors
/// If a rank has ended.
#[cfg(any(feature = "libtorch", test))]
pub(super) fn meet(ranks: &dyn Ranks) -> Result<(), RanksError> {
    if ranks.rank() > 0 {
        ranks.send(0, Vec::new())?;
        ranks.receive(0)?;
        return Ok(());
    }
    for rank in 1..ranks.size() {
        ranks.receive(rank)?;
    }
    for rank in 1..ranks.size() {
        ranks.send(rank, Vec::new())?;
    }
    Ok(())
}

/// The version of NCCL that all ranks have, or why they cannot use it. `None` if no rank computes on a GPU.
fn common(places: &[Place]) -> Option<Found> {
    if places.iter().all(|place| place.nccl.is_none()) {
        return None;
    }
    let mut version: Option<(usize, &str)> = None;
    for (rank, place) in places.iter().enumerate() {
        let theirs = match &place.nccl {
            None => return Some(Err(format!("rank {rank} computes on no GPU"))),
            Some(Err(why)) => return Some(Err(format!("rank {rank}: {why}"))),
            Some(Ok(theirs)) => theirs,
        };
        match version {
            Some((first, ours)) if ours != theirs => {
                let text =
                    format!("rank {first} has version {ours}, and rank {rank} version {theirs}");
                return Some(Err(text));
            }
            _ => version = Some((rank, theirs)),
        }
    }
    version.map(|(_, version)| Ok(version.to_owned()))
}

/// What became of the GPUs of all ranks.
#[derive(Default)]
pub(crate) struct Connected {
    /// The ranks with their GPUs, if NCCL connects them.
    pub(crate) ranks: Option<Rc<dyn Ranks>>,
    /// How gradients travel, for the user; nothing where no rank has a GPU.
    pub(crate) notice: Option<String>,
}

/// Connects the GPUs of all ranks through NCCL, if they have it. Rank 0 calls this,
/// and the others [`connect`] with the id that it sends.
///
/// # Errors
/// If they cannot be connected.
pub(crate) fn connect_all(
    ranks: &Rc<dyn Ranks>,
    places: &[Place],
    device: &Device,
) -> Result<Connected, RanksError> {
    match common(places) {
        None => Ok(Connected::default()),
        Some(Err(why)) => {
            let text = format!("gradients travel through main memory, not through NCCL: {why}");
            Ok(Connected {
                ranks: None,
                notice: Some(text),
            })
        }
        Some(Ok(version)) => {
            let id = new_id().map_err(|why| RanksError::Unconnected { rank: 0, why })?;
            for rank in 1..ranks.size() {
                ranks.send(rank, super::Message::Gpus(id.clone()).encode())?;
            }
            let ranks = connect(ranks, &id, device)?;
            let text = format!(
                "NCCL {version} adds up gradients between the GPUs: losses are equal to those of one rank up to rounding"
            );
            Ok(Connected {
                ranks: Some(ranks),
                notice: Some(text),
            })
        }
    }
}

/// The version of NCCL that this process would use.
#[cfg(feature = "libtorch")]
pub(super) fn found() -> Found {
    super::nccl::loaded().map(|nccl| nccl.version())
}

/// Connects the GPU of this rank with the others.
///
/// # Errors
/// If they cannot be connected.
#[cfg(feature = "libtorch")]
pub(crate) fn connect(
    ranks: &Rc<dyn Ranks>,
    id: &[u8],
    device: &Device,
) -> Result<Rc<dyn Ranks>, RanksError> {
    let rank = ranks.rank();
    let joined = super::nccl::OnNccl::join(Rc::clone(ranks), id, device);
    Ok(Rc::new(
        joined.map_err(|why| RanksError::Unconnected { rank, why })?,
    ))
}

#[cfg(feature = "libtorch")]
fn new_id() -> Result<Vec<u8>, String> {
    let id = super::nccl::loaded()?.new_id();
    id.map_err(|error| error.to_string())
}

#[cfg(not(feature = "libtorch"))]
const NOT_BUILT: &str = "this build of simmer has no libtorch";

#[cfg(not(feature = "libtorch"))]
pub(super) fn found() -> Found {
    Err(NOT_BUILT.to_owned())
}

#[cfg(not(feature = "libtorch"))]
pub(crate) fn connect(
    ranks: &Rc<dyn Ranks>,
    _: &[u8],
    _: &Device,
) -> Result<Rc<dyn Ranks>, RanksError> {
    let (rank, why) = (ranks.rank(), NOT_BUILT.to_owned());
    Err(RanksError::Unconnected { rank, why })
}

#[cfg(not(feature = "libtorch"))]
fn new_id() -> Result<Vec<u8>, String> {
    Err(NOT_BUILT.to_owned())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use simmer_model::device::Devices;

    use super::*;
    use crate::ranks::Threads;

    #[test]
    fn all_ranks_need_the_same_nccl() {
        let place = |nccl: Option<Result<&str, &str>>| {
            let mut place = Place::of(&Devices::One("cpu".to_owned()));
            place.nccl = nccl.map(|found| found.map(str::to_owned).map_err(str::to_owned));
            place
        };
        let of = |all: &[Option<Result<&str, &str>>]| {
            let places: Vec<Place> = all.iter().map(|nccl| place(*nccl)).collect();
            common(&places)
        };
        let new = Some(Ok("2.27.5"));
        assert_eq!(of(&[None, None]), None);
        assert_eq!(of(&[new, new]), Some(Ok("2.27.5".to_owned())));
        let why = |all: &[Option<Result<&str, &str>>]| of(all).unwrap().unwrap_err();
        assert_eq!(why(&[new, None]), "rank 1 computes on no GPU");
        assert_eq!(why(&[new, Some(Err("it is gone"))]), "rank 1: it is gone");
        assert_eq!(
            why(&[new, new, Some(Ok("2.21.5"))]),
            "rank 1 has version 2.27.5, and rank 2 version 2.21.5"
        );
    }

    #[test]
    fn ranks_meet_or_notice_who_is_missing() {
        let meeting = |ranks: Vec<Threads>| -> Vec<Result<(), RanksError>> {
            thread::scope(|scope| {
                let all: Vec<_> = ranks
                    .into_iter()
                    .map(|rank| scope.spawn(move || meet(&rank)))
                    .collect();
                all.into_iter().map(|rank| rank.join().unwrap()).collect()
            })
        };
        assert_eq!(meeting(Threads::of(4)), vec![Ok(()); 4]);
        let mut ranks = Threads::of(3);
        drop(ranks.pop());
        let gone = Err(RanksError::Ended { rank: 2 });
        assert_eq!(meeting(ranks)[0], gone);
    }
}
