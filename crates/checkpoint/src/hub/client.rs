//! Requests to the hub and to its redirects.

use std::cell::Cell;
use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderName, LOCATION, RANGE, RETRY_AFTER,
};
use ureq::http::{Response, StatusCode, Uri};
use ureq::{Agent, Body, Timeout};

use super::address::{endpoint, joined, origin};
use super::name::is_commit;
use super::{Checksum, HubConfig, HubError, HubName, Progress};
use crate::web::{agent, encoded, reason};

const COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");

const MAX_REDIRECTS: usize = 10;
/// Maximum bytes of the list of a model's files.
const MAX_LISTING: u64 = 32 << 20;
/// Maximum pause, whatever `Retry-After` says.
const MAX_PAUSE: Duration = Duration::from_mins(1);

/// A client for one model on the hub.
pub(super) struct Client<'a> {
    agent: Agent,
    endpoint: Uri,
    config: &'a HubConfig,
    name: &'a HubName,
    /// Whether the hub has answered before.
    known: Cell<bool>,
}

/// The files of a revision on the hub.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// The metadata of a file before its download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) file: String,
    pub(super) url: String,
    pub(super) checksum: Checksum,
    pub(super) size: u64,
}

/// An answer, and headers of the redirects before it.
struct Answer {
    response: Response<Body>,
    commit: Option<String>,
    etag: Option<String>,
    size: Option<u64>,
}

#[derive(Deserialize)]
struct ModelInfo {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl<'a> Client<'a> {
    pub(super) fn new(config: &'a HubConfig, name: &'a HubName) -> Result<Self, HubError> {
        let endpoint = endpoint(&config.endpoint)?;
        Ok(Self {
            agent: agent(&endpoint, config.patience),
            endpoint,
            config,
            name,
            known: Cell::new(false),
        })
    }

    /// The files of the revision, and its commit.
    pub(super) fn listing(
        &self,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Listing, HubError> {
        let revision = encoded(self.name.revision(), "");
        let url = format!(
            "{}/api/{}/{}/revision/{revision}",
            self.config.endpoint,
            self.name.kind(),
            self.name.repo()
        );
        let mut attempts = self.attempts();
        let text = loop {
            match self.text(&url) {
                Ok(text) => break text,
                Err(error) => attempts.pause_after(error, progress)?,
            }
        };
        let answer = |problem: String| HubError::Answer {
            url: url.clone(),
            problem,
        };
        let info: ModelInfo = serde_json::from_slice(&text)
            .map_err(|error| answer(format!("not the hub's description of a model: {error}")))?;
        if !is_commit(&info.sha) {
            return Err(answer(format!(
                "`sha` is {:?}, expected a commit",
                info.sha
            )));
        }
        Ok(Listing {
            commit: info.sha,
            files: info
                .siblings
                .into_iter()
                .map(|file| file.rfilename)
                .collect(),
        })
    }

    /// Checksum and length of one file.
    pub(super) fn remote(
        &self,
        commit: &str,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Remote, HubError> {
        let url = format!(
            "{}/{}/resolve/{commit}/{}",
            self.config.endpoint,
            self.name.place(),
            encoded(file, "/")
        );
        let mut attempts = self.attempts();
        let answer = loop {
            match self.send(&url, Method::Head, None) {
                Ok(answer) => break answer,
                Err(error) => attempts.pause_after(error, progress)?,
            }
        };
        let wrong = |problem: String| HubError::Answer {
            url: url.clone(),
            problem,
        };
        if let Some(other) = answer.commit.as_deref().filter(|other| *other != commit) {
            return Err(wrong(format!("the answer is for commit {other:?}")));
        }
        let etag = answer.etag.unwrap_or_default();
        let checksum = Checksum::from_etag(&etag)
            .ok_or_else(|| wrong(format!("the server sends no checksum (ETag: {etag})")))?;
        let size = answer.size;
        Ok(Remote {
            file: file.to_owned(),
            checksum,
            size: size
                .ok_or_else(|| wrong("the server does not send the length of the file".into()))?,
            url,
        })
    }

    /// The bytes of the file from `start`, or all bytes if the server does not support ranges: the position of the first
    /// byte, and the bytes.
    pub(super) fn open(&self, remote: &Remote, start: u64) -> Result<(u64, impl Read), HubError> {
        let answer = self.send(&remote.url, Method::Get, (start > 0).then_some(start))?;
        let response = answer.response;
        let begin = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let said = text(&response, &HeaderName::from_static("content-range"));
                let said = said.unwrap_or_default();
                if said != format!("bytes {start}-{}/{}", remote.size - 1, remote.size) {
                    return Err(HubError::Answer {
                        url: remote.url.clone(),
                        problem: format!("requested the bytes from {start}, received {said:?}"),
                    });
                }
                start
            }
            _ => 0,
        };
        let body = response.into_body().into_with_config();
        // one more byte than expected, to detect a longer file
        Ok((
            begin,
            body.limit(u64::MAX).reader().take(remote.size - begin + 1),
        ))
    }

    pub(super) fn attempts(&self) -> Attempts<'_> {
        Attempts {
            known: &self.known,
            retries: self.config.retries,
            first_pause: self.config.pause,
            made: 0,
        }
    }

    fn text(&self, url: &str) -> Result<Vec<u8>, HubError> {
        let answer = self.send(url, Method::Get, None)?;
        let mut body = answer.response.into_body();
        match body.with_config().limit(MAX_LISTING).read_to_vec() {
            Err(ureq::Error::BodyExceedsLimit(_)) => Err(HubError::Answer {
                url: url.to_owned(),
                problem: format!("the answer has more than {MAX_LISTING} bytes"),
            }),
            text => text.map_err(|error| unreachable(&self.endpoint, &error)),
        }
    }

    /// Sends a request and follows redirects. The token is sent to the hub's own host only.
    fn send(&self, url: &str, method: Method, from: Option<u64>) -> Result<Answer, HubError> {
        let problem = |problem: &str| HubError::Answer {
            url: url.to_owned(),
            problem: problem.to_owned(),
        };
        let mut at: Uri = url.parse().map_err(|_| problem("not an address"))?;
        let (mut commit, mut etag, mut size) = (None, None, None);
        for _ in 0..=MAX_REDIRECTS {
            let mut request = match method {
                Method::Get => self.agent.get(&at),
                Method::Head => self.agent.head(&at),
            };
            request = request.header(ACCEPT_ENCODING, "identity");
            if let Some(start) = from {
                request = request.header(RANGE, format!("bytes={start}-"));
            }
            if let Some(token) = self.token_for(&at) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| unreachable(&at, &error))?;
            self.known.set(true);
            commit = commit.or_else(|| text(&response, &COMMIT));
            etag = etag.or_else(|| text(&response, &LINKED_ETAG));
            size = size.or_else(|| number(&response, &LINKED_SIZE));
            if !response.status().is_redirection() {
                if !response.status().is_success() {
                    return Err(self.refused(url, &at, &response));
                }
                return Ok(Answer {
                    commit,
                    etag: etag.or_else(|| text(&response, &ETAG)),
                    size: size.or_else(|| number(&response, &CONTENT_LENGTH)),
                    response,
                });
            }
            // a HEAD request needs the hub's headers, not those of the storage
            if method == Method::Head && etag.is_some() && size.is_some() {
                return Ok(Answer {
                    response,
                    commit,
                    etag,
                    size,
                });
            }
            let location = text(&response, &LOCATION);
            at = location
                .and_then(|location| joined(&at, &location))
                .ok_or_else(|| {
                    problem("the server redirects to an invalid address, or from https to http")
                })?;
        }
        Err(problem("too many redirects"))
    }

    fn token_for(&self, uri: &Uri) -> Option<&str> {
        let token = self.config.token.as_ref()?;
        (origin(uri) == origin(&self.endpoint)).then(|| token.secret())
    }

    fn refused(&self, url: &str, at: &Uri, response: &Response<Body>) -> HubError {
        let code = text(response, &ERROR_CODE).unwrap_or_default();
        let name = self.name.repo().to_owned();
        let endpoint = self.config.endpoint.clone();
        let token = self.config.token.is_some();
        match (response.status().as_u16(), code.as_str()) {
            (_, "RevisionNotFound") => HubError::NoRevision {
                name,
                revision: self.name.revision().to_owned(),
            },
            (404, "" | "RepoNotFound") if url.contains("/api/") => HubError::NotFound {
                name,
                endpoint,
                nearest: None,
            },
            (401 | 403, _) if origin(at) == origin(&self.endpoint) => HubError::Denied {
                name,
                endpoint,
                gated: code == "GatedRepo",
                token,
            },
            (status, _) => HubError::Status {
                url: url.to_owned(),
                status,
                said: text(response, &ERROR_MESSAGE),
                retry_after: number(response, &RETRY_AFTER).map(Duration::from_secs),
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Head,
}

/// Pauses that double, up to a maximum number of retries.
pub(super) struct Attempts<'a> {
    known: &'a Cell<bool>,
    retries: u32,
    first_pause: Duration,
    made: u32,
}

impl Attempts<'_> {
    /// Waits before the next attempt, or returns the error if a retry is useless.
    pub(super) fn pause_after(
        &mut self,
        error: HubError,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), HubError> {
        if self.made >= self.retries || !error.is_transient(self.known.get()) {
            return Err(error);
        }
        let doubled = self.first_pause * 2_u32.saturating_pow(self.made.min(16));
        let asked = match error {
            HubError::Status { retry_after, .. } => retry_after,
            _ => None,
        };
        let pause = asked
            .map_or(doubled, |asked| asked.max(doubled))
            .min(MAX_PAUSE);
        self.made += 1;
        progress(Progress::Retrying {
            error: &error,
            pause,
        });
        thread::sleep(pause);
        Ok(())
    }

    /// The last attempt made progress.
    pub(super) fn reset(&mut self) {
        self.made = 0;
    }
}

fn unreachable(uri: &Uri, error: &ureq::Error) -> HubError {
    let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.authority());
    HubError::Unreachable {
        host: format!("{scheme}://{}", host.map_or("", |host| host.as_str())),
        reason: reason(error),
        down: match error {
            // unknown hosts and untrusted certificates are reported as other errors
            ureq::Error::Io(error) => !matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
            ),
            ureq::Error::Timeout(kind) => matches!(kind, Timeout::Resolve | Timeout::Connect),
            ureq::Error::Protocol(_) => false,
            _ => true,
        },
    }
}

fn text(response: &Response<Body>, header: &HeaderName) -> Option<String> {
    let value = response.headers().get(header)?;
    value.to_str().ok().map(str::to_owned)
}

fn number(response: &Response<Body>, header: &HeaderName) -> Option<u64> {
    text(response, header)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_connection_is_told_from_a_broken_one() {
        let hub: Uri = "https://hub.example:8443/api".parse().unwrap();
        for (kind, expected) in [
            (io::ErrorKind::ConnectionReset, false),
            (io::ErrorKind::UnexpectedEof, false),
            (io::ErrorKind::ConnectionRefused, true),
            // the texts of the system's resolver and of rustls
            (io::ErrorKind::Other, true),
            (io::ErrorKind::InvalidData, true),
        ] {
            let error = ureq::Error::Io(io::Error::new(kind, "why"));
            let HubError::Unreachable { host, reason, down } = unreachable(&hub, &error) else {
                panic!("{error}");
            };
            assert_eq!(
                (host.as_str(), reason.as_str()),
                ("https://hub.example:8443", "why")
            );
            assert_eq!(down, expected, "{kind}");
        }
    }
}
