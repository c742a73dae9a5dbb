//! Envoy's command operators, such as `%REQ(:METHOD)%`, and the fields that they write.

use super::{
    entry::{Field, LogEntry},
    time::TimeFormat,
};

/// A part of a format string.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// Text that is the same in each line.
    Literal(String),
    /// What an operator writes.
    Operator(What),
}

/// What an operator writes.
#[derive(Clone, Debug)]
pub(super) enum What {
    Start(TimeFormat),
    Field(Field),
    /// A number that no entry has.
    Number,
    Other,
}

impl What {
    /// Puts what it has written into an entry.
    pub(super) fn put(&self, value: &[u8], entry: &mut LogEntry) {
        match self {
            Self::Start(format) => entry.set_start(format.read(value)),
            Self::Field(field) => entry.set(*field, value),
            Self::Number | Self::Other => {}
        }
    }

    /// Whether an entry has it.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self, Self::Start(_) | Self::Field(_))
    }

    /// The regular expression of what it writes.
    pub(super) fn regex(&self) -> &'static str {
        match self {
            Self::Number
            | Self::Field(
                Field::Code
                | Field::ConnectionId
                | Field::UpstreamConnectionId
                | Field::RequestDuration
                | Field::ResponseDuration
                | Field::Duration
                | Field::Attempts,
            ) => "[0-9]+|-",
            Self::Field(Field::Method | Field::Flags | Field::Details) => r"[^\s]*?",
            Self::Start(TimeFormat::Usual) => "[0-9TZ:.+-]+",
            Self::Start(_) | Self::Field(_) | Self::Other => ".*?",
        }
    }
}

/// Takes a format string apart.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn parts(format: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        literal.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let (operator, after) = split(rest).ok_or_else(|| {
            format!("byte {}: expected an operator such as %START_TIME%", format.len() - rest.len() - 1)
        })?;
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(Part::Operator(what(operator)?));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

/// A part of a text before its end, and what follows it.
fn split(text: &str) -> Option<(Operator<'_>, &str)> {
    let len =
        text.bytes().take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_').count();
    let (name, mut rest) = text.split_at(len);
    let mut parameter = "";
    if let Some(inside) = rest.strip_prefix('(') {
        // A parameter may have signs of percent, and calls of functions.
        let end = ["):", ")%"].into_iter().filter_map(|end| inside.find(end)).min()?;
        (parameter, rest) = (&inside[..end], &inside[end + 1..]);
    }
    if let Some(after) = rest.strip_prefix(':') {
        rest = after.trim_start_matches(|char: char| char.is_ascii_digit());
    }
    let rest = rest.strip_prefix('%')?;
    (!name.is_empty()).then_some((Operator { name, parameter }, rest))
}

#[derive(Clone, Copy, Debug)]
struct Operator<'a> {
    name: &'a str,
    parameter: &'a str,
}

/// What an operator writes.
///
/// # Errors
/// Times in this format cannot be read.
fn what(operator: Operator<'_>) -> Result<What, String> {
    let Operator { name, parameter } = operator;
    let field = match name {
        "START_TIME" => {
            let unreadable = || format!("%START_TIME({parameter})%: times in this format cannot be read");
            return TimeFormat::new(parameter).map(What::Start).ok_or_else(unreadable);
        }
        // In UTC only if it says so.
        "START_TIME_LOCAL" if parameter.contains("%z") || parameter.contains("%s") => {
            return Ok(TimeFormat::new(parameter).map_or(What::Other, What::Start));
        }
        "REQ" | "REQUEST_HEADER" => return Ok(header(parameter)),
        "CEL" => return Ok(super::json::field_of(parameter).map_or(What::Other, What::Field)),
        "PATH" if !parameter.starts_with("NQ") => Field::Path,
        "RESPONSE_CODE" => Field::Code,
        "RESPONSE_FLAGS" => Field::Flags,
        "RESPONSE_CODE_DETAILS" => Field::Details,
        "CONNECTION_ID" => Field::ConnectionId,
        "UPSTREAM_CONNECTION_ID" => Field::UpstreamConnectionId,
        "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => Field::UpstreamHost,
        "UPSTREAM_LOCAL_ADDRESS" => Field::UpstreamLocalAddress,
        "DOWNSTREAM_REMOTE_ADDRESS" => Field::DownstreamRemoteAddress,
        "DOWNSTREAM_LOCAL_ADDRESS" => Field::DownstreamLocalAddress,
        "REQUEST_DURATION" => Field::RequestDuration,
        "RESPONSE_DURATION" => Field::ResponseDuration,
        "DURATION" => Field::Duration,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Field::Attempts,
        "BYTES_RECEIVED" | "BYTES_SENT" => return Ok(What::Number),
        _ => return Ok(What::Other),
    };
    Ok(What::Field(field))
}

/// What `%REQ(…)%` writes: the value of a header, or of another one if the request lacks the first.
fn header(names: &str) -> What {
    let names = names.to_ascii_lowercase();
    let (name, other) = names.split_once('?').unwrap_or((&names, ""));
    let field = |name: &str| match name {
        ":method" => Some(Field::Method),
        ":path" => Some(Field::Path),
        "x-envoy-original-path" => Some(Field::OriginalPath),
        ":authority" | "host" => Some(Field::Authority),
        "x-request-id" => Some(Field::RequestId),
        "traceparent" => Some(Field::Traceparent),
        _ => None,
    };
    match (field(name), field(other)) {
        (Some(first), None) if other.is_empty() => What::Field(first),
        (Some(first), Some(second)) if first == second => What::Field(first),
        (Some(Field::OriginalPath), Some(Field::Path)) => What::Field(Field::OriginalPath),
        _ => What::Other,
    }
}
