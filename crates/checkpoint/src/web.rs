//! HTTP: one way to make requests, for the hub and for programs that show runs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// An agent for the requests to one server. It returns every status, follows no redirect, and waits at most `patience`
/// for a connection, an answer and each part of it. A server on this machine is reached without a proxy.
pub fn agent(endpoint: &Uri, patience: Duration) -> Agent {
    let patience = Some(patience);
    let mut settings = Agent::config_builder()
        .user_agent(concat!("simmer/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        // whoever follows redirects decides where a token may go
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(patience)
        .timeout_connect(patience)
        .timeout_recv_response(patience)
        .timeout_per_read(patience)
        .timeout_per_write(patience)
        .tls_config(tls());
    if is_loopback(endpoint) {
        settings = settings.proxy(None);
    }
    settings.build().into()
}

/// Why a request has no answer; an error of the operating system without a prefix.
pub fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// The certificates that this machine trusts, or those of `SSL_CERT_FILE`.
fn tls() -> TlsConfig {
    let found = rustls_native_certs::load_native_certs().certs;
    let roots: Vec<Certificate<'static>> = found
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect();
    TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}

/// Whether a server is on this machine.
fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Percent-encodes text for a path, except letters, digits and the characters in `also`.
pub fn encoded(text: &str, also: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if plain || also.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else {
            let digits = format!("%{byte:02X}");
            out.push_str(&digits);
        }
    }
    out
}

/// Base64, for user names and passwords in a header.
///
/// Source: RFC 4648, section 4.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |place: usize| u32::from(group.get(place).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place)) & 63;
            out.push(if place <= group.len() {
                char::from(DIGITS[digit as usize])
            } else {
                '='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_and_branches_in_an_address() {
        assert_eq!(encoded("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(
            encoded("sub/a b#?é.gguf", "/"),
            "sub/a%20b%23%3F%C3%A9.gguf"
        );
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        // RFC 4648, section 10
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
