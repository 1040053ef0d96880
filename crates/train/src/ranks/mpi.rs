//! Ranks that are processes of MPI.
//!
//! Waiting is a loop that looks for a message: so a signal ends it, and a rank that is silent for too long is noticed. A message
//! that MPI does not buffer is sent when the other rank has said that it receives, so that a send waits in that loop, too. (A
//! send that has begun cannot be given up in MPI.)

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, Destination, MatchedReceiveVec, Source};
use mpi::{Tag, Threading};

use super::{GRACE, Ranks, RanksError, SILENCE};

/// A message of MPI has less than 2^31 elements.
const PIECE: usize = 1 << 30;
/// What MPI buffers on every transport; a longer message waits for its receiver.
const BUFFERED: usize = 1 << 11;
/// The tag of messages.
const MESSAGE: Tag = 0;
/// The tag of the empty message by which a rank says that it receives a long one.
const READY: Tag = 1;
/// After so long without a message the loop sleeps between looks.
const BUSY: Duration = Duration::from_millis(20);

/// A process of MPI.
pub(super) struct Mpi {
    /// Its end is that of MPI in this process, which waits for all others.
    universe: RefCell<Option<Universe>>,
    world: SimpleCommunicator,
    /// MPI does not say them after its end.
    rank: usize,
    size: usize,
    stop: Arc<AtomicBool>,
}

impl Mpi {
    /// Starts MPI in this process.
    ///
    /// # Errors
    /// If it was started before.
    pub(super) fn join(stop: &Arc<AtomicBool>) -> Result<Self, RanksError> {
        // one thread calls MPI
        let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else {
            return Err(RanksError::Started);
        };
        let world = universe.world();
        // rank 0 ends the run, and the others with it
        let stop = if world.rank() == 0 {
            Arc::clone(stop)
        } else {
            Arc::default()
        };
        Ok(Self {
            rank: world.rank() as usize,
            size: world.size() as usize,
            world,
            universe: RefCell::new(Some(universe)),
            stop,
        })
    }

    /// The next message with a tag.
    fn next(&self, from: usize, tag: Tag) -> Result<Vec<u8>, RanksError> {
        let process = self.world.process_at_rank(from as i32);
        let start = Instant::now();
        let mut stopped: Option<Instant> = None;
        loop {
            if let Some(message) = process.immediate_matched_probe_with_tag(tag) {
                return Ok(message.matched_receive_vec::<u8>().0);
            }
            if self.stop.load(Ordering::Relaxed)
                && stopped.get_or_insert_with(Instant::now).elapsed() > GRACE
            {
                return Err(RanksError::Stopped);
            }
            let waited = start.elapsed();
            if waited > SILENCE {
                return Err(RanksError::Silent {
                    rank: from,
                    seconds: SILENCE.as_secs(),
                });
            }
            if waited > BUSY {
                thread::sleep(Duration::from_micros(50));
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn send(&self, to: usize, bytes: Vec<u8>) -> Result<(), RanksError> {
        let process = self.world.process_at_rank(to as i32);
        process.send(&(bytes.len() as u64).to_le_bytes()[..]);
        if bytes.len() > BUFFERED {
            self.next(to, READY)?;
        }
        for piece in bytes.chunks(PIECE) {
            process.send(piece);
        }
        Ok(())
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>, RanksError> {
        let header = self.next(from, MESSAGE)?;
        let Ok(length) = <[u8; 8]>::try_from(&header[..]).map(u64::from_le_bytes) else {
            let why = format!("expected a length, found {} bytes", header.len());
            return Err(RanksError::Message { rank: from, why });
        };
        let length = length as usize;
        if length > BUFFERED {
            let process = self.world.process_at_rank(from as i32);
            process.send_with_tag(&[0_u8; 0][..], READY);
        }
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let piece = self.next(from, MESSAGE)?;
            if bytes.is_empty() {
                bytes = piece;
            } else {
                bytes.extend(piece);
            }
        }
        Ok(bytes)
    }

    fn end(&self) {
        drop(self.universe.take());
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // MPI's own end waits for the others, for ever if they have failed; the launcher ends them when this process ends
        std::mem::forget(self.universe.take());
    }
}
