//! Parallel loops that start within a microsecond.
//!
//! An operation of a step takes a fraction of a millisecond, and waking a sleeping thread takes a
//! good part of that. The threads here therefore spin for a while before they sleep, waiting for
//! the next loop. A loop does not wait for threads that are still asleep: the threads that are
//! awake take its tasks.
//!
//! A loop inside another loop runs on the calling thread alone, and so does a loop that starts while
//! another one is running. The result of a loop must not depend on which thread runs which task.

#![expect(
    unsafe_code,
    reason = "threads of a lasting pool borrow the caller's closure and slices for one loop; scoped \
              threads would have to be started for each loop"
)]

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a thread spins for the next loop before it sleeps.
const AWAKE: Duration = Duration::from_millis(2);

/// How often a thread checks for a new loop before it reads the clock again.
const LOOKS: usize = 256;

/// Runs `task(0)`, `task(1)` ... `task(tasks - 1)` on as many threads as rayon has.
///
/// # Panics
/// If a task panics.
pub(crate) fn for_each(tasks: usize, task: impl Fn(usize) + Sync) {
    let pool = POOL.get_or_init(Pool::start);
    if tasks <= 1 || pool.workers == 0 || pool.busy.swap(true, SeqCst) {
        return (0..tasks).for_each(task);
    }
    let task: &(dyn Fn(usize) + Sync) = &task;
    // SAFETY: workers use the reference only between entering an open loop and leaving it, and
    // `run` does not return before the loop is closed and all workers have left it.
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

/// Runs `task` on every chunk of `size` values, with the index of the chunk.
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

/// As [`chunks`], for two slices with the same number of chunks. If the second slice is empty, all
/// its chunks are empty.
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
        // SAFETY: both slices are borrowed for the whole loop, and the loop runs each index once.
        let (first, second) = unsafe { (first.get(index), second.get(index)) };
        task(index, first, second);
    });
}

/// A slice whose chunks go to different threads.
struct Pieces<T> {
    start: *mut T,
    length: usize,
    size: usize,
}

// SAFETY: each thread takes other pieces (see `get`), and `T: Send` lets it use their values.
unsafe impl<T: Send> Sync for Pieces<T> {}

impl<T> Pieces<T> {
    fn of(values: &mut [T], size: usize) -> Self {
        Self {
            start: values.as_mut_ptr(),
            length: values.len(),
            size,
        }
    }

    /// The piece with this index.
    ///
    /// # Safety
    /// The slice stays borrowed as long as the piece is used, and no index is taken twice.
    unsafe fn get<'a>(&self, index: usize) -> &'a mut [T] {
        let [start, end] = [index, index + 1].map(|i| (i * self.size).min(self.length));
        // SAFETY: the range lies inside the slice. The caller promises that the slice is still
        // borrowed and that pieces do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), end - start) }
    }
}

static POOL: OnceLock<Pool> = OnceLock::new();

/// The worker threads, and the loop that they may join.
struct Pool {
    /// Number of threads, without the caller's.
    workers: usize,
    /// Whether a loop is running.
    busy: AtomicBool,
    /// Incremented when a loop opens and when it closes; odd while one is open.
    turn: AtomicUsize,
    /// Number of workers inside the open loop.
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

// SAFETY: `job` is written only while the turn is even and no worker is inside a loop, and read
// only inside one. All other fields are Sync.
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

    /// Opens a loop, runs tasks of it, and closes it. Returns whether a task panicked.
    fn run(&self, tasks: usize, task: &'static (dyn Fn(usize) + Sync)) -> bool {
        let job = Job { tasks, task };
        // SAFETY: the turn is even, so no worker reads `job`, and `busy` keeps other callers out.
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
            // A panic must not unwind out of the loop while other threads are still inside.
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
            // Either this thread sees that the loop is closed, or the caller of the loop sees that
            // this thread is inside and waits for it.
            if self.turn.load(SeqCst) == seen {
                // SAFETY: the loop was open after this thread had entered, so `job` is not written
                // before the thread has left.
                if let Some(job) = unsafe { *self.job.get() } {
                    self.take_tasks(job);
                }
            }
            self.inside.fetch_sub(1, SeqCst);
        }
    }

    /// Waits for a loop to open; returns its turn, which is not `seen`.
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
    fn every_task_runs_once() {
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
    fn the_pool_works_after_a_panic() {
        let panics = catch_unwind(|| for_each(100, |index| assert!(index != 50, "a task")));
        assert!(panics.is_err());
        assert_eq!(map(5, |index| index), [0, 1, 2, 3, 4]);
    }
}
