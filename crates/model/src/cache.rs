//! Keys and values of the tokens that a generation has already computed.
//!
//! Axes: S tokens so far, P prompts of an adapter, K key heads, D head_dim.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, s};

/// Initial capacity of a cache, in tokens.
const ROOM: usize = 128;

/// Keys and values of each layer for the tokens that a generation has computed.
///
/// Its tensors have more capacity than they use, and new tokens are written in place. The capacity
/// doubles when it is full.
#[derive(Debug, Default)]
pub struct KvCache {
    layers: Vec<[Room; 2]>,
    length: usize,
    /// Keys and values of an adapter's prompts, by layer.
    prompts: BTreeMap<usize, [Tensor<3>; 2]>,
    /// Where the next tokens go; `None`: after all others.
    placed: Option<Placed>,
}

/// Where new tokens go, one place each, and the length of the cache afterwards.
#[derive(Debug)]
struct Placed {
    places: Vec<usize>,
    length: usize,
}

impl KvCache {
    /// Number of tokens in the cache, including unused places of pages.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the cache is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Leaves the first `length` tokens, if there are more. The memory of the others stays for the next ones.
    pub(crate) fn cut(&mut self, length: usize) {
        if length == 0 {
            *self = Self::default();
        }
        self.length = self.length.min(length);
        self.placed = None;
    }

    /// Puts the next tokens at `places`, after which the cache has length `length`.
    pub(crate) fn place(&mut self, places: Vec<usize>, length: usize) {
        self.placed = Some(Placed { places, length });
    }

    /// The length after a forward pass over `tokens` tokens.
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

    /// Keys and values of an adapter's prompts in a layer, which are computed once.
    ///
    /// # Shapes
    /// Result: `[P, K, D]` each.
    pub(crate) fn prompts(
        &mut self,
        layer: usize,
        compute: impl FnOnce() -> [Tensor<3>; 2],
    ) -> [Tensor<3>; 2] {
        self.prompts.entry(layer).or_insert_with(compute).clone()
    }

    /// Advances the length by the tokens that every layer has added.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.length = self.length_after(tokens);
        self.placed = None;
    }
}

/// A tensor `[capacity, K, D]`; `None` before the first tokens.
#[derive(Debug, Default)]
struct Room(Option<Tensor<3>>);

impl Room {
    /// Writes the new tokens, `[T, K, D]`, to one place each, or contiguously from the only place on. The
    /// tensor held `length` tokens before; returns the first `all` after the write.
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
        // This is the only reference to the tensor, so the write is in place.
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
