//! Copies from the processor's memory to a device.
//!
//! A copy from ordinary memory to a GPU blocks the host until the GPU has finished all earlier work, and runs at a
//! fraction of the bus's rate. So everything goes through pinned memory, which a GPU reads while the host continues.
//! Weights are copied part by part: all threads read a part, mapped from its file for instance, while the GPU fetches
//! the parts before it.

use std::ffi::{c_char, c_int};
use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use super::aten::{self, Input, Outputs};
use super::event::Event;
use super::graph::is_recording;
use crate::threads;

/// Bytes of a part, and the number of parts that are on their way at a time.
const PART: usize = 32 << 20;
const PARTS: usize = 4;

/// Bytes of the first of the [`Slabs`], and the most of one that holds several tensors.
const SLABS: (usize, usize) = (1 << 20, 1 << 30);
/// The address of a tensor in one is a multiple of this.
const ALIGNED: usize = 256;

/// Why an operation cannot be recorded: the graph would read the host's memory after it was freed.
const COPIED: &str = "a graph cannot copy from memory of the host that does not stay";

/// Bytes that a thread copies at a time.
const CHUNK: usize = 1 << 20;

#[expect(unsafe_code, reason = "the functions of aten.cpp are C++")]
unsafe extern "C" {
    fn simmer_pinned(bytes: i64, out: Outputs, said: *mut c_char, room: usize) -> c_int;
    fn simmer_pin(tensor: Input, out: Outputs, said: *mut c_char, room: usize) -> c_int;
    fn simmer_copy_queued(to: Input, from: Input, said: *mut c_char, room: usize) -> c_int;
}

/// A multiple of the size of a page.
#[cfg(target_os = "linux")]
const PAGE: usize = 64 << 10;

/// Copies a tensor in the processor's memory to a device. A copy to a GPU is queued behind earlier
/// work, and the host does not wait for it.
pub(crate) fn uploaded(here: &Tensor, device: Device) -> Tensor {
    if !device.is_cuda() {
        return here.to_device(device);
    }
    assert!(!is_recording(), "{COPIED}");
    let there = Tensor::empty(here.size(), (here.kind(), device));
    let here = here.contiguous();
    // SAFETY: the function reads one tensor, which outlives the call, and writes one.
    #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
    let [pinned] = aten::all(aten::call(|out, said, room| unsafe {
        simmer_pin(here.as_ptr(), out, said, room)
    }));
    copy_queued(&there, &pinned);
    there
}

/// A list of bytes on a device.
///
/// # Shapes
/// Result: `[N]`, in u8.
pub(crate) fn bytes_on(bytes: &[u8], device: Device) -> Tensor {
    let to = Tensor::empty([bytes.len() as i64], (Kind::Uint8, device));
    fill(&to, bytes);
    to
}

/// Copies elements to a contiguous tensor that nothing else uses yet.
///
/// # Panics
/// If there are more or fewer bytes than the tensor has.
pub(crate) fn fill(to: &Tensor, bytes: &[u8]) {
    let size = to.numel() * to.kind().elt_size_in_bytes();
    assert!(
        to.is_contiguous() && size == bytes.len(),
        "{} bytes for a tensor of {size}",
        bytes.len()
    );
    if bytes.is_empty() {
        return;
    }
    assert!(!is_recording(), "{COPIED}");
    needed_soon(bytes);
    match to.device() {
        Device::Cuda(gpu) => fill_gpu(&to.view_dtype(Kind::Uint8).view([-1]), bytes, gpu),
        _ => copy_by_all_threads(to, bytes),
    }
}

/// Asks the system to read mapped memory from its file ahead of its use.
fn needed_soon(bytes: &[u8]) {
    #[cfg(target_os = "linux")]
    {
        use rustix::mm::{Advice, madvise};

        let start = bytes.as_ptr().addr();
        let first = start.next_multiple_of(PAGE);
        if let Some(len) = (start + bytes.len()).checked_sub(first) {
            let from = bytes.as_ptr().wrapping_add(first - start).cast_mut();
            // SAFETY: this advice changes no contents. It is only a hint, so that a failure does no harm.
            #[expect(
                unsafe_code,
                reason = "advice about a range of memory takes its address"
            )]
            let _ = unsafe { madvise(from.cast(), len, Advice::WillNeed) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = bytes;
}

/// Copies to a tensor in the processor's memory that has at least so many bytes.
fn copy_by_all_threads(to: &Tensor, bytes: &[u8]) {
    // SAFETY: the tensor is contiguous, in the processor's memory, has at least so many bytes, and nothing else uses it
    // during the call: it was created for these bytes, or is a part of the ring that is locked and not on its way.
    #[expect(unsafe_code, reason = "writes to the memory of a tensor of libtorch")]
    let to = unsafe { std::slice::from_raw_parts_mut(to.data_ptr().cast::<u8>(), bytes.len()) };
    threads::chunks(to, CHUNK, |index, to| {
        let start = index * CHUNK;
        to.copy_from_slice(&bytes[start..start + to.len()]);
    });
}

fn fill_gpu(to: &Tensor, bytes: &[u8], gpu: usize) {
    static RING: Mutex<Ring> = Mutex::new(Ring {
        parts: Vec::new(),
        next: 0,
    });
    let mut ring = RING.lock().unwrap_or_else(PoisonError::into_inner);
    for (index, bytes) in bytes.chunks(PART).enumerate() {
        let part = ring.free_part();
        copy_by_all_threads(&part.memory, bytes);
        let len = bytes.len() as i64;
        let to = to.narrow(0, (index * PART) as i64, len);
        copy_queued(&to, &part.memory.narrow(0, 0, len));
        part.fetched = Some(Event::of_now(gpu));
    }
}

/// Pinned memory, used in turn. It is kept: pinning takes longer than copying.
struct Ring {
    parts: Vec<Part>,
    next: usize,
}

struct Part {
    memory: Tensor,
    /// When the GPU has fetched it; `None` if it is not on its way.
    fetched: Option<Event>,
}

impl Ring {
    /// A part that no GPU reads any more.
    fn free_part(&mut self) -> &mut Part {
        if self.parts.len() < PARTS {
            self.parts.push(Part {
                memory: pinned(PART as i64),
                fetched: None,
            });
            self.next = self.parts.len() - 1;
        }
        let place = self.next;
        self.next = (place + 1) % PARTS;
        let part = &mut self.parts[place];
        if let Some(event) = part.fetched.take() {
            event.wait();
        }
        part
    }
}

/// Memory of the host that a GPU reads and writes while the host continues; ordinary memory for another device.
///
/// # Shapes
/// Result: `shape`.
pub(crate) fn shared_memory(shape: [i64; 2], kind: Kind, device: Device) -> Tensor {
    if !device.is_cuda() {
        return Tensor::zeros(shape, (kind, Device::Cpu));
    }
    let bytes = shape.iter().product::<i64>() * kind.elt_size_in_bytes() as i64;
    pinned(bytes).view_dtype(kind).view(shape).zero_()
}

/// Memory of the host that GPUs read and write while the host continues, `[bytes]`.
fn pinned(bytes: i64) -> Tensor {
    // SAFETY: the function writes one tensor.
    #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
    let [memory] = aten::all(aten::call(|out, said, room| unsafe {
        simmer_pinned(bytes, out, said, room)
    }));
    memory
}

/// Main memory that a device copies from while the host continues, in pieces of a power of two bytes: torch rounds pinned memory
/// up to that, so that a piece for each tensor would waste up to a half.
pub(crate) struct Slabs {
    device: Device,
    /// The newest one, `[bytes]`, and how many of its bytes are taken.
    newest: Option<(Tensor, usize)>,
}

impl Slabs {
    /// For copies to this device.
    pub(crate) fn new(device: Device) -> Self {
        Self {
            device,
            newest: None,
        }
    }

    /// Room for a tensor, which stays taken.
    pub(crate) fn room(&mut self, shape: &[i64], kind: Kind) -> Tensor {
        let bytes = shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes();
        let size = self.newest.as_ref().map_or(0, |(slab, _)| slab.numel());
        let (slab, taken) = match self.newest.take() {
            Some((slab, taken)) if taken + bytes <= size => (slab, taken),
            _ => (self.slab((2 * size).clamp(SLABS.0, SLABS.1).max(bytes)), 0),
        };
        let room = slab.narrow(0, taken as i64, bytes as i64);
        let taken = (taken + bytes).next_multiple_of(ALIGNED);
        self.newest = Some((slab, taken));
        room.view_dtype(kind).view(shape)
    }

    /// A copy of a tensor on any device.
    pub(crate) fn copy_of(&mut self, x: &Tensor) -> Tensor {
        let mut room = self.room(&x.size(), x.kind());
        room.copy_(x);
        room
    }

    fn slab(&self, bytes: usize) -> Tensor {
        let bytes = bytes.next_power_of_two() as i64;
        match self.device {
            Device::Cuda(_) => pinned(bytes),
            _ => Tensor::empty([bytes], (Kind::Uint8, Device::Cpu)),
        }
    }
}

/// Waits for all work that a device was given so far.
pub(crate) fn wait(device: Device) {
    if let Device::Cuda(gpu) = device {
        Event::of_now(gpu).wait();
    }
}

/// A copy between a device and its [`shared_memory`], or from pinned memory, that the host does not wait for.
pub(crate) fn copy_queued(to: &Tensor, from: &Tensor) {
    let [to, from]: [*const C_tensor; 2] = [to.as_ptr(), from.as_ptr()];
    // SAFETY: both tensors outlive the call; torch keeps pinned memory until a copy that was queued has finished.
    #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
    let [] = aten::call(|_, said, room| unsafe { simmer_copy_queued(to, from, said, room) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_arrive() {
        let device = crate::devices::torch();
        let count = 2 * CHUNK + 12_345;
        let values: Vec<i32> = (0..count as i32).collect();
        let to = Tensor::empty([count as i64], (Kind::Int, device));
        fill(&to, bytemuck::cast_slice(&values));
        assert_eq!(Vec::<i32>::try_from(&to).unwrap(), values);
        assert_eq!(bytes_on(&[], device).numel(), 0);
        let few = bytes_on(&[3, 250], device).to_kind(Kind::Int);
        assert_eq!(Vec::<i32>::try_from(&few).unwrap(), [3, 250]);
        let here = Tensor::from_slice(&values[..5]);
        assert_eq!(
            Vec::<i32>::try_from(&uploaded(&here, device)).unwrap(),
            values[..5]
        );
    }

    #[test]
    #[should_panic(expected = "3 bytes for a tensor of 8")]
    fn sizes_are_checked() {
        fill(&Tensor::empty([2], (Kind::Int, Device::Cpu)), &[1, 2, 3]);
    }

    #[test]
    fn tensors_in_slabs_do_not_overlap() {
        let mut slabs = Slabs::new(crate::devices::torch());
        let sizes = [3, 200_000, 5, 700_000, 1, 300_000];
        let copies: Vec<Tensor> = (0..)
            .zip(sizes)
            .map(|(value, count)| {
                slabs.copy_of(&Tensor::full([count, 2], value, (Kind::Int, Device::Cpu)))
            })
            .collect();
        for ((value, count), copy) in (0..).zip(sizes).zip(&copies) {
            assert_eq!(copy.size(), [count, 2]);
            assert!(copy.data_ptr().addr().is_multiple_of(64));
            let all = Vec::<i32>::try_from(copy.view([-1])).unwrap();
            assert!(all.iter().all(|found| *found == value));
        }
    }
}
