//! Jinja as transformers' chat templates use it, built on minijinja.
//!
//! Source: `_compile_jinja_template` in transformers' `utils/chat_template_utils.py`: blocks trimmed, `raise_exception`,
//! `strftime_now`, a `tojson` that escapes nothing, loop controls and `{% generation %}` blocks.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{Local, NaiveDate, NaiveDateTime};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, Output, State, escape_formatter};

use super::python;
use crate::stack::deep;

/// The mark before the text of a `{% generation %}` block. It is a noncharacter, which no text should contain.
pub(super) const OPEN: char = '\u{10FFFE}';
/// The mark after that text; also a noncharacter.
pub(super) const CLOSE: char = '\u{10FFFF}';
/// The mark in place of a message's content, whose position is searched for; also a noncharacter.
pub(super) const HERE: char = '\u{FFFFF}';

/// The number of steps that a template may take for one text. A step is one instruction, or 64 bytes written or kept,
/// so this limits both time and memory of a template that loops forever. A long conversation takes a small part of it.
pub(super) const STEPS: u64 = 2_000_000;

/// The number of steps that run on the current stack. Nested lists are dropped and printed recursively, and every level
/// of nesting takes steps. So a text that needs more steps is rendered again from the start, on a stack that is deep
/// enough for anything that [`STEPS`] can nest.
const SHALLOW: u64 = 4_000;
/// The size of that stack, in bytes: a level of nesting takes two steps and less than 500 bytes.
const STACK: usize = 1 << 30;

/// Runs `render` with an environment of [`environment`], within [`STEPS`]. Errors are converted by `wrong` on the same
/// stack, because they may hold nested values of the template.
pub(super) fn within_steps<T: Send, E: Send>(
    env: &Environment<'static>,
    render: impl Fn(&Environment<'static>) -> Result<T, Error> + Sync,
    wrong: impl Fn(&Error) -> E + Sync,
) -> Result<T, E> {
    match render(env) {
        Err(error) if error.kind() == ErrorKind::OutOfFuel => {
            let mut env = env.clone();
            env.set_fuel(Some(STEPS));
            let done = deep(STACK, || render(&env).map_err(|error| wrong(&error)));
            done.unwrap_or_else(|| Err(wrong(&error)))
        }
        done => done.map_err(|error| wrong(&error)),
    }
}

/// The time that `strftime_now` returns, and whether a template has called it.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    now: NaiveDateTime,
    asked: Arc<AtomicBool>,
}

impl Clock {
    pub(super) fn today() -> Clock {
        Clock {
            now: Local::now().naive_local(),
            asked: Arc::default(),
        }
    }

    pub(super) fn at(date: NaiveDate) -> Clock {
        Clock {
            now: date.into(),
            asked: Arc::default(),
        }
    }

    pub(super) fn told(&self) -> Option<NaiveDate> {
        let asked = self.asked.load(Ordering::Relaxed);
        asked.then(|| self.now.date())
    }

    fn strftime(&self, format: &str) -> Result<String, Error> {
        self.asked.store(true, Ordering::Relaxed);
        let mut text = String::new();
        write!(text, "{}", self.now.format(format)).map_err(|_| {
            let problem = format!("strftime_now: wrong format {format:?}");
            Error::new(ErrorKind::InvalidOperation, problem)
        })?;
        Ok(text)
    }
}

/// Writes a value as Python prints it.
pub(super) fn print(out: &mut Output<'_>, state: &mut State, value: &Value) -> Result<(), Error> {
    match python::text(state, value)? {
        Some(text) => escape_formatter(out, state, &Value::from(text)),
        None => escape_formatter(out, state, value),
    }
}

/// An environment that behaves like that of transformers, for use with [`within_steps`].
pub(super) fn environment(clock: Clock) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_fuel(Some(SHALLOW));
    if let Ok(syntax) = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
    {
        env.set_syntax(syntax);
    }
    env.set_unknown_method_callback(python::method);
    // Their output for nested lists grows with the square of the nesting.
    env.remove_filter("pprint");
    env.remove_global("debug");
    env.set_formatter(print);
    env.add_filter("string", python::string);
    env.add_filter("int", python::int);
    env.add_filter("float", python::to_float);
    env.add_filter("escape", python::escape);
    env.add_filter("e", python::escape);
    env.add_filter(python::percent::REMAINDER, python::percent::remainder);
    env.add_filter("format", python::percent::format);
    env.add_filter(python::JOIN, minijinja::filters::join);
    env.add_filter("join", python::join);
    env.add_function("raise_exception", |message: String| -> Result<(), Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    env.add_function("strftime_now", move |format: String| {
        clock.strftime(&format)
    });
    env.add_test("iterable", |value: &Value| {
        !value.is_none() && value.try_iter().is_ok()
    });
    env.add_filter("tojson", python::to_json);
    env.add_filter("generation", |text: String| format!("{OPEN}{text}{CLOSE}"));
    env
}

/// Turns `{% generation %}` blocks into filter blocks, which mark their text; returns whether there were any.
pub(super) fn mark_generation(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let (mut rest, mut found) = (source, false);
    while let Some(start) = rest.find("{%") {
        // in `{%}`, both delimiters share the `%`
        let Some(inside) = rest[start + 2..].find("%}") else {
            break;
        };
        let (tag, after) = rest[start..].split_at(inside + 4);
        let word =
            tag[2..][..inside].trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        out.push_str(&rest[..start]);
        match word {
            "generation" => out.push_str(&tag.replacen(word, "filter generation", 1)),
            "endgeneration" => out.push_str(&tag.replacen(word, "endfilter", 1)),
            _ => out.push_str(tag),
        }
        found |= word == "generation";
        rest = after;
    }
    out.push_str(rest);
    (out, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> String {
        let date = NaiveDate::from_ymd_opt(2024, 7, 26).unwrap();
        let mut env = environment(Clock::at(date));
        let (source, _) = mark_generation(source);
        env.add_template_owned("t", source).unwrap();
        let tool = serde_json::json!({"name": "f<é>", "args": [1, 2.5, null, true], "a": {}});
        let context =
            minijinja::context! { tool => Value::from(minijinja::value::Serde(&tool)), none => () };
        match env.get_template("t").unwrap().render(context) {
            Ok(text) => text,
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn json_is_pythons() {
        assert_eq!(
            render("{{ tool | tojson }}"),
            r#"{"name": "f<é>", "args": [1, 2.5, null, true], "a": {}}"#
        );
        assert_eq!(
            render("{{ {'b': [1], 'a': 2} | tojson(indent=2, sort_keys=true) }}"),
            "{\n  \"a\": 2,\n  \"b\": [\n    1\n  ]\n}"
        );
    }

    #[test]
    fn python_methods_and_words_work() {
        assert_eq!(render("{{ ' a b '.strip().split(' ')[1] }}"), "b");
        assert_eq!(
            render("{{ 'abc'[::-1] }}{{ 'abc'.startswith('ab') }}"),
            "cbaTrue"
        );
        assert_eq!(render("{{ none }}"), "None");
        assert_eq!(
            render(
                "{{ none is iterable }}{{ 'a' is iterable }}{{ [] is iterable }}{{ 1 is iterable }}"
            ),
            "FalseTrueTrueFalse"
        );
        assert_eq!(
            render(
                "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
            ),
            "01"
        );
        assert_eq!(
            render(
                "{% set ns = namespace(x=1) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}"
            ),
            "4"
        );
    }

    #[test]
    fn the_clock_stands_still() {
        assert_eq!(render("{{ strftime_now('%d %b %Y') }}"), "26 Jul 2024");
        assert!(render("{{ strftime_now('%Q') }}").contains("wrong format"));
    }

    #[test]
    fn exceptions_keep_their_message() {
        assert!(render("{{ raise_exception('no system role') }}").contains("no system role"));
    }

    #[test]
    fn three_characters_are_not_a_tag() {
        for text in ["{%}", "a {% b", "{%", "{%}{%", "%}"] {
            assert_eq!(mark_generation(text), (text.to_owned(), false));
        }
        let (text, found) = mark_generation("{%%}{%-generation-%}c{% endgeneration %}");
        assert_eq!(text, "{%%}{%-filter generation-%}c{% endfilter %}");
        assert!(found);
    }

    #[test]
    fn generation_blocks_are_marked_and_trimmed_as_blocks() {
        let text = render("a\n  {% generation %}\nb\n  {%- endgeneration %}\nc");
        assert_eq!(text, format!("a\n{OPEN}b{CLOSE}c"));
    }
}
