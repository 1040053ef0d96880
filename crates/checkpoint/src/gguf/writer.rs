//! Writes GGUF files sequentially.

use std::io::Write;

use super::{GgmlType, GgufError, MAGIC, Metadata, VERSION, Value, alignment};

/// A tensor to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensorSpec {
    /// Its key.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Its type.
    pub kind: GgmlType,
}

/// Writes a file in pieces: first the tables, then the bytes of the tensors in their order.
///
/// ```no_run
/// # use simmer_checkpoint::gguf::{GgmlType, GgufError, GgufTensorSpec, GgufWriter, Metadata};
/// # fn main() -> Result<(), GgufError> {
/// let spec = GgufTensorSpec { name: "x".into(), shape: vec![2, 2], kind: GgmlType::F32 };
/// let mut writer = GgufWriter::new(std::io::stdout(), &Metadata::new(), vec![spec])?;
/// writer.append(&[0; 12])?;
/// writer.append(&[0; 4])?;
/// writer.finish()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct GgufWriter<W> {
    out: W,
    alignment: u64,
    tensors: Vec<GgufTensorSpec>,
    /// Index of the current tensor.
    current: usize,
    /// Bytes that the current tensor still needs.
    left: u64,
}

impl<W: Write> GgufWriter<W> {
    /// Writes everything before the tensors.
    ///
    /// # Errors
    /// If two tensors have the same name, a shape or `general.alignment` is invalid, or `out` fails.
    pub fn new(
        mut out: W,
        metadata: &Metadata,
        tensors: Vec<GgufTensorSpec>,
    ) -> Result<Self, GgufError> {
        let alignment = alignment(metadata)?;
        let mut header = Vec::new();
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata.iter() {
            push_string(&mut header, key);
            push_value(&mut header, value);
        }
        push_table(&mut header, &tensors, alignment)?;
        out.write_all(&header)?;
        pad(&mut out, header.len() as u64, alignment)?;
        let mut writer = Self {
            out,
            alignment,
            tensors,
            current: 0,
            left: 0,
        };
        writer.left = writer.current_bytes();
        writer.skip_finished()?;
        Ok(writer)
    }

    /// The current tensor.
    pub fn awaited(&self) -> Option<&GgufTensorSpec> {
        self.tensors.get(self.current)
    }

    /// Appends bytes to the current tensor. A piece must not extend into the next tensor.
    ///
    /// # Errors
    /// If the piece is longer than the rest of the tensor, or `out` fails.
    pub fn append(&mut self, piece: &[u8]) -> Result<(), GgufError> {
        if piece.len() as u64 > self.left {
            let next = self.awaited().map_or("the end", |tensor| &tensor.name);
            return Err(GgufError::WriteOrder {
                found: format!("`{next}`: {} more bytes", piece.len()),
                expected: format!("at most {}", self.left),
            });
        }
        self.out.write_all(piece)?;
        self.left -= piece.len() as u64;
        self.skip_finished()
    }

    /// Finishes the file and returns `out`, flushed.
    ///
    /// # Errors
    /// If a tensor is incomplete, or `out` fails.
    pub fn finish(mut self) -> Result<W, GgufError> {
        if let Some(tensor) = self.awaited() {
            return Err(GgufError::WriteOrder {
                found: format!("the file ends inside tensor `{}`", tensor.name),
                expected: format!("{} more bytes", self.left),
            });
        }
        self.out.flush()?;
        Ok(self.out)
    }

    /// Moves to the next tensor with bytes when the current one is complete.
    fn skip_finished(&mut self) -> Result<(), GgufError> {
        while self.left == 0 && self.current < self.tensors.len() {
            let written = self.current_bytes();
            pad(&mut self.out, written, self.alignment)?;
            self.current += 1;
            self.left = self.current_bytes();
        }
        Ok(())
    }

    fn current_bytes(&self) -> u64 {
        let bytes = |tensor: &GgufTensorSpec| tensor.kind.tensor_bytes(&tensor.shape);
        self.awaited().and_then(bytes).unwrap_or(0)
    }
}

/// Pads with zeros to a multiple of the alignment.
fn pad(out: &mut impl Write, written: u64, alignment: u64) -> Result<(), GgufError> {
    let zeros = written.next_multiple_of(alignment) - written;
    Ok(out.write_all(&vec![0; zeros as usize])?)
}

fn push_table(
    header: &mut Vec<u8>,
    tensors: &[GgufTensorSpec],
    alignment: u64,
) -> Result<(), GgufError> {
    let mut names = std::collections::HashSet::new();
    let mut offset = 0u64;
    for tensor in tensors {
        let name = tensor.name.clone();
        if !names.insert(&tensor.name) {
            let what = "tensor";
            return Err(GgufError::Duplicate { what, name });
        }
        let bytes = tensor.kind.tensor_bytes(&tensor.shape);
        let Some(bytes) = bytes.filter(|_| tensor.shape.len() <= 4) else {
            return Err(GgufError::Shape {
                tensor: name,
                kind: tensor.kind,
                shape: tensor.shape.iter().map(|&size| size as u64).collect(),
            });
        };
        push_string(header, &tensor.name);
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        for &size in tensor.shape.iter().rev() {
            header.extend((size as u64).to_le_bytes());
        }
        header.extend(tensor.kind.number().to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset = offset.saturating_add(bytes.next_multiple_of(alignment));
    }
    Ok(())
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn push_value(out: &mut Vec<u8>, value: &Value) {
    out.extend((value.kind() as u32).to_le_bytes());
    match value {
        Value::U8(x) => out.extend(x.to_le_bytes()),
        Value::I8(x) => out.extend(x.to_le_bytes()),
        Value::U16(x) => out.extend(x.to_le_bytes()),
        Value::I16(x) => out.extend(x.to_le_bytes()),
        Value::U32(x) => out.extend(x.to_le_bytes()),
        Value::I32(x) => out.extend(x.to_le_bytes()),
        Value::U64(x) => out.extend(x.to_le_bytes()),
        Value::I64(x) => out.extend(x.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
        Value::Bool(x) => out.push((*x).into()),
        Value::String(text) => push_string(out, text),
        Value::Array(array) => {
            out.extend((array.kind as u32).to_le_bytes());
            out.extend((array.len as u64).to_le_bytes());
            out.extend(&array.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{Array, DEFAULT_ALIGNMENT, Gguf};
    use super::*;

    fn spec(name: &str, shape: &[usize], kind: GgmlType) -> GgufTensorSpec {
        GgufTensorSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            kind,
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut metadata = Metadata::new();
        metadata.set("z", "text");
        metadata.set("a", Array::strings(["x", ""]));
        metadata.set("m", Value::F64(0.5));
        let tensors = vec![
            spec("first", &[2, 32], GgmlType::Q8_0),
            spec("empty", &[0, 3], GgmlType::F32),
            spec("last", &[3], GgmlType::F16),
        ];
        let mut writer = GgufWriter::new(Vec::new(), &metadata, tensors).unwrap();
        let bytes: Vec<u8> = (0..68).collect();
        writer.append(&bytes[..40]).unwrap();
        writer.append(&bytes[40..]).unwrap();
        assert_eq!(writer.awaited().unwrap().name, "last");
        writer.append(&[1, 2, 3, 4, 5, 6]).unwrap();
        let file = Bytes::from(writer.finish().unwrap());
        assert!(file.len().is_multiple_of(DEFAULT_ALIGNMENT as usize));
        let gguf = Gguf::parse(file.clone()).unwrap();
        assert!(gguf.metadata().iter().eq(metadata.iter()));
        let first = gguf.tensor("first").unwrap();
        assert_eq!(
            (first.kind, &first.shape[..]),
            (GgmlType::Q8_0, &[2, 32][..])
        );
        assert_eq!(file[first.range.clone()], bytes);
        assert_eq!(file[gguf.tensors()[2].range.clone()], [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn pieces_have_to_fit_the_table() {
        let start = || {
            let tensors = vec![
                spec("x", &[2], GgmlType::F32),
                spec("y", &[1], GgmlType::F32),
            ];
            GgufWriter::new(Vec::new(), &Metadata::new(), tensors).unwrap()
        };
        let mut writer = start();
        insta::assert_snapshot!(writer.append(&[0; 9]).unwrap_err(),
            @"`x`: 9 more bytes; expected at most 8");
        writer.append(&[0; 8]).unwrap();
        insta::assert_snapshot!(writer.finish().unwrap_err(),
            @"the file ends inside tensor `y`; expected 4 more bytes");
        let mut writer = start();
        writer.append(&[0; 8]).unwrap();
        writer.append(&[0; 4]).unwrap();
        insta::assert_snapshot!(writer.append(&[0]).unwrap_err(),
            @"`the end`: 1 more bytes; expected at most 0");
        let twice = vec![spec("x", &[2], GgmlType::F32); 2];
        insta::assert_snapshot!(
            GgufWriter::new(Vec::new(), &Metadata::new(), twice).unwrap_err(),
            @"duplicate tensor `x`");
        let odd = vec![spec("x", &[2, 33], GgmlType::Q8_0)];
        insta::assert_snapshot!(
            GgufWriter::new(Vec::new(), &Metadata::new(), odd).unwrap_err(),
            @"tensor `x`: Q8_0 [2, 33] is not a valid shape (Q8_0 has 32 elements per block)");
    }
}
