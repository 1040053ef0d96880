//! Steps on the devices of libtorch.
//!
//! Axes as in [`super`].

#![expect(
    clippy::too_many_arguments,
    reason = "an operation of a backend is given each tensor by itself"
)]

use std::rc::Rc;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::libtorch::TchTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, LibTorch, backend_extension};
use burn::tensor::{Device, Int, Tensor};

use super::memory::Memory;
use super::{NewestToken, attention, kernel};
use crate::backends::torch_device;
use crate::libtorch::graph::Graph;
use crate::libtorch::{cpu, fresh, wait};
use crate::profile::{self, Operation};
use crate::rope::RopeForms;
use crate::{OptionalKernel, Scores};

/// The fixed memory of decoding steps, and the recorded step.
///
/// A step is recorded at its first run. All later runs must compute the same operations with the same tensors, which live as long
/// as this: those of one model and one cache.
#[derive(Debug)]
pub struct Decoding {
    graph: Recorded,
    inputs: StepInputs,
}

/// What a step reads.
#[derive(Debug, Clone)]
pub struct StepInputs {
    memory: Rc<Memory>,
    device: Device,
}

#[derive(Debug)]
enum Recorded {
    /// It was not run yet.
    NotYet,
    Graph(Graph),
    /// Why each run launches its operations.
    Never(String),
}

impl Decoding {
    /// Whether decoding on this device is made of such steps: on a GPU.
    pub fn is_default(device: &Device) -> bool {
        let is_gpu = matches!(torch_device(device), Some(tch::Device::Cuda(_)));
        is_gpu && OptionalKernel::DecodingGraph.is_on()
    }

    /// Memory for steps of these rows, each with up to `room` keys. `None` on a device without libtorch.
    pub fn new(
        rows: &[NewestToken<'_>],
        room: usize,
        vocabulary: usize,
        device: &Device,
    ) -> Option<Self> {
        let on = torch_device(device)?;
        let memory = Rc::new(Memory::new(rows, room, vocabulary, on));
        Some(Self {
            inputs: StepInputs {
                memory,
                device: device.clone(),
            },
            graph: if on.is_cuda() {
                Recorded::NotYet
            } else {
                Recorded::Never("a processor has no graphs".to_owned())
            },
        })
    }

    /// The most keys of a row.
    pub fn room(&self) -> usize {
        self.inputs.memory.sizes()[1] as usize
    }

    /// From the next step on, a row is of another text, whose keys before the newest token are in the cache.
    ///
    /// # Panics
    /// If the text has more keys than a row has room for, or if there is no such row.
    pub fn replace(&mut self, row: usize, next: &NewestToken<'_>) {
        let Some(memory) = Rc::get_mut(&mut self.inputs.memory) else {
            panic!("the inputs of a step are used after it");
        };
        memory.replace(row, next);
    }

    /// Computes the next step of the same rows. `compute` returns the logits, `[B, V]` in f32; it is called for the first steps
    /// alone if they can be recorded.
    ///
    /// # Shapes
    /// Result: `[B, V]`, row after row.
    ///
    /// # Panics
    /// If `compute` keeps the inputs, or if the GPU refuses the graph.
    pub fn run(
        &mut self,
        rows: &[NewestToken<'_>],
        compute: &mut dyn FnMut(&StepInputs) -> Tensor<2>,
    ) -> &[f32] {
        let Some(memory) = Rc::get_mut(&mut self.inputs.memory) else {
            panic!("the inputs of a step are used after it");
        };
        memory.give(rows);
        let device = memory.device();
        let inputs = &self.inputs;
        let mut step = || {
            inputs.memory.begin();
            let logits = compute(inputs).into_dispatch();
            Dispatch::logits_to_host(logits, Rc::clone(&inputs.memory));
        };
        match (&self.graph, device) {
            (Recorded::Graph(graph), _) => {
                if let Err(error) = graph.replay() {
                    panic!("libtorch: {error}");
                }
            }
            (Recorded::NotYet, tch::Device::Cuda(gpu)) => {
                let mut computed = false;
                let recorded = Graph::record(gpu, || {
                    step();
                    computed = true;
                });
                if !computed {
                    step();
                }
                self.graph = match recorded {
                    Ok(graph) => Recorded::Graph(graph),
                    Err(error) => Recorded::Never(error.to_string()),
                };
            }
            _ => step(),
        }
        wait(device);
        self.inputs.memory.logits()
    }

    /// Launches the operations of each step, for a reason: one of them cannot be recorded.
    pub fn record_no_step(&mut self, reason: &str) {
        self.graph = Recorded::Never(reason.to_owned());
    }

    /// Why steps are not recorded, if they were run without that.
    pub fn not_recorded(&self) -> Option<&str> {
        match &self.graph {
            Recorded::Never(reason) => Some(reason),
            Recorded::NotYet | Recorded::Graph(_) => None,
        }
    }
}

impl StepInputs {
    /// The rows' newest tokens, `[B]`.
    pub fn tokens(&self) -> Tensor<1, Int> {
        self.ints(Dispatch::tokens_of_step)
    }

    /// Their positions, `[B]`.
    pub fn positions(&self) -> Tensor<1, Int> {
        self.ints(Dispatch::positions_of_step)
    }

    /// The tensor that `of` finds. Its argument only tells the backend.
    fn ints(
        &self,
        of: fn(IntTensor<Dispatch>, Rc<Memory>) -> IntTensor<Dispatch>,
    ) -> Tensor<1, Int> {
        let any = Tensor::<1, Int>::from_data([0_i64; 0], &cpu());
        let found = Tensor::from_dispatch(of(any.into_dispatch(), Rc::clone(&self.memory)));
        if self.device.is_autodiff() {
            found.autodiff()
        } else {
            found
        }
    }

    /// Attention of the newest tokens: rotates queries and keys, writes keys and values to the cache, in place, and returns what
    /// the queries see.
    ///
    /// # Shapes
    /// Queries `[B, N, D]`, keys and values `[B, K, D]`. `rotary`: cosines and sines, `[B, R/2]` each, f32. `cache`: keys and
    /// values, `[S, K, D]` each. Result: `[B, N, D]`.
    pub fn attend(
        &self,
        qkv: [Tensor<3>; 3],
        rotary: Option<[Tensor<2>; 2]>,
        cache: [Tensor<3>; 2],
        scores: Scores,
    ) -> Tensor<3> {
        let [q, k, v] = qkv.map(Tensor::into_dispatch);
        let [keys, values] = cache.map(Tensor::into_dispatch);
        let memory = Rc::clone(&self.memory);
        let y = match rotary {
            None => Dispatch::attend_in_step(q, k, v, keys, values, memory, scores),
            Some(rotary) => {
                let [cos, sin] = rotary.map(Tensor::into_dispatch);
                Dispatch::rotate_and_attend_in_step(q, k, v, cos, sin, keys, values, memory, scores)
            }
        };
        Tensor::from_dispatch(y)
    }
}

/// The operations of a step on a backend.
#[backend_extension(LibTorch, Autodiff)]
pub(crate) trait StepBackend: Backend {
    fn tokens_of_step(any: IntTensor<Self>, memory: Rc<Memory>) -> IntTensor<Self>;
    fn positions_of_step(any: IntTensor<Self>, memory: Rc<Memory>) -> IntTensor<Self>;
    fn logits_to_host(logits: FloatTensor<Self>, memory: Rc<Memory>) -> FloatTensor<Self>;
    fn attend_in_step(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        memory: Rc<Memory>,
        scores: Scores,
    ) -> FloatTensor<Self>;
    fn rotate_and_attend_in_step(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        memory: Rc<Memory>,
        scores: Scores,
    ) -> FloatTensor<Self>;
}

impl StepBackend for LibTorch {
    fn tokens_of_step(_any: TchTensor, memory: Rc<Memory>) -> TchTensor {
        fresh(memory.tokens())
    }

    fn positions_of_step(_any: TchTensor, memory: Rc<Memory>) -> TchTensor {
        fresh(memory.positions())
    }

    fn logits_to_host(logits: TchTensor, memory: Rc<Memory>) -> TchTensor {
        memory.finish(&logits.tensor);
        logits
    }

    fn attend_in_step(
        q: TchTensor,
        k: TchTensor,
        v: TchTensor,
        keys: TchTensor,
        values: TchTensor,
        memory: Rc<Memory>,
        scores: Scores,
    ) -> TchTensor {
        let _span = profile::span(Operation::Attention, 0, 0);
        let cache = [&keys.tensor, &values.tensor];
        let qkv = [&q.tensor, &k.tensor, &v.tensor];
        if let Some(y) = kernel::attend(&memory, qkv, None, cache, scores) {
            return fresh(y);
        }
        attention::write(&memory, [&k.tensor, &v.tensor], cache);
        fresh(attention::attend(&memory, &q.tensor, cache, scores))
    }

    fn rotate_and_attend_in_step(
        q: TchTensor,
        k: TchTensor,
        v: TchTensor,
        cos: TchTensor,
        sin: TchTensor,
        keys: TchTensor,
        values: TchTensor,
        memory: Rc<Memory>,
        scores: Scores,
    ) -> TchTensor {
        let cache = [&keys.tensor, &values.tensor];
        let qkv = [&q.tensor, &k.tensor, &v.tensor];
        let rotary = Some([&cos.tensor, &sin.tensor]);
        if let Some(y) = kernel::attend(&memory, qkv, rotary, cache, scores) {
            return fresh(y);
        }
        let [q, k] = [q, k].map(|of| Self::rope_form(of, cos.clone(), sin.clone(), false));
        Self::attend_in_step(q, k, v, keys, values, memory, scores)
    }
}

impl<B: StepBackend, C: CheckpointStrategy> StepBackend for Autodiff<B, C> {
    fn tokens_of_step(any: IntTensor<Self>, memory: Rc<Memory>) -> IntTensor<Self> {
        B::tokens_of_step(any, memory)
    }

    fn positions_of_step(any: IntTensor<Self>, memory: Rc<Memory>) -> IntTensor<Self> {
        B::positions_of_step(any, memory)
    }

    fn logits_to_host(logits: FloatTensor<Self>, memory: Rc<Memory>) -> FloatTensor<Self> {
        Self::from_inner(B::logits_to_host(logits.into_primitive(), memory))
    }

    fn attend_in_step(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        memory: Rc<Memory>,
        scores: Scores,
    ) -> FloatTensor<Self> {
        Self::from_inner(B::attend_in_step(
            q.into_primitive(),
            k.into_primitive(),
            v.into_primitive(),
            keys.into_primitive(),
            values.into_primitive(),
            memory,
            scores,
        ))
    }

    fn rotate_and_attend_in_step(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        memory: Rc<Memory>,
        scores: Scores,
    ) -> FloatTensor<Self> {
        Self::from_inner(B::rotate_and_attend_in_step(
            q.into_primitive(),
            k.into_primitive(),
            v.into_primitive(),
            cos.into_primitive(),
            sin.into_primitive(),
            keys.into_primitive(),
            values.into_primitive(),
            memory,
            scores,
        ))
    }
}
