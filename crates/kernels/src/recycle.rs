//! An allocator that keeps big blocks for their next use.
//!
//! A training step makes and drops the same big buffers again and again. Returned to the system
//! each time, every page of them is cleared by the kernel before it is seen again, which took a
//! fifth of the time. Here a dropped block waits in a list of its size class, and the same bytes
//! serve the next operation.
//!
//! Classes are eighths of powers of two, so that at most an eighth of a block is unused. Blocks are
//! whole pages; those of two megabytes and more begin at a huge page and ask for them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Smallest block that is kept, as a power of two: what the system's allocator would map anew.
const SMALLEST: u32 = 17;

/// Largest block that is kept: 4 GiB.
const LARGEST: u32 = 32;

/// Size classes between two powers of two.
const STEPS: usize = 8;

/// Lists of blocks.
const CLASSES: usize = (LARGEST - SMALLEST) as usize * STEPS + 1;

const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

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
    lists: Lists,
    locked: AtomicBool,
    kept: AtomicUsize,
}

/// The first free block of each class; a free block's first word is the next one.
#[derive(Debug)]
struct Lists(UnsafeCell<[*mut u8; CLASSES]>);

impl RecyclingAllocator {
    /// Without any block yet.
    pub const fn new() -> Self {
        Self {
            lists: Lists(UnsafeCell::new([ptr::null_mut(); CLASSES])),
            locked: AtomicBool::new(false),
            kept: AtomicUsize::new(0),
        }
    }

    /// Bytes that wait for their next use.
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Runs `f` alone.
    #[expect(unsafe_code, reason = "a lock without the allocations of a mutex")]
    fn with_lists<T>(&self, f: impl FnOnce(&mut [*mut u8; CLASSES]) -> T) -> T {
        while self
            .locked
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            std::hint::spin_loop();
        }
        // SAFETY: the flag admits one thread at a time, and `f` does not allocate.
        let result = f(unsafe { &mut *self.lists.0.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    /// A block of a class from its list.
    #[expect(unsafe_code, reason = "free blocks hold the list")]
    fn take(&self, class: Class) -> *mut u8 {
        self.with_lists(|lists| {
            let first = lists[class.index];
            if !first.is_null() {
                // SAFETY: a block in the list begins with the pointer that `put` wrote.
                lists[class.index] = unsafe { first.cast::<*mut u8>().read() };
                self.kept.fetch_sub(class.size, Ordering::Relaxed);
            }
            first
        })
    }

    /// Returns a block to its list.
    #[expect(unsafe_code, reason = "free blocks hold the list")]
    fn put(&self, class: Class, block: *mut u8) {
        self.with_lists(|lists| {
            // SAFETY: the block is free, a page at least, and aligned to one.
            unsafe { block.cast::<*mut u8>().write(lists[class.index]) };
            lists[class.index] = block;
            self.kept.fetch_add(class.size, Ordering::Relaxed);
        });
    }
}

impl Default for RecyclingAllocator {
    fn default() -> Self {
        Self::new()
    }
}

/// A block's list and its size.
#[derive(Debug, Clone, Copy)]
struct Class {
    index: usize,
    size: usize,
}

impl Class {
    /// The class of a layout; `None` for those that the system's allocator serves.
    fn of(layout: Layout) -> Option<Self> {
        let size = layout.size();
        if size < 1 << SMALLEST || size > 1 << LARGEST || layout.align() > PAGE {
            return None;
        }
        let power = size.ilog2();
        let step = (1_usize << power) / STEPS;
        let steps = (size - (1 << power)).div_ceil(step);
        Some(Self {
            index: (power - SMALLEST) as usize * STEPS + steps,
            size: (1 << power) + steps * step,
        })
    }

    #[expect(unsafe_code, reason = "a layout known to be valid")]
    fn layout(self) -> Layout {
        let align = if self.size >= HUGE_PAGE {
            HUGE_PAGE
        } else {
            PAGE
        };
        // SAFETY: the alignment is a power of two, and the size far below the address space.
        unsafe { Layout::from_size_align_unchecked(self.size, align) }
    }

    /// A new block, its pages not touched yet.
    #[expect(unsafe_code, reason = "an allocator")]
    fn allocate(self) -> *mut u8 {
        // SAFETY: the size is not zero.
        let block = unsafe { System.alloc(self.layout()) };
        #[cfg(target_os = "linux")]
        if !block.is_null() && self.size >= HUGE_PAGE {
            // SAFETY: the range is the block's own; the advice changes no contents. Where the
            // system has no huge pages the answer is an error that does not matter.
            let _ = unsafe {
                rustix::mm::madvise(
                    block.cast(),
                    self.size,
                    rustix::mm::Advice::LinuxHugepage,
                )
            };
        }
        block
    }
}

// SAFETY: the lists are only touched under the lock.
#[expect(unsafe_code, reason = "shared by all threads")]
unsafe impl Sync for Lists {}
// SAFETY: blocks belong to no thread.
#[expect(unsafe_code, reason = "shared by all threads")]
unsafe impl Send for Lists {}

// SAFETY: a block of a class has the class's size and a page's alignment, enough for every layout
// of that class; it is in a list or in use, never both; other layouts go to the system unchanged.
#[expect(unsafe_code, reason = "an allocator")]
unsafe impl GlobalAlloc for RecyclingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = Class::of(layout) else {
            // SAFETY: the caller's promise about the layout.
            return unsafe { System.alloc(layout) };
        };
        let block = self.take(class);
        if block.is_null() {
            class.allocate()
        } else {
            block
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match Class::of(layout) {
            Some(class) => self.put(class, block),
            // SAFETY: the caller's promise: the block came from here with this layout.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Class::of(layout).is_none() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_their_sizes() {
        for size in (1 << SMALLEST..1_usize << 22).step_by(4093) {
            let class = Class::of(Layout::from_size_align(size, 64).unwrap()).unwrap();
            assert!(class.size >= size, "{size} in {class:?}");
            assert!(class.size - size <= size / STEPS, "{size} in {class:?}");
            assert_eq!(class.size % PAGE, 0);
            let own = Class::of(Layout::from_size_align(class.size, 1).unwrap()).unwrap();
            assert_eq!((own.index, own.size), (class.index, class.size));
        }
        let small = Layout::from_size_align((1 << SMALLEST) - 1, 8).unwrap();
        assert!(Class::of(small).is_none());
        let largest = Layout::from_size_align(1 << LARGEST, 8).unwrap();
        assert_eq!(Class::of(largest).unwrap().index, CLASSES - 1);
    }

    #[test]
    #[expect(unsafe_code, reason = "an allocator's interface")]
    fn a_dropped_block_is_the_next_one() {
        let allocator = RecyclingAllocator::new();
        let layout = Layout::from_size_align(1 << 20, 64).unwrap();
        // SAFETY: blocks are used within their layout, and returned with it.
        unsafe {
            let first = allocator.alloc(layout);
            let second = allocator.alloc(layout);
            assert_ne!(first, second);
            first.write_bytes(7, layout.size());
            allocator.dealloc(first, layout);
            assert_eq!(allocator.kept(), 1 << 20);
            let smaller = Layout::from_size_align((1 << 20) - 5000, 8).unwrap();
            let again = allocator.alloc_zeroed(smaller);
            assert_eq!(again, first);
            assert!(std::slice::from_raw_parts(again, smaller.size()).iter().all(|byte| *byte == 0));
            allocator.dealloc(again, smaller);
            allocator.dealloc(second, layout);
        }
        assert_eq!(allocator.kept(), 2 << 20);
    }
}
