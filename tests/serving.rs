//! `simmer serve`, as its clients meet it: answers are those of `simmer generate`, whoever else asks at the same time.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::commands::simmer;

/// A base model with a chat template, and an adapter that was trained on it for a few steps.
fn models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    fs::create_dir(&base).unwrap();
    for entry in fs::read_dir("data/tiny-base").unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, base.join(path.file_name().unwrap())).unwrap();
    }
    let template = "{% for message in messages %}{{ message.role }}:\n{{ message.content }}\n{% endfor %}\
                    {% if add_generation_prompt %}assistant:\n{% endif %}";
    fs::write(base.join("chat_template.jinja"), template).unwrap();
    let rows = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/kitchen/heldout.json");
    let recipe = format!(
        "[base]\npath = \"base\"\n[method.lora]\nrank = 4\n[data]\nmax_tokens = 256\n\
         train = [{{ path = '{}', template = \"chat\" }}]\n\
         [train]\nmax_steps = 4\nbatch_size = 4\nlearning_rate = 2e-2\n",
        rows.display()
    );
    fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
    let done = simmer(folder.path(), &["train", "recipe.toml", "--out", "run"]);
    assert!(done.status.success(), "{done:?}");
    folder
}

/// A server that ends with the test.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(folder: &Path, more: &[&str]) -> Self {
        Self::with_key(folder, more, "")
    }

    fn with_key(folder: &Path, more: &[&str], key: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_simmer"))
            .args(["serve", "--base", "base", "--port", "0"])
            .args(["--adapter", "kitchen=run/adapter", "--device", "cpu"])
            .args(more)
            .current_dir(folder)
            .env("SIMMER_API_KEY", key)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let begin = "serving base, kitchen at http://";
        let address = line.trim().strip_prefix(begin).unwrap_or_else(|| {
            let mut said = String::new();
            let _ = child.stderr.take().unwrap().read_to_string(&mut said);
            panic!("{line}{said}")
        });
        let address = address.strip_suffix("/v1").unwrap().to_owned();
        Self { child, address }
    }

    /// Sends a request, and leaves its answer to be read.
    fn send(&self, head: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_mins(2)))
            .unwrap();
        let length = body.len();
        let request = format!(
            "{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// The status and the text of an answer.
    fn ask(&self, head: &str, body: &str) -> (u16, String) {
        let mut answer = Vec::new();
        self.send(head, body).read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked")
        {
            return (status, joined(body));
        }
        (status, body.to_owned())
    }

    fn post(&self, function: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.ask(&format!("POST /v1/{function} HTTP/1.1"), &body.to_string());
        (status, serde_json::from_str(&text).unwrap())
    }

    /// The events of a stream, without the last one.
    fn stream(&self, function: &str, body: &Value) -> Vec<Value> {
        let (status, text) = self.ask(&format!("POST /v1/{function} HTTP/1.1"), &body.to_string());
        assert_eq!(status, 200, "{text}");
        let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let mut events: Vec<&str> = events.collect();
        assert_eq!(events.pop(), Some("[DONE]"));
        events
            .iter()
            .map(|event| serde_json::from_str(event).unwrap())
            .collect()
    }

    /// A counter of the server.
    fn counter(&self, name: &str) -> u64 {
        let (_, text) = self.ask("GET /metrics HTTP/1.1", "");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("simmer_{name} ")));
        line.unwrap().parse().unwrap()
    }

    /// Waits until it is so with the number of texts that are continued.
    fn wait_for_texts(&self, is_so: impl Fn(u64) -> bool) {
        let begin = Instant::now();
        while !is_so(self.counter("texts")) {
            assert!(
                begin.elapsed() < Duration::from_mins(1),
                "the number of texts stays"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of an answer that was sent in chunks.
fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        body.push_str(&rest[..size]);
        chunks = &rest[size + 2..];
    }
    body
}

fn chat(model: &str, prompt: &str, max_tokens: usize) -> Value {
    json!({
        "model": model, "temperature": 0, "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": prompt}]
    })
}

const PROMPTS: [&str; 5] = [
    "What is tea?",
    "How long do beans have to be soaked before they are cooked in a large pot of water?",
    "Name a fruit.",
    "What goes into a fish stew, and what comes first?",
    "Bread",
];

/// What the program says to each prompt when nobody else asks: token, log-probability, text.
fn expected(folder: &Path, adapter: Option<&str>, most: usize) -> Vec<Value> {
    let one = |prompt: &&str| {
        let most = most.to_string();
        let mut args = vec!["generate", "--base", "base", "--chat", "--greedy", "--json"];
        args.extend([
            "--device",
            "cpu",
            "--max-new-tokens",
            &most,
            "--prompt",
            prompt,
        ]);
        args.extend(adapter.iter().flat_map(|adapter| ["--adapter", *adapter]));
        let done = simmer(folder, &args);
        assert!(done.status.success(), "{done:?}");
        serde_json::from_slice(&done.stdout).unwrap()
    };
    PROMPTS.iter().map(one).collect()
}

#[test]
fn answers_are_those_of_generate() {
    let folder = models();
    let serving = Serving::start(folder.path(), &[]);
    let models = [("base", None), ("kitchen", Some("run/adapter"))];
    let alone = models.map(|(_, adapter)| expected(folder.path(), adapter, 40));
    assert_ne!(alone[0], alone[1]);
    // both models and all prompts at the same time, as a whole and as a stream
    thread::scope(|scope| {
        for ((name, _), alone) in models.iter().zip(&alone) {
            for (prompt, alone) in PROMPTS.iter().zip(alone) {
                scope.spawn(|| {
                    let (status, whole) = serving.post("chat/completions", &chat(name, prompt, 40));
                    assert_eq!(status, 200, "{whole}");
                    let choice = &whole["choices"][0];
                    assert_eq!(choice["message"]["content"], alone["text"]);
                    let counts = [alone["prompt_ids"].clone(), alone["ids"].clone()];
                    let counts = counts.map(|ids| json!(ids.as_array().unwrap().len()));
                    let usage = &whole["usage"];
                    assert_eq!(
                        [
                            usage["prompt_tokens"].clone(),
                            usage["completion_tokens"].clone()
                        ],
                        counts
                    );
                    let finish = if alone["stop"] == "eos" {
                        "stop"
                    } else {
                        "length"
                    };
                    assert_eq!(choice["finish_reason"], finish);
                });
                scope.spawn(|| {
                    let mut request = chat(name, prompt, 40);
                    request["stream"] = json!(true);
                    let chunks = serving.stream("chat/completions", &request);
                    let delta = |chunk: &Value| chunk["choices"][0]["delta"]["content"].clone();
                    let text = chunks.iter().map(delta);
                    let text: String = text
                        .filter_map(|text| text.as_str().map(str::to_owned))
                        .collect();
                    assert_eq!(text, alone["text"].as_str().unwrap());
                    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
                });
            }
        }
    });
    let tokens = serving.counter("generated_tokens_total");
    let count = |alone: &Value| alone["ids"].as_array().unwrap().len() as u64;
    assert_eq!(tokens, 2 * alone.iter().flatten().map(count).sum::<u64>());
}

#[test]
fn scores_are_those_of_the_model() {
    let folder = models();
    let serving = Serving::start(folder.path(), &[]);
    let alone = &expected(folder.path(), None, 12)[1];
    let ids = |key: &str| alone[key].as_array().unwrap().clone();
    let (prompt, new) = (ids("prompt_ids"), ids("ids"));
    let log_probs = ids("logprobs");
    let near = |found: &Value, expected: &Value| {
        let pair = [found, expected].map(|value| value.as_f64().unwrap());
        // sums in another order
        assert!((pair[0] - pair[1]).abs() < 1e-4, "{pair:?}");
    };
    let request = json!({
        "model": "base", "prompt": prompt, "max_tokens": new.len(), "temperature": 0, "logprobs": 2
    });
    let (_, answer) = serving.post("completions", &request);
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], alone["text"]);
    let told = choice["logprobs"]["token_logprobs"].as_array().unwrap();
    assert_eq!(told.len(), new.len(), "{choice}");
    for (found, expected) in told.iter().zip(&log_probs) {
        near(found, expected);
    }
    // as lm-evaluation-harness asks: the whole text as a prompt
    let whole = [&prompt[..], &new].concat();
    let request =
        json!({"model": "base", "prompt": [whole], "max_tokens": 0, "echo": true, "logprobs": 1});
    let (_, answer) = serving.post("completions", &request);
    let told = &answer["choices"][0]["logprobs"];
    assert_eq!(told["token_logprobs"][0], Value::Null);
    assert_eq!(
        told["token_logprobs"].as_array().unwrap().len(),
        whole.len()
    );
    for (place, expected) in log_probs.iter().enumerate() {
        near(&told["token_logprobs"][prompt.len() + place], expected);
        // greedy tokens are the most likely ones
        assert_eq!(
            told["top_logprobs"][prompt.len() + place]
                .as_object()
                .unwrap()
                .len(),
            1
        );
    }
    let mut request = chat("base", PROMPTS[1], 12);
    request["logprobs"] = json!(true);
    request["top_logprobs"] = json!(2);
    let (_, answer) = serving.post("chat/completions", &request);
    let told = answer["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    for (token, expected) in told.iter().zip(&log_probs) {
        near(&token["logprob"], expected);
        assert_eq!(token["top_logprobs"][0]["token"], token["token"]);
    }
    let text: String = told
        .iter()
        .filter_map(|token| token["token"].as_str())
        .collect();
    assert_eq!(text, alone["text"].as_str().unwrap());
}

#[test]
fn several_answers_and_stop_texts() {
    let folder = models();
    let serving = Serving::start(folder.path(), &[]);
    let request = |more: Value| {
        let mut request = json!({
            "model": "base", "prompt": ["Tea is", "Bread is"], "max_tokens": 30, "temperature": 1.3, "seed": 5, "n": 2
        });
        for (key, value) in more.as_object().unwrap() {
            request[key] = value.clone();
        }
        request
    };
    let texts = |more: Value| -> Vec<String> {
        let (status, answer) = serving.post("completions", &request(more));
        assert_eq!(status, 200, "{answer}");
        let choices = answer["choices"].as_array().unwrap().iter().enumerate();
        let text = choices.map(|(index, choice)| {
            assert_eq!(choice["index"], index);
            choice["text"].as_str().unwrap().to_owned()
        });
        text.collect()
    };
    let whole = texts(json!({}));
    assert_eq!(whole.len(), 4);
    assert_ne!(whole[0], whole[1]);
    assert_eq!(texts(json!({})), whole);
    let echoed = texts(json!({"echo": true}));
    assert_eq!(echoed[3], format!("Bread is{}", whole[3]));
    let only_echoed = texts(json!({"echo": true, "max_tokens": 0}));
    assert_eq!(only_echoed, ["Tea is", "Tea is", "Bread is", "Bread is"]);
    // a stop text in the middle of the first answer
    let middle = whole[0].char_indices().nth(9).unwrap().0;
    let stop: String = whole[0][middle..].chars().take(3).collect();
    let place = whole[0].find(&stop).unwrap();
    let cut = &texts(json!({"stop": [stop, "\u{1F525}"]}))[0];
    assert_eq!(cut, &whole[0][..place]);
    let mut streamed = vec![String::new(); 4];
    for chunk in serving.stream(
        "completions",
        &request(json!({"stream": true, "echo": true})),
    ) {
        let choice = &chunk["choices"][0];
        let index = choice["index"].as_u64().unwrap() as usize;
        streamed[index].push_str(choice["text"].as_str().unwrap());
    }
    assert_eq!(streamed, echoed);
}

#[test]
fn a_conversation_goes_on_in_the_cache() {
    let folder = models();
    let serving = Serving::start(folder.path(), &[]);
    let cached = |answer: &Value| {
        answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    let (_, first) = serving.post("chat/completions", &chat("kitchen", PROMPTS[1], 20));
    assert_eq!(cached(&first), 0);
    let mut talk = chat("kitchen", PROMPTS[1], 20);
    let messages = talk["messages"].as_array_mut().unwrap();
    messages.push(first["choices"][0]["message"].clone());
    messages.push(json!({"role": "user", "content": "And then?"}));
    let (_, second) = serving.post("chat/completions", &talk);
    let before = first["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(cached(&second) >= before - 1, "{second}");
    // the keys of another adapter are others
    talk["model"] = json!("base");
    assert_eq!(cached(&serving.post("chat/completions", &talk).1), 0);
    // the beginning of an answer
    let mut begun = chat("kitchen", PROMPTS[0], 8);
    begun["continue_final_message"] = json!(true);
    let messages = begun["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": "Tea is a"}));
    assert_eq!(serving.post("chat/completions", &begun).0, 200);
}

#[test]
fn requests_with_mistakes_are_refused() {
    let folder = models();
    let serving = Serving::start(folder.path(), &["--context", "64"]);
    let long = "tea ".repeat(80);
    for (function, request, status, expected) in [
        (
            "chat/completions",
            chat("gpt-4o", "Hi", 5),
            404,
            "there is no model `gpt-4o` here; expected one of: `base`, `kitchen`",
        ),
        (
            "chat/completions",
            json!({"messages": [{"role": "user", "content": "Hi"}]}),
            400,
            "`model`: missing; expected one of",
        ),
        (
            "chat/completions",
            chat("base", &long, 5),
            400,
            "`messages`: the prompt has ",
        ),
        (
            "chat/completions",
            json!({"model": "base", "messages": [{"role": "user", "content": "Hi"}], "tools": [{}]}),
            400,
            "`tools[0].type`: expected \"function\", found nothing",
        ),
        (
            "completions",
            json!({"model": "base", "prompt": "Hi", "structured_outputs": {"json": {"type": "text"}}}),
            400,
            "`structured_outputs.json`: ",
        ),
        (
            "completions",
            json!({"model": "base", "prompt": [99_999]}),
            400,
            "`prompt`: token 99999 is outside the model's vocabulary",
        ),
        (
            "completions",
            json!({"model": "base", "prompt": "Hi", "max_tokens": 0}),
            400,
            "`max_tokens`: 0 new tokens need `echo`: true",
        ),
        (
            "completions",
            json!({"model": "base", "prompt": "Hi", "max_tokens": "many"}),
            400,
            "`max_tokens`: expected a whole number from 0 on, found \"many\"",
        ),
    ] {
        let (found, answer) = serving.post(function, &request);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            found == status && message.starts_with(expected),
            "{found} {message}"
        );
    }
    for (head, body, status) in [
        ("POST /v1/chat/completions HTTP/1.1", "{", 400),
        ("GET /v1/embeddings HTTP/1.1", "", 404),
        ("GET /v1/models/kitchen HTTP/1.1", "", 200),
        ("GET /health HTTP/1.1", "", 200),
        ("GET /v1/completions HTTP/1.1", "", 405),
        ("GET /models/ HTTP/1.1", "", 200),
    ] {
        assert_eq!(serving.ask(head, body).0, status, "{head}");
    }
    let (_, models) = serving.ask("GET /v1/models HTTP/1.1", "");
    let models: Value = serde_json::from_str(&models).unwrap();
    assert_eq!(models["data"][1]["parent"], "base");
    assert_eq!(models["data"][0]["max_model_len"], 64);
    // a text that cannot fit is not tokenised
    let request = json!({"model": "base", "prompt": "x".repeat(1 << 20)});
    let (status, answer) = serving.post("completions", &request);
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        status == 400 && message.contains("1048576 bytes"),
        "{message}"
    );
    // the context ends an answer
    let (_, answer) = serving.post(
        "completions",
        &json!({"model": "base", "prompt": [5, 6, 7], "max_tokens": 500, "logprobs": 0}),
    );
    let choice = &answer["choices"][0];
    let count = choice["logprobs"]["tokens"].as_array().unwrap().len();
    assert!(
        count == 61 && choice["finish_reason"] == "length" || choice["finish_reason"] == "stop",
        "{answer}"
    );
    assert_eq!(serving.counter("requests_failed_total"), 10);
}

#[test]
fn a_key_is_asked_for() {
    let folder = models();
    let serving = Serving::with_key(
        folder.path(),
        &["--allow-origin", "https://example.org"],
        "secret-7",
    );
    let body = chat("base", "Hi", 3).to_string();
    let head = "POST /v1/chat/completions HTTP/1.1";
    for (key, status) in [
        ("", 401),
        ("\r\nAuthorization: Bearer secret-8", 401),
        ("\r\nAuthorization: Bearer secret-77", 401),
        ("\r\nAuthorization: Bearer secret-7", 200),
    ] {
        assert_eq!(
            serving.ask(&format!("{head}{key}"), &body).0,
            status,
            "{key}"
        );
    }
    assert_eq!(serving.ask("GET /v1/models HTTP/1.1", "").0, 401);
    assert_eq!(serving.ask("GET /health HTTP/1.1", "").0, 200);
    // a browser asks first whether a page may send requests
    let mut answer = String::new();
    let mut stream = serving.send("OPTIONS /v1/chat/completions HTTP/1.1", "");
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert!(
        answer.contains("access-control-allow-origin: https://example.org"),
        "{answer}"
    );
}

/// A request whose answer takes long.
fn endless() -> Value {
    json!({"model": "base", "prompt": "Tea", "max_tokens": 100_000, "temperature": 2, "stream": true})
}

/// Waits for the first part of a text. Returns what was read, and where the rest comes from.
fn begin_endless(serving: &Serving) -> (String, TcpStream) {
    let head = "POST /v1/completions HTTP/1.1";
    let mut stream = serving.send(head, &endless().to_string());
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("data: ") {
        let mut some = [0; 64];
        let count = stream.read(&mut some).unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&read));
        read.extend(&some[..count]);
    }
    (String::from_utf8_lossy(&read).into_owned(), stream)
}

#[test]
fn a_text_ends_when_its_client_has_gone_and_too_many_are_refused() {
    let folder = models();
    let serving = Serving::start(folder.path(), &["--queue", "1"]);
    let (_, stream) = begin_endless(&serving);
    let (status, answer) = serving.post("chat/completions", &chat("base", "Hi", 5));
    // the text may have ended by itself
    if serving.counter("texts") > 0 {
        assert_eq!(status, 503, "{answer}");
        assert_eq!(answer["error"]["code"], "overloaded");
    }
    drop(stream);
    serving.wait_for_texts(|texts| texts == 0);
    assert_eq!(
        serving.post("chat/completions", &chat("base", "Hi", 5)).0,
        200
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_lets_answers_end() {
    let folder = models();
    let mut serving = Serving::start(folder.path(), &[]);
    let (mut answer, mut stream) = begin_endless(&serving);
    // a client that never sends the rest of its request
    let mut stuck = TcpStream::connect(&serving.address).unwrap();
    stuck
        .write_all(b"POST /v1/completions HTTP/1.1\r\nConte")
        .unwrap();
    let killed = Command::new("kill")
        .args(["-INT", &serving.child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    answer.push_str(&String::from_utf8_lossy(&rest));
    assert!(answer.contains("data: [DONE]"), "{answer}");
    let ended = serving.child.wait().unwrap();
    assert!(ended.success(), "{ended:?}");
}

#[test]
fn what_cannot_be_served_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tiny-base");
    let base = base.to_str().unwrap();
    for (more, expected) in [
        (
            &["--adapter", "a=x", "--adapter", "a=y"][..],
            "--adapter: two models have the name `a`",
        ),
        (
            &["--temperature", "-1"],
            "temperature: expected 0 or more, found -1",
        ),
        (&["--context", "100000"], "--context: expected at most"),
        (
            &["--host", "203.0.113.7", "--port", "1"],
            "cannot listen on 203.0.113.7:1",
        ),
        (
            &["--allow-origin", "https://a.b/"],
            "--allow-origin: expected an origin such as https://example.org, or *, found ",
        ),
    ] {
        let args = [&["serve", "--base", base, "--device", "cpu"], more].concat();
        let done = simmer(folder.path(), &args);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && said.contains(expected), "{said}");
    }
}

/// A schema with strings, and how an answer that fits it is read.
fn dish() -> Value {
    json!({
        "type": "object",
        "properties": {"dish": {"type": "string", "maxLength": 12}, "warm": {"type": "boolean"}},
        "required": ["dish", "warm"],
        "additionalProperties": false
    })
}

fn is_dish(text: &str) -> bool {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    value.as_object().unwrap().len() == 2 && value["dish"].is_string() && value["warm"].is_boolean()
}

#[test]
fn answers_have_the_form_that_is_asked_for() {
    let folder = models();
    let serving = Serving::start(folder.path(), &[]);
    let plain = chat("base", PROMPTS[0], 24);
    let alone = serving.post("chat/completions", &plain).1;
    let mut request = chat("kitchen", PROMPTS[3], 400);
    request["temperature"] = json!(1.2);
    request["seed"] = json!(3);
    request["n"] = json!(4);
    request["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "dish", "schema": dish()}});
    thread::scope(|scope| {
        // a text without a form beside them is as it is alone
        let beside = scope.spawn(|| serving.post("chat/completions", &plain).1);
        let (status, answer) = serving.post("chat/completions", &request);
        assert_eq!(status, 200, "{answer}");
        let choices = answer["choices"].as_array().unwrap();
        assert_eq!(choices.len(), 4);
        for choice in choices {
            assert_eq!(choice["finish_reason"], "stop", "{choice}");
            assert!(
                is_dish(choice["message"]["content"].as_str().unwrap()),
                "{choice}"
            );
        }
        assert_eq!(beside.join().unwrap()["choices"], alone["choices"]);
    });
    request["n"] = json!(1);
    request["stream"] = json!(true);
    let chunks = serving.stream("chat/completions", &request);
    let parts = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert!(is_dish(&parts.collect::<String>()));
    // too few tokens: a part of the form
    request["stream"] = json!(false);
    request["max_tokens"] = json!(2);
    let answer = serving.post("chat/completions", &request).1;
    assert_eq!(answer["choices"][0]["finish_reason"], "length");

    let completion = |outputs: Value| {
        let request = json!({
            "model": "base", "prompt": "Tea or bread?", "max_tokens": 60, "temperature": 0, "logprobs": 1,
            "structured_outputs": outputs
        });
        let (status, answer) = serving.post("completions", &request);
        assert_eq!(status, 200, "{answer}");
        answer["choices"][0].clone()
    };
    let choice = completion(json!({"choice": ["tea, please", "bread, please"]}));
    let text = choice["text"].as_str().unwrap();
    assert!(["tea, please", "bread, please"].contains(&text), "{text}");
    assert_eq!(choice["finish_reason"], "stop");
    // log-probabilities are those of the model, which wants another token
    let likely = choice["logprobs"]["top_logprobs"][0].as_object().unwrap();
    let likely = likely
        .values()
        .filter_map(Value::as_f64)
        .fold(f64::MIN, f64::max);
    assert!(choice["logprobs"]["token_logprobs"][0].as_f64().unwrap() <= likely);
    let year = completion(json!({"regex": "[12][0-9]{3}"}));
    let year = year["text"].as_str().unwrap();
    assert!(year.len() == 4 && year.parse::<u32>().is_ok(), "{year}");
}

/// A request with a tool.
fn with_tool(choice: Value) -> Value {
    let mut request = chat("base", "Where is the bread?", 200);
    request["temperature"] = json!(1.1);
    request["seed"] = json!(5);
    request["tools"] = json!([{"type": "function", "function": {
        "name": "look",
        "description": "Looks for a thing in a room.",
        "parameters": {
            "type": "object",
            "properties": {"room": {"$ref": "#/$defs/room"}, "shelf": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["room", "shelf"],
            "additionalProperties": false,
            "$defs": {"room": {"enum": ["kitchen", "cellar"]}}
        }
    }}]);
    request["tool_choice"] = choice;
    request
}

/// Checks the calls of an answer.
fn check_calls(calls: &Value) {
    let calls = calls.as_array().unwrap();
    assert_eq!(calls.len(), 1, "{calls:?}");
    let function = &calls[0]["function"];
    assert_eq!(
        (&calls[0]["type"], &function["name"]),
        (&json!("function"), &json!("look"))
    );
    let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
    assert!(
        ["kitchen", "cellar"].contains(&arguments["room"].as_str().unwrap()),
        "{arguments}"
    );
    assert!(
        (1..=9).contains(&arguments["shelf"].as_i64().unwrap()),
        "{arguments}"
    );
}

#[test]
fn tools_are_called() {
    let folder = models();
    let serving = Serving::start(folder.path(), &[]);
    let required = with_tool(json!("required"));
    // a template that does not show them to the model
    let (status, answer) = serving.post("chat/completions", &required);
    assert_eq!(status, 400);
    insta::assert_snapshot!(answer["error"]["message"].as_str().unwrap(), @"`tools`: the model `base` cannot call tools: the template does not show tools to the model");
    drop(serving);
    let template = "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}{% for m in messages %}{{ m.role }}:\n{{ m.content or '' }}\
                    {% for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}\
                    {% if add_generation_prompt %}assistant:\n{% endif %}";
    std::fs::write(folder.path().join("base/chat_template.jinja"), template).unwrap();
    let serving = Serving::start(folder.path(), &[]);
    let named = with_tool(json!({"type": "function", "function": {"name": "look"}}));
    let mut id = Value::Null;
    for request in [&required, &named] {
        let (status, answer) = serving.post("chat/completions", request);
        assert_eq!(status, 200, "{answer}");
        let choice = &answer["choices"][0];
        assert_eq!(
            (&choice["finish_reason"], &choice["message"]["content"]),
            (&json!("tool_calls"), &Value::Null)
        );
        check_calls(&choice["message"]["tool_calls"]);
        id = choice["message"]["tool_calls"][0]["id"].clone();
    }
    let mut streamed = required.clone();
    streamed["stream"] = json!(true);
    let chunks = serving.stream("chat/completions", &streamed);
    let calls: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"])
        .filter(|calls| !calls.is_null())
        .collect();
    assert_eq!((calls.len(), &calls[0][0]["index"]), (1, &json!(0)));
    check_calls(calls[0]);
    assert_eq!(
        chunks.last().unwrap()["choices"][0]["finish_reason"],
        "tool_calls"
    );
    // the model may answer with a text; the result of a call goes back to it
    let mut again = with_tool(json!("auto"));
    again["max_tokens"] = json!(8);
    again["messages"] = json!([
        {"role": "user", "content": "Where is the bread?"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": id, "type": "function", "function": {"name": "look", "arguments": "{\"room\": \"cellar\", \"shelf\": 2}"}}]},
        {"role": "tool", "tool_call_id": id, "content": "On shelf 2."},
    ]);
    let (status, answer) = serving.post("chat/completions", &again);
    assert_eq!(status, 200, "{answer}");
    assert!(answer["choices"][0]["message"]["content"].is_string());
    // too few tokens: what has begun is shown as it is
    let mut cut = required.clone();
    cut["max_tokens"] = json!(3);
    let answer = serving.post("chat/completions", &cut).1;
    let choice = &answer["choices"][0];
    assert_eq!(
        (
            &choice["finish_reason"],
            choice["message"].get("tool_calls")
        ),
        (&json!("length"), None)
    );
    let mut both = required;
    both["response_format"] = json!({"type": "json_object"});
    let (status, answer) = serving.post("chat/completions", &both);
    assert_eq!(status, 400);
    insta::assert_snapshot!(answer["error"]["message"].as_str().unwrap(), @r#"`response_format`: cannot be combined with `tools`; set `tool_choice` to "none" for an answer in a form"#);
}
