//! An allocator that keeps large blocks for reuse.
//!
//! Every training step allocates and frees the same large buffers. If they were returned to the
//! system each time, the kernel would clear every page before the next use; this took a fifth of
//! the time. Here large blocks come from one address range, which is reserved once. Its pages stay
//! with the process after their first use.
//!
//! Free blocks are kept in address order and merged with their neighbours; the first one that is
//! large enough is used (first fit). The memory in use therefore stays together at the lower end of
//! the range, whatever the sizes of the steps, and the process is no larger than its largest step.
//! The range asks for huge pages: matrix multiplications walk over rows that are kilobytes apart,
//! each on a page of its own or on several.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Smallest block that comes from the range, in bytes: from this size on, the system's allocator
/// maps new memory for each block.
const SMALLEST: usize = 128 << 10;

/// Page size in bytes. Blocks are whole pages.
const PAGE: usize = 4096;

/// Size of the reserved address range, 256 GiB. Only pages that are touched use memory.
const RESERVED: usize = 1 << 38;

/// How often a thread checks the lock before it lets other threads run.
const SPINS: usize = 100;

/// The allocator. A program installs it with `#[global_allocator]`.
///
/// ```
/// use simmer_kernels::RecyclingAllocator;
///
/// #[global_allocator]
/// static ALLOCATOR: RecyclingAllocator = RecyclingAllocator::new();
///
/// let block = vec![1.0_f32; 1 << 20];
/// drop(block);
/// let zeros = vec![0.0_f32; 1 << 20]; // the same memory, cleared
/// assert!(zeros.iter().all(|x| *x == 0.0));
/// ```
#[derive(Debug)]
pub struct RecyclingAllocator<S = System> {
    locked: AtomicBool,
    range: UnsafeCell<Range>,
    /// The allocator of all other blocks.
    small: S,
}

/// The reserved address range and its free blocks.
#[derive(Debug)]
struct Range {
    state: State,
    start: *mut u8,
    /// First address that was never part of a block. No byte from here on was ever written.
    unused: *mut u8,
    end: *mut u8,
    /// Free block with the lowest address.
    free: *mut Free,
    in_use: usize,
    most: usize,
}

/// Total size of the large blocks, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// In use now.
    pub in_use: usize,
    /// Largest value of `in_use` so far.
    pub most: usize,
    /// Size of the part of the range that was ever used: `most`, plus gaps that were too small for
    /// later blocks.
    pub reached: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    New,
    Reserved,
    /// The system refused to reserve the range. The allocator of small blocks serves everything.
    Refused,
}

/// Header at the start of a free block.
#[derive(Debug)]
struct Free {
    size: usize,
    next: *mut Free,
}

/// A block of the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    start: *mut u8,
    /// Whether its memory was never used before: the system then provides zeros.
    fresh: bool,
}

// SAFETY: the range is only accessed under the lock, and blocks belong to no thread.
#[expect(
    unsafe_code,
    reason = "a static must be Sync, which a type with an `UnsafeCell` is not by itself"
)]
unsafe impl<S: Sync> Sync for RecyclingAllocator<S> {}

impl RecyclingAllocator {
    /// An allocator that has reserved nothing yet. Small blocks come from the system's allocator.
    pub const fn new() -> Self {
        Self::with_small(System)
    }
}

impl<S> RecyclingAllocator<S> {
    /// The same, with another allocator for small blocks.
    pub const fn with_small(small: S) -> Self {
        Self {
            small,
            locked: AtomicBool::new(false),
            range: UnsafeCell::new(Range {
                state: State::New,
                start: ptr::null_mut(),
                unused: ptr::null_mut(),
                end: ptr::null_mut(),
                free: ptr::null_mut(),
                in_use: 0,
                most: 0,
            }),
        }
    }

    /// The memory in use now and at most.
    pub fn usage(&self) -> Usage {
        self.with_range(|range| Usage {
            in_use: range.in_use,
            most: range.most,
            reached: range.unused as usize - range.start as usize,
        })
    }

    /// Runs `f` while no other thread accesses the range.
    #[expect(
        unsafe_code,
        reason = "the lock is our own, because a mutex may allocate on some systems"
    )]
    fn with_range<T>(&self, f: impl FnOnce(&mut Range) -> T) -> T {
        self.lock();
        // SAFETY: the flag admits one thread at a time, and `f` neither allocates nor panics.
        let result = f(unsafe { &mut *self.range.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    /// Waits for the lock and takes it, without allocating.
    ///
    /// The lock is usually held for some nanoseconds, so a thread spins first. If it is still held
    /// after [`SPINS`] checks, its holder is probably not running: the thread then yields its core.
    fn lock(&self) {
        let mut spins = 0;
        while self.locked.swap(true, Ordering::Acquire) {
            // reading alone leaves the cache line with the thread that holds the lock
            while self.locked.load(Ordering::Relaxed) {
                if spins < SPINS {
                    spins += 1;
                    std::hint::spin_loop();
                } else {
                    std::thread::yield_now();
                }
            }
        }
    }

    /// A block of the range; `None` if the allocator of small blocks must serve this layout.
    fn take(&self, layout: Layout) -> Option<Block> {
        let size = size_of_block(layout)?;
        self.with_range(|range| {
            let block = range.take(size)?;
            range.in_use += size;
            range.most = range.most.max(range.in_use);
            Some(block)
        })
    }
}

impl Default for RecyclingAllocator {
    fn default() -> Self {
        Self::new()
    }
}

impl Range {
    /// A block of `size` bytes; `None` if there is no room.
    #[expect(
        unsafe_code,
        reason = "the list of free blocks is stored in the free memory, behind raw pointers"
    )]
    fn take(&mut self, size: usize) -> Option<Block> {
        if self.state == State::New {
            self.reserve();
        }
        let mut link = &raw mut self.free;
        // SAFETY: `link` points to the list's head or to the `next` of a free block, and every
        // block in the list starts with a header that `give` or this function wrote.
        unsafe {
            while let Some(block) = (*link).as_mut() {
                if block.size == size {
                    *link = block.next;
                    return Some(Block {
                        start: ptr::from_mut(block).cast(),
                        fresh: false,
                    });
                }
                if block.size > size {
                    let block = ptr::from_mut(block);
                    let rest = block.byte_add(size);
                    rest.write(Free {
                        size: (*block).size - size,
                        next: (*block).next,
                    });
                    *link = rest;
                    return Some(Block {
                        start: block.cast(),
                        fresh: false,
                    });
                }
                link = &raw mut block.next;
            }
        }
        if (self.end as usize) - (self.unused as usize) < size {
            return None;
        }
        let start = self.unused;
        self.unused = start.wrapping_add(size);
        Some(Block { start, fresh: true })
    }

    /// Takes a block back and merges it with free neighbours.
    #[expect(
        unsafe_code,
        reason = "the list of free blocks is stored in the free memory, behind raw pointers"
    )]
    fn give(&mut self, block: *mut u8, size: usize) {
        let block: *mut Free = block.cast();
        let mut before: *mut Free = ptr::null_mut();
        let mut after = self.free;
        // SAFETY: every block in the list starts with a header, as in `take`. `block` lies in the
        // range, is at least a page, and its user has given it up.
        unsafe {
            while !after.is_null() && after < block {
                before = after;
                after = (*after).next;
            }
            block.write(Free { size, next: after });
            if !after.is_null() && block.byte_add(size) == after {
                (*block).size += (*after).size;
                (*block).next = (*after).next;
            }
            if before.is_null() {
                self.free = block;
            } else if before.byte_add((*before).size) == block {
                (*before).size += (*block).size;
                (*before).next = (*block).next;
            } else {
                (*before).next = block;
            }
        }
    }

    fn contains(&self, block: *mut u8) -> bool {
        (self.start..self.end).contains(&block)
    }

    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "rustix has no safe form of mmap and madvise")]
    fn reserve(&mut self) {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the address is null, so the system chooses a range that nothing else uses.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), RESERVED, protection, flags) };
        let Ok(start) = start else {
            self.state = State::Refused;
            return;
        };
        // SAFETY: the range is ours, and the advice changes no contents. A system without huge
        // pages returns an error, which can be ignored.
        let _ = unsafe { madvise(start, RESERVED, Advice::LinuxHugepage) };
        self.start = start.cast();
        self.unused = self.start;
        self.end = self.start.wrapping_add(RESERVED);
        self.state = State::Reserved;
    }

    #[cfg(not(target_os = "linux"))]
    fn reserve(&mut self) {
        self.state = State::Refused;
    }
}

/// The size of a layout's block; `None` if the allocator of small blocks serves the layout.
fn size_of_block(layout: Layout) -> Option<usize> {
    let large = layout.size() >= SMALLEST && layout.size() < RESERVED && layout.align() <= PAGE;
    large.then(|| layout.size().next_multiple_of(PAGE))
}

// SAFETY: a block has at least its layout's size, and starts on a page, which is at least the
// layout's alignment. It is free or in use, never both. Memory that does not come from the range
// comes from the allocator of small blocks and goes back there.
#[expect(
    unsafe_code,
    reason = "`GlobalAlloc` is unsafe to implement: all memory of the program depends on it"
)]
unsafe impl<S: GlobalAlloc> GlobalAlloc for RecyclingAllocator<S> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some(block) => block.start,
            // SAFETY: the caller promises that the layout's size is not zero.
            None => unsafe { self.small.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let ours = size_of_block(layout).is_some_and(|size| {
            self.with_range(|range| {
                let ours = range.contains(block);
                if ours {
                    range.in_use -= size;
                    range.give(block, size);
                }
                ours
            })
        });
        if !ours {
            // SAFETY: the caller promises that this allocator returned the block for this layout. It
            // is not in the range, so it came from the allocator of small blocks.
            unsafe { self.small.dealloc(block, layout) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(block) = self.take(layout) else {
            // SAFETY: the caller promises that the layout's size is not zero.
            return unsafe { self.small.alloc_zeroed(layout) };
        };
        // The system clears the pages of an anonymous mapping before their first use, so a fresh
        // block is zero already.
        if !block.fresh {
            // SAFETY: the block has at least the layout's size, and nothing else uses it.
            unsafe { block.start.write_bytes(0, layout.size()) };
        }
        block.start
    }
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::unwrap_used, reason = "the layouts are valid")]
mod tests;
