//! Ranks that are processes as `torchrun` starts them, connected by c10d, PyTorch's library for distributed training.
//!
//! gloo carries the bytes, also between processes that compute on GPUs: what they add up is in main memory then, in the same
//! order. A transfer begins when both sides are ready; so what is sent waits here until the next message to the same rank.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use simmer_kernels::{ProcessGroup, Rendezvous, Transfer};

use super::torchrun::Torchrun;
use super::{GRACE, Ranks, RanksError, SILENCE};

/// How long the other ranks are waited for at the start.
const START: Duration = Duration::from_mins(5);
/// In place of a length: rank 0 ends with an error, which it reports.
const FAREWELL: u64 = u64::MAX;
/// In place of a length to rank 0: this number plus that of a rank that has ended.
const LOST: u64 = u64::MAX - (1 << 32);
/// How long such a message is waited for.
const LEAVING: Duration = Duration::from_secs(1);
/// How long a transfer is waited for before its connection is tried.
const PATIENCE: Duration = Duration::from_secs(2);
/// What gloo says of the connection to a process that has ended.
const CLOSED: [&str; 3] = ["closed by peer", "reset by peer", "Broken pipe"];

/// A process as `torchrun` starts it.
pub(super) struct C10d {
    rank: usize,
    size: usize,
    /// By rank: the last message to it.
    sending: RefCell<Vec<Vec<Transfer>>>,
    group: ProcessGroup,
    has_ended: Cell<bool>,
    /// Of rank 0, which ends the run, and the others with it.
    stop: Option<Arc<AtomicBool>>,
}

impl C10d {
    /// Meets the other ranks.
    ///
    /// # Errors
    /// If they do not meet.
    pub(super) fn join(torchrun: Torchrun, stop: &Arc<AtomicBool>) -> Result<Self, RanksError> {
        let Torchrun { rank, size, .. } = torchrun;
        let at = Rendezvous {
            host: torchrun.host,
            port: torchrun.port,
            serves: rank == 0 && !torchrun.agent_serves,
            rank,
            size,
            wait: START,
            // torchrun keeps keys of its own in the store
            prefix: format!("simmer/{}", torchrun.attempt),
        };
        let group = ProcessGroup::join(&at).map_err(|error| RanksError::Rendezvous {
            rank,
            at: format!("{}:{}", at.host, at.port),
            why: error.to_string(),
        })?;
        Ok(Self {
            rank,
            size,
            group,
            sending: RefCell::new((0..size).map(|_| Vec::new()).collect()),
            has_ended: Cell::new(false),
            stop: (rank == 0).then(|| Arc::clone(stop)),
        })
    }

    fn received(&self, from: usize, length: usize) -> Result<Vec<u8>, RanksError> {
        let transfer = self.group.receive(from, length);
        let transfer = transfer.map_err(|error| self.lost(from, &error))?;
        if self.waited(&transfer, from, self.stop.as_deref())? {
            Ok(transfer.into_bytes())
        } else {
            Err(RanksError::Stopped)
        }
    }

    /// Waits for a transfer; false if the flag is set before.
    ///
    /// gloo loses a transfer whose beginning finds that the other process has ended; waiting for it would never end. So the
    /// connection is tried from time to time.
    fn waited(
        &self,
        transfer: &Transfer,
        other: usize,
        stop: Option<&AtomicBool>,
    ) -> Result<bool, RanksError> {
        let start = Instant::now();
        let is_set = || stop.is_some_and(|stop| stop.load(Ordering::Relaxed));
        loop {
            match some_time(transfer, is_set) {
                Ok(true) => return Ok(true),
                Ok(false) if is_set() => return Ok(false),
                Ok(false) => {}
                Err(error) => return Err(self.lost(other, &error)),
            }
            if start.elapsed() >= SILENCE {
                return Err(RanksError::Silent {
                    rank: other,
                    seconds: SILENCE.as_secs(),
                });
            }
            let probed = self.group.probe(other);
            probed.map_err(|error| self.lost(other, &error))?;
        }
    }

    /// The error of a connection that is gone. One rank reports it, rank 0 if it is still there, so that it is read once.
    fn lost(&self, other: usize, error: &io::Error) -> RanksError {
        let reports = self.rank == 0 || (self.rank == 1 && other == 0);
        let why = error.to_string();
        if !reports {
            self.tell_first(other);
            RanksError::Reported
        } else if CLOSED.iter().any(|words| why.contains(words)) {
            RanksError::Ended { rank: other }
        } else {
            RanksError::Connection { rank: other, why }
        }
    }

    /// Tells rank 0, which may wait for this rank, that another one has ended. Otherwise it reports that this one has.
    fn tell_first(&self, other: usize) {
        if self.rank == 0 || other == 0 {
            return;
        }
        let message = (LOST + other as u64).to_le_bytes().to_vec();
        if let Ok(told) = self.group.send(0, message) {
            let _: io::Result<bool> = told.wait(LEAVING);
        }
    }

    /// Waits until all messages have arrived. A rank that has ended already needs none.
    fn flush(&self) {
        for transfers in self.sending.borrow_mut().iter_mut() {
            for transfer in transfers.drain(..) {
                let _: io::Result<bool> = transfer.wait(START);
            }
        }
    }
}

/// Waits for a transfer for [`PATIENCE`], or until `is_set`; false if it has not ended then. A wait of gloo with a short limit
/// would close all connections when it ends, so a thread looks at the time meanwhile.
fn some_time(transfer: &Transfer, is_set: impl Fn() -> bool + Sync) -> io::Result<bool> {
    let is_done = AtomicBool::new(false);
    let start = Instant::now();
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            while !is_done.load(Ordering::Acquire) {
                thread::park_timeout(GRACE);
                if is_set() || start.elapsed() >= PATIENCE {
                    transfer.stop();
                }
            }
        });
        let done = transfer.wait(2 * SILENCE);
        is_done.store(true, Ordering::Release);
        looking.thread().unpark();
        done
    })
}

impl fmt::Debug for C10d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.size)
    }
}

impl Ranks for C10d {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn send(&self, to: usize, bytes: Vec<u8>) -> Result<(), RanksError> {
        let mut sending = self.sending.borrow_mut();
        for transfer in sending[to].drain(..) {
            self.waited(&transfer, to, None)?;
        }
        let length = (bytes.len() as u64).to_le_bytes().to_vec();
        for bytes in [length, bytes] {
            if !bytes.is_empty() {
                let transfer = self.group.send(to, bytes);
                sending[to].push(transfer.map_err(|error| self.lost(to, &error))?);
            }
        }
        Ok(())
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>, RanksError> {
        let header = self.received(from, 8)?;
        let (lengths, _) = header.as_chunks::<8>();
        let length = lengths.first().copied().map_or(0, u64::from_le_bytes);
        match length {
            0 => Ok(Vec::new()),
            FAREWELL => Err(RanksError::Reported),
            lost if lost >= LOST => Err(RanksError::Ended {
                rank: (lost - LOST) as usize,
            }),
            length => self.received(from, length as usize),
        }
    }

    fn end(&self) {
        self.flush();
        self.has_ended.set(true);
    }
}

impl Drop for C10d {
    fn drop(&mut self) {
        if self.has_ended.get() {
            return;
        }
        if self.rank > 0 {
            // rank 0 is told why
            self.flush();
        } else if let Ok(farewell) = self.group.send(1, FAREWELL.to_le_bytes().to_vec()) {
            // without it rank 1 reports the end too
            let _: io::Result<bool> = farewell.wait(LEAVING);
        }
    }
}
