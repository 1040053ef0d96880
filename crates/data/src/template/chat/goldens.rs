//! Rows with calls, compared with transformers (`tests/reference/chat_calls.py`).

use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::super::{Template, TrainOn};
use crate::format::read;
use crate::tokenizer::tests::with_config;

#[derive(Deserialize)]
struct Golden {
    rows: Vec<String>,
    templates: Vec<OneTemplate>,
}

#[derive(Deserialize)]
struct OneTemplate {
    name: String,
    chat_template: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    trained: Vec<[usize; 2]>,
}

#[test]
fn calls_are_rendered_and_trained_as_in_transformers() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/chat_calls.json");
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    std::fs::write(&path, golden.rows.join("\n")).unwrap();
    let rows = read(&path, None).unwrap();
    for template in golden.templates {
        let tokenizer = with_config(&json!({
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "chat_template": template.chat_template,
        }));
        let ours = Template::named("chat", &tokenizer).unwrap();
        assert_eq!(template.cases.len(), rows.len());
        for (row, case) in rows.iter().zip(template.cases) {
            let rendered = ours.render(row, TrainOn::Answers).unwrap();
            assert_eq!(rendered.text, case.text, "{}", template.name);
            let trained = rendered.trained.iter().map(|span| [span.start, span.end]);
            let trained: Vec<_> = trained.collect();
            let shown = |spans: &[[usize; 2]]| -> Vec<String> {
                spans
                    .iter()
                    .map(|span| case.text[span[0]..span[1]].into())
                    .collect()
            };
            assert_eq!(shown(&trained), shown(&case.trained), "{}", template.name);
            assert_eq!(trained, case.trained);
        }
    }
}
