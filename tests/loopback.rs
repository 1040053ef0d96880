//! A server of OpenAI's API on the loopback interface, for the tests of `simmer data generate` and `simmer judge`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

/// The variable that holds the key, and the key.
pub(crate) const KEY: (&str, &str) = ("TEST_KEY", "secret");

/// A server, which lives as long as the tests.
pub(crate) struct Loopback {
    /// The address of its API.
    pub(crate) url: String,
    requests: Arc<AtomicUsize>,
}

impl Loopback {
    /// A server of one function of the API, such as `chat/completions`, that asks for the key and answers with a choice and the
    /// tokens of prompt and completion. It is down from request `down` on for `times` requests.
    pub(crate) fn start(
        function: &'static str,
        down: usize,
        times: usize,
        mut answer: impl FnMut(&Value) -> (Value, [u64; 2]) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            let begin = format!("POST /v1/{function} ");
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (head, body) = read(&stream);
                let request = seen.fetch_add(1, Ordering::SeqCst);
                let (status, said) = if !head.starts_with(&begin) || !head.contains(KEY.1) {
                    (401, json!({"error": {"message": "no key"}}))
                } else if (down..down + times).contains(&request) {
                    (503, json!({"error": {"message": "overloaded"}}))
                } else {
                    let (choice, [prompt, completion]) = answer(&body);
                    let usage = json!({"prompt_tokens": prompt, "completion_tokens": completion});
                    (200, json!({"choices": [choice], "usage": usage}))
                };
                let said = said.to_string();
                let head = format!(
                    "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    said.len()
                );
                let _ = stream.write_all((head + &said).as_bytes());
            }
        });
        Self { url, requests }
    }

    /// The number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// The head and the body of a request.
fn read(stream: &TcpStream) -> (String, Value) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let begin = head.len();
        if reader.read_line(&mut head).unwrap() <= 2 {
            break;
        }
        let line = head[begin..].trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}
