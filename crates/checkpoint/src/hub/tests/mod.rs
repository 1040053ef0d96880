//! Against a server that speaks the hub's interface.

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use simmer_hint::Hint as _;
use tempfile::TempDir;

use super::*;
use server::{COMMIT, Model, Reply, Request, Server};

const WEIGHTS: &str = "model.safetensors";

/// Bytes that are not the same anywhere.
fn weights() -> Vec<u8> {
    (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn model() -> Model {
    Model::new(&[
        ("README.md", b"not needed"),
        ("config.json", b"{}"),
        ("tokenizer.json", b"{\"model\": {}}"),
        ("pytorch_model.bin", b"not needed"),
        (WEIGHTS, &weights()),
    ])
}

/// A cache, and a name in it that is fetched from a server.
struct Desk {
    dir: TempDir,
    config: HubConfig,
    name: HubName,
}

impl Desk {
    fn at(endpoint: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = HubConfig {
            endpoint: endpoint.to_owned(),
            retries: 3,
            pause: Duration::from_millis(1),
            patience: Duration::from_secs(10),
            ..HubConfig::new(dir.path().join("hub"))
        };
        let name = "org/name".parse().unwrap();
        Self { dir, config, name }
    }

    fn fetch(&self) -> Result<Fetched, HubError> {
        fetch(&self.name, What::Model, &self.config, &mut |_| {})
    }

    /// The message, without what differs from one run to another.
    fn said(&self) -> String {
        let error = self.fetch().unwrap_err();
        let hint = error.hint().map(|hint| format!("\nhint: {hint}"));
        format!("{error}{}", hint.unwrap_or_default())
            .replace(&self.dir.path().display().to_string(), "DIR")
            .replace(&self.config.endpoint, "HUB")
            // the number differs between systems
            .replace(" (os error 111)", "")
            .replace(" (os error 61)", "")
    }

    fn repo(&self) -> PathBuf {
        self.config.cache.join("models--org--name")
    }

    fn blob(&self, name: &str) -> PathBuf {
        self.repo().join("blobs").join(name)
    }
}

fn listing(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The hub, whose answers to some requests are changed.
fn hub(
    model: &Model,
    change: impl Fn(&Request, usize, Reply) -> Reply + Send + Sync + 'static,
) -> Server {
    let model = model.clone();
    Server::start(move |request, before| change(request, before, model.answer(request)))
}

fn is_download(request: &Request) -> bool {
    request.method == "GET" && request.path.ends_with(WEIGHTS)
}

#[test]
fn what_is_needed_is_fetched_once() {
    let model = model();
    let server = hub(&model, |_, _, reply| reply);
    let mut desk = Desk::at(&server.url);
    let found = desk.fetch().unwrap();
    assert_eq!(found.path, desk.repo().join("snapshots").join(COMMIT));
    assert_eq!((found.commit.as_str(), found.note), (COMMIT, None));
    let files = ["config.json", WEIGHTS, "tokenizer.json"];
    assert_eq!(listing(&found.path), files);
    for file in files {
        assert_eq!(fs::read(found.path.join(file)).unwrap(), model.bytes(file));
        #[cfg(unix)]
        assert_eq!(
            fs::read_link(found.path.join(file)).unwrap(),
            Path::new("../../blobs").join(model.etag(file))
        );
    }
    let refs = desk.repo().join("refs/main");
    assert_eq!(fs::read_to_string(refs).unwrap(), COMMIT);
    insta::assert_snapshot!(server.lines().join("\n").replace(COMMIT, "COMMIT"), @"
        GET /api/models/org/name/revision/main
        HEAD /org/name/resolve/COMMIT/config.json
        HEAD /org/name/resolve/COMMIT/tokenizer.json
        GET /org/name/resolve/COMMIT/config.json
        GET /org/name/resolve/COMMIT/tokenizer.json
        HEAD /org/name/resolve/COMMIT/model.safetensors
        GET /org/name/resolve/COMMIT/model.safetensors
        ");

    server.forget();
    desk.fetch().unwrap();
    assert_eq!(server.lines(), ["GET /api/models/org/name/revision/main"]);
    // a commit never changes, so no request is needed
    server.forget();
    desk.name = format!("org/name@{COMMIT}").parse().unwrap();
    desk.fetch().unwrap();
    assert!(server.seen().is_empty());
}

#[test]
fn a_cut_download_goes_on_where_it_was_cut() {
    let server = hub(&model(), |request, _, mut reply| {
        if is_download(request) && request.range.is_none() {
            reply.cut = Some(1_234_567);
        } else if request.range == Some(1_234_567) {
            reply.cut = Some(1_000_000);
        }
        reply
    });
    let desk = Desk::at(&server.url);
    let (mut received, mut retried) = (Vec::new(), Vec::new());
    let mut note = |progress: Progress<'_>| match progress {
        Progress::Received { done, total, .. } => received.push((done, total)),
        Progress::Retrying { error, .. } => retried.push(error.to_string()),
        _ => {}
    };
    let found = fetch(&desk.name, What::Model, &desk.config, &mut note).unwrap();
    assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
    let downloads = server.seen().into_iter().filter(is_download);
    let ranges: Vec<_> = downloads.map(|request| request.range).collect();
    assert_eq!(ranges, [None, Some(1_234_567), Some(2_234_567)]);
    assert_eq!(retried.len(), 2);
    assert!(
        retried[0].contains("after 1234567 of 4000000 bytes"),
        "{retried:?}"
    );
    assert!(received.is_sorted());
    let total = 4_000_000 + 2 + 13;
    assert_eq!(received.last(), Some(&(total, total)));
}

#[test]
fn a_later_run_goes_on_where_a_crash_left_it() {
    let model = model();
    let server = hub(&model, |_, _, reply| reply);
    let desk = Desk::at(&server.url);
    let etag = model.etag(WEIGHTS);
    let incomplete = desk.blob(&format!("{etag}.incomplete"));
    fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
    fs::write(&incomplete, &weights()[..3_000_000]).unwrap();
    let found = desk.fetch().unwrap();
    assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
    assert_eq!(server.seen().last().unwrap().range, Some(3_000_000));
    assert!(!incomplete.exists());
}

#[test]
fn what_a_crash_left_may_be_rotten() {
    let model = model();
    let etag = model.etag(WEIGHTS);
    for left in [vec![0; 3_000_000], vec![0; 4_000_000], vec![0; 5_000_000]] {
        let server = hub(&model, |_, _, reply| reply);
        let desk = Desk::at(&server.url);
        fs::create_dir_all(desk.blob("")).unwrap();
        fs::write(desk.blob(&format!("{etag}.incomplete")), left).unwrap();
        let found = desk.fetch().unwrap();
        assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
        assert_eq!(server.seen().last().unwrap().range, None);
    }
}

#[test]
fn a_server_without_ranges_starts_over() {
    let model = model();
    let server = hub(&model, |request, before, mut reply| {
        if is_download(request) {
            reply = Reply::status(200);
            reply.body = weights();
            reply.cut = (before < 7).then_some(2_000_000);
        }
        reply
    });
    let desk = Desk::at(&server.url);
    let found = desk.fetch().unwrap();
    assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
}

#[test]
fn a_connection_that_stalls_is_given_up() {
    let server = hub(&model(), |request, _, mut reply| {
        if is_download(request) && request.range.is_none() {
            reply.cut = Some(3_000_000);
            reply.stall = true;
        }
        reply
    });
    let mut desk = Desk::at(&server.url);
    desk.config.patience = Duration::from_millis(300);
    let found = desk.fetch().unwrap();
    assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
    assert_eq!(server.seen().last().unwrap().range, Some(3_000_000));
}

#[test]
fn a_connection_that_always_breaks_leaves_what_came() {
    let model = model();
    let server = hub(&model, |request, _, mut reply| {
        if is_download(request) {
            reply.cut = Some(if request.range.is_none() { 1000 } else { 0 });
        }
        reply
    });
    let desk = Desk::at(&server.url);
    insta::assert_snapshot!(desk.said(), @"
        model.safetensors: the download stopped after 1000 of 4000000 bytes: Peer disconnected
        hint: run the command again to resume the download
        ");
    let incomplete = desk.blob(&format!("{}.incomplete", model.etag(WEIGHTS)));
    assert_eq!(fs::read(incomplete).unwrap(), &weights()[..1000]);
    assert!(!desk.repo().join("refs/main").exists());
}

#[test]
fn a_wrong_checksum_leaves_nothing() {
    for file in ["config.json", WEIGHTS] {
        let server = hub(&model(), move |request, _, mut reply| {
            if request.method == "GET" && request.path.ends_with(file) {
                let last = reply.body.len() - 1;
                reply.body[last] ^= 1;
            }
            reply
        });
        let desk = Desk::at(&server.url);
        let said = desk.said();
        let (name, rest) = said.split_once(": ").unwrap();
        assert_eq!(name, file);
        let hashes = |word: &str| word.len() >= 40 && word.bytes().all(|b| b.is_ascii_hexdigit());
        let words = rest.split([' ', ',', '\n']).filter(|word| hashes(word));
        assert_eq!(words.count(), 2, "{said}");
        let blobs = listing(&desk.blob(""));
        assert!(
            !blobs.iter().any(|blob| blob.ends_with(".incomplete")),
            "{blobs:?}"
        );
        assert!(
            !desk
                .repo()
                .join("snapshots")
                .join(COMMIT)
                .join(file)
                .exists()
        );
    }
}

#[test]
fn the_message_of_a_wrong_checksum() {
    let server = hub(&model(), |request, _, mut reply| {
        if request.method == "GET" && request.path.ends_with("config.json") {
            reply.body = b"[]".to_vec();
        }
        reply
    });
    insta::assert_snapshot!(Desk::at(&server.url).said(), @"
        config.json: wrong checksum after the download: expected git blob SHA-1 9e26dfeeb6e641a33dae4961196235bdb965b21b, found 0637a088a01e8ddab3bf3fa98dbe804cbde1a0dc
        hint: run the command again; nothing was kept. If it happens again, the mirror or a proxy changes files
        ");
}

#[test]
fn the_token_stays_with_the_hub() {
    let mut model = model();
    let storage = Server::start({
        let model = model.clone();
        move |request, _| model.stored(request)
    });
    model.storage = Some(storage.url.clone());
    let server = hub(&model, |_, _, reply| reply);
    let mut desk = Desk::at(&server.url);
    desk.config.token = Some(Token::new("hf_secret", "here").unwrap());
    let found = desk.fetch().unwrap();
    assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
    let bearer = Some("Bearer hf_secret".to_owned());
    assert!(
        server
            .seen()
            .iter()
            .all(|request| request.authorization == bearer)
    );
    let stored = storage.seen();
    assert_eq!(storage.lines(), ["GET /model.safetensors?signature=1"]);
    assert!(stored.iter().all(|request| request.authorization.is_none()));
}

#[test]
fn a_model_that_moved_is_followed() {
    let model = model();
    let server = Server::start(move |request, _| {
        if request.path.contains("old/name") {
            let path = request.path.replace("old/name", "org/name");
            return Reply::status(307).with("Location", path);
        }
        model.answer(request)
    });
    let mut desk = Desk::at(&server.url);
    desk.name = "old/name".parse().unwrap();
    let found = desk.fetch().unwrap();
    assert_eq!(listing(&found.path).len(), 3);
}

#[test]
fn refusals_say_what_to_do() {
    let refused = |status, code: &'static str, token: bool| {
        let server = Server::start(move |_, _| Reply::status(status).with("X-Error-Code", code));
        let mut desk = Desk::at(&server.url);
        desk.config.token = token.then(|| Token::new("hf_secret", "here").unwrap());
        desk.name = "org/name@v2".parse().unwrap();
        desk.said()
    };
    let all = [
        refused(401, "GatedRepo", false),
        refused(403, "GatedRepo", true),
        refused(401, "RepoNotFound", false),
        refused(401, "", true),
        refused(404, "RepoNotFound", false),
        refused(404, "RevisionNotFound", false),
        refused(418, "", false),
    ];
    insta::assert_snapshot!(all.join("\n\n"), @"
        HUB denies access to `org/name`: its licence must be accepted first
        hint: accept the licence at HUB/org/name, then set HF_TOKEN or run `hf auth login`

        HUB denies access to `org/name`: its licence must be accepted first
        hint: accept the licence at HUB/org/name

        HUB denies access to `org/name`: the model does not exist or is not public
        hint: check the spelling; for a private or gated model set HF_TOKEN or run `hf auth login`

        HUB denies access to `org/name`: the token does not grant access
        hint: check the token in HF_TOKEN or of `hf auth login`; it may be wrong or expired, or have no access to this model

        the model `org/name` does not exist at HUB
        hint: check the name on the hub; for a private model set HF_TOKEN

        `org/name` has no branch, tag or commit `v2`

        HUB/api/models/org/name/revision/v2: the server answers 418
        ");
}

#[test]
fn a_name_that_is_nearly_one_in_the_cache() {
    let server = Server::start(|_, _| Reply::status(404));
    let desk = Desk::at(&server.url);
    fs::create_dir_all(desk.config.cache.join("models--org--names-1B")).unwrap();
    insta::assert_snapshot!(desk.said().lines().next().unwrap(), @"the model `org/name` does not exist at HUB; the nearest is `org/names-1B`");
}

#[test]
fn a_busy_server_is_asked_again() {
    let server = hub(&model(), |_, before, reply| match before {
        0 => Reply::status(500),
        1 => Reply::status(429).with("Retry-After", 0),
        3 => Reply::status(503),
        4 | 6 => Reply::status(0),
        _ => reply,
    });
    Desk::at(&server.url).fetch().unwrap();

    let down = Server::start(|_, _| Reply::status(502).with("X-Error-Message", "no luck"));
    insta::assert_snapshot!(Desk::at(&down.url).said(), @"
        HUB/api/models/org/name/revision/main: the server answers 502 (no luck), and DIR/hub has no complete copy of `org/name`: nothing
        hint: the server is busy or down; run the command again later
        ");
    assert_eq!(down.seen().len(), 4);
}

#[test]
fn without_a_network_a_complete_copy_is_used() {
    let model = model();
    let server = hub(&model, |_, _, reply| reply);
    let mut desk = Desk::at(&server.url);
    desk.config.offline = true;
    let offline = desk.said();
    assert!(server.seen().is_empty());

    desk.config.offline = false;
    let first = desk.fetch().unwrap();
    desk.config.offline = true;
    server.forget();
    assert_eq!(desk.fetch().unwrap(), first);
    assert!(server.seen().is_empty());

    desk.config.offline = false;
    let gone = Server::start(|_, _| Reply::status(200)).url.clone();
    thread::sleep(Duration::from_millis(50));
    desk.config.endpoint = gone;
    let found = desk.fetch().unwrap();
    assert_eq!(found.path, first.path);
    let note = found.note.unwrap();
    assert!(note.ends_with("using the copy in the cache"), "{note}");

    fs::remove_file(desk.blob(&model.etag(WEIGHTS))).unwrap();
    let incomplete = desk.said();
    desk.name = "org/other".parse().unwrap();
    insta::assert_snapshot!([offline, incomplete, desk.said()].join("\n\n"), @"
        HF_HUB_OFFLINE is set, and DIR/hub has no complete copy of `org/name`: nothing
        hint: unset HF_HUB_OFFLINE to download, or download the model on another machine and give its folder

        cannot reach HUB: Connection refused, and DIR/hub has no complete copy of `org/name`: no weights
        hint: check the network; behind a firewall set HTTPS_PROXY, or HF_ENDPOINT to a mirror; or download the model on another machine and give its folder

        cannot reach HUB: Connection refused, and DIR/hub has no complete copy of `org/other`: nothing
        hint: check the network; behind a firewall set HTTPS_PROXY, or HF_ENDPOINT to a mirror; or download the model on another machine and give its folder
        ");
}

#[test]
fn shards_are_those_of_the_index() {
    let index = |shards: &[&str]| {
        let map: serde_json::Map<_, _> = shards
            .iter()
            .enumerate()
            .map(|(tensor, shard)| (tensor.to_string(), (*shard).into()))
            .collect();
        serde_json::json!({ "weight_map": map }).to_string()
    };
    let fetch = |shards: &[&str]| {
        let model = Model::new(&[
            ("config.json", b"{}"),
            ("model.safetensors.index.json", index(shards).as_bytes()),
            ("a.safetensors", b"a"),
            ("b.safetensors", b"b"),
            ("c.safetensors", b"c"),
        ]);
        let server = hub(&model, |_, _, reply| reply);
        let desk = Desk::at(&server.url);
        desk.fetch().map(|found| listing(&found.path))
    };
    let files = fetch(&["a.safetensors", "c.safetensors", "a.safetensors"]).unwrap();
    assert_eq!(
        files,
        [
            "a.safetensors",
            "c.safetensors",
            "config.json",
            "model.safetensors.index.json"
        ]
    );
    let outside = fetch(&["a.safetensors", "../../x.safetensors"]).unwrap_err();
    let absent = fetch(&["d.safetensors"]).unwrap_err();
    insta::assert_snapshot!(format!("{outside}\n{absent}"), @r#"
        `org/name` has no file "../../x.safetensors", which its model.safetensors.index.json lists
        `org/name` has no file "d.safetensors", which its model.safetensors.index.json lists
        "#);
}

#[test]
fn one_file_and_adapters() {
    let model = Model::new(&[
        ("a/m-q8_0.gguf", b"GGUF"),
        ("m-q4_0.gguf", b"GGUF"),
        ("adapter_config.json", b"{}"),
        ("adapter_model.safetensors", b"weights"),
        ("tokenizer_config.json", b"{}"),
    ]);
    let server = hub(&model, |_, _, reply| reply);
    let mut desk = Desk::at(&server.url);
    let adapter = fetch(&desk.name, What::Adapter, &desk.config, &mut |_| {}).unwrap();
    let files = [
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer_config.json",
    ];
    assert_eq!(listing(&adapter.path), files);
    desk.name = "org/name:a/m-q8_0.gguf".parse().unwrap();
    let one = desk.fetch().unwrap();
    assert_eq!(fs::read(&one.path).unwrap(), b"GGUF");
    assert!(one.path.ends_with(format!("{COMMIT}/a/m-q8_0.gguf")));
}

#[test]
fn answers_that_are_not_the_hubs() {
    type Change = fn(&Request, Reply) -> Reply;
    let cases: [Change; 8] = [
        |request, reply| match request.method.as_str() {
            "GET" => Reply {
                body: b"<html>".to_vec(),
                ..Reply::status(200)
            },
            _ => reply,
        },
        |_, _| Reply {
            body: br#"{"sha": "../..", "siblings": []}"#.to_vec(),
            ..Reply::status(200)
        },
        |_, _| {
            let body = format!(r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "../x"}}]}}"#);
            Reply {
                body: body.into_bytes(),
                ..Reply::status(200)
            }
        },
        |request, reply| match request.method.as_str() {
            "HEAD" => Reply::status(200).with("ETag", "\"../../evil\""),
            _ => reply,
        },
        |request, mut reply| {
            if request.method == "HEAD" {
                reply.headers[0].1 = "f".repeat(40);
            }
            reply
        },
        |request, mut reply| {
            if request.method == "GET" && request.path.ends_with("config.json") {
                reply.body.extend_from_slice(&[b' '; 100]);
            }
            reply
        },
        |request, reply| match request.method.as_str() {
            "HEAD" => Reply::status(302).with("Location", request.path.clone()),
            _ => reply,
        },
        |request, mut reply| {
            if request.path.ends_with("config.json") {
                reply = reply.with("Content-Length", 1_u64 << 60);
            }
            reply
        },
    ];
    let said: Vec<String> = cases
        .into_iter()
        .map(|change| {
            let server = hub(&model(), move |request, _, reply| change(request, reply));
            let desk = Desk::at(&server.url);
            let said = desk.said();
            assert!(!desk.repo().join("refs").exists());
            said.replace(COMMIT, "COMMIT")
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
        HUB/api/models/org/name/revision/main: not the hub's description of a model: expected value at line 1 column 1
        HUB/api/models/org/name/revision/main: `sha` is "../..", expected a commit
        `org/name` is refused: the server lists the file "../x", which is not a plain relative path
        hint: do not trust this server; the hub never lists such a path
        HUB/org/name/resolve/COMMIT/config.json: the server sends no checksum (ETag: "../../evil")
        HUB/org/name/resolve/COMMIT/config.json: the answer is for commit "ffffffffffffffffffffffffffffffffffffffff"
        HUB/org/name/resolve/COMMIT/config.json: the server sends more than the 2 bytes that it announced
        HUB/org/name/resolve/COMMIT/config.json: too many redirects
        HUB/org/name/resolve/COMMIT/config.json: 1152921504606846976 bytes, expected at most 268435456
        "#);
}

#[test]
fn a_range_that_was_not_asked_for_is_refused() {
    let server = hub(&model(), |request, _, mut reply| {
        if is_download(request) {
            reply.cut = Some(1000);
            for (key, value) in &mut reply.headers {
                if *key == "Content-Range" {
                    *value = "bytes 2000-3999999/4000000".to_owned();
                }
            }
        }
        reply
    });
    let said = Desk::at(&server.url).said();
    assert!(said.contains("requested the bytes from 1000"), "{said}");
}

#[test]
fn a_blob_of_the_wrong_length_is_fetched_again() {
    let model = model();
    let server = hub(&model, |_, _, reply| reply);
    let desk = Desk::at(&server.url);
    fs::create_dir_all(desk.blob("")).unwrap();
    fs::write(desk.blob(&model.etag(WEIGHTS)), "cut").unwrap();
    let found = desk.fetch().unwrap();
    assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
}

#[test]
fn two_at_once_fetch_each_file_once() {
    let server = hub(&model(), |request, _, reply| {
        if is_download(request) {
            thread::sleep(Duration::from_millis(200));
        }
        reply
    });
    let desk = Desk::at(&server.url);
    let waited = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut count = |progress: Progress<'_>| {
                    if let Progress::Waiting { file: WEIGHTS } = progress {
                        waited.fetch_add(1, Ordering::Relaxed);
                    }
                };
                let found = fetch(&desk.name, What::Model, &desk.config, &mut count).unwrap();
                assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
            });
        }
    });
    assert_eq!(
        server
            .seen()
            .iter()
            .filter(|seen| is_download(seen))
            .count(),
        1
    );
    assert_eq!(waited.load(Ordering::Relaxed), 1);
}

#[test]
fn a_data_set_has_its_rows_in_a_cache_of_its_own() {
    let data = Model::new(&[
        ("README.md", b"not needed"),
        ("data/train-00000-of-00001.parquet", b"rows"),
        ("data/test-00000-of-00001.parquet", b"not needed"),
    ]);
    let server = Server::start(move |request, _| data.answer(request));
    let desk = Desk::at(&server.url);
    let name = desk.name.clone().of_dataset();
    let fetch_rows = |config: &HubConfig| fetch(&name, What::Dataset, config, &mut |_| {});
    let found = fetch_rows(&desk.config).unwrap();
    let repo = desk.config.cache.join("datasets--org--name");
    let rows = repo
        .join("snapshots")
        .join(COMMIT)
        .join("data/train-00000-of-00001.parquet");
    assert_eq!(found.files, std::slice::from_ref(&rows));
    assert_eq!(fs::read(rows).unwrap(), b"rows");
    let offline = HubConfig {
        offline: true,
        ..desk.config.clone()
    };
    assert_eq!(fetch_rows(&offline).unwrap().files, found.files);
}

#[test]
fn a_tokenizer_comes_without_the_weights() {
    let files = model();
    let server = Server::start(move |request, _| files.answer(request));
    let desk = Desk::at(&server.url);
    let found = fetch(&desk.name, What::Tokenizer, &desk.config, &mut |_| {}).unwrap();
    assert_eq!(listing(&found.path), ["config.json", "tokenizer.json"]);
    // The weights follow when they are needed.
    assert_eq!(
        listing(&desk.fetch().unwrap().path),
        ["config.json", WEIGHTS, "tokenizer.json"]
    );
}
