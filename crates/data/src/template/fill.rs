//! Short Jinja templates over the fields of a row.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, filters};
use serde::Serialize;
use simmer_hint::Hint;

use super::jinja::{self, Clock, STEPS, within_steps};

/// Named Jinja templates and expressions over the fields of a row. A field that the row does not have is an error, and so is one that
/// is null or a list where a text is expected.
#[derive(Debug)]
pub struct Blanks {
    env: Environment<'static>,
}

/// An error in a template of [`Blanks`], or in the row that fills it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BlankError {
    /// The template is not valid Jinja.
    #[error("`{name}` is not a valid template: {what}")]
    Syntax {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A row does not have a field, or the field has the wrong type.
    #[error("`{name}` cannot be filled from this row: {what}")]
    Fill {
        /// The template's name.
        name: String,
        /// What is wrong.
        what: String,
    },
}

impl Hint for BlankError {
    fn hint(&self) -> Option<String> {
        None
    }
}

impl Default for Blanks {
    fn default() -> Self {
        let mut env = jinja::environment(Clock::today());
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        if let Ok(syntax) = syntax {
            env.set_syntax(syntax);
        }
        env.set_formatter(print_text);
        refuse_null(&mut env);
        Self { env }
    }
}

/// Writes a text, a number or a truth value.
fn print_text(out: &mut Output<'_>, state: &mut State, value: &Value) -> Result<(), Error> {
    let found = match value.kind() {
        ValueKind::None => "null",
        ValueKind::Seq | ValueKind::Iterable => "a list",
        ValueKind::Map => "an object",
        _ => return jinja::print(out, state, value),
    };
    Err(expected_text(found))
}

/// Replaces the filters that make a text of null by ones that refuse it.
fn refuse_null(env: &mut Environment<'static>) {
    env.add_filter("any trim", filters::trim);
    env.add_filter("any replace", filters::replace);
    env.add_filter("any lower", filters::lower);
    env.add_filter("any upper", filters::upper);
    env.add_filter("any title", filters::title);
    env.add_filter("any capitalize", filters::capitalize);
    for name in ["trim", "replace", "lower", "upper", "title", "capitalize"] {
        let of_any = format!("any {name}");
        env.add_filter(name, move |state: &mut State, args: Rest<Value>| {
            if args.first().is_some_and(Value::is_none) {
                return Err(expected_text("null"));
            }
            state.apply_filter(&of_any, &args)
        });
    }
}

fn expected_text(found: &str) -> Error {
    let problem = format!("expected a text, found {found}");
    Error::new(ErrorKind::InvalidOperation, problem)
}

impl Blanks {
    /// Adds a filter for templates and expressions: `field | name`.
    pub fn add_filter(
        &mut self,
        name: &'static str,
        filter: fn(&serde_json::Value) -> Result<serde_json::Value, String>,
    ) {
        let wrong = |what| minijinja::Error::new(ErrorKind::InvalidOperation, what);
        self.env.add_filter(name, move |value: Value| {
            let found = filter(&json(value).map_err(wrong)?).map_err(wrong)?;
            Ok::<_, minijinja::Error>(Value::from(Serde(&found)))
        });
    }

    /// Adds a filter with an argument: `field | name(argument)`.
    pub fn add_filter_with(
        &mut self,
        name: &'static str,
        filter: fn(&serde_json::Value, &serde_json::Value) -> Result<serde_json::Value, String>,
    ) {
        let wrong = |what| minijinja::Error::new(ErrorKind::InvalidOperation, what);
        self.env
            .add_filter(name, move |value: Value, argument: Value| {
                let [value, argument] = [value, argument].map(|of| json(of).map_err(wrong));
                let found = filter(&value?, &argument?).map_err(wrong)?;
                Ok::<_, minijinja::Error>(Value::from(Serde(&found)))
            });
    }

    /// Adds a template.
    ///
    /// # Errors
    /// [`BlankError::Syntax`] if it is not valid.
    pub fn add(&mut self, name: &str, source: &str) -> Result<(), BlankError> {
        let added = self
            .env
            .add_template_owned(name.to_owned(), source.to_owned());
        added.map_err(|error| BlankError::Syntax {
            name: name.to_owned(),
            what: error.to_string(),
        })
    }

    /// Whether a template has this name.
    pub fn has(&self, name: &str) -> bool {
        self.env.get_template(name).is_ok()
    }

    /// Renders a template with the fields of a row.
    ///
    /// # Errors
    /// [`BlankError::Fill`] if a field that it names is missing.
    pub fn fill(&self, name: &str, row: &impl Serialize) -> Result<String, BlankError> {
        let row = Value::from(Serde(row));
        let render = |env: &Environment<'static>| env.get_template(name)?.render(row.clone());
        within_steps(&self.env, render, |error| wrong(name, error))
    }

    /// The value of an expression.
    ///
    /// # Errors
    /// [`BlankError::Fill`] if it is not valid, or a field that it names is missing.
    pub fn value(
        &self,
        name: &str,
        expression: &str,
        row: &impl Serialize,
    ) -> Result<serde_json::Value, BlankError> {
        let row = Value::from(Serde(row));
        let eval = |env: &Environment<'static>| {
            let expression = env.compile_expression(expression)?;
            expression.eval(row.clone())
        };
        let found = within_steps(&self.env, eval, |error| wrong(name, error))?;
        if found.is_undefined() {
            return Err(wrong(name, &ErrorKind::UndefinedError.into()).of(expression));
        }
        json(found).map_err(|what| BlankError::Fill {
            name: name.to_owned(),
            what,
        })
    }
}

impl BlankError {
    fn of(self, expression: &str) -> Self {
        match self {
            Self::Fill { name, what } => Self::Fill {
                name,
                what: format!("{what}: {expression}"),
            },
            syntax @ Self::Syntax { .. } => syntax,
        }
    }
}

fn wrong(name: &str, error: &minijinja::Error) -> BlankError {
    let mut what = match error.kind() {
        ErrorKind::OutOfFuel => {
            format!("stopped after {STEPS} steps: it loops forever, or its text grows without end")
        }
        kind => kind.to_string(),
    };
    if let Some(detail) = error.detail() {
        what = format!("{what}: {detail}");
    }
    if let Some(range) = error.range()
        && let Some(source) = error.template_source()
        && let Some(part) = source.get(range)
    {
        what = format!("{what}: {{{{ {part} }}}}");
    }
    BlankError::Fill {
        name: name.to_owned(),
        what,
    }
}

fn json(value: Value) -> Result<serde_json::Value, String> {
    serde_json::to_value(&value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_filled_from_fields() {
        let mut blanks = Blanks::default();
        blanks
            .add("prompt", "Q: {{ question.split('_')[0] }}\nA:")
            .unwrap();
        let row = json!({"question": "a _ b", "choices": ["x", "y"]});
        assert_eq!(blanks.fill("prompt", &row).unwrap(), "Q: a \nA:");
        blanks.add("head", "About {{ question }}.\n\n").unwrap();
        assert_eq!(blanks.fill("head", &row).unwrap(), "About a _ b.\n\n");
        assert_eq!(
            blanks.value("choices", "choices[1:]", &row).unwrap(),
            json!(["y"])
        );
    }

    #[test]
    fn null_and_lists_are_not_texts() {
        let mut blanks = Blanks::default();
        let row =
            json!({"text": null, "list": ["a"], "object": {"a": 1}, "number": 1.5, "truth": true});
        for (source, expected) in [
            ("{{ text }}", Err("null")),
            ("{{ list }}", Err("a list")),
            ("{{ object }}", Err("an object")),
            ("{{ text | trim }}", Err("null")),
            ("{{ text | lower }}", Err("null")),
            (
                "{{ ['x', text] | map('replace', 'x', 'y') | join }}",
                Err("null"),
            ),
            ("{{ list | join }} {{ object.a }}", Ok("a 1")),
            (
                "{{ number }} {{ truth }}{% if text is none %} -{% endif %}",
                Ok("1.5 True -"),
            ),
            ("{{ ' B ' | trim | lower }}", Ok("b")),
        ] {
            blanks.add("prompt", source).unwrap();
            let found = blanks
                .fill("prompt", &row)
                .map_err(|error| error.to_string());
            match expected {
                Ok(text) => assert_eq!(found.as_deref(), Ok(text), "{source}"),
                Err(what) => {
                    let message = found.unwrap_err();
                    let problem = format!("expected a text, found {what}");
                    assert!(message.contains(&problem), "{source}: {message}");
                }
            }
        }
    }

    #[test]
    fn a_missing_field_is_named() {
        let mut blanks = Blanks::default();
        blanks.add("prompt", "Q: {{ question }}").unwrap();
        let message = blanks
            .fill("prompt", &json!({"a": 1}))
            .unwrap_err()
            .to_string();
        insta::assert_snapshot!(message, @"`prompt` cannot be filled from this row: undefined value: `question` is undefined: {{ question }}");
        let message = blanks
            .value("answer", "label", &json!({"a": 1}))
            .unwrap_err()
            .to_string();
        insta::assert_snapshot!(message, @"`answer` cannot be filled from this row: undefined value: label");
        let message = blanks
            .add("prompt", "{{ question ")
            .unwrap_err()
            .to_string();
        insta::assert_snapshot!(message, @"`prompt` is not a valid template: syntax error: unexpected end of input, expected end of variable block (in prompt:1)");
    }
}
