//! The parts of Python that chat templates use: methods of strings, lists and dicts, and `json.dumps`.
//!
//! minijinja counts the steps of a template and the values that it keeps, but not the work of functions outside the
//! engine. So functions here that could take unbounded memory or time consume steps before they run.

use std::io::{self, Write as _};

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Bytes per step.
const BYTES_PER_STEP: usize = 64;

/// A Python method that minijinja does not have.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    for value in args.iter().chain([value]) {
        pay(state, size(value))?;
    }
    match (method, value.as_str(), args) {
        ("replace", Some(text), [old, new, ..]) => {
            if let (Some(old), Some(new)) = (old.as_str(), new.as_str()) {
                pay(state, text.matches(old).count().saturating_mul(new.len()))?;
            }
        }
        // minijinja's own `join` counts its work.
        ("join", Some(_), [items]) => {
            return state.apply_filter("join", &[items.clone(), value.clone()]);
        }
        ("format", Some(text), _) if wide(text) => {
            let problem = "format: expected a width of at most four digits";
            return Err(Error::new(ErrorKind::InvalidOperation, problem));
        }
        _ => {}
    }
    unknown_method_callback(state, value, method, args)
}

fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / BYTES_PER_STEP) as u64)
}

/// The bytes of a string; for a list, the bytes of one step per item.
fn size(value: &Value) -> usize {
    match (value.as_str(), value.kind()) {
        (Some(text), _) => text.len(),
        (_, ValueKind::Seq | ValueKind::Iterable) => {
            let items = value.len().unwrap_or(0);
            items.saturating_mul(BYTES_PER_STEP)
        }
        _ => 0,
    }
}

/// Whether a format contains a number of five digits or more.
fn wide(format: &str) -> bool {
    let digits = format.split(|c: char| !c.is_ascii_digit());
    digits.into_iter().any(|digits| digits.len() > 4)
}

/// Python's `json.dumps` with `ensure_ascii=False`.
#[expect(
    clippy::needless_pass_by_value,
    reason = "minijinja hands keyword arguments over by value"
)]
pub(super) fn to_json(state: &State, value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let _ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    if indent.is_some_and(|indent| indent > BYTES_PER_STEP) {
        let problem = "tojson: expected an indent of at most 64";
        return Err(Error::new(ErrorKind::InvalidOperation, problem));
    }
    let text = if sort_keys == Some(true) {
        let mut json: serde_json::Value =
            serde_json::from_str(&dump(state, value, None)?).map_err(invalid)?;
        json.sort_all_objects();
        dump(state, &json, indent)?
    } else {
        dump(state, value, indent)?
    };
    Ok(Value::from_safe_string(text))
}

fn invalid(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::BadSerialization, "tojson").with_source(error)
}

fn dump(state: &State, value: &impl Serialize, indent: Option<usize>) -> Result<String, Error> {
    let mut out = Bounded::of(state);
    let spaces = " ".repeat(indent.unwrap_or(0));
    let written = match indent {
        Some(_) => {
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, formatter))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, PythonFormatter)),
    };
    match written {
        Ok(()) => {
            String::from_utf8(out.bytes).map_err(|error| invalid(serde::ser::Error::custom(error)))
        }
        Err(error) if error.is_io() => Err(Error::from(ErrorKind::OutOfFuel)),
        Err(error) => Err(invalid(error)),
    }
}

/// A value as text. A list may contain the same list many times, so a small value can give a long text.
pub(super) fn text(state: &State, value: &Value) -> Result<String, Error> {
    let mut out = Bounded::of(state);
    write!(out, "{value}").map_err(|_| Error::from(ErrorKind::OutOfFuel))?;
    Ok(String::from_utf8_lossy(&out.bytes).into_owned())
}

/// Output that is limited by the template's remaining steps.
struct Bounded {
    bytes: Vec<u8>,
    room: usize,
}

impl Bounded {
    fn of(state: &State) -> Bounded {
        let steps = state.fuel_levels().map_or(u64::MAX, |(_, left)| left);
        let steps = usize::try_from(steps).unwrap_or(usize::MAX);
        Bounded {
            bytes: Vec::new(),
            room: steps.saturating_mul(BYTES_PER_STEP),
        }
    }
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(bytes.len()) > self.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// JSON with a space after every comma and colon.
struct PythonFormatter;

fn comma<W: io::Write + ?Sized>(writer: &mut W, first: bool) -> io::Result<()> {
    if first {
        Ok(())
    } else {
        writer.write_all(b", ")
    }
}

impl Formatter for PythonFormatter {
    fn begin_array_value<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        comma(writer, first)
    }

    fn begin_object_key<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        comma(writer, first)
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
