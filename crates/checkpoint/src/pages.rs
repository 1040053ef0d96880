//! The pages of mapped files that hold some tensors: read ahead of their use, and released after it.

use std::fmt;
use std::ops::Range;

use crate::mapped::Mapped;
use crate::{Checkpoint, CheckpointError};

/// Bytes of a [`Chunk`]: enough for the disk's full speed, few enough that a reader can stop between two.
const CHUNK: usize = 8 << 20;
/// Ranges that are closer than this are read as one; the gap is then read too.
const GAP: usize = 4 << 10;

/// The pages of mapped files that hold some tensors. Clones share the maps.
#[derive(Clone, Default)]
pub struct Pages {
    ranges: Vec<(Mapped, Range<usize>)>,
}

/// A part of [`Pages`].
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    file: &'a Mapped,
    begin: usize,
    end: usize,
}

impl Checkpoint {
    /// The pages that hold the stored form of these tensors.
    ///
    /// # Errors
    ///
    /// If one of them does not exist; the message names the most similar one.
    pub fn pages<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Pages, CheckpointError> {
        let mut pieces = Vec::new();
        for name in names {
            let stored = self.stored(name)?;
            let of = stored.pieces.iter();
            pieces.extend(of.map(|piece| (piece.file, piece.range.clone())));
        }
        pieces.sort_by_key(|(file, range)| (*file, range.start));
        let mut joined: Vec<(usize, Range<usize>)> = Vec::new();
        for (file, range) in pieces {
            match joined.last_mut() {
                Some((last, before)) if *last == file && range.start <= before.end + GAP => {
                    before.end = before.end.max(range.end);
                }
                _ => joined.push((file, range)),
            }
        }
        let ranges = joined.into_iter();
        let ranges = ranges.map(|(file, range)| (self.files[file].clone(), range));
        Ok(Pages {
            ranges: ranges.collect(),
        })
    }

    /// Whether [`Self::tensor`] shares the pages of the file: the tensor is stored in its final form, and aligned.
    ///
    /// # Errors
    ///
    /// If no such tensor exists; the message names the most similar one.
    pub fn shares_pages(&self, name: &str) -> Result<bool, CheckpointError> {
        let stored = self.stored(name)?;
        let element = (stored.info.dtype.bitsize() / 8).max(1);
        let whole = stored.whole();
        Ok(whole.is_some_and(|piece| piece.range.start.is_multiple_of(element)))
    }
}

impl Pages {
    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        let ranges = self.ranges.iter();
        ranges.map(|(_, range)| range.len() as u64).sum()
    }

    /// Parts of a few MiB, in the order of the files.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk<'_>> {
        self.ranges.iter().flat_map(|(file, range)| {
            range.clone().step_by(CHUNK).map(|begin| Chunk {
                file,
                begin,
                end: range.end.min(begin + CHUNK),
            })
        })
    }

    /// Releases the pages; reading them again reads the files again.
    pub fn release(&self) {
        for (file, range) in &self.ranges {
            file.release(range.clone());
        }
    }
}

impl Chunk<'_> {
    /// Reads the pages into memory.
    pub fn read(self) {
        simmer_files::read_pages(self.file.map(), self.begin, self.end - self.begin);
    }

    /// Releases the pages; reading them again reads the file again.
    pub fn release(self) {
        self.file.release(self.begin..self.end);
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.ranges.iter();
        let ranges = ranges.map(|(file, range)| (file.path(), range));
        f.debug_list().entries(ranges).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Dtype, SINGLE_FILE, TensorView, write_safetensors};

    #[test]
    fn neighbours_are_read_as_one_range() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = vec![0_u8; 20_000];
        let view = |bytes| TensorView {
            dtype: Dtype::F32,
            shape: &[5_000],
            bytes,
        };
        let tensors: BTreeMap<String, TensorView<'_>> = ["a", "b", "c", "d"]
            .map(|name| (name.to_owned(), view(&numbers[..])))
            .into();
        write_safetensors(folder.path().join(SINGLE_FILE), &tensors, &[]).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let ranges = |names: &[&str]| checkpoint.pages(names.iter().copied()).unwrap().ranges;
        let lengths = |names: &[&str]| -> Vec<usize> {
            let ranges = ranges(names);
            ranges.iter().map(|(_, range)| range.len()).collect()
        };
        assert_eq!(lengths(&["b", "a"]), [40_000]);
        assert_eq!(lengths(&["d", "a", "c"]), [20_000, 40_000]);
        assert_eq!(checkpoint.pages(["d", "a"]).unwrap().bytes(), 40_000);
        assert!(checkpoint.shares_pages("a").unwrap());
        let error = checkpoint.pages(["e"]).unwrap_err().to_string();
        assert!(error.contains("`e`"), "{error}");
    }

    #[test]
    fn chunks_cover_the_pages() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &vec![1; 100]).unwrap();
        file.set_len(2 * CHUNK as u64 + 100).unwrap();
        let file = Mapped::new(file, "x".as_ref()).unwrap();
        let pages = Pages {
            ranges: vec![(file.clone(), 10..60), (file.clone(), 70..2 * CHUNK + 80)],
        };
        let chunks: Vec<_> = pages.chunks().collect();
        let ends: Vec<_> = chunks
            .iter()
            .map(|chunk| (chunk.begin, chunk.end))
            .collect();
        assert_eq!(
            ends,
            [
                (10, 60),
                (70, CHUNK + 70),
                (CHUNK + 70, 2 * CHUNK + 70),
                (2 * CHUNK + 70, 2 * CHUNK + 80)
            ]
        );
        for chunk in chunks {
            chunk.read();
            chunk.release();
        }
        pages.release();
        assert_eq!(file[99], 1);
    }
}
