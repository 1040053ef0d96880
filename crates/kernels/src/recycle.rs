//! An allocator that keeps big blocks for their next use.
//!
//! A training step makes and drops the same big buffers again and again. Returned to the system
//! each time, every page of them is cleared by the kernel before it is seen again, which took a
//! fifth of the time. Here big blocks come from one range of addresses that is reserved once, and
//! its pages, once touched, stay with the process.
//!
//! Free ranges are kept in the order of their addresses and joined with their neighbours; the first
//! that is large enough is used. So the memory in use stays together at the lower end, whatever the
//! sizes of the steps, and the process is no larger than its largest step. The range asks for huge
//! pages: products walk over rows that are kilobytes apart, a page or more each.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Smallest block that comes from the range: what the system's allocator would map anew.
const SMALLEST: usize = 128 << 10;

/// Blocks are whole pages.
const PAGE: usize = 4096;

/// Addresses reserved; memory is only used where it is touched.
const RESERVED: usize = 1 << 38;

/// The allocator; a program makes it its own with `#[global_allocator]`.
///
/// ```
/// use simmer_kernels::RecyclingAllocator;
///
/// #[global_allocator]
/// static ALLOCATOR: RecyclingAllocator = RecyclingAllocator::new();
///
/// let block = vec![1.0_f32; 1 << 20];
/// drop(block);
/// let again = vec![0.0_f32; 1 << 20]; // the same memory, cleared
/// assert!(again.iter().all(|x| *x == 0.0));
/// ```
#[derive(Debug)]
pub struct RecyclingAllocator {
    locked: AtomicBool,
    range: UnsafeCell<Range>,
}

/// The reserved addresses and what is free of them.
#[derive(Debug)]
struct Range {
    state: State,
    start: *mut u8,
    /// First address never used.
    unused: *mut u8,
    end: *mut u8,
    /// First free block, in the order of addresses.
    free: *mut Free,
    in_use: usize,
    most: usize,
}

/// What the big blocks come to, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Now.
    pub in_use: usize,
    /// The most at one time.
    pub most: usize,
    /// Addresses ever used: the most at one time, and the gaps between blocks that nothing fitted in.
    pub reached: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    New,
    Reserved,
    /// The system gives no such range: its own allocator serves everything.
    Refused,
}

/// Written at the beginning of a free block.
#[derive(Debug)]
struct Free {
    size: usize,
    next: *mut Free,
}

// SAFETY: the range is only touched under the lock, and blocks belong to no thread.
#[expect(unsafe_code, reason = "shared by all threads")]
unsafe impl Sync for RecyclingAllocator {}

impl RecyclingAllocator {
    /// Nothing reserved yet.
    pub const fn new() -> Self {
        Self {
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

    /// What is and was in use.
    pub fn usage(&self) -> Usage {
        self.with_range(|range| Usage {
            in_use: range.in_use,
            most: range.most,
            reached: range.unused as usize - range.start as usize,
        })
    }

    /// Runs `f` alone.
    #[expect(unsafe_code, reason = "a lock without the allocations of a mutex")]
    fn with_range<T>(&self, f: impl FnOnce(&mut Range) -> T) -> T {
        let set = || {
            self.locked
                .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
        };
        while set().is_err() {
            std::hint::spin_loop();
        }
        // SAFETY: the flag admits one thread at a time, and `f` neither allocates nor panics.
        let result = f(unsafe { &mut *self.range.get() });
        self.locked.store(false, Ordering::Release);
        result
    }
}

impl Default for RecyclingAllocator {
    fn default() -> Self {
        Self::new()
    }
}

impl Range {
    /// A block, or null where the range has none.
    #[expect(unsafe_code, reason = "free blocks hold the list")]
    fn take(&mut self, size: usize) -> *mut u8 {
        if self.state == State::New {
            self.reserve();
        }
        let mut link = &raw mut self.free;
        // SAFETY: `link` points to the list's head or to the `next` of a free block, and every
        // block in the list begins with what `give` or this function wrote there.
        unsafe {
            while let Some(block) = (*link).as_mut() {
                if block.size == size {
                    *link = block.next;
                    return ptr::from_mut(block).cast();
                }
                if block.size > size {
                    let block = ptr::from_mut(block);
                    let rest = block.byte_add(size);
                    rest.write(Free {
                        size: (*block).size - size,
                        next: (*block).next,
                    });
                    *link = rest;
                    return block.cast();
                }
                link = &raw mut block.next;
            }
        }
        if (self.end as usize) - (self.unused as usize) < size {
            return ptr::null_mut();
        }
        let block = self.unused;
        self.unused = block.wrapping_add(size);
        block
    }

    /// Takes a block back, and joins it with free neighbours.
    #[expect(unsafe_code, reason = "free blocks hold the list")]
    fn give(&mut self, block: *mut u8, size: usize) {
        let block: *mut Free = block.cast();
        let mut before: *mut Free = ptr::null_mut();
        let mut after = self.free;
        // SAFETY: the list's blocks are as in `take`; `block` is free now, at least a page, and
        // lies in the range.
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
    #[expect(unsafe_code, reason = "addresses without a file")]
    fn reserve(&mut self) {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the system chooses addresses that nobody uses.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), RESERVED, protection, flags) };
        let Ok(start) = start else {
            self.state = State::Refused;
            return;
        };
        // SAFETY: the range is ours, and the advice changes no contents. Where there are no huge
        // pages the answer is an error that does not matter.
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

/// The size of a layout's block; `None` for those that the system's allocator serves.
fn size_of_block(layout: Layout) -> Option<usize> {
    let large = layout.size() >= SMALLEST && layout.size() < RESERVED && layout.align() <= PAGE;
    large.then(|| layout.size().next_multiple_of(PAGE))
}

// SAFETY: a block has its layout's size and a page's alignment; it is free or in use, never both;
// what does not come from the range comes from the system's allocator, and goes back there.
#[expect(unsafe_code, reason = "an allocator")]
unsafe impl GlobalAlloc for RecyclingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = size_of_block(layout).map_or(ptr::null_mut(), |size| {
            self.with_range(|range| {
                let block = range.take(size);
                if !block.is_null() {
                    range.in_use += size;
                    range.most = range.most.max(range.in_use);
                }
                block
            })
        });
        if block.is_null() {
            // SAFETY: the caller's promise about the layout.
            unsafe { System.alloc(layout) }
        } else {
            block
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
            // SAFETY: the caller's promise: the block came from here with this layout.
            unsafe { System.dealloc(block, layout) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if size_of_block(layout).is_none() {
            // SAFETY: the caller's promise about the layout.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: as above.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block has that size.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::unwrap_used, reason = "sizes known to be valid")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[expect(unsafe_code, reason = "an allocator's interface")]
    fn alloc(allocator: &RecyclingAllocator, size: usize) -> *mut u8 {
        // SAFETY: the layout has a size.
        unsafe { allocator.alloc(Layout::from_size_align(size, 64).unwrap()) }
    }

    #[expect(unsafe_code, reason = "an allocator's interface")]
    fn dealloc(allocator: &RecyclingAllocator, block: *mut u8, size: usize) {
        // SAFETY: tests return blocks with the size that they asked for.
        unsafe { allocator.dealloc(block, Layout::from_size_align(size, 64).unwrap()) }
    }

    #[test]
    fn a_dropped_block_is_the_next_one() {
        let allocator = RecyclingAllocator::new();
        let first = alloc(&allocator, 1 << 20);
        let second = alloc(&allocator, 1 << 20);
        assert_ne!(first, second);
        dealloc(&allocator, first, 1 << 20);
        assert_eq!(alloc(&allocator, (1 << 20) - 100), first);
        dealloc(&allocator, second, 1 << 20);
        let usage = Usage {
            in_use: 1 << 20,
            most: 2 << 20,
            reached: 2 << 20,
        };
        assert_eq!(allocator.usage(), usage);
    }

    #[test]
    #[expect(unsafe_code, reason = "an allocator's interface")]
    fn a_recycled_block_is_cleared_where_that_is_asked_for() {
        let allocator = RecyclingAllocator::new();
        let block = alloc(&allocator, 1 << 20);
        // SAFETY: the block has that size.
        unsafe { block.write_bytes(7, 1 << 20) };
        dealloc(&allocator, block, 1 << 20);
        let layout = Layout::from_size_align(1 << 19, 64).unwrap();
        // SAFETY: the layout has a size, and the block is read within it.
        let bytes = unsafe { std::slice::from_raw_parts(allocator.alloc_zeroed(layout), 1 << 19) };
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Blocks in use never overlap, and when all are free they are one range again.
        #[test]
        fn blocks_are_apart_and_join_again(
            steps in prop::collection::vec((1_usize..200, any::<prop::sample::Index>(), any::<bool>()), 1..80),
        ) {
            let allocator = RecyclingAllocator::new();
            let mut used: Vec<(usize, usize)> = Vec::new();
            for (pages, index, drop) in steps {
                if drop && !used.is_empty() {
                    let (block, size) = used.swap_remove(index.index(used.len()));
                    dealloc(&allocator, block as *mut u8, size);
                    continue;
                }
                let size = SMALLEST + pages * 1000;
                let block = alloc(&allocator, size) as usize;
                for (other, other_size) in &used {
                    prop_assert!(block + size <= *other || other + other_size <= block);
                }
                used.push((block, size));
            }
            for (block, size) in used {
                dealloc(&allocator, block as *mut u8, size);
            }
            allocator.with_range(|range| {
                let whole = Free { size: range.unused as usize - range.start as usize, next: ptr::null_mut() };
                if let Some(free) = nothing_or(range.free) {
                    prop_assert_eq!((free.size, free.next), (whole.size, whole.next));
                    prop_assert_eq!(range.free as usize, range.start as usize);
                }
                Ok(())
            })?;
        }
    }

    #[expect(unsafe_code, reason = "a look into a free block")]
    fn nothing_or<'a>(block: *mut Free) -> Option<&'a Free> {
        // SAFETY: a free block begins with this.
        unsafe { block.as_ref() }
    }
}
