//! The fixed memory of steps, on a device of libtorch.
//!
//! Axes as in [`super`].

use std::cell::OnceCell;

use tch::{Device, Kind, Tensor};

use super::NewestToken;
use crate::libtorch::{copy_queued, shared_memory, uploaded};

/// What a step reads and writes.
#[derive(Debug)]
pub(super) struct Memory {
    /// Token, position and place of each row, `[3, B]`, where the host writes them.
    given: Tensor,
    /// The same on the device.
    inputs: Tensor,
    /// The place in the table, `b · C`, of each row's first key, `[B]`.
    starts: Tensor,
    /// The place in the cache of each row's keys, `[B, C]`.
    pub(super) table: Tensor,
    /// `0 .. C`
    pub(super) columns: Tensor,
    /// `[B, V]`, f32, where the host reads them.
    logits: Tensor,
    /// Of the kernels: what blocks found, and how many have finished.
    scratch: OnceCell<[Tensor; 2]>,
}

impl Memory {
    /// Memory for rows of up to `room` keys.
    pub(super) fn new(
        rows: &[NewestToken<'_>],
        room: usize,
        vocabulary: usize,
        device: Device,
    ) -> Self {
        let [count, room] = [rows.len(), room].map(|size| size as i64);
        let ints = (Kind::Int64, device);
        let mut table = vec![0_i64; (count * room) as usize];
        for (row, table) in rows.iter().zip(table.chunks_mut(room as usize)) {
            let places = row.keys.iter().cloned().flatten();
            for (to, place) in table.iter_mut().zip(places) {
                *to = place as i64;
            }
        }
        Self {
            given: shared_memory([3, count], Kind::Int64, device),
            inputs: Tensor::zeros([3, count], ints),
            starts: Tensor::arange(count, ints) * room,
            table: uploaded(&Tensor::from_slice(&table), device).view([count, room]),
            columns: Tensor::arange(room, ints),
            logits: shared_memory([count, vocabulary as i64], Kind::Float, device),
            scratch: OnceCell::new(),
        }
    }

    pub(super) fn device(&self) -> Device {
        self.inputs.device()
    }

    /// Number of rows, B, and of places in the table of each, C.
    pub(super) fn sizes(&self) -> [i64; 2] {
        let size = self.table.size();
        [size[0], size[1]]
    }

    /// The places of another text's keys for a row. The step before must have finished.
    pub(super) fn replace(&mut self, row: usize, next: &NewestToken<'_>) {
        let places = next.keys.iter().cloned().flatten();
        let places: Vec<i64> = places.map(|place| place as i64).collect();
        let count = places.len() as i64;
        let places = uploaded(&Tensor::from_slice(&places), self.device());
        let mut of_row = self.table.get(row as i64).narrow(0, 0, count);
        of_row.copy_(&places);
    }

    /// Writes what the next step reads. The step before must have finished.
    pub(super) fn give(&mut self, rows: &[NewestToken<'_>]) {
        let columns: [fn(&NewestToken<'_>) -> usize; 3] = [
            |row| row.token as usize,
            |row| row.position(),
            |row| row.place(),
        ];
        let values = columns.iter().flat_map(|of| rows.iter().map(of));
        // SAFETY: contiguous integers of 64 bits in the host's memory, as `new` made them. No step runs that reads them.
        #[expect(unsafe_code, reason = "writes to the memory of a tensor of libtorch")]
        let given = unsafe {
            std::slice::from_raw_parts_mut(self.given.data_ptr().cast::<i64>(), self.given.numel())
        };
        for (given, value) in given.iter_mut().zip(values) {
            *given = value as i64;
        }
    }

    /// The start of a step: its inputs on the device, and the places of its keys in the table.
    pub(super) fn begin(&self) {
        copy_queued(&self.inputs, &self.given);
        let at = &self.starts + self.positions();
        let _ = self.table.view([-1]).index_copy_(0, &at, &self.places());
    }

    /// The end of a step.
    pub(super) fn finish(&self, logits: &Tensor) {
        copy_queued(&self.logits, logits);
    }

    /// The logits of a step that has finished, `[B, V]`, row after row.
    pub(super) fn logits(&self) -> &[f32] {
        // SAFETY: contiguous numbers in f32 in the host's memory, as `new` made them. No step runs that writes them, since `run`
        // waits for its end and a next one needs `&mut`.
        #[expect(unsafe_code, reason = "reads the memory of a tensor of libtorch")]
        unsafe {
            std::slice::from_raw_parts(self.logits.data_ptr().cast::<f32>(), self.logits.numel())
        }
    }

    /// At least so many numbers in f32, and counters in i32, which are zeros between kernels. `None` if earlier calls asked for fewer.
    pub(super) fn scratch(&self, numbers: i64, counters: i64) -> Option<&[Tensor; 2]> {
        let device = self.device();
        let scratch = self.scratch.get_or_init(|| {
            [
                Tensor::empty([numbers], (Kind::Float, device)),
                Tensor::zeros([counters], (Kind::Int, device)),
            ]
        });
        let sizes = scratch.each_ref().map(|of| of.numel() as i64);
        (sizes[0] >= numbers && sizes[1] >= counters).then_some(scratch)
    }

    pub(super) fn tokens(&self) -> Tensor {
        self.inputs.get(0)
    }

    pub(super) fn positions(&self) -> Tensor {
        self.inputs.get(1)
    }

    pub(super) fn places(&self) -> Tensor {
        self.inputs.get(2)
    }
}
