//! The stack machine of pickles.

use std::collections::HashMap;

use super::error::shown;
use super::tensor::{Global, PickledStorage, PickledTensor};
use super::{MAX_OPCODES, PickleError};

/// The newest supported protocol.
const MAX_PROTOCOL: u8 = 5;

/// A value of the machine; `usize` values are indices into [`Objects`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, little endian.
    Long(&'a [u8]),
    /// A float; state dicts do not use their values.
    Float,
    Text(&'a str),
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

impl Value<'_> {
    /// The value of a non-negative integer.
    pub(super) fn count(self) -> Option<u64> {
        match self {
            Value::Int(int) => u64::try_from(int).ok(),
            _ => None,
        }
    }

    pub(super) fn describe(self) -> String {
        match self {
            Value::None => "None".to_owned(),
            Value::Bool(_) => "a bool".to_owned(),
            Value::Int(int) => int.to_string(),
            Value::Long(_) => "a large integer".to_owned(),
            Value::Float => "a float".to_owned(),
            Value::Text(text) => format!("\"{}\"", shown(text)),
            Value::Tuple(_) => "a tuple".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Dict(_) => "a dictionary".to_owned(),
            Value::Global(_) => "a function or class".to_owned(),
            Value::Storage(_) => "a storage".to_owned(),
            Value::Tensor(_) => "a tensor".to_owned(),
        }
    }
}

/// All created objects.
#[derive(Debug, Default)]
pub(super) struct Objects<'a> {
    /// Tuples and lists.
    pub(super) sequences: Vec<Vec<Value<'a>>>,
    pub(super) dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    pub(super) storages: Vec<PickledStorage<'a>>,
    pub(super) tensors: Vec<PickledTensor<'a>>,
}

impl<'a> Objects<'a> {
    pub(super) fn dict(&mut self) -> Value<'a> {
        self.dicts.push(Vec::new());
        Value::Dict(self.dicts.len() - 1)
    }

    fn sequence(&mut self, items: Vec<Value<'a>>) -> usize {
        self.sequences.push(items);
        self.sequences.len() - 1
    }
}

/// The state of reading a pickle.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    /// The next byte.
    next: usize,
    /// The position of the current opcode.
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<usize, Value<'a>>,
    objects: Objects<'a>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            next: 0,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            objects: Objects::default(),
        }
    }

    /// The object in the pickle, and the length of the pickle.
    pub(super) fn run(mut self) -> Result<(Value<'a>, Objects<'a>, usize), PickleError> {
        for _ in 0..MAX_OPCODES {
            self.at = self.next;
            let [opcode] = self.array()?;
            if opcode == b'.' {
                let root = self.pop()?;
                return Ok((root, self.objects, self.next));
            }
            self.step(opcode)?;
        }
        Err(PickleError::TooLong)
    }

    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            0x80 => {
                let [protocol] = self.array()?;
                if protocol > MAX_PROTOCOL {
                    return Err(self.damaged("a protocol newer than 5"));
                }
            }
            // a frame is only a hint for buffered reading
            0x95 => {
                let length = u64::from_le_bytes(self.array()?);
                if length > (self.bytes.len() - self.next) as u64 {
                    return Err(self.truncated());
                }
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' if self.marks.last() == Some(&self.stack.len()) => {
                self.marks.pop();
            }
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.stack.push(Value::Bool(opcode == 0x88)),
            b'J' | b'K' | b'M' | 0x8a | 0x8b => self.integer(opcode)?,
            b'G' => {
                let _: [u8; 8] = self.array()?;
                self.stack.push(Value::Float);
            }
            b'X' | 0x8c | 0x8d => self.text(opcode)?,
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember(opcode)?,
            b']' | b'a' | b'e' | b')' | b't' | 0x85..=0x87 => self.sequence(opcode)?,
            b'}' | b's' | b'u' => self.dictionary(opcode)?,
            b'c' | b'i' | 0x93 => self.name(opcode)?,
            b'R' | 0x81 | b'b' | b'Q' => self.make(opcode)?,
            _ => {
                return Err(PickleError::Opcode {
                    opcode,
                    at: self.at,
                });
            }
        }
        Ok(())
    }

    fn integer(&mut self, opcode: u8) -> Result<(), PickleError> {
        let int = match opcode {
            b'K' => Value::Int(self.array::<1>()?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            _ => {
                let length = if opcode == 0x8a {
                    self.array::<1>()?[0].into()
                } else {
                    // a negative length exceeds any end
                    u64::from(u32::from_le_bytes(self.array()?))
                };
                let bytes = self.take(length)?;
                match bytes.last() {
                    None => Value::Int(0),
                    Some(high) if bytes.len() <= 8 => {
                        let mut int = [if high & 0x80 == 0 { 0 } else { 0xff }; 8];
                        int[..bytes.len()].copy_from_slice(bytes);
                        Value::Int(i64::from_le_bytes(int))
                    }
                    Some(_) => Value::Long(bytes),
                }
            }
        };
        self.stack.push(int);
        Ok(())
    }

    fn text(&mut self, opcode: u8) -> Result<(), PickleError> {
        let length = match opcode {
            0x8c => self.array::<1>()?[0].into(),
            b'X' => u32::from_le_bytes(self.array()?).into(),
            _ => u64::from_le_bytes(self.array()?),
        };
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.damaged("a string is not UTF-8"))?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    /// Stores the top of the stack in the memo, or reads a value from it.
    fn remember(&mut self, opcode: u8) -> Result<(), PickleError> {
        let index = match opcode {
            b'q' | b'h' => self.array::<1>()?[0].into(),
            b'r' | b'j' => u32::from_le_bytes(self.array()?) as usize,
            _ => self.memo.len(),
        };
        if matches!(opcode, b'h' | b'j') {
            let value = self.memo.get(&index).copied();
            let value = value.ok_or_else(|| self.damaged("an unset entry of the memo"))?;
            self.stack.push(value);
        } else {
            self.memo.insert(index, self.top()?);
        }
        Ok(())
    }

    fn sequence(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = match opcode {
            b']' | b')' => Vec::new(),
            b'a' => vec![self.pop()?],
            b'e' | b't' => self.pop_to_mark()?,
            _ => {
                let mut items = Vec::new();
                for _ in 0x85..=opcode {
                    items.push(self.pop()?);
                }
                items.reverse();
                items
            }
        };
        match opcode {
            b'a' | b'e' => {
                let Value::List(list) = self.top()? else {
                    return Err(self.damaged("items are appended to something that is not a list"));
                };
                self.objects.sequences[list].extend(items);
            }
            b']' => {
                let list = self.objects.sequence(items);
                self.stack.push(Value::List(list));
            }
            _ => {
                let tuple = self.objects.sequence(items);
                self.stack.push(Value::Tuple(tuple));
            }
        }
        Ok(())
    }

    fn dictionary(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = match opcode {
            b'}' => {
                let dict = self.objects.dict();
                self.stack.push(dict);
                return Ok(());
            }
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_to_mark()?,
        };
        let Value::Dict(dict) = self.top()? else {
            return Err(self.damaged("keys are set in something that is not a dictionary"));
        };
        if items.len() % 2 != 0 {
            return Err(self.damaged("a key without a value"));
        }
        let pairs = items.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        self.objects.dicts[dict].extend(pairs);
        Ok(())
    }

    fn name(&mut self, opcode: u8) -> Result<(), PickleError> {
        let (module, name) = if opcode == 0x93 {
            match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => (module, name),
                _ => return Err(self.damaged("a name is not a string")),
            }
        } else {
            (self.line()?, self.line()?)
        };
        // torch does not use the old opcode that names and calls in one
        let known = Global::named(module, name).filter(|_| opcode != b'i');
        let global = known.ok_or_else(|| PickleError::Forbidden {
            wanted: format!("{}.{}", shown(module), shown(name)),
            at: self.at,
        })?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    fn make(&mut self, opcode: u8) -> Result<(), PickleError> {
        let argument = self.pop()?;
        let made = match opcode {
            b'Q' => self.objects.storage(argument, self.at)?,
            // attributes of a dictionary: versions of modules, not needed here
            b'b' => match self.top()? {
                Value::Dict(_) => return Ok(()),
                _ => return Err(self.damaged("attributes are set on something that has none")),
            },
            _ => match self.pop()? {
                Value::Global(function) => self.objects.call(function, argument, self.at)?,
                _ => return Err(self.damaged("a call of something that is not a function")),
            },
        };
        self.stack.push(made);
        Ok(())
    }

    /// The values above the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Value<'a>, PickleError> {
        let top = self.stack[self.floor()..].last().copied();
        top.ok_or_else(|| self.damaged("the stack is empty"))
    }

    fn pop(&mut self) -> Result<Value<'a>, PickleError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>, PickleError> {
        let mark = self.marks.pop();
        let mark = mark.ok_or_else(|| self.damaged("no mark on the stack"))?;
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], PickleError> {
        let rest = &self.bytes[self.next..];
        let taken = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length));
        let taken = taken.ok_or_else(|| self.truncated())?;
        self.next += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let rest = &self.bytes[self.next..];
        let array = rest
            .first_chunk()
            .copied()
            .ok_or_else(|| self.truncated())?;
        self.next += N;
        Ok(array)
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = &self.bytes[self.next..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let line = &rest[..end.ok_or_else(|| self.truncated())?];
        self.next += line.len() + 1;
        std::str::from_utf8(line).map_err(|_| self.damaged("a name is not UTF-8"))
    }

    fn damaged(&self, what: &'static str) -> PickleError {
        PickleError::Damaged { at: self.at, what }
    }

    fn truncated(&self) -> PickleError {
        PickleError::Truncated {
            at: self.at,
            len: self.bytes.len(),
        }
    }
}
