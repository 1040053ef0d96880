//! A server on the loopback interface that answers, or does not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::completion::{Finish, Prompt, Sampling};

/// What the server does with a request.
#[derive(Clone)]
enum Reply {
    /// Status, a header, and the body.
    Say(u16, &'static str, String),
    /// The prompt in upper case.
    Echo,
    /// Nothing for a while.
    Wait(Duration),
    /// A hundred bytes, one at a time after a pause.
    Drip(Duration),
    /// The end of the connection.
    Close,
}

/// A server, which lives as long as the tests.
struct Server {
    url: String,
    /// Headers and bodies of the requests.
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    /// A server that does this with each request in turn, and then echoes.
    fn start(replies: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let of_thread = Arc::clone(&seen);
        let replies = replies.to_vec();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, replies) = (Arc::clone(&of_thread), replies.clone());
                thread::spawn(
                    move || while serve(stream.as_ref().unwrap(), &seen, &replies).is_some() {},
                );
            }
        });
        Self { url, seen }
    }

    fn config(&self) -> EndpointConfig {
        let text = format!(
            "url = {:?}\nmodel = \"m\"\nbackoff_s = 0.01\nconcurrency = 1\n",
            self.url
        );
        toml::from_str(&text).unwrap()
    }

    fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn drip(mut stream: &TcpStream, pause: Duration) -> Option<()> {
    let head = b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\n";
    stream.write_all(head).ok()?;
    for _ in 0..100 {
        thread::sleep(pause);
        stream.write_all(b" ").ok()?;
    }
    None
}

fn serve(
    mut stream: &TcpStream,
    seen: &Mutex<Vec<(String, Value)>>,
    replies: &[Reply],
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let begin = head.len();
        reader.read_line(&mut head).ok().filter(|read| *read > 0)?;
        let line = head[begin..].trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push((head, body.clone()));
        seen.len() - 1
    };
    let (status, header, text) = match replies.get(number).unwrap_or(&Reply::Echo) {
        Reply::Say(status, header, text) => (*status, *header, text.clone()),
        Reply::Close => return None,
        Reply::Wait(time) => {
            thread::sleep(*time);
            return None;
        }
        Reply::Drip(pause) => return drip(stream, *pause),
        Reply::Echo => {
            let usage = json!({"prompt_tokens": 10, "completion_tokens": 4});
            let text = body["prompt"].as_str().map(str::to_uppercase);
            let content = body["messages"][0]["content"]
                .as_str()
                .map(str::to_uppercase);
            let choice =
                json!({"text": text, "message": {"content": content}, "finish_reason": "length"});
            (
                200,
                "",
                json!({"choices": [choice], "usage": usage}).to_string(),
            )
        }
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{header}\r\n",
        text.len()
    );
    stream.write_all((head + &text).as_bytes()).ok()
}

/// Completes prompts; the completions that arrive, in order, and the error.
fn complete(
    config: &EndpointConfig,
    prompts: &[&str],
) -> (Vec<(usize, Completion)>, Option<InstructError>) {
    let sampling: Sampling =
        toml::from_str("max_tokens = 100\nstop = [\"###\"]\npresence_penalty = 1.5").unwrap();
    let requests = prompts.iter().map(|prompt| Request {
        prompt: Prompt::Text(prompt),
        sampling: &sampling,
        seed: 7,
    });
    let requests: Vec<Request<'_>> = requests.collect();
    let mut arrived = Vec::new();
    let mut done = |number, completion| {
        arrived.push((number, completion));
        Ok(())
    };
    let result = Endpoint::new(config)
        .and_then(|mut endpoint| endpoint.complete(&requests, &|| false, &mut done));
    arrived.sort_by_key(|(number, _)| *number);
    (arrived, result.err())
}

fn said(error: Option<InstructError>, server: &Server) -> String {
    error.unwrap().to_string().replace(&server.url, "URL")
}

fn error(status: u16, header: &'static str, message: &str, code: &str) -> Reply {
    Reply::Say(
        status,
        header,
        json!({"error": {"message": message, "code": code}}).to_string(),
    )
}

#[test]
fn both_functions_of_the_api_complete_a_prompt() {
    let server = Server::start(&[]);
    let mut config = server.config();
    // cargo sets it for tests
    config.key_env = Some("CARGO_PKG_NAME".to_owned());
    config.concurrency = 3;
    for api in [Api::Completions, Api::Chat] {
        config.api = api;
        let (found, error) = complete(&config, &["a", "b", "c", "d"]);
        assert!(error.is_none(), "{error:?}");
        let texts: Vec<_> = found
            .iter()
            .map(|(_, completion)| completion.text.as_str())
            .collect();
        assert_eq!(texts, ["A", "B", "C", "D"]);
        let first = &found[0].1;
        assert_eq!(
            (first.finish, first.prompt_tokens, first.completion_tokens),
            (Finish::Length, Some(10), Some(4))
        );
    }
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen.len(), 8);
    let (head, body) = &seen[0];
    assert!(
        head.starts_with("POST /v1/completions ") && head.contains("Bearer simmer-instruct"),
        "{head}"
    );
    assert_eq!(body["stop"], json!(["###"]));
    assert_eq!(
        (&body["max_tokens"], &body["presence_penalty"]),
        (&json!(100), &json!(1.5))
    );
    assert!(
        seen[7].0.starts_with("POST /v1/chat/completions "),
        "{}",
        seen[7].0
    );
}

#[test]
fn a_request_is_repeated_until_it_is_answered() {
    let server = Server::start(&[
        error(
            429,
            "Retry-After: 0.3\r\n",
            "slow down",
            "rate_limit_exceeded",
        ),
        Reply::Say(500, "", "<html>".to_owned()),
        Reply::Say(200, "", "{\"choices\": []}".to_owned()),
        Reply::Say(200, "", "nonsense".to_owned()),
        Reply::Close,
    ]);
    let begin = Instant::now();
    let (found, error) = complete(&server.config(), &["a", "b"]);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found.len(), 2);
    assert_eq!(server.requests(), 7);
    // the pause that the server asked for
    assert!(begin.elapsed() > Duration::from_millis(300));
}

#[test]
fn what_was_answered_before_a_failure_arrives() {
    for (reply, expected) in [
        (
            Reply::Say(503, "", "busy".to_owned()),
            "URL/completions: status 503: busy, in 3 attempts",
        ),
        (Reply::Close, "URL/completions: "),
        (
            Reply::Say(200, "", "[]".to_owned()),
            "URL/completions: the answer is no completion",
        ),
        (
            Reply::Say(200, "", "{\"choices\":[{}]}".to_owned()),
            "URL/completions: the answer has no text",
        ),
        (
            Reply::Say(200, "", "{\"choices\":[{\"message\":null}]}".to_owned()),
            "URL/completions: the answer has no text",
        ),
        (
            Reply::Wait(Duration::from_millis(600)),
            "URL/completions: timeout",
        ),
    ] {
        let server = Server::start(&[Reply::Echo, reply.clone(), reply.clone(), reply]);
        let mut config = server.config();
        config.retries = 2;
        config.timeout_s = 0.2;
        let (found, error) = complete(&config, &["a", "b", "c"]);
        assert_eq!(found.len(), 1);
        let said = said(error, &server);
        assert!(
            said.starts_with(expected) && said.ends_with("in 3 attempts"),
            "{said}"
        );
        assert_eq!(server.requests(), 4, "{said}");
    }
    let server = Server::start(&[]);
    let mut config = server.config();
    config.retries = 1;
    // a port that nobody listens on: it was free a moment ago
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    config.url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let said = complete(&config, &["a"]).1.unwrap().to_string();
    assert!(
        said.contains("refused") && said.ends_with("in 2 attempts"),
        "{said}"
    );
}

#[test]
fn a_refused_request_is_not_repeated() {
    for (reply, expected) in [
        (
            error(401, "", "wrong key", "invalid_api_key"),
            "URL/completions: status 401: wrong key",
        ),
        (
            error(429, "", "pay first", "insufficient_quota"),
            "URL/completions: status 429: pay first",
        ),
        (
            Reply::Say(302, "Location: http://x/\r\n", String::new()),
            "URL/completions: status 302",
        ),
        (
            error(429, "Retry-After: 7200\r\n", "tomorrow", "x"),
            "URL/completions: status 429: tomorrow; the server asks for a pause of more than 10 minutes",
        ),
    ] {
        let server = Server::start(&[reply]);
        let (found, error) = complete(&server.config(), &["a", "b"]);
        assert_eq!((found.len(), server.requests()), (0, 1));
        assert_eq!(said(error, &server), expected);
    }
}

#[test]
fn fewer_tokens_are_asked_for_if_the_prompt_leaves_no_room() {
    let full = error(
        400,
        "",
        "This model's maximum context length is 200 tokens",
        "context_length_exceeded",
    );
    let server = Server::start(&[full.clone(), full.clone()]);
    let (found, error) = complete(&server.config(), &["a"]);
    assert!(error.is_none() && found.len() == 1, "{error:?}");
    let seen = server.seen.lock().unwrap();
    let asked: Vec<_> = seen
        .iter()
        .map(|(_, body)| body["max_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(asked, [100, 80, 64]);
    drop(seen);
    let server = Server::start(&vec![full; 20]);
    let (found, error) = complete(&server.config(), &["a"]);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found[0].1.finish, Finish::TooLong);
}

#[test]
fn requests_stop_at_the_budget_and_keep_the_rate() {
    let server = Server::start(&[]);
    let mut config = server.config();
    config.requests_per_minute = 1200;
    (config.price_prompt, config.price_completion) = (100_000.0, 250_000.0);
    // each costs 1 + 1
    config.max_cost = Some(5.0);
    let begin = Instant::now();
    let (found, error) = complete(&config, &["a", "b", "c", "d"]);
    assert_eq!(found.len(), 3);
    assert_eq!(error.unwrap().to_string(), "spent 6.00, of max_cost = 5.00");
    assert!(
        begin.elapsed() >= Duration::from_millis(100),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn a_key_that_is_missing_is_named() {
    let server = Server::start(&[]);
    let mut config = server.config();
    config.key_env = Some("SIMMER_NO_SUCH_KEY".to_owned());
    let (_, error) = complete(&config, &["a"]);
    assert_eq!(
        error.unwrap().to_string(),
        "[model.endpoint]: `key_env`: the environment has no SIMMER_NO_SUCH_KEY"
    );
}

#[test]
fn the_timeout_limits_an_answer_in_small_parts() {
    // the second answer would take 5 s
    let replies = [
        Reply::Wait(Duration::from_millis(600)),
        Reply::Drip(Duration::from_millis(50)),
    ];
    for reply in replies {
        let server = Server::start(&[reply]);
        let mut config = server.config();
        config.retries = 0;
        config.timeout_s = 0.2;
        let begin = Instant::now();
        let (_, error) = complete(&config, &["a"]);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert_eq!(
            said(error, &server),
            "URL/completions: timeout: no complete answer in 0.2 s, in 1 attempt"
        );
    }
}

#[test]
fn a_text_that_is_null_is_empty_and_not_asked_for_again() {
    let length = Finish::Length;
    for (api, choice, finish) in [
        (
            Api::Chat,
            json!({"message": {"content": null, "refusal": "no"}, "finish_reason": "stop"}),
            Finish::Stop,
        ),
        (
            Api::Chat,
            json!({"message": {"tool_calls": []}, "finish_reason": "tool_calls"}),
            Finish::Stop,
        ),
        (
            Api::Chat,
            json!({"message": {"content": null, "reasoning": "hm"}, "finish_reason": "length"}),
            length,
        ),
        (
            Api::Completions,
            json!({"text": null, "finish_reason": "length"}),
            length,
        ),
    ] {
        let answer = json!({"choices": [choice]}).to_string();
        let server = Server::start(&[Reply::Say(200, "", answer)]);
        let mut config = server.config();
        config.api = api;
        let (found, error) = complete(&config, &["a"]);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(server.requests(), 1);
        let completion = &found[0].1;
        assert_eq!((completion.text.as_str(), completion.finish), ("", finish));
    }
}

#[test]
fn a_key_that_the_server_repeats_is_left_out() {
    // cargo sets these variables for tests
    let (key, short) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_RUST_VERSION"));
    let long = "x".repeat(290);
    for (key_env, reply, expected) in [
        (
            "CARGO_PKG_NAME",
            error(401, "", &format!("no such key: {key}"), "x"),
            "status 401: no such key: ***".to_owned(),
        ),
        (
            "CARGO_PKG_NAME",
            // the start that is shown would end in the key
            Reply::Say(403, "", format!("{long}{key}")),
            format!("status 403: {long}***"),
        ),
        (
            "CARGO_PKG_RUST_VERSION",
            Reply::Say(403, "", format!("not {short}")),
            "status 403: not ***".to_owned(),
        ),
    ] {
        let server = Server::start(&[reply]);
        let mut config = server.config();
        config.key_env = Some(key_env.to_owned());
        let (_, error) = complete(&config, &["a"]);
        assert_eq!(said(error, &server), format!("URL/completions: {expected}"));
    }
    for answer in [json!({"choices": key}), json!({"choices": [{"x": key}]})] {
        let server = Server::start(&[Reply::Say(200, "", answer.to_string())]);
        let mut config = server.config();
        config.key_env = Some("CARGO_PKG_NAME".to_owned());
        config.retries = 0;
        let said = said(complete(&config, &["a"]).1, &server);
        assert!(said.contains("***") && !said.contains(key), "{said}");
    }
}

#[test]
fn a_user_name_in_the_address_is_refused() {
    let mut config = Server::start(&[]).config();
    for url in [
        "http://bob:hunter2@host/v1",
        "https://bob@host",
        "http://bob:hunter/2@host",
        "bob:hunter2@host",
    ] {
        config.url = url.to_owned();
        let problem = config.check().unwrap_err();
        assert_eq!(problem.key, "url");
        let said = format!("{problem} {}", problem.hint.as_deref().unwrap_or_default());
        assert!(
            said.contains("would appear in messages") && said.contains("`key_env`"),
            "{said}"
        );
        assert!(!said.contains("bob") && !said.contains("hunter"), "{said}");
    }
}

#[test]
fn an_address_may_have_a_query_a_fragment_or_a_function() {
    let server = Server::start(&[]);
    let mut config = server.config();
    for (url, expected) in [
        ("http://h/v1", "http://h/v1/F"),
        ("http://h", "http://h/F"),
        ("http://h/v1/#x?y", "http://h/v1/F"),
        ("http://h/v1/?a=1&b=2#x", "http://h/v1/F?a=1&b=2"),
        ("http://h?a=/completions", "http://h/F?a=/completions"),
        ("http://h/v1/completions", "http://h/v1/F"),
        ("http://h/v1/chat/completions/", "http://h/v1/F"),
        ("http://h/v1/chat/completions?a=1", "http://h/v1/F?a=1"),
        ("http://h/mycompletions", "http://h/mycompletions/F"),
    ] {
        config.url = url.to_owned();
        for (api, function) in [
            (Api::Completions, "completions"),
            (Api::Chat, "chat/completions"),
        ] {
            assert_eq!(config.address(api), expected.replace('F', function));
        }
    }
    config.url = format!("{}/chat/completions?api-version=1", server.url);
    config.api = Api::Chat;
    let (found, error) = complete(&config, &["a"]);
    assert!(error.is_none() && found.len() == 1, "{error:?}");
    let seen = server.seen.lock().unwrap();
    let head = &seen[0].0;
    assert!(
        head.starts_with("POST /v1/chat/completions?api-version=1 HTTP/1.1\r\n"),
        "{head}"
    );
}
