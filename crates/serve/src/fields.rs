//! The keys of a request, read one by one. A key that nobody has read at the end is a mistake: it would have no effect.

use serde_json::{Map, Value};

use crate::error::ApiError;

/// The keys of an object in a request, less those that were read.
#[derive(Debug)]
pub(crate) struct Fields {
    left: Map<String, Value>,
    /// Where the object is in the request, such as `messages[0].`; empty for the request itself.
    place: String,
    /// The keys that were asked for.
    known: Vec<&'static str>,
}

impl Fields {
    /// The keys of a request.
    pub(crate) fn of_request(body: &[u8]) -> Result<Self, ApiError> {
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            ApiError::bad(format!("the body of the request is not JSON: {error}"))
        })?;
        match value {
            Value::Object(left) => Ok(Self::new(left, String::new())),
            other => Err(ApiError::bad(format!(
                "the body of the request: expected a JSON object, found {}",
                shown(&other)
            ))),
        }
    }

    /// The keys of an object at some place of the request.
    pub(crate) fn at(place: &str, value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(left) => Ok(Self::new(left, format!("{place}."))),
            other => Err(ApiError::of(
                place,
                format!("expected an object, found {}", shown(&other)),
            )),
        }
    }

    fn new(mut left: Map<String, Value>, place: String) -> Self {
        // null says what a missing key says
        left.retain(|_, value| !value.is_null());
        Self {
            left,
            place,
            known: Vec::new(),
        }
    }

    /// The value of a key; `None` if it is not there, or null.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.left.remove(key)
    }

    /// Whether a key has this value.
    pub(crate) fn has(&self, key: &str, value: &Value) -> bool {
        self.left.get(key) == Some(value)
    }

    /// A mistake in the value of a key.
    pub(crate) fn wrong(&self, key: &str, expected: &str, found: &Value) -> ApiError {
        ApiError::of(
            &format!("{}{key}", self.place),
            format!("expected {expected}, found {}", shown(found)),
        )
    }

    pub(crate) fn number(&mut self, key: &'static str) -> Result<Option<f64>, ApiError> {
        self.take(key)
            .map_or(Ok(None), |value| match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(key, "a number", &value)),
            })
    }

    /// A whole number from `least` to `most`.
    pub(crate) fn count(
        &mut self,
        key: &'static str,
        least: u64,
        most: u64,
    ) -> Result<Option<usize>, ApiError> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        match whole(&value) {
            Some(count) if (least..=most).contains(&count) => Ok(Some(count as usize)),
            _ if most == u64::MAX => {
                Err(self.wrong(key, &format!("a whole number from {least} on"), &value))
            }
            _ => Err(self.wrong(
                key,
                &format!("a whole number from {least} to {most}"),
                &value,
            )),
        }
    }

    pub(crate) fn flag(&mut self, key: &'static str) -> Result<Option<bool>, ApiError> {
        self.take(key)
            .map_or(Ok(None), |value| match value.as_bool() {
                Some(flag) => Ok(Some(flag)),
                None => Err(self.wrong(key, "true or false", &value)),
            })
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Result<Option<String>, ApiError> {
        self.take(key).map_or(Ok(None), |value| match value {
            Value::String(text) => Ok(Some(text)),
            other => Err(self.wrong(key, "a text", &other)),
        })
    }

    /// Reads keys that have no effect on an answer, such as the name of the user.
    pub(crate) fn leave_out(&mut self, keys: &[&'static str]) {
        for key in keys {
            let _ = self.take(key);
        }
    }

    /// Reads a key that this server takes only with values that change nothing.
    pub(crate) fn only(&mut self, key: &'static str, neutral: &[Value]) -> Result<(), ApiError> {
        let Some(found) = self.take(key) else {
            return Ok(());
        };
        if neutral.contains(&found) {
            return Ok(());
        }
        let place = format!("{}{key}", self.place);
        Err(ApiError::of(
            &place,
            "this server does not support it; leave it out",
        ))
    }

    /// # Errors
    /// If there is a key that nobody has read.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        let Some(key) = self.left.keys().next() else {
            return Ok(());
        };
        let known = self
            .known
            .iter()
            .map(|known| (strsim::jaro_winkler(known, key), known));
        let nearest = known
            .filter(|(similarity, _)| *similarity > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = match nearest {
            Some((_, known)) => format!("; did you mean `{known}`?"),
            None => "; leave it out".to_owned(),
        };
        let place = format!("{}{}", self.place, shortened(key));
        Err(ApiError::of(
            &place,
            format!("this server does not know this key{hint}"),
        ))
    }
}

/// A whole number from 0 on, which some clients send with a decimal point.
pub(crate) fn whole(value: &Value) -> Option<u64> {
    let rounded = |number: f64| {
        ((0.0..9e15).contains(&number) && number.fract() == 0.0).then_some(number as u64)
    };
    value.as_u64().or_else(|| value.as_f64().and_then(rounded))
}

/// A value in an error, not longer than a line.
pub(crate) fn shown(value: &Value) -> String {
    shortened(&value.to_string())
}

/// A text in an error, not longer than a line, and without control characters.
pub(crate) fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(60);
    let shown = text[..end].chars();
    let mut shown: String = shown
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default().collect());
            escaped.unwrap_or_else(|| vec![c])
        })
        .collect();
    if end < text.len() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: &Value) -> Fields {
        Fields::of_request(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_key_that_nobody_reads_is_a_mistake() {
        let mut request = fields(&json!({"max_tokens": 3, "tempertaure": 0.5}));
        assert_eq!(request.count("max_tokens", 1, u64::MAX).unwrap(), Some(3));
        assert_eq!(request.number("temperature").unwrap(), None);
        let error = request.finish().unwrap_err();
        assert_eq!(error.param.as_deref(), Some("tempertaure"));
        assert!(
            error.message.contains("did you mean `temperature`?"),
            "{}",
            error.message
        );
    }

    #[test]
    fn errors_name_the_place_and_what_was_found() {
        let mut inner = Fields::at("messages[1]", json!({"role": 7})).unwrap();
        let error = inner.text("role").unwrap_err();
        assert_eq!(
            error.message,
            "`messages[1].role`: expected a text, found 7"
        );
        let mut request = fields(&json!({"n": 0, "top_k": 2.5, "stream": "yes"}));
        let error = request.count("n", 1, 128).unwrap_err();
        assert_eq!(
            error.message,
            "`n`: expected a whole number from 1 to 128, found 0"
        );
        assert!(request.count("top_k", 0, u64::MAX).is_err());
        assert!(request.flag("stream").is_err());
        let error = Fields::of_request(b"[1]").unwrap_err();
        assert!(error.message.contains("expected a JSON object, found [1]"));
        assert!(Fields::of_request(b"{").is_err());
    }

    #[test]
    fn null_is_as_if_the_key_were_not_there() {
        let mut request =
            fields(&json!({"seed": null, "tools": [], "response_format": {"type": "json_object"}}));
        assert_eq!(request.number("seed").unwrap(), None);
        request.only("tools", &[json!([])]).unwrap();
        assert!(
            request
                .only("response_format", &[json!({"type": "text"})])
                .is_err()
        );
    }
}
