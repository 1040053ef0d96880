//! Reads GGUF files as untrusted input: every length is checked against the file before it is used.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;

use super::{Array, Fault, GgmlType, GgufError, MAGIC, Metadata, Value, ValueKind, alignment};

/// Maximum number of keys and of tensors: more than any model has, and few enough for a small table.
const MAX_ENTRIES: u64 = 1 << 16;
/// Maximum nesting of arrays; no known writer nests them.
const MAX_NESTING: usize = 4;
/// Maximum number of dimensions in ggml.
const MAX_DIMENSIONS: u32 = 4;

/// A GGUF file: its metadata, and the places of its tensors.
#[derive(Debug, Clone, Default)]
pub struct Gguf {
    metadata: Metadata,
    tensors: Vec<GgufTensor>,
    places: HashMap<String, usize>,
}

/// An entry of the table of tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// Its key.
    pub name: String,
    /// Dimensions, outermost first: the reverse of the file.
    pub shape: Vec<usize>,
    /// Its type.
    pub kind: GgmlType,
    /// Its byte range in the file.
    pub range: Range<usize>,
    /// Index of its file in a [split](super::split) model.
    pub file: usize,
}

impl Gguf {
    /// Reads everything before the tensors. Large metadata arrays are not copied: they share `file`, which can be a memory
    /// map.
    ///
    /// Time and memory are bounded by the size of the file.
    ///
    /// # Errors
    /// If the file violates the format, or a tensor exceeds the file.
    pub fn parse(file: Bytes) -> Result<Self, GgufError> {
        let mut cursor = Cursor { file: &file, at: 0 };
        let (tensor_count, key_count) = header(&mut cursor)?;
        let metadata = metadata(&mut cursor, key_count)?;
        let entries = (0..tensor_count)
            .map(|index| entry(&mut cursor, index))
            .collect::<Result<Vec<_>, _>>()?;
        let alignment = alignment(&metadata)?;
        let data = (cursor.at as u64).next_multiple_of(alignment);
        let tensors = entries
            .into_iter()
            .map(|entry| entry.placed(data, alignment, file.len() as u64))
            .collect::<Result<Vec<_>, _>>()?;
        check_overlaps(&tensors)?;
        Ok(Self {
            places: places(&tensors)?,
            metadata,
            tensors,
        })
    }

    /// Keys and values.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors, in the order of the file's table.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// Adds the tensors of another part of the model.
    pub(super) fn add(&mut self, part: Self, file: usize) -> Result<(), GgufError> {
        let tensors = part.tensors.into_iter();
        self.tensors
            .extend(tensors.map(|tensor| GgufTensor { file, ..tensor }));
        self.places = places(&self.tensors)?;
        Ok(())
    }

    /// A tensor by its name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.places.get(name).map(|&place| &self.tensors[place])
    }
}

/// Counts of tensors and of keys.
fn header(cursor: &mut Cursor) -> Result<(u64, u64), GgufError> {
    let place = |fault: Fault| fault.at("header");
    if simmer_files::is_lfs_pointer(cursor.file) {
        return Err(GgufError::LfsPointer);
    }
    if !cursor.file.starts_with(&MAGIC) {
        let found = &cursor.file[..cursor.file.len().min(MAGIC.len())];
        let found = format!("{:?}", String::from_utf8_lossy(found));
        return Err(GgufError::Magic { found });
    }
    cursor.take(MAGIC.len() as u64).map_err(place)?;
    let version = cursor.u32().map_err(place)?;
    match version {
        2 | 3 => {}
        _ if matches!(version.swap_bytes(), 1..=3) => return Err(GgufError::BigEndian),
        _ => return Err(GgufError::Version { found: version }),
    }
    let mut count = |what| {
        let found = cursor.u64().map_err(place)?;
        let limit = MAX_ENTRIES;
        if found > limit {
            return Err(GgufError::TooMany { what, found, limit });
        }
        Ok(found)
    };
    Ok((count("tensors")?, count("metadata keys")?))
}

fn metadata(cursor: &mut Cursor, count: u64) -> Result<Metadata, GgufError> {
    let mut metadata = Metadata::new();
    for index in 0..count {
        let key = cursor
            .string()
            .map_err(|fault| fault.at(format!("metadata key {index}")))?;
        let value = value(cursor).map_err(|fault| fault.at(format!("metadata key `{key}`")))?;
        if metadata.get(&key).is_some() {
            let what = "metadata key";
            return Err(GgufError::Duplicate { what, name: key });
        }
        metadata.set(key, value);
    }
    Ok(metadata)
}

fn value(cursor: &mut Cursor) -> Result<Value, Fault> {
    Ok(match cursor.kind()? {
        ValueKind::U8 => Value::U8(cursor.number::<1>()?[0]),
        ValueKind::I8 => Value::I8(i8::from_le_bytes(cursor.number()?)),
        ValueKind::U16 => Value::U16(u16::from_le_bytes(cursor.number()?)),
        ValueKind::I16 => Value::I16(i16::from_le_bytes(cursor.number()?)),
        ValueKind::U32 => Value::U32(cursor.u32()?),
        ValueKind::I32 => Value::I32(i32::from_le_bytes(cursor.number()?)),
        ValueKind::U64 => Value::U64(cursor.u64()?),
        ValueKind::I64 => Value::I64(i64::from_le_bytes(cursor.number()?)),
        ValueKind::F32 => Value::F32(f32::from_le_bytes(cursor.number()?)),
        ValueKind::F64 => Value::F64(f64::from_le_bytes(cursor.number()?)),
        ValueKind::Bool => match cursor.number()? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [other] => return Err(Fault::Truth(other)),
        },
        ValueKind::String => Value::String(cursor.string()?),
        ValueKind::Array => Value::Array(array(cursor, 1)?),
    })
}

fn array(cursor: &mut Cursor, depth: usize) -> Result<Array, Fault> {
    let kind = cursor.kind()?;
    let len = cursor.u64()?;
    let begin = cursor.at;
    match kind.bytes() {
        Some(width) => {
            // a saturated value exceeds any file too
            cursor.take(len.saturating_mul(width as u64))?;
        }
        None if kind == ValueKind::String => {
            for _ in 0..len {
                cursor.text()?;
            }
        }
        None if depth == MAX_NESTING => return Err(Fault::Nesting(MAX_NESTING)),
        None => {
            for _ in 0..len {
                array(cursor, depth + 1)?;
            }
        }
    }
    let bytes = cursor.file.slice(begin..cursor.at);
    let len = len as usize;
    Ok(Array { kind, len, bytes })
}

/// A raw entry of the table of tensors.
struct Entry {
    name: String,
    shape: Vec<usize>,
    kind: GgmlType,
    bytes: u64,
    offset: u64,
}

fn entry(cursor: &mut Cursor, index: u64) -> Result<Entry, GgufError> {
    let name = cursor
        .string()
        .map_err(|fault| fault.at(format!("tensor {index}")))?;
    let place = |fault: Fault| fault.at(format!("tensor `{name}`"));
    let dimensions = cursor.u32().map_err(place)?;
    if dimensions > MAX_DIMENSIONS {
        return Err(place(Fault::Dimensions(dimensions)));
    }
    let mut shape = (0..dimensions)
        .map(|_| cursor.u64().map_err(place))
        .collect::<Result<Vec<_>, _>>()?;
    shape.reverse();
    let number = cursor.u32().map_err(place)?;
    let offset = cursor.u64().map_err(place)?;
    let Some(kind) = GgmlType::from_number(number) else {
        let tensor = name;
        return Err(GgufError::UnknownType { tensor, number });
    };
    let sizes: Option<Vec<usize>> = shape.iter().map(|&x| usize::try_from(x).ok()).collect();
    let sized = sizes.and_then(|shape| Some((kind.tensor_bytes(&shape)?, shape)));
    let Some((bytes, sizes)) = sized else {
        let tensor = name;
        return Err(GgufError::Shape {
            tensor,
            kind,
            shape,
        });
    };
    Ok(Entry {
        name,
        shape: sizes,
        kind,
        bytes,
        offset,
    })
}

impl Entry {
    /// The tensor in a file of `file` bytes whose tensors start at `data`.
    fn placed(self, data: u64, alignment: u64, file: u64) -> Result<GgufTensor, GgufError> {
        let (tensor, offset) = (self.name, self.offset);
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Offset {
                tensor,
                offset,
                alignment,
            });
        }
        let begin = data.saturating_add(offset);
        let end = begin.saturating_add(self.bytes);
        if end > file {
            let found = file;
            return Err(GgufError::Truncated { tensor, end, found });
        }
        Ok(GgufTensor {
            name: tensor,
            shape: self.shape,
            kind: self.kind,
            range: begin as usize..end as usize,
            file: 0,
        })
    }
}

fn check_overlaps(tensors: &[GgufTensor]) -> Result<(), GgufError> {
    let mut sorted: Vec<_> = tensors.iter().filter(|x| !x.range.is_empty()).collect();
    sorted.sort_by_key(|tensor| tensor.range.start);
    for pair in sorted.windows(2) {
        if let [other, tensor] = pair
            && tensor.range.start < other.range.end
        {
            return Err(GgufError::Overlap {
                tensor: tensor.name.clone(),
                begin: tensor.range.start,
                other: other.name.clone(),
                other_end: other.range.end,
            });
        }
    }
    Ok(())
}

fn places(tensors: &[GgufTensor]) -> Result<HashMap<String, usize>, GgufError> {
    let mut places = HashMap::new();
    for (index, tensor) in tensors.iter().enumerate() {
        if places.insert(tensor.name.clone(), index).is_some() {
            return Err(GgufError::Duplicate {
                what: "tensor",
                name: tensor.name.clone(),
            });
        }
    }
    Ok(places)
}

/// A position in the file.
struct Cursor<'a> {
    file: &'a Bytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, needed: u64) -> Result<&'a [u8], Fault> {
        let left = &self.file[self.at..];
        let available = left.len() as u64;
        if needed > available {
            return Err(Fault::Short { needed, available });
        }
        self.at += needed as usize;
        Ok(&left[..needed as usize])
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut number = [0; N];
        number.copy_from_slice(self.take(N as u64)?);
        Ok(number)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.number().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        self.number().map(u64::from_le_bytes)
    }

    fn kind(&mut self) -> Result<ValueKind, Fault> {
        let number = self.u32()?;
        ValueKind::from_number(number).ok_or(Fault::ValueType(number))
    }

    fn text(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.u64()?;
        self.take(len)
    }

    fn string(&mut self) -> Result<String, Fault> {
        let text = std::str::from_utf8(self.text()?).map_err(|_| Fault::Text)?;
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests;
