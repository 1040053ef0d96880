//! Trained tensors go from rank 0 to all others over a binomial tree, so that no rank sends more than log2(ranks) copies.
//!
//! The parent of rank r is r without its lowest bit; rank 0 has none. With 8 ranks 0 sends to 4, 2 and 1, 4 to 6 and 5, 2 to 3, 6 to 7.

use super::{Ranks, RanksError};

/// The rank that rank `rank` hears from; 0 is nobody's child.
pub(crate) fn parent(rank: usize) -> usize {
    rank & rank.saturating_sub(1)
}

/// The ranks that `rank` sends to; that with the most below it first.
pub(crate) fn children(rank: usize, size: usize) -> impl Iterator<Item = usize> {
    let below = if rank == 0 {
        size.next_power_of_two()
    } else {
        1 << rank.trailing_zeros()
    };
    let steps = std::iter::successors(Some(below / 2), |step| Some(step / 2));
    let steps = steps.take_while(|step| *step > 0);
    steps
        .map(move |step| rank + step)
        .filter(move |child| *child < size)
}

/// Sends bytes to the ranks below this one.
///
/// # Errors
/// If one of them has ended.
pub(crate) fn send_down(ranks: &dyn Ranks, bytes: &[u8]) -> Result<(), RanksError> {
    for child in children(ranks.rank(), ranks.size()) {
        ranks.send(child, bytes.to_vec())?;
    }
    Ok(())
}

/// Receives what rank 0 has sent down, and sends it on.
///
/// # Errors
/// If a rank above or below has ended.
pub(crate) fn receive_down(ranks: &dyn Ranks) -> Result<Vec<u8>, RanksError> {
    let bytes = ranks.receive(parent(ranks.rank()))?;
    send_down(ranks, &bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::ranks::Threads;

    #[test]
    fn every_rank_has_one_parent_and_few_children() {
        for size in 1..40 {
            let mut heard = vec![0; size];
            for rank in 0..size {
                let below: Vec<usize> = children(rank, size).collect();
                assert!(1 << below.len() <= size.next_power_of_two());
                for child in below {
                    assert_eq!(parent(child), rank);
                    heard[child] += 1;
                }
            }
            assert_eq!(heard[0], 0);
            assert!(heard[1..].iter().all(|times| *times == 1), "{size}");
        }
    }

    #[test]
    fn what_rank_0_sends_down_arrives_everywhere() {
        let arrived: Vec<Vec<u8>> = thread::scope(|scope| {
            let running: Vec<_> = Threads::of(6)
                .into_iter()
                .map(|rank| {
                    scope.spawn(move || {
                        if rank.rank() == 0 {
                            send_down(&rank, b"weights").unwrap();
                            return b"weights".to_vec();
                        }
                        receive_down(&rank).unwrap()
                    })
                })
                .collect();
            running
                .into_iter()
                .map(|rank| rank.join().unwrap())
                .collect()
        });
        assert_eq!(arrived, vec![b"weights".to_vec(); 6]);
    }
}
