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
    /// Whether texts continue in steps; `None`: as is best on the device.
    in_steps: Option<bool>,
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

    /// An empty cache whose texts continue in steps of fixed operations, or not. By default they do on a GPU.
    pub fn with_steps(in_steps: bool) -> Self {
        Self {
            in_steps: Some(in_steps),
            ..Self::default()
        }
    }

    pub(crate) fn in_steps(&self) -> Option<bool> {
        self.in_steps
    }

    /// Forgets all tokens.
    pub(crate) fn empty(&mut self) {
        *self = Self {
            in_steps: self.in_steps,
            ..Self::default()
        };
    }

    /// Leaves the first `length` tokens, if there are more. The memory of the others stays for the next ones.
    pub(crate) fn cut(&mut self, length: usize) {
        if length == 0 {
            self.empty();
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

    /// Makes room for at least so many places. Returns the room of the layers.
    pub(crate) fn reserve(&mut self, places: usize) -> usize {
        let length = self.length;
        let rooms = self.layers.iter_mut().flatten();
        let sizes = rooms.map(|room| room.reserve(length, places));
        sizes.min().unwrap_or(0)
    }

    /// Keys and values of a layer with all their room. A step of decoding writes to them in place.
    ///
    /// # Shapes
    /// Result: `[capacity, K, D]` each.
    ///
    /// # Panics
    /// If the cache is empty.
    pub(crate) fn layer(&self, layer: usize) -> [Tensor<3>; 2] {
        self.layers[layer].each_ref().map(|room| match &room.0 {
            Some(room) => room.clone(),
            None => unreachable!("a text is continued after its prompt"),
        })
    }

    /// The places before `end` are in use.
    pub(crate) fn reach(&mut self, end: usize) {
        self.length = self.length.max(end);
        self.placed = None;
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

/// The capacity for so many tokens.
fn with_room(tokens: usize) -> usize {
    tokens.max(ROOM).next_power_of_two()
}

impl Room {
    /// Makes room for at least so many places, of which `length` are in use. Returns how many there are.
    fn reserve(&mut self, length: usize, places: usize) -> usize {
        let Some(room) = &self.0 else {
            return 0;
        };
        let [size, heads, dim] = room.dims();
        if size >= places {
            return size;
        }
        let size = with_room(places);
        let wider = Tensor::zeros([size, heads, dim], (&room.device(), room.dtype()));
        let full = room.clone().slice(s![0..length]);
        self.0 = Some(wider.slice_assign(s![0..length], full));
        size
    }

    /// Writes the new tokens, `[T, K, D]`, to one place each, or contiguously from the only place on. The
    /// tensor held `length` tokens before; returns the first `all` after the write.
    fn put(&mut self, length: usize, all: usize, places: &[usize], new: Tensor<3>) -> Tensor<3> {
        let [tokens, heads, dim] = new.dims();
        self.reserve(length, all);
        let mut room = self.0.take().unwrap_or_else(|| {
            let shape = [with_room(all), heads, dim];
            Tensor::zeros(shape, (&new.device(), new.dtype()))
        });
        // This is the only reference to the tensor, so the write is in place.
        if let [place] = places {
            room = room.slice_assign(s![*place..place + tokens], new);
        } else {
            let mut token = 0;
            for run in places.chunk_by(|place, next| *next == place + 1) {
                let (place, count) = (run[0], run.len());
                let part = new.clone().slice(s![token..token + count]);
                room = room.slice_assign(s![place..place + count], part);
                token += count;
            }
        }
        let view = room.clone().slice(s![0..all]);
        self.0 = Some(room);
        view
    }
}
