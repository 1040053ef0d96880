//! Compared with Python and transformers (`tests/reference/python_text.py`).

use std::path::Path;

use minijinja::Value;
use minijinja::value::Serde;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::super::concat::as_in_python;
use super::super::jinja::{Clock, environment, within_steps};
use super::print::float;
use crate::integer::{self, Exact};

#[derive(Deserialize)]
struct Golden {
    values: serde_json::Value,
    floats: Vec<(String, String)>,
    texts: Vec<(String, String, String, String)>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    text: Option<String>,
}

fn golden() -> Golden {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/python_text.json");
    integer::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn render(template: &str, values: &serde_json::Value) -> Result<String, String> {
    let mut env = environment(Clock::today());
    env.add_template_owned("t", as_in_python(template))
        .map_err(|error| error.to_string())?;
    let context = Value::from(Serde(Exact(values)));
    within_steps(
        &env,
        |env| env.get_template("t")?.render(context.clone()),
        |error| format!("{error:#}"),
    )
}

#[test]
fn floats_are_written_as_python_writes_them() {
    let floats = golden().floats;
    assert!(floats.len() >= 900);
    for (bits, expected) in floats {
        let value = f64::from_bits(u64::from_str_radix(&bits, 16).unwrap());
        assert_eq!(float(value), expected);
    }
}

#[test]
fn texts_are_written_as_python_writes_them() {
    for (text, repr, ascii, json) in golden().texts {
        let values = json!({"t": text});
        let ours = |template| render(template, &values).unwrap();
        assert_eq!(ours("{{ [t] }}"), format!("[{repr}]"));
        assert_eq!(ours("{{ t|tojson(ensure_ascii=true) }}"), ascii);
        assert_eq!(ours("{{ t|tojson }}"), json);
    }
}

#[test]
fn templates_write_values_as_transformers_does() {
    let golden = golden();
    assert!(golden.cases.iter().any(|case| case.text.is_none()));
    let mut wrong = Vec::new();
    for case in golden.cases {
        let ours = render(&case.template, &golden.values);
        if ours.as_ref().ok() != case.text.as_ref() {
            wrong.push(format!(
                "{}\n  expected {:?}\n  found    {ours:?}",
                case.template, case.text
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn indents_are_limited() {
    let error = |template| render(template, &serde_json::Value::Null).unwrap_err();
    for template in [
        "{{ [1]|tojson(indent=65) }}",
        "{{ [1]|tojson(indent='x' * 65) }}",
        "{{ [1]|tojson(indent=[]) }}",
    ] {
        assert!(error(template).contains("indent: expected"), "{template}");
    }
    assert!(error("{{ 1|tojson(1, 2, none, 4, 5) }}").contains("too many arguments"));
    assert!(error("{{ 1|tojson(seperators=1) }}").contains("seperators"));
}

/// Values without floats, whose text serde_json may read as a neighbour.
fn values() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<u64>().prop_map(serde_json::Value::from),
        "\\PC*|[\u{0}-\u{20}\"\\\\/é\u{2028}🍋]*".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// The rules of `float.__repr__`: the number reads back, and has an exponent of at least two digits, with a sign,
    /// exactly below 1e-4 and from 1e16; without one it has a point.
    #[test]
    fn floats_read_back(bits: u64) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        let text = float(value);
        prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
        let exponent = value != 0.0 && !(1e-4..1e16).contains(&value.abs());
        match text.split_once('e') {
            Some((_, digits)) => {
                prop_assert!(exponent);
                prop_assert!(digits.starts_with(['+', '-']) && digits.len() >= 3);
            }
            None => prop_assert!(!exponent && text.contains('.')),
        }
    }

    /// Whatever the arguments, the text is JSON of the same value.
    #[test]
    fn json_reads_back(value in values(), ascii: bool, indent in 0..5_usize, sort: bool) {
        let indent = if indent == 4 { "none".to_owned() } else { indent.to_string() };
        let arguments = format!("ensure_ascii={ascii}, indent={indent}, separators=(' ,', ':\\t'), sort_keys={sort}");
        let text = render(&format!("{{{{ v|tojson({arguments}) }}}}"), &json!({"v": value})).unwrap();
        prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&text).unwrap(), &value);
        prop_assert!(!ascii || text.is_ascii());
    }
}
