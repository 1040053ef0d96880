//! Keys and values of the tokens that a generation has already seen.
//!
//! Axes: S tokens so far, K key heads, D head_dim.

use burn::tensor::{Tensor, s};

/// Tokens that a cache has room for at first.
const ROOM: usize = 128;

/// The cache of one row, layer by layer.
///
/// Its tensors have room for more tokens than they hold, and new ones are written in place; the
/// room doubles when it is full.
#[derive(Debug, Default)]
pub struct KvCache {
    layers: Vec<[Room; 2]>,
    length: usize,
}

impl KvCache {
    /// Tokens that the cache holds.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing was seen yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds the new tokens' keys and values of a layer and returns all of them.
    ///
    /// # Shapes
    /// `keys`, `values`: `[T, K, D]`. Result: `[S + T, K, D]` each.
    pub(crate) fn extend(
        &mut self,
        layer: usize,
        keys: Tensor<3>,
        values: Tensor<3>,
    ) -> [Tensor<3>; 2] {
        if self.layers.len() == layer {
            self.layers.push([Room::default(), Room::default()]);
        }
        let [k, v] = &mut self.layers[layer];
        [k.put(self.length, keys), v.put(self.length, values)]
    }

    /// Counts the tokens that every layer has added.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.length += tokens;
    }
}

/// One tensor of the cache, `[room, K, D]`; `None` before the first token.
#[derive(Debug, Default)]
struct Room(Option<Tensor<3>>);

impl Room {
    /// Writes `new`, `[T, K, D]`, behind the first `length` tokens and returns all of them.
    fn put(&mut self, length: usize, new: Tensor<3>) -> Tensor<3> {
        let [tokens, heads, dim] = new.dims();
        let all = length + tokens;
        let room = match self.0.take() {
            Some(room) if room.dims()[0] >= all => room,
            full => {
                let size = all.max(ROOM).next_power_of_two();
                let room = Tensor::zeros([size, heads, dim], (&new.device(), new.dtype()));
                match full {
                    Some(full) => room.slice_assign(s![0..length], full.slice(s![0..length])),
                    None => room,
                }
            }
        };
        // Nobody else holds the tensor now, so that this writes in place.
        let room = room.slice_assign(s![length..all], new);
        let view = room.clone().slice(s![0..all]);
        self.0 = Some(room);
        view
    }
}
