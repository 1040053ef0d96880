use super::*;
use proptest::prelude::*;

#[expect(unsafe_code, reason = "calls the unsafe functions of `GlobalAlloc`")]
fn alloc(allocator: &RecyclingAllocator, size: usize) -> *mut u8 {
    // SAFETY: no test asks for zero bytes.
    unsafe { allocator.alloc(Layout::from_size_align(size, 64).unwrap()) }
}

#[expect(unsafe_code, reason = "calls the unsafe functions of `GlobalAlloc`")]
fn dealloc(allocator: &RecyclingAllocator, block: *mut u8, size: usize) {
    // SAFETY: tests return each block once, with the size that they asked for.
    unsafe { allocator.dealloc(block, Layout::from_size_align(size, 64).unwrap()) }
}

#[test]
fn a_freed_block_is_used_again() {
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

/// Whether a block from `alloc_zeroed` is zero from its first byte to its last.
#[expect(unsafe_code, reason = "reads a block through its raw pointer")]
fn is_zeroed(allocator: &RecyclingAllocator, size: usize) -> bool {
    let layout = Layout::from_size_align(size, 64).unwrap();
    // SAFETY: the layout's size is not zero, the block has that size, and `alloc_zeroed`
    // initialised it.
    let bytes = unsafe { std::slice::from_raw_parts(allocator.alloc_zeroed(layout), size) };
    bytes.iter().all(|byte| *byte == 0)
}

#[test]
#[expect(unsafe_code, reason = "fills a block through its raw pointer")]
fn a_recycled_block_is_cleared_on_request() {
    let allocator = RecyclingAllocator::new();
    let block = alloc(&allocator, 1 << 20);
    // SAFETY: the block has that size.
    unsafe { block.write_bytes(7, 1 << 20) };
    dealloc(&allocator, block, 1 << 20);
    assert!(is_zeroed(&allocator, 1 << 19));
    // the second half of the freed block, and a fresh one behind it
    assert!(is_zeroed(&allocator, 1 << 19));
    assert!(is_zeroed(&allocator, 1 << 19));
    assert_eq!(allocator.usage().reached, 3 << 19);
}

#[test]
fn only_memory_that_was_never_used_is_fresh() {
    let allocator = RecyclingAllocator::new();
    let size = 1 << 20;
    let take = |size| {
        let layout = Layout::from_size_align(size, 64).unwrap();
        allocator.take(layout).unwrap()
    };
    let [first, second] = [take(size), take(size)];
    assert!(first.fresh && second.fresh);
    dealloc(&allocator, first.start, size);
    // whole, and in two parts
    let again = take(size);
    assert_eq!((again.start, again.fresh), (first.start, false));
    dealloc(&allocator, again.start, size);
    assert!(!take(size / 2).fresh);
    assert!(!take(size / 2).fresh);
    // a freed block at the end of the used part is not fresh, what lies behind it is
    dealloc(&allocator, second.start, size);
    assert!(!take(size).fresh);
    assert!(take(size).fresh);
}

/// Many more threads than cores finish although each needs the lock again and again, and no two
/// of them get the same block.
#[test]
#[expect(unsafe_code, reason = "writes to blocks through their raw pointers")]
fn many_threads_make_progress() {
    const THREADS: usize = 32;
    const TURNS: usize = 200;
    let allocator = RecyclingAllocator::new();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let allocator = &allocator;
            scope.spawn(move || {
                for turn in 0..TURNS {
                    let size = SMALLEST + (thread + turn) % 3 * PAGE;
                    let block = alloc(allocator, size);
                    let ends = [block, block.wrapping_add(size - 1)];
                    // SAFETY: the first and the last byte of a block of this size, which is
                    // this thread's until it is freed.
                    let found = unsafe {
                        for end in ends {
                            end.write(thread as u8);
                        }
                        std::thread::yield_now();
                        ends.map(|end| end.read())
                    };
                    assert_eq!(found, [thread as u8; 2]);
                    dealloc(allocator, block, size);
                }
            });
        }
    });
    assert_eq!(allocator.usage().in_use, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Blocks in use never overlap; when all are free, they are merged into one.
    #[test]
    fn blocks_do_not_overlap_and_are_merged(
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
            if let Some(free) = header(range.free) {
                prop_assert_eq!((free.size, free.next), (whole.size, whole.next));
                prop_assert_eq!(range.free as usize, range.start as usize);
            }
            Ok(())
        })?;
    }
}

#[expect(unsafe_code, reason = "reads the header of a free block")]
fn header<'a>(block: *mut Free) -> Option<&'a Free> {
    // SAFETY: the pointer is null, or a free block starts with a header.
    unsafe { block.as_ref() }
}
