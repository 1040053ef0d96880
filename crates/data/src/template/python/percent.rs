//! Python's `%`: the remainder of numbers, and formatting of texts (`"%s has %d" % (name, count)`).
//!
//! Source: `PyUnicode_Format` in CPython's `Objects/unicodeobject.c`.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, ErrorKind, State, context};

use super::print::{self, Style};
use super::{BYTES_PER_STEP, escape, pay, text};
use crate::integer::Long;

/// The name of the filter that stands for the operator `%`; no template can write it.
pub(in crate::template) const REMAINDER: &str = "__mod__";

/// The largest width or precision.
const WIDEST: usize = 9_999;

/// `left % right`.
pub(in crate::template) fn remainder(
    state: &State,
    left: &Value,
    right: &Value,
) -> Result<Value, Error> {
    if left.as_str().is_some() {
        return formatted(state, left, Arguments::of(right)?);
    }
    if let (Ok(a), Ok(b)) = (i64::try_from(left.clone()), i64::try_from(right.clone()))
        && b > 0
    {
        return Ok(Value::from(a.rem_euclid(b)));
    }
    // Python's booleans are numbers.
    let number = |value: &Value| match value.kind() {
        ValueKind::Bool => Value::from(i64::from(value.is_true())),
        _ => value.clone(),
    };
    let operator = state.env().compile_expression("a % b")?;
    operator.eval(context! { a => number(left), b => number(right) })
}

/// The filter `format`: `text % args`, or `text % {names}`.
pub(in crate::template) fn format(
    state: &State,
    left: &Value,
    args: Rest<ValueOrKwargs>,
) -> Result<Value, Error> {
    let args = args.into_values();
    let (given, named): (&[Value], Kwargs) = from_args(&args)?;
    let names: Vec<&str> = named.args().collect();
    if names.is_empty() {
        return formatted(state, left, Arguments::tuple(given.to_vec()));
    }
    if !given.is_empty() {
        return Err(wrong(
            "format: expected values or names, found both".to_owned(),
        ));
    }
    let names = names
        .into_iter()
        .map(|name| Ok((name.to_owned(), named.get::<Value>(name)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    formatted(state, left, Arguments::of(&Value::from_pairs(names))?)
}

fn wrong(problem: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}

/// The values that a format takes, one after the other.
struct Arguments {
    /// The one value, which may be a mapping; `None` for a tuple.
    one: Option<Value>,
    values: Vec<Value>,
    next: usize,
    /// Whether values that are not used are an error.
    all: bool,
}

impl Arguments {
    fn of(right: &Value) -> Result<Arguments, Error> {
        if right.is_tuple() {
            return Ok(Arguments::tuple(right.try_iter()?.collect()));
        }
        // What can be indexed may be left over.
        let indexed = matches!(
            right.kind(),
            ValueKind::Map | ValueKind::Seq | ValueKind::Undefined
        );
        Ok(Arguments {
            one: Some(right.clone()),
            values: vec![right.clone()],
            next: 0,
            all: !indexed,
        })
    }

    fn tuple(values: Vec<Value>) -> Arguments {
        Arguments {
            one: None,
            values,
            next: 0,
            all: true,
        }
    }

    fn next(&mut self) -> Result<Value, Error> {
        let value = self.values.get(self.next).cloned();
        self.next += 1;
        value.ok_or_else(|| {
            wrong(format!(
                "%: not enough arguments for format string: found {}",
                self.values.len()
            ))
        })
    }

    fn named(&mut self, key: &str) -> Result<Value, Error> {
        let mapping = self.one.as_ref().filter(|one| one.kind() == ValueKind::Map);
        let mapping =
            mapping.ok_or_else(|| wrong(format!("%({key}): format requires a mapping")))?;
        let value = mapping.get_item(&Value::from(key))?;
        if value.is_undefined() {
            return Err(wrong(format!("%({key}): the mapping has no such key")));
        }
        Ok(value)
    }

    fn finish(self) -> Result<(), Error> {
        if self.all && self.next < self.values.len() {
            return Err(wrong(format!(
                "%: not all arguments converted during string formatting: {} of {} used",
                self.next,
                self.values.len()
            )));
        }
        Ok(())
    }
}

/// One conversion: `%(key)-10.2f`.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "Python's flags, each on or off"
)]
struct Spec {
    left: bool,
    plus: bool,
    space: bool,
    zero: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
}

fn formatted(state: &State, left: &Value, mut args: Arguments) -> Result<Value, Error> {
    let source = left.as_str().unwrap_or_default();
    pay(state, source.len())?;
    let mut out = String::new();
    let mut rest = source;
    while let Some(place) = rest.find('%') {
        out.push_str(&rest[..place]);
        rest = &rest[place + 1..];
        let mut value = None;
        if let Some(key) = key(&mut rest)? {
            value = Some(args.named(key)?);
        }
        let spec = Spec::read(&mut rest, &mut args)?;
        let kind = rest.chars().next();
        let kind = kind.ok_or_else(|| wrong("%: incomplete format".to_owned()))?;
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match value {
            Some(value) => value,
            None => args.next()?,
        };
        pay(
            state,
            BYTES_PER_STEP + spec.width + spec.precision.unwrap_or(0),
        )?;
        let text = spec.convert(state, kind, &value, left.is_safe())?;
        pay(state, text.len())?;
        out.push_str(&text);
    }
    args.finish()?;
    out.push_str(rest);
    Ok(if left.is_safe() {
        Value::from_safe_string(out)
    } else {
        Value::from(out)
    })
}

/// The key in brackets after the `%`, if there is one. It may contain brackets in pairs.
fn key<'s>(rest: &mut &'s str) -> Result<Option<&'s str>, Error> {
    let Some(inside) = rest.strip_prefix('(') else {
        return Ok(None);
    };
    let mut depth = 1;
    for (place, character) in inside.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            *rest = &inside[place + 1..];
            return Ok(Some(&inside[..place]));
        }
    }
    Err(wrong("%: incomplete format key".to_owned()))
}

impl Spec {
    fn read(rest: &mut &str, args: &mut Arguments) -> Result<Spec, Error> {
        let mut spec = Spec::default();
        while let Some(flag) = rest.chars().next() {
            match flag {
                '-' => spec.left = true,
                '+' => spec.plus = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                '#' => spec.alternate = true,
                _ => break,
            }
            *rest = &rest[1..];
        }
        if let Some(width) = number(rest, args)? {
            spec.left |= width < 0;
            spec.width = size(width.abs())?;
        }
        if let Some(after) = rest.strip_prefix('.') {
            *rest = after;
            let precision = number(rest, args)?.unwrap_or(0);
            spec.precision = Some(size(precision.max(0))?);
        }
        *rest = rest.trim_start_matches(['h', 'l', 'L']);
        Ok(spec)
    }

    fn convert(
        &self,
        state: &State,
        kind: char,
        value: &Value,
        safe: bool,
    ) -> Result<String, Error> {
        match kind {
            's' | 'r' | 'a' => {
                let mut shown = if kind == 's' {
                    as_text(state, value)?
                } else {
                    print::write(state, value, &Style::Repr)?
                };
                if kind == 'a' {
                    shown = ascii(&shown);
                }
                if safe && !value.is_safe() {
                    let escaped = escape(state, &Value::from(shown))?;
                    shown = escaped.as_str().map(str::to_owned).unwrap_or_default();
                }
                if let Some(most) = self.precision {
                    shown = shown.chars().take(most).collect();
                }
                Ok(self.padded("", &shown, false))
            }
            'c' => Ok(self.padded("", &character(value)?, false)),
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' => self.integer(kind, value),
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => self.float(kind, value),
            _ => Err(wrong(format!("%: unsupported format character {kind:?}"))),
        }
    }

    fn integer(&self, kind: char, value: &Value) -> Result<String, Error> {
        let found = || {
            let wanted = if matches!(kind, 'x' | 'X' | 'o') {
                "an integer"
            } else {
                "a real number"
            };
            let found = value.kind();
            wrong(format!("%{kind} format: {wanted} is required, not {found}"))
        };
        let digits = match value.kind() {
            ValueKind::Bool => i64::from(value.is_true()).to_string(),
            ValueKind::Number if value.is_integer() => value.to_string(),
            _ if is_long(value) => value.to_string(),
            ValueKind::Number if matches!(kind, 'd' | 'i' | 'u') => {
                let number = print::as_float(value).filter(|number| number.is_finite());
                let number = number
                    .ok_or_else(|| wrong(format!("%{kind}: cannot convert {value} to integer")))?;
                format!("{:.0}", number.trunc()).replace("-0", "0")
            }
            _ => return Err(found()),
        };
        let (negative, digits) = match digits.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, &digits[..]),
        };
        let (prefix, mut digits) = match kind {
            'd' | 'i' | 'u' => ("", digits.to_owned()),
            _ => {
                let number: u128 = digits
                    .parse()
                    .map_err(|_| wrong(format!("%{kind}: {value} is beyond 128 bits")))?;
                match kind {
                    'x' => ("0x", format!("{number:x}")),
                    'X' => ("0X", format!("{number:X}")),
                    _ => ("0o", format!("{number:o}")),
                }
            }
        };
        if let Some(least) = self.precision {
            digits = format!("{digits:0>least$}");
        }
        let mut sign = self.sign(negative).to_owned();
        if self.alternate {
            sign.push_str(prefix);
        }
        Ok(self.padded(&sign, &digits, true))
    }

    fn float(&self, kind: char, value: &Value) -> Result<String, Error> {
        let number = match value.kind() {
            ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
            ValueKind::Number => f64::try_from(value.clone())
                .ok()
                .or_else(|| value.to_string().parse().ok()),
            _ if is_long(value) => value.to_string().parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| {
            let found = value.kind();
            wrong(format!("%{kind} format: must be real number, not {found}"))
        })?;
        let precision = self.precision.unwrap_or(6);
        let size = number.abs();
        let text = if size.is_nan() {
            "nan".to_owned()
        } else if size.is_infinite() {
            "inf".to_owned()
        } else {
            match kind.to_ascii_lowercase() {
                'f' => self.point(format!("{size:.precision$}")),
                'e' => self.exponential(size, precision),
                _ => self.general(size, precision.max(1)),
            }
        };
        let text = if kind.is_ascii_uppercase() {
            text.to_uppercase()
        } else {
            text
        };
        let negative = number.is_sign_negative() && !number.is_nan();
        Ok(self.padded(self.sign(negative), &text, true))
    }

    /// `1.50e+07`
    fn exponential(&self, size: f64, precision: usize) -> String {
        let text = format!("{size:.precision$e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        let digits = self.point(digits.to_owned());
        format!("{digits}e{sign}{exponent:0>2}")
    }

    /// With so many digits, as `%f` or `%e`, whichever is shorter; without zeros at the end.
    fn general(&self, size: f64, digits: usize) -> String {
        let text = format!("{size:.*e}", digits - 1);
        let exponent = text.split_once('e').and_then(|(_, e)| e.parse().ok());
        let exponent: i64 = exponent.unwrap_or(0);
        let trimmed = |text: &str| {
            if self.alternate || !text.contains('.') {
                return text.to_owned();
            }
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        if exponent < -4 || exponent >= digits as i64 {
            let text = self.exponential(size, digits - 1);
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
            return format!("{}e{exponent}", trimmed(digits));
        }
        let decimals = (digits as i64 - 1 - exponent).max(0) as usize;
        trimmed(&self.point(format!("{size:.decimals$}")))
    }

    /// The text with a point, if the flag `#` asks for it.
    fn point(&self, mut text: String) -> String {
        if self.alternate && !text.contains('.') {
            text.push('.');
        }
        text
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        }
    }

    /// The text in its width; zeros stand between the sign and a number.
    fn padded(&self, sign: &str, text: &str, number: bool) -> String {
        let length = sign.chars().count() + text.chars().count();
        let missing = self.width.saturating_sub(length);
        if self.left {
            format!("{sign}{text}{}", " ".repeat(missing))
        } else if self.zero && number {
            format!("{sign}{}{text}", "0".repeat(missing))
        } else {
            format!("{}{sign}{text}", " ".repeat(missing))
        }
    }
}

/// A width or precision: digits, or `*` for the next argument.
fn number(rest: &mut &str, args: &mut Arguments) -> Result<Option<i64>, Error> {
    if let Some(after) = rest.strip_prefix('*') {
        *rest = after;
        let value = args.next()?;
        let number = value.is_integer().then(|| i64::try_from(value).ok());
        return match number.flatten() {
            Some(number) => Ok(Some(number)),
            None => Err(wrong("%: * wants int".to_owned())),
        };
    }
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, after) = rest.split_at(length);
    *rest = after;
    if digits.is_empty() {
        return Ok(None);
    }
    Ok(Some(digits.parse().unwrap_or(i64::MAX)))
}

fn size(number: i64) -> Result<usize, Error> {
    let size = usize::try_from(number).ok().filter(|size| *size <= WIDEST);
    size.ok_or_else(|| {
        wrong(format!(
            "%: expected a width or precision of at most {WIDEST}, found {number}"
        ))
    })
}

/// Python's `str`.
fn as_text(state: &State, value: &Value) -> Result<String, Error> {
    if value.is_undefined() {
        return Ok(String::new());
    }
    Ok(match text(state, value)? {
        Some(text) => text,
        None => value.to_string(),
    })
}

fn character(value: &Value) -> Result<String, Error> {
    let one = match value.as_str() {
        Some(text) => {
            let mut characters = text.chars();
            characters.next().filter(|_| characters.next().is_none())
        }
        None => u32::try_from(value.clone())
            .ok()
            .filter(|_| value.is_integer())
            .and_then(char::from_u32),
    };
    one.map(String::from)
        .ok_or_else(|| wrong(format!("%c requires int or char, found {value}")))
}

/// Whether the value is an integer beyond 128 bits.
fn is_long(value: &Value) -> bool {
    Long::of(value).is_some()
}

/// Python's `ascii` of a `repr`.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let code = u32::from(character);
        let _ = match code {
            0..=0x7f => {
                out.push(character);
                Ok(())
            }
            0x80..=0xff => write!(out, "\\x{code:02x}"),
            0x100..=0xffff => write!(out, "\\u{code:04x}"),
            _ => write!(out, "\\U{code:08x}"),
        };
    }
    out
}
