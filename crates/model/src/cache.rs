//! Keys and values of the tokens that a generation has already seen.
//!
//! Axes: S tokens so far, K key heads, D head_dim.

use burn::tensor::{Tensor, s};

/// Tokens that a cache has room for at first.
const ROOM: usize = 128;

/// Keys and values of what a generation has seen, layer by layer.
///
/// Its tensors have room for more tokens than they hold, and new ones are written in place; the
/// room doubles when it is full.
#[derive(Debug, Default)]
pub struct KvCache {
    layers: Vec<[Room; 2]>,
    length: usize,
    /// Where the tokens of the next run go; behind all others where nothing is said.
    placed: Option<Placed>,
}

/// Where the tokens of a run go, one place each, and how many places there are then.
#[derive(Debug)]
struct Placed {
    places: Vec<usize>,
    length: usize,
}

impl KvCache {
    /// Tokens that the cache holds, or has places for.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing was seen yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The tokens of the next run go to `places`; there are `length` of them from then on.
    pub(crate) fn place(&mut self, places: Vec<usize>, length: usize) {
        self.placed = Some(Placed { places, length });
    }

    /// Places that there are after a run of so many tokens.
    pub(crate) fn length_after(&self, tokens: usize) -> usize {
        let placed = self.placed.as_ref();
        placed.map_or(self.length + tokens, |placed| placed.length)
    }

    /// Adds the new tokens' keys and values of a layer and returns all of them.
    ///
    /// # Shapes
    /// `keys`, `values`: `[T, K, D]`. Result: `[S, K, D]` each.
    pub(crate) fn extend(
        &mut self,
        layer: usize,
        keys: Tensor<3>,
        values: Tensor<3>,
    ) -> [Tensor<3>; 2] {
        let all = self.length_after(keys.dims()[0]);
        if self.layers.len() == layer {
            self.layers.push([Room::default(), Room::default()]);
        }
        let [k, v] = &mut self.layers[layer];
        let sides = [(k, keys), (v, values)];
        sides.map(|(room, new)| match &self.placed {
            Some(placed) => room.put(self.length, all, &placed.places, new),
            None => room.put(self.length, all, &[self.length], new),
        })
    }

    /// Counts the tokens that every layer has added.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.length = self.length_after(tokens);
        self.placed = None;
    }
}

#[derive(Debug, Default)]
struct Room(Option<Tensor<3>>);

impl Room {
    /// Writes `new`, `[T, K, D]`, behind the first `length` tokens and returns all of them.
    /// Writes new tokens, to one place each or one after another from the only place on, and returns the
    /// first `all`, of which `length` were there.
    fn put(&mut self, length: usize, all: usize, places: &[usize], new: Tensor<3>) -> Tensor<3> {
        let [tokens, heads, dim] = new.dims();
        let mut room = match self.0.take() {
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
        if let [place] = places {
            room = room.slice_assign(s![*place..place + tokens], new);
        } else {
            for (token, place) in places.iter().enumerate() {
                let one = new.clone().slice(s![token..=token]);
                room = room.slice_assign(s![*place..=*place], one);
            }
        }
        let view = room.clone().slice(s![0..all]);
        self.0 = Some(room);
        view
    }
}
