//! HTML pages from templates.
//!
//! Each page is one file that loads nothing else, in light or dark as the browser prefers. A template stands beside
//! the code that fills it and begins with `{% extends "base.html" %}`; it defines the blocks `style` and `body`, and its
//! context has a `title`. Every value is escaped, except for [`Html`].

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{
    AutoEscape, Environment, Error, Output, State, UndefinedBehavior, escape_formatter,
};
use serde::{Serialize, Serializer};
use simmer_hint::Hint;

/// The frame that all pages share.
const BASE: Template = Template {
    name: "base.html",
    text: include_str!("../templates/base.html"),
};

/// A template: a file, included in the program.
#[derive(Debug, Clone, Copy)]
pub struct Template {
    /// The name that other templates include it by; ends in `.html`, which switches escaping on.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// Markup that a template inserts as it is, such as an SVG image drawn in Rust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Html(pub String);

/// A page cannot be rendered: its template has a mistake.
#[derive(Debug, thiserror::Error)]
#[error("cannot render the page {name}")]
pub struct PageError {
    /// The template.
    name: &'static str,
    /// What is wrong with it.
    source: Error,
}

impl Serialize for Html {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Value::from_safe_string(self.0.clone()).serialize(serializer)
    }
}

impl Hint for PageError {
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Renders `page`, which may include or import `parts`.
///
/// # Errors
/// If a template is malformed or uses a value that `context` does not have.
pub fn render(
    page: Template,
    parts: &[Template],
    context: &impl Serialize,
) -> Result<String, PageError> {
    let rendered = environment(page, parts).and_then(|environment| {
        let template = environment.get_template(page.name)?;
        template.render(Value::from(Serde(context)))
    });
    rendered.map_err(|source| PageError {
        name: page.name,
        source,
    })
}

fn environment(page: Template, parts: &[Template]) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build()?;
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_formatter(escaped);
    environment.add_filter("fixed", fixed);
    environment.add_filter("signed", signed);
    for template in [BASE, page].iter().chain(parts) {
        environment.add_template(template.name, template.text)?;
    }
    Ok(environment)
}

/// Writes a value, escaped by [`escape`] unless it is [`Html`].
fn escaped(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) if !value.is_safe() && *state.auto_escape() == AutoEscape::Html => {
            Ok(out.write_str(&escape(text))?)
        }
        _ => escape_formatter(out, state, value),
    }
}

/// A number with so many decimals.
fn fixed(value: f64, decimals: usize) -> String {
    format!("{value:.decimals$}")
}

/// A number with its sign and so many decimals.
fn signed(value: f64, decimals: usize) -> String {
    format!("{value:+.decimals$}")
}

/// Escapes text for HTML: between tags and in attributes that stand in double quotes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(c),
            // what cannot be seen, or turns the text after it around, is shown
            c if c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                escaped.extend(c.escape_unicode());
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page(text: &'static str) -> Template {
        Template {
            name: "page.html",
            text,
        }
    }

    #[test]
    fn values_are_escaped_and_markup_is_not() {
        #[derive(Serialize)]
        struct Context {
            title: &'static str,
            number: f64,
            image: Html,
        }
        let page = page(
            "{% extends \"base.html\" %}\n{% block style %}\nb { color: red; }\n{% endblock %}\n{% block body %}\n\
             {% include \"part.html\" %}\n{% endblock %}\n",
        );
        let part = Template {
            name: "part.html",
            text: "<p title=\"{{ title }}\">{{ number | fixed(2) }} {{ number | signed(1) }}</p>{{ image }}\n",
        };
        let context = Context {
            title: "a < 'b' & \"c/d\"",
            number: 1.0,
            image: Html("<svg></svg>".to_owned()),
        };
        insta::assert_snapshot!(render(page, &[part], &context).unwrap(), @r#"
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width">
        <meta name="generator" content="simmer">
        <title>a &lt; 'b' &amp; &quot;c/d&quot;</title>
        <style>:root { color-scheme: light dark; }
        b { color: red; }
        </style>
        </head>
        <body>
        <p title="a &lt; 'b' &amp; &quot;c/d&quot;">1.00 +1.0</p><svg></svg>
        </body>
        </html>
        "#);
    }

    #[test]
    fn a_missing_value_is_an_error() {
        let context = json!({"title": "a"});
        assert!(render(page("{{ titel }}"), &[], &context).is_err());
        assert!(render(page("{% if titel %}{% endif %}"), &[], &context).is_ok());
    }
}
