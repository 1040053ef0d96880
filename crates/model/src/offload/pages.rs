//! `base.offload = "disk"`: the frozen weights stay mapped from their files. The pages of a part are read by a thread, and
//! released after its use. Which pages are in memory changes no number.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use simmer_checkpoint::Pages;

use super::Part;

/// The pages of a model's layers in its mapped files, and the thread that reads them. Clones share both.
#[derive(Clone)]
pub(crate) struct LayerPages(Arc<Shared>);

struct Shared {
    all: Arc<All>,
    /// The parts to read, by their index.
    requests: SyncSender<usize>,
}

/// The pages of every part: those of the layers, then those of the head.
struct All {
    parts: Vec<PartPages>,
    /// The embedding's, if it is not the head. A pass reads a row for each of its tokens.
    embedding: Pages,
}

struct PartPages {
    pages: Pages,
    /// Whether they shall be in memory.
    wanted: AtomicBool,
}

impl LayerPages {
    /// Starts the thread. `layers` are the pages of each layer, the lowest first.
    ///
    /// # Errors
    /// If the system starts no thread.
    pub(crate) fn new(layers: Vec<Pages>, head: Pages, embedding: Pages) -> io::Result<Self> {
        let parts = layers.into_iter().chain([head]);
        let parts = parts.map(|pages| PartPages {
            pages,
            wanted: AtomicBool::new(false),
        });
        let all = Arc::new(All {
            parts: parts.collect(),
            embedding,
        });
        let (requests, received) = sync_channel(1);
        let read = all.clone();
        thread::Builder::new()
            .name("read ahead".to_owned())
            .spawn(move || read.read(&received))?;
        Ok(Self(Arc::new(Shared { all, requests })))
    }

    /// Prepares for the computation of one part: the pages of `next`, the part that is computed after it, are read
    /// meanwhile, and those of all other parts are released.
    pub(super) fn enter(&self, now: Part, next: Option<Part>) {
        let all = &self.0.all;
        let now = all.index(now);
        let next = next.map(|part| all.index(part));
        for (index, part) in all.parts.iter().enumerate() {
            let stays = index == now || next == Some(index);
            if !stays && part.wanted.swap(false, Ordering::SeqCst) {
                part.pages.release();
            }
        }
        if now == 0 {
            all.embedding.release();
        }
        all.parts[now].wanted.store(true, Ordering::SeqCst);
        let Some(next) = next else { return };
        if !all.parts[next].wanted.swap(true, Ordering::SeqCst) {
            // without the thread, pages are read at their first use
            let _ = self.0.requests.send(next);
        }
    }
}

impl All {
    fn index(&self, part: Part) -> usize {
        match part {
            Part::Layer(layer) => layer,
            Part::Head => self.parts.len() - 1,
        }
    }

    /// Reads the parts that are asked for, until the model is gone.
    fn read(&self, requests: &Receiver<usize>) {
        for index in requests {
            let PartPages { pages, wanted } = &self.parts[index];
            for chunk in pages.chunks() {
                if !wanted.load(Ordering::SeqCst) {
                    break;
                }
                chunk.read();
                // if the part was released before these pages were read, they would stay
                if !wanted.load(Ordering::SeqCst) {
                    chunk.release();
                }
            }
        }
    }
}

impl Drop for Shared {
    /// Lets the thread end soon.
    fn drop(&mut self) {
        for part in &self.all.parts {
            part.wanted.store(false, Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for LayerPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.0.all.parts.iter();
        let bytes: Vec<u64> = parts.map(|part| part.pages.bytes()).collect();
        f.debug_tuple("LayerPages").field(&bytes).finish()
    }
}
