//! Rows as tensors on a device of libtorch.
//!
//! Axes as in [`super`].

use std::sync::{Arc, Mutex, PoisonError};

use tch::{Device, Tensor};

use super::Rows;
use crate::libtorch::uploaded;

/// The inputs of one attention call over all rows.
#[derive(Debug)]
pub(crate) struct Placed {
    /// Offsets of each row, and the end of the last one, for queries and for keys: `[rows + 1]` each,
    /// in i32.
    pub(crate) starts: [Tensor; 2],
    /// Largest number of queries in a row, and of keys.
    pub(crate) longest: [i64; 2],
    /// Indices of the keys of each row, row after row; `None` if they are `0..S`.
    pub(crate) keys: Option<Tensor>,
    /// Where each key is in `keys`; `None` if `keys` is.
    pub(crate) seen: Option<Seen>,
}

/// The places of each key, key after key.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Offset of each key's places, and the end of the last one's: `[S + 1]`, in i32.
    pub(crate) starts: Tensor,
    /// The places, in i32.
    pub(crate) places: Tensor,
}

/// The rows on the device that used them last. They are copied once for all layers.
#[derive(Debug, Clone, Default)]
pub(super) struct OnDevice(Arc<Mutex<Last>>);

type Last = Option<(Device, Arc<Placed>)>;

// SAFETY: the tensors of a `Placed` are only read after it is created. They take no part in torch's
// automatic differentiation, and torch's reference counts are atomic.
#[expect(
    unsafe_code,
    reason = "tch does not mark its tensors Sync, because others may be written through a shared reference"
)]
unsafe impl Sync for Placed {}

/// The cached copy does not affect equality of rows.
impl PartialEq for OnDevice {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for OnDevice {}

impl Rows {
    /// The rows as tensors on a device.
    pub(crate) fn on_device(&self, device: Device) -> Arc<Placed> {
        let mut last = self.placed.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((on, placed)) if *on == device => Arc::clone(placed),
            _ => {
                let placed = Arc::new(self.place(device));
                *last = Some((device, Arc::clone(&placed)));
                placed
            }
        }
    }

    fn place(&self, device: Device) -> Placed {
        let starts = |count: fn(&super::Row) -> usize| {
            let ends = self.iter().scan(0, |end, row| {
                *end += count(row) as i32;
                Some(*end)
            });
            let starts: Vec<i32> = std::iter::once(0).chain(ends).collect();
            uploaded(&Tensor::from_slice(&starts), device)
        };
        let longest = |count: fn(&super::Row) -> usize| {
            self.iter().map(count).max().unwrap_or_default() as i64
        };
        let queries = |row: &super::Row| row.queries.len();
        let keys = super::Row::key_count;
        let order: Vec<i64> = self
            .iter()
            .flat_map(|row| row.keys.iter().cloned().flatten())
            .map(|key| key as i64)
            .collect();
        let lies_so = order.iter().copied().eq(0..self.keys as i64);
        let seen = || {
            let [starts, places] =
                seen(&order, self.keys).map(|of| uploaded(&Tensor::from_slice(&of), device));
            Seen { starts, places }
        };
        Placed {
            seen: (!lies_so).then(seen),
            starts: [starts(queries), starts(keys)],
            longest: [longest(queries), longest(keys)],
            keys: (!lies_so).then(|| uploaded(&Tensor::from_slice(&order), device)),
        }
    }
}

/// The offsets and places of [`Seen`].
fn seen(order: &[i64], keys: usize) -> [Vec<i32>; 2] {
    let mut starts = vec![0; keys + 1];
    for key in order {
        starts[*key as usize + 1] += 1;
    }
    for key in 0..keys {
        starts[key + 1] += starts[key];
    }
    let mut next = starts.clone();
    let mut places = vec![0; order.len()];
    for (place, key) in order.iter().enumerate() {
        let at = &mut next[*key as usize];
        places[*at as usize] = place as i32;
        *at += 1;
    }
    [starts, places]
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    fn list(of: &Tensor) -> Vec<i64> {
        Vec::try_from(&of.to_kind(Kind::Int64)).unwrap()
    }

    #[test]
    fn rows_that_see_themselves_alone() {
        let rows = Rows::from_lengths([3, 1, 2]);
        let placed = rows.on_device(Device::Cpu);
        for starts in &placed.starts {
            assert_eq!(list(starts), [0, 3, 4, 6]);
        }
        assert_eq!(placed.longest, [3, 3]);
        assert!(placed.keys.is_none());
    }

    #[test]
    fn rows_that_continue_others() {
        let rows = Rows::from_tree([(2, None), (1, Some(0)), (2, Some(0))]);
        let placed = rows.on_device(Device::Cpu);
        assert_eq!(list(&placed.starts[0]), [0, 2, 3, 5]);
        assert_eq!(list(&placed.starts[1]), [0, 2, 5, 9]);
        assert_eq!(placed.longest, [2, 4]);
        let keys = placed.keys.as_ref().unwrap();
        assert_eq!(list(keys), [0, 1, 0, 1, 2, 0, 1, 3, 4]);
        let seen = placed.seen.as_ref().unwrap();
        assert_eq!(list(&seen.starts), [0, 3, 6, 7, 8, 9]);
        assert_eq!(list(&seen.places), [0, 2, 5, 1, 3, 6, 4, 7, 8]);
        assert!(Arc::ptr_eq(&placed, &rows.clone().on_device(Device::Cpu)));
    }
}
