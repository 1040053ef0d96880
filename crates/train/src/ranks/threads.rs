//! Ranks that are threads of one process.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::{Ranks, RanksError};

/// A rank that is a thread; it talks to the others through channels.
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
}

impl Threads {
    /// So many ranks, one for each thread.
    pub fn of(ranks: usize) -> Vec<Self> {
        let mut to: Vec<Vec<Sender<Vec<u8>>>> = (0..ranks).map(|_| Vec::new()).collect();
        let mut from: Vec<Vec<Mutex<Receiver<Vec<u8>>>>> = (0..ranks).map(|_| Vec::new()).collect();
        for sending in &mut to {
            for receiving in &mut from {
                let (sender, receiver) = channel();
                sending.push(sender);
                receiving.push(Mutex::new(receiver));
            }
        }
        let both = to.into_iter().zip(from).enumerate();
        both.map(|(rank, (to, from))| Self { rank, to, from })
            .collect()
    }
}

impl Ranks for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn send(&self, to: usize, bytes: Vec<u8>) -> Result<(), RanksError> {
        let sent = self.to.get(to).map(|sender| sender.send(bytes));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(RanksError::Ended { rank: to }),
        }
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>, RanksError> {
        let ended = RanksError::Ended { rank: from };
        let Some(receiver) = self.from.get(from) else {
            return Err(ended);
        };
        let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.recv().map_err(|_| ended)
    }
}
