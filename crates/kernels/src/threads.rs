//! Parallel loops that begin in a microsecond.
//!
//! An operation of a step takes a fraction of a millisecond, and waking a sleeping thread a good
//! part of that. So the threads here wait for the next loop awake for a moment before they sleep,
//! and a loop does not wait for one that is still asleep: whoever is there takes the tasks.
//!
//! A loop inside of a loop, and a second one at the same time, runs on its own thread alone. What
//! a loop computes must not depend on who does which task.

#![expect(
    unsafe_code,
    reason = "threads that borrow the caller's closure for a loop"
)]

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a thread waits awake for the next loop.
const AWAKE: Duration = Duration::from_millis(2);

/// Looks for a new loop between two looks at the clock.
const LOOKS: usize = 256;

/// Runs `task(0)`, `task(1)` ... `task(tasks - 1)`, on all threads of rayon's number.
///
/// # Panics
/// Where a task panics.
pub(crate) fn for_each(tasks: usize, task: impl Fn(usize) + Sync) {
    let pool = POOL.get_or_init(Pool::start);
    if tasks <= 1 || pool.workers == 0 || pool.busy.swap(true, SeqCst) {
        return (0..tasks).for_each(task);
    }
    let task: &(dyn Fn(usize) + Sync) = &task;
    // SAFETY: workers use the reference only between entering an open loop and leaving it, and
    // `run` returns when the loop is closed and all have left.
    let task = unsafe {
        std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task)
    };
    let panicked = pool.run(tasks, task);
    pool.busy.store(false, SeqCst);
    assert!(!panicked, "a task of a parallel loop panicked");
}

/// The results of `task(0)` ... `task(tasks - 1)`.
pub(crate) fn map<R: Send>(tasks: usize, task: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let mut results: Vec<Option<R>> = (0..tasks).map(|_| None).collect();
    chunks(&mut results, 1, |index, slot| slot[0] = Some(task(index)));
    results.into_iter().flatten().collect()
}

/// Runs `task` with the index and the values of every chunk of `size` values.
pub(crate) fn chunks<T: Send>(
    values: &mut [T],
    size: usize,
    task: impl Fn(usize, &mut [T]) + Sync,
) {
    let mut none: [(); 0] = [];
    chunk_pairs(values, size, &mut none, 0, |index, values, _| {
        task(index, values);
    });
}

/// As [`chunks`], with the chunks of two slices that have as many; an empty second one has empty
/// chunks.
pub(crate) fn chunk_pairs<T: Send, U: Send>(
    first: &mut [T],
    first_size: usize,
    second: &mut [U],
    second_size: usize,
    task: impl Fn(usize, &mut [T], &mut [U]) + Sync,
) {
    let first_size = first_size.max(1);
    let tasks = first.len().div_ceil(first_size);
    let first = Pieces::of(first, first_size);
    let second = Pieces::of(second, second_size);
    for_each(tasks, |index| {
        // SAFETY: each index has chunks of its own, and is run once.
        let (first, second) = unsafe { (first.get(index), second.get(index)) };
        task(index, first, second);
    });
}

/// A slice to be taken apart.
struct Pieces<T> {
    start: *mut T,
    length: usize,
    size: usize,
}

// SAFETY: threads take different pieces, of values that may be sent to them.
unsafe impl<T: Send> Sync for Pieces<T> {}

impl<T> Pieces<T> {
    fn of(values: &mut [T], size: usize) -> Self {
        Self {
            start: values.as_mut_ptr(),
            length: values.len(),
            size,
        }
    }

    /// # Safety
    /// The slice is borrowed for as long as the piece is used, and nobody else takes this index.
    unsafe fn get<'a>(&self, index: usize) -> &'a mut [T] {
        let [start, end] = [index, index + 1].map(|i| (i * self.size).min(self.length));
        // SAFETY: the range is inside of the slice; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), end - start) }
    }
}

static POOL: OnceLock<Pool> = OnceLock::new();

/// The threads, and the loop that they may take part in.
struct Pool {
    /// Threads beside the caller's.
    workers: usize,
    /// Whether a loop is running.
    busy: AtomicBool,
    /// Counts loops; odd while one is open.
    turn: AtomicUsize,
    /// Workers inside of the open loop.
    inside: AtomicUsize,
    next: AtomicUsize,
    panicked: AtomicBool,
    job: UnsafeCell<Option<Job>>,
    asleep: Mutex<usize>,
    wake: Condvar,
}

#[derive(Clone, Copy)]
struct Job {
    tasks: usize,
    task: &'static (dyn Fn(usize) + Sync),
}

// SAFETY: `job` is written while the turn is even and nobody is inside, and read inside only.
unsafe impl Sync for Pool {}

impl Pool {
    fn start() -> Self {
        let wanted = rayon::current_num_threads() - 1;
        let started = (0..wanted)
            .map_while(|worker| {
                std::thread::Builder::new()
                    .name(format!("kernels-{worker}"))
                    .spawn(|| POOL.wait().work())
                    .ok()
            })
            .count();
        Self {
            workers: started,
            busy: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            asleep: Mutex::new(0),
            wake: Condvar::new(),
        }
    }

    /// Opens a loop, takes part in it and closes it; whether a task panicked.
    fn run(&self, tasks: usize, task: &'static (dyn Fn(usize) + Sync)) -> bool {
        let job = Job { tasks, task };
        // SAFETY: the turn is even, so nobody is inside, and `busy` keeps other callers out.
        unsafe { *self.job.get() = Some(job) };
        self.next.store(0, SeqCst);
        self.turn.fetch_add(1, SeqCst);
        let asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        if *asleep > 0 {
            self.wake.notify_all();
        }
        drop(asleep);
        self.take_tasks(job);
        self.turn.fetch_add(1, SeqCst);
        while self.inside.load(SeqCst) > 0 {
            std::hint::spin_loop();
        }
        self.panicked.swap(false, SeqCst)
    }

    fn take_tasks(&self, job: Job) {
        loop {
            let index = self.next.fetch_add(1, SeqCst);
            if index >= job.tasks {
                return;
            }
            // A panic must not leave the loop before everybody has.
            if catch_unwind(AssertUnwindSafe(|| (job.task)(index))).is_err() {
                self.panicked.store(true, SeqCst);
            }
        }
    }

    fn work(&self) {
        let mut seen = 0;
        loop {
            seen = self.wait_for_turn_after(seen);
            self.inside.fetch_add(1, SeqCst);
            // Either this sees that the loop is closed, or its caller sees somebody inside.
            if self.turn.load(SeqCst) == seen {
                // SAFETY: the loop is open, and stays so until this thread has left.
                if let Some(job) = unsafe { *self.job.get() } {
                    self.take_tasks(job);
                }
            }
            self.inside.fetch_sub(1, SeqCst);
        }
    }

    /// The turn of an open loop that is not `seen`.
    fn wait_for_turn_after(&self, seen: usize) -> usize {
        let open = || {
            let turn = self.turn.load(SeqCst);
            (turn % 2 == 1 && turn != seen).then_some(turn)
        };
        let begin = Instant::now();
        while begin.elapsed() < AWAKE {
            for _ in 0..LOOKS {
                if let Some(turn) = open() {
                    return turn;
                }
                std::hint::spin_loop();
            }
        }
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        *asleep += 1;
        let turn = loop {
            if let Some(turn) = open() {
                break turn;
            }
            asleep = self
                .wake
                .wait(asleep)
                .unwrap_or_else(PoisonError::into_inner);
        };
        *asleep -= 1;
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once() {
        for tasks in [0, 1, 2, 3, 100, 1000] {
            let done: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            for_each(tasks, |index| {
                done[index].fetch_add(1, SeqCst);
            });
            assert!(done.iter().all(|count| count.load(SeqCst) == 1));
        }
    }

    #[test]
    fn loops_from_many_threads_and_within_loops() {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for turn in 0..200 {
                        let found = map(17, |index| {
                            let inner = map(3, |inner| inner * index);
                            inner.iter().sum::<usize>() + thread + turn
                        });
                        let expected: Vec<usize> = (0..17).map(|i| 3 * i + thread + turn).collect();
                        assert_eq!(found, expected);
                    }
                });
            }
        });
    }

    #[test]
    fn chunks_cover_both_slices() {
        let mut first = vec![0; 103];
        let mut second = vec![0; 21];
        chunk_pairs(&mut first, 10, &mut second, 2, |index, first, second| {
            first.fill(index + 1);
            second.fill(index + 1);
        });
        assert!(first.iter().enumerate().all(|(i, x)| *x == i / 10 + 1));
        assert!(second.iter().enumerate().all(|(i, x)| *x == i / 2 + 1));
    }

    #[test]
    #[should_panic(expected = "a task")]
    fn a_panic_reaches_the_caller() {
        for_each(100, |index| assert!(index != 50, "a task"));
    }

    #[test]
    fn a_panic_leaves_the_threads_in_order() {
        let panics = catch_unwind(|| for_each(100, |index| assert!(index != 50, "a task")));
        assert!(panics.is_err());
        assert_eq!(map(5, |index| index), [0, 1, 2, 3, 4]);
    }
}
