//! A loopback server that speaks the hub's interface, and its faults.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use sha1::Sha1;
use sha2::Digest;
use simmer_files::digest::{hex, sha256};

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) range: Option<u64>,
    pub(super) authorization: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Reply {
    /// HTTP status; 0 for no answer at all.
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// The connection is cut after as many bytes of the body.
    pub(super) cut: Option<usize>,
    /// Instead of being cut it is held.
    pub(super) stall: bool,
}

impl Reply {
    pub(super) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(super) fn with(mut self, header: &'static str, value: impl ToString) -> Self {
        self.headers.push((header, value.to_string()));
        self
    }
}

pub(super) struct Server {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// `answer` also gets how many requests there were before.
    pub(super) fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (log, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || serve(&stream.unwrap(), &log, &*answer));
            }
        });
        Self { url, seen, stop }
    }

    pub(super) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// `GET path`, with `from N` where a range was asked for.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |request: &Request| {
            let from = request.range.map(|at| format!(" from {at}"));
            format!(
                "{} {}{}",
                request.method,
                request.path,
                from.unwrap_or_default()
            )
        };
        self.seen().iter().map(line).collect()
    }

    pub(super) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

fn serve(stream: &TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request, usize) -> Reply) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut words = first.split(' ').map(str::to_owned);
    let mut request = Request {
        method: words.next().unwrap(),
        path: words.next().unwrap(),
        range: None,
        authorization: None,
    };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (key, value) = line.split_once(": ").unwrap();
        match key.to_ascii_lowercase().as_str() {
            "range" => {
                let start = value.strip_prefix("bytes=").unwrap().strip_suffix('-');
                request.range = Some(start.unwrap().parse().unwrap());
            }
            "authorization" => request.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let before = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.len() - 1
    };
    // A client that has seen enough may be gone by now.
    let reply = answer(&request, before);
    if reply.status != 0 {
        let _ = send(stream, &request, &reply);
    }
}

fn send(mut stream: &TcpStream, request: &Request, reply: &Reply) -> std::io::Result<()> {
    let mut head = Vec::new();
    write!(head, "HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status)?;
    for (key, value) in &reply.headers {
        write!(head, "{key}: {value}\r\n")?;
    }
    if !reply
        .headers
        .iter()
        .any(|(key, _)| *key == "Content-Length")
    {
        write!(head, "Content-Length: {}\r\n", reply.body.len())?;
    }
    head.extend_from_slice(b"\r\n");
    stream.write_all(&head)?;
    if request.method != "HEAD" {
        let end = reply.cut.unwrap_or(reply.body.len());
        stream.write_all(&reply.body[..end])?;
        stream.flush()?;
    }
    if reply.stall {
        thread::sleep(std::time::Duration::from_secs(3));
    }
    stream.shutdown(Shutdown::Write)
}

/// `org/name` as the hub has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    files: BTreeMap<String, Vec<u8>>,
    /// Where large files are; with the small ones where this is none.
    pub(super) storage: Option<String>,
}

impl Model {
    pub(super) fn new(files: &[(&str, &[u8])]) -> Self {
        let owned = |(name, bytes): &(&str, &[u8])| ((*name).to_owned(), bytes.to_vec());
        Self {
            files: files.iter().map(owned).collect(),
            storage: None,
        }
    }

    pub(super) fn bytes(&self, file: &str) -> &[u8] {
        &self.files[file]
    }

    pub(super) fn etag(&self, file: &str) -> String {
        let bytes = self.bytes(file);
        if is_large(file) {
            sha256(bytes)
        } else {
            let head = format!("blob {}\0", bytes.len());
            hex(&Sha1::new()
                .chain_update(head)
                .chain_update(bytes)
                .finalize())
        }
    }

    /// The hub itself.
    pub(super) fn answer(&self, request: &Request) -> Reply {
        let described = ["models", "datasets"].map(|kind| {
            request
                .path
                .starts_with(&format!("/api/{kind}/org/name/revision/"))
        });
        if described.contains(&true) {
            let files: Vec<_> = self
                .files
                .keys()
                .map(|name| serde_json::json!({"rfilename": name}))
                .collect();
            let info = serde_json::json!({"id": "org/name", "sha": COMMIT, "siblings": files});
            return Reply {
                body: info.to_string().into_bytes(),
                ..Reply::status(200)
            };
        }
        let path = request
            .path
            .strip_prefix("/datasets")
            .unwrap_or(&request.path);
        let file = path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/"));
        let Some(file) = file.filter(|file| self.files.contains_key(*file)) else {
            return Reply::status(404).with("X-Error-Code", "RepoNotFound");
        };
        let etag = format!("\"{}\"", self.etag(file));
        match &self.storage {
            Some(storage) if is_large(file) => Reply::status(302)
                .with("X-Repo-Commit", COMMIT)
                .with("X-Linked-Etag", etag)
                .with("X-Linked-Size", self.bytes(file).len())
                .with("Location", format!("{storage}/{file}?signature=1")),
            _ => part(self.bytes(file), request)
                .with("X-Repo-Commit", COMMIT)
                .with("ETag", etag),
        }
    }

    /// Where large files are.
    pub(super) fn stored(&self, request: &Request) -> Reply {
        let file = request.path[1..].split('?').next().unwrap();
        part(self.bytes(file), request).with("ETag", "\"of-the-storage\"")
    }
}

fn part(bytes: &[u8], request: &Request) -> Reply {
    let Some(start) = request.range else {
        return Reply {
            body: bytes.to_vec(),
            ..Reply::status(200)
        };
    };
    let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    Reply {
        body: bytes[start as usize..].to_vec(),
        ..Reply::status(206).with("Content-Range", range)
    }
}

fn is_large(file: &str) -> bool {
    [".safetensors", ".gguf"]
        .iter()
        .any(|end| file.ends_with(end))
}
