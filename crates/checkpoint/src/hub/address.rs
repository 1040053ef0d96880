//! Addresses of the hub and of its redirects.

use ureq::http::Uri;

use super::HubError;

pub(super) fn endpoint(text: &str) -> Result<Uri, HubError> {
    let wrong = |problem| HubError::Endpoint {
        endpoint: text.to_owned(),
        problem,
    };
    if text.contains('@') {
        let endpoint = "...".to_owned();
        let problem = "a user name or password would appear in messages; use HF_TOKEN";
        return Err(HubError::Endpoint { endpoint, problem });
    }
    let uri: Uri = text.parse().map_err(|_| wrong("not an address"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) if uri.query().is_none() => Ok(uri),
        _ => Err(wrong("not an http or https address")),
    }
}

/// Scheme, host and port: a token is sent only to the hub's own origin.
pub(super) fn origin(uri: &Uri) -> (Option<&str>, Option<String>, Option<u16>) {
    let standard = match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    };
    let host = uri.host().map(str::to_ascii_lowercase);
    (uri.scheme_str(), host, uri.port_u16().or(standard))
}

/// Resolves `location` against `base`; `None` for a redirect from https to http.
pub(super) fn joined(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let location = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{}{location}", base.authority()?)
    } else {
        location.to_owned()
    };
    let uri: Uri = location.parse().ok()?;
    let safe = uri.scheme_str() == Some("https") || uri.scheme_str() == Some(scheme);
    (safe && uri.host().is_some()).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn a_token_stays_with_scheme_host_and_port() {
        let hub = uri("https://Hub.example/x");
        assert_eq!(origin(&hub), origin(&uri("https://hub.example:443/y")));
        for other in [
            "http://hub.example/x",
            "https://hub.example:8443/x",
            "https://cdn.hub.example/x",
            "https://hub.example.evil/x",
        ] {
            assert_ne!(origin(&hub), origin(&uri(other)));
        }
    }

    #[test]
    fn where_a_request_is_sent_on() {
        let base = uri("https://hub.example/a/b");
        let to = |location| joined(&base, location).map(|uri| uri.to_string());
        assert_eq!(to("/c?d=e").unwrap(), "https://hub.example/c?d=e");
        assert_eq!(to("//cdn.example/f").unwrap(), "https://cdn.example/f");
        assert_eq!(
            to("https://cdn.example/f").unwrap(),
            "https://cdn.example/f"
        );
        for refused in ["http://hub.example/c", "file:///etc/passwd", "c", ""] {
            assert_eq!(to(refused), None, "{refused}");
        }
    }

    #[test]
    fn what_is_no_endpoint() {
        assert!(endpoint("https://hub.example/mirror").is_ok());
        for text in [
            "",
            "hub.example",
            "ftp://hub.example",
            "https://",
            "https://h/?x=1",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
        let error = endpoint("https://me:secret@hub.example").unwrap_err();
        insta::assert_snapshot!(error, @"HF_ENDPOINT is `...`: a user name or password would appear in messages; use HF_TOKEN");
    }
}
