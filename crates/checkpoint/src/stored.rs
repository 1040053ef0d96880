//! Where and how a tensor is stored, so that every layout is read as Hugging Face's.
//!
//! A tensor may be stored in one piece in the final form (then reading it needs no copy), in several files split along
//! rows or columns (Meta's shards), in quantised blocks (GGUF), and with the rows of query and key heads in another order
//! (Meta and GGUF). Tensors are joined, dequantised and reordered row by row, so that converting a model takes a fraction
//! of its memory.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rayon::prelude::*;
use simmer_blocks::ggml::BlockType;
use simmer_blocks::{BlocksError, Form, Quantised, paired_row};

use crate::gguf::blocks::Decoder;
use crate::mapped::Mapped;
use crate::quantised::Scales;
use crate::{Dtype, TensorInfo};

/// Bytes of output per parallel task: enough to be worth a thread.
const TASK_BYTES: usize = 1 << 18;

/// A tensor of a checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// Dtype and shape after reading.
    pub(crate) info: TensorInfo,
    /// Its pieces in the files, in the order in which they are joined.
    pub(crate) pieces: Vec<Piece>,
    /// How the pieces are joined.
    pub(crate) joined: Joined,
    /// For quantised blocks: the name of their type, and the decoder of a row to f32.
    pub(crate) blocks: Option<(&'static str, Decoder)>,
    /// Features of a head, if the rows of each head are stored as pairs `(2i, 2i + 1)`; Hugging Face stores them as
    /// halves `(i, i + half)`.
    pub(crate) paired: Option<usize>,
    /// For codes whose scales are in other tensors: where they are.
    pub(crate) scales: Option<Arc<Scales>>,
    /// Whether `1 + weight` is stored, in blocks, as GGUF has Gemma's normalisations.
    pub(crate) plus_one: bool,
}

/// A part of a tensor, or the whole tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Index into the checkpoint's files.
    pub(crate) file: usize,
    /// Byte range in that file.
    pub(crate) range: Range<usize>,
}

/// How the pieces of a tensor are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// Along the rows; all pieces have the same number of rows.
    Rows,
    /// Along the columns; all pieces have the same number of columns.
    Columns,
}

impl Stored {
    /// A tensor that is stored in the final form.
    pub(crate) fn plain(info: TensorInfo, file: usize, range: Range<usize>) -> Self {
        Self {
            info,
            pieces: vec![Piece { file, range }],
            joined: Joined::Rows,
            blocks: None,
            paired: None,
            scales: None,
            plus_one: false,
        }
    }

    /// The name of its type in the files.
    pub(crate) fn encoding(&self) -> &str {
        if let Some(scales) = &self.scales {
            return scales.name();
        }
        match (self.blocks, self.info.dtype) {
            (Some((name, _)), _) => name,
            (None, Dtype::F32) => "F32",
            (None, Dtype::F16) => "F16",
            (None, Dtype::BF16) => "BF16",
            _ => "another dtype",
        }
    }

    /// The name of its quantised type; `None`: its elements are floats.
    pub(crate) fn quantised_type(&self) -> Option<&'static str> {
        match (&self.scales, self.blocks) {
            (Some(scales), _) => Some(scales.name()),
            // floats from which 1 is subtracted have a decoder too
            (None, Some((name, _))) => BlockType::named(name).map(BlockType::name),
            (None, None) => None,
        }
    }

    /// The quantised matrix as it lies in the file. `None`: the tensor is not quantised, is a vector, or is not stored in
    /// one piece.
    ///
    /// # Errors
    /// If its parts do not make up such a matrix.
    pub(crate) fn quantised(&self, files: &[Mapped]) -> Result<Option<Quantised>, BlocksError> {
        let (&[rows, columns], [piece], false) =
            (&self.info.shape[..], &self.pieces[..], self.plus_one)
        else {
            return Ok(None);
        };
        let kind = self.blocks.and_then(|(name, _)| BlockType::named(name));
        let form = match (&self.scales, kind) {
            (Some(scales), _) => scales.form(files, [rows, columns])?,
            (None, Some(kind)) => Form::Blocks(kind),
            (None, None) => return Ok(None),
        };
        let codes = files[piece.file].bytes(piece.range.clone());
        let matrix = Quantised::new([rows, columns], codes, form)?;
        Ok(Some(match self.paired {
            Some(head) => matrix.paired(head),
            None => matrix,
        }))
    }

    /// Bytes that [`Self::quantised`] takes: codes with scales, and the codes alone, which are pages of the file. Reads
    /// neither.
    pub(crate) fn quantised_bytes(&self) -> Option<[u64; 2]> {
        let (&[_, _], [piece], false) = (&self.info.shape[..], &self.pieces[..], self.plus_one)
        else {
            return None;
        };
        self.quantised_type()?;
        let codes = piece.range.len() as u64;
        let scales = self.scales.as_ref().map_or(0, |scales| scales.bytes());
        Some([codes + scales, codes])
    }

    /// Its pieces, and those of its scales.
    pub(crate) fn all_pieces(&self) -> impl Iterator<Item = &Piece> {
        let scales = self.scales.iter().flat_map(|scales| scales.pieces());
        self.pieces.iter().chain(scales)
    }

    /// Bytes of the tensor in the files.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.all_pieces()
            .map(|piece| piece.range.len() as u64)
            .sum()
    }

    /// Number of rows: the outermost dimension; a scalar is one row.
    pub(crate) fn rows(&self) -> usize {
        self.info.shape.first().copied().unwrap_or(1)
    }

    /// Bytes of a row after reading.
    pub(crate) fn row_bytes(&self) -> usize {
        self.columns() * self.info.dtype.bitsize() / 8
    }

    fn columns(&self) -> usize {
        self.info.shape.iter().skip(1).product()
    }

    /// The range of a file that holds the whole tensor in its final form, if there is one.
    pub(crate) fn whole(&self) -> Option<&Piece> {
        match self.pieces.as_slice() {
            [piece] if self.blocks.is_none() && self.scales.is_none() && self.paired.is_none() => {
                Some(piece)
            }
            _ => None,
        }
    }

    /// The tensor; it shares the pages of the file if it is stored in its final form.
    ///
    /// # Errors
    /// If its scales are not those of such a matrix.
    pub(crate) fn read(&self, files: &[Mapped]) -> Result<Bytes, BlocksError> {
        Ok(match self.whole() {
            Some(piece) => files[piece.file].bytes(piece.range.clone()),
            None => self.gathered(files, 0..self.rows())?.into(),
        })
    }

    /// Some rows of the tensor.
    ///
    /// # Errors
    /// If its scales are not those of such a matrix.
    ///
    /// # Panics
    /// If these rows do not exist.
    pub(crate) fn read_rows<'a>(
        &self,
        files: &'a [Mapped],
        rows: Range<usize>,
    ) -> Result<Cow<'a, [u8]>, BlocksError> {
        assert!(rows.end <= self.rows(), "no such rows");
        let Some(piece) = self.whole() else {
            return Ok(Cow::Owned(self.gathered(files, rows)?));
        };
        let width = self.row_bytes();
        let bytes = &files[piece.file][piece.range.clone()];
        Ok(Cow::Borrowed(&bytes[rows.start * width..rows.end * width]))
    }

    /// Decodes rows, several at a time.
    fn gathered(&self, files: &[Mapped], rows: Range<usize>) -> Result<Vec<u8>, BlocksError> {
        let width = self.row_bytes();
        let mut out = vec![0; rows.len() * width];
        if width == 0 {
            return Ok(out);
        }
        if self.blocks.is_some() && self.info.shape.len() == 1 {
            self.gather_numbers(files, rows, &mut out);
            return Ok(out);
        }
        let scaled = match &self.scales {
            Some(_) => self.quantised(files)?,
            None => None,
        };
        let together = (TASK_BYTES / width).max(1);
        out.par_chunks_mut(together * width)
            .enumerate()
            .for_each(|(task, out)| {
                let first = rows.start + task * together;
                for (index, out) in out.chunks_mut(width).enumerate() {
                    match &scaled {
                        Some(matrix) => widen_row(matrix, first + index, out),
                        None => self.gather(files, first + index, out),
                    }
                }
            });
        Ok(out)
    }

    /// Elements of a quantised vector. It has no rows, so that parts of it cannot be decoded alone.
    fn gather_numbers(&self, files: &[Mapped], numbers: Range<usize>, out: &mut [u8]) {
        let mut all = vec![0; self.len()];
        for piece in &self.pieces {
            self.widen(&files[piece.file][piece.range.clone()], &mut all);
        }
        let width = self.row_bytes();
        for (number, out) in numbers.zip(out.chunks_exact_mut(width)) {
            let from = self.paired.map_or(number, |head| paired_row(number, head)) * width;
            out.copy_from_slice(&all[from..from + width]);
        }
    }

    fn gather(&self, files: &[Mapped], row: usize, out: &mut [u8]) {
        let row = self.paired.map_or(row, |head| paired_row(row, head));
        let encoded = |piece: &Piece, row: usize, rows: usize| {
            let bytes = &files[piece.file][piece.range.clone()];
            let width = bytes.len() / rows;
            &bytes[row * width..(row + 1) * width]
        };
        match self.joined {
            Joined::Rows => {
                let rows = self.rows() / self.pieces.len();
                let bytes = encoded(&self.pieces[row / rows], row % rows, rows);
                self.widen(bytes, out);
            }
            Joined::Columns => {
                let width = out.len() / self.pieces.len();
                for (piece, out) in self.pieces.iter().zip(out.chunks_mut(width)) {
                    self.widen(encoded(piece, row, self.rows()), out);
                }
            }
        }
    }

    fn widen(&self, bytes: &[u8], out: &mut [u8]) {
        let Some((_, widen)) = self.blocks else {
            return out.copy_from_slice(bytes);
        };
        // bytes of a file may be unaligned
        let mut numbers = vec![0.0; out.len() / size_of::<f32>()];
        widen(bytes, &mut numbers);
        let added = if self.plus_one { 1.0 } else { 0.0 };
        put(out, numbers.into_iter().map(|number| number - added));
    }

    /// Releases the pages of some rows.
    pub(crate) fn release(&self, files: &[Mapped], rows: Range<usize>) {
        let all = self.rows();
        // the rows of a head are apart: its pages are released after its last row was read
        let rows = match self.paired {
            Some(head) => rows.start / head * head..rows.end / head * head,
            None => rows,
        };
        let total = all / self.pieces.len().max(1);
        for (index, piece) in self.pieces.iter().enumerate() {
            let (rows, all) = match self.joined {
                Joined::Columns => (rows.clone(), all),
                Joined::Rows => {
                    let within = |row: usize| row.clamp(index * total, (index + 1) * total);
                    (
                        within(rows.start) - index * total..within(rows.end) - index * total,
                        total,
                    )
                }
            };
            let width = piece.range.len() / all.max(1);
            let begin = piece.range.start + rows.start.min(all) * width;
            let end = piece.range.start + rows.end.min(all) * width;
            if begin < end {
                files[piece.file].release(begin..end);
            }
        }
    }

    /// Bytes of the tensor after reading.
    pub(crate) fn len(&self) -> usize {
        self.rows() * self.row_bytes()
    }
}

fn widen_row(matrix: &Quantised, row: usize, out: &mut [u8]) {
    let mut numbers = vec![0.0; out.len() / size_of::<f32>()];
    matrix.widen(row, 0, &mut numbers);
    put(out, numbers);
}

fn put(out: &mut [u8], numbers: impl IntoIterator<Item = f32>) {
    for (out, number) in out.chunks_exact_mut(size_of::<f32>()).zip(numbers) {
        out.copy_from_slice(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::GgmlType;
    use crate::gguf::blocks::decoder;

    fn mapped(bytes: &[u8]) -> Mapped {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        Mapped::new(file, "x".as_ref()).unwrap()
    }

    fn info(shape: &[usize]) -> TensorInfo {
        TensorInfo {
            dtype: Dtype::U8,
            shape: shape.to_vec(),
        }
    }

    fn piece(file: usize, range: Range<usize>) -> Piece {
        Piece { file, range }
    }

    #[test]
    fn a_plain_tensor_is_the_files_own_pages() {
        let files = [mapped(&[9, 1, 2, 3, 4, 5, 6, 9])];
        let tensor = Stored::plain(info(&[3, 2]), 0, 1..7);
        assert_eq!(tensor.read(&files).unwrap()[..], [1, 2, 3, 4, 5, 6]);
        assert!(matches!(
            tensor.read_rows(&files, 1..3).unwrap(),
            Cow::Borrowed([3, 4, 5, 6])
        ));
    }

    #[test]
    fn shards_are_joined_along_rows_or_columns() {
        let files = [mapped(&[1, 2, 3, 4]), mapped(&[0, 5, 6, 7, 8])];
        let stored = |joined| Stored {
            pieces: vec![piece(0, 0..4), piece(1, 1..5)],
            joined,
            ..Stored::plain(info(&[4, 2]), 0, 0..0)
        };
        let below = stored(Joined::Rows);
        assert_eq!(below.read(&files).unwrap()[..], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(below.read_rows(&files, 1..3).unwrap()[..], [3, 4, 5, 6]);
        let beside = Stored {
            info: info(&[2, 4]),
            ..stored(Joined::Columns)
        };
        assert_eq!(beside.read(&files).unwrap()[..], [1, 2, 5, 6, 3, 4, 7, 8]);
        assert_eq!(beside.read_rows(&files, 1..2).unwrap()[..], [3, 4, 7, 8]);
        for tensor in [&below, &beside] {
            for rows in [0..1, 1..2, 0..2] {
                tensor.release(&files, rows);
            }
        }
        assert_eq!(below.read(&files).unwrap()[..], [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn one_is_subtracted() {
        let bytes: Vec<u8> = [1.0_f32, 1.5, 0.0]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let files = [mapped(&bytes)];
        let decoder = decoder(GgmlType::F32).unwrap();
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: vec![3],
        };
        let stored = Stored {
            blocks: Some(("F32", decoder)),
            plus_one: true,
            ..Stored::plain(info, 0, 0..12)
        };
        let expected: Vec<u8> = [0.0_f32, 0.5, -1.0]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        assert_eq!(stored.read(&files).unwrap()[..], expected);
        assert_eq!(stored.read_rows(&files, 1..2).unwrap()[..], expected[4..8]);
    }

    #[test]
    fn a_quantised_matrix_is_the_files_own_pages() {
        // one block of Q8_0 a row: a scale of 1 and 32 codes; two rows are one head
        let block = |first: u8| [0, 0x3c].into_iter().chain(first..first + 32);
        let bytes: Vec<u8> = block(0).chain(block(32)).chain([9]).collect();
        let files = [mapped(&bytes)];
        let stored = |shape: &[usize]| Stored {
            blocks: Some(("Q8_0", decoder(GgmlType::Q8_0).unwrap())),
            ..Stored::plain(
                TensorInfo {
                    dtype: Dtype::F32,
                    shape: shape.to_vec(),
                },
                0,
                0..68,
            )
        };
        let matrix = stored(&[2, 32]).quantised(&files).unwrap().unwrap();
        assert_eq!(matrix.codes().as_ptr(), files[0].as_ptr());
        assert_eq!((matrix.kind(), matrix.bytes()), ("Q8_0", 68));
        assert_eq!(matrix.rows(1..2)[..3], [32.0, 33.0, 34.0]);
        assert_eq!(stored(&[2, 32]).stored_bytes(), 68);
        assert_eq!(stored(&[2, 32]).quantised_bytes(), Some([68, 68]));
        let paired = Stored {
            paired: Some(2),
            ..stored(&[2, 32])
        };
        let matrix = paired.quantised(&files).unwrap().unwrap();
        assert_eq!(matrix.head_of_pairs(), Some(2));
        let vector = stored(&[64]);
        let in_two = Stored {
            pieces: vec![piece(0, 0..34), piece(0, 34..68)],
            ..stored(&[2, 32])
        };
        for widened in [vector, in_two] {
            assert!(widened.quantised(&files).unwrap().is_none());
            assert!(widened.quantised_bytes().is_none());
        }
    }

    #[test]
    fn pairs_become_halves() {
        // two heads with four rows each, stored as pairs
        let files = [mapped(&[0, 2, 1, 3, 4, 6, 5, 7])];
        let stored = Stored {
            paired: Some(4),
            ..Stored::plain(info(&[8, 1]), 0, 0..8)
        };
        assert_eq!(stored.read(&files).unwrap()[..], [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(stored.read_rows(&files, 5..7).unwrap()[..], [5, 6]);
        let vector = Stored {
            info: info(&[8]),
            ..stored
        };
        assert_eq!(vector.read(&files).unwrap()[..], [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
