//! What of a tap is wanted: Envoy's `MatchPredicate`, of which only what Envoy can bear is expressible.

use serde_json::{Value, json};

/// A match that Envoy understands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MatchConfig(Value);

impl MatchConfig {
    /// Everything.
    #[must_use]
    pub(crate) fn any() -> Self {
        Self(json!({ "any_match": true }))
    }

    /// Envoy's `MatchPredicate`, as JSON or YAML.
    ///
    /// # Errors
    /// It is none, and why.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        Ok(Self(value))
    }

    /// Requests with exactly this value of a header.
    #[must_use]
    pub(crate) fn header(name: &str, value: &str) -> Self {
        Self(json!({ "http_request_headers_match": { "headers": [
            { "name": name.to_ascii_lowercase(), "string_match": { "exact": value } }
        ] } }))
    }

    /// Requests whose path begins so.
    #[must_use]
    pub(crate) fn path_prefix(prefix: &str) -> Self {
        Self(json!({ "http_request_headers_match": { "headers": [
            { "name": ":path", "string_match": { "prefix": prefix } }
        ] } }))
    }

    /// What matches all of these. Of none, it is everything.
    #[must_use]
    pub(crate) fn all(mut matches: Vec<Self>) -> Self {
        match matches.len() {
            0 => Self::any(),
            1 => matches.remove(0),
            _ => Self(json!({ "and_match": { "rules": matches.into_iter().map(|one| one.0).collect::<Vec<_>>() } })),
        }
    }

    pub(super) fn as_json(&self) -> &Value {
        &self.0
    }

    /// Whether something may be left out.
    #[must_use]
    pub(crate) fn is_any(&self) -> bool {
        *self == Self::any()
    }

    /// Whether a tap of a socket can match: it never has headers, trailers or bodies of HTTP.
    #[must_use]
    pub(super) fn can_hold_on_sockets(&self) -> bool {
        holds_on_sockets(&self.0)
    }
}

fn holds_on_sockets(rule: &Value) -> bool {
    let rules = |set: &Value| set["rules"].as_array().cloned().unwrap_or_default();
    match rule.as_object().and_then(|rule| rule.iter().next()) {
        Some((key, set)) => match key.as_str() {
            "any_match" => true,
            "not_match" => !holds_on_sockets(set),
            "or_match" => rules(set).iter().any(holds_on_sockets),
            "and_match" => rules(set).iter().all(holds_on_sockets),
            _ => false,
        },
        None => false,
    }
}
