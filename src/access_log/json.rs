//! Lines that are objects of JSON, whose keys the user has chosen.

use std::borrow::Cow;

use memchr::memchr;
use serde_json::Value;

use super::{
    entry::{Field, LogEntry},
    time,
};

/// How deep objects lie in each other.
const MAX_DEPTH: usize = 8;

/// The object of a line. Something may stand before it.
pub(super) fn object(line: &[u8]) -> Option<Value> {
    let begin = memchr(b'{', line)?;
    if !line.ends_with(b"}") {
        return None;
    }
    let text = String::from_utf8_lossy(&line[begin..]);
    serde_json::from_str(&text).ok().filter(Value::is_object)
}

/// The text of a value that is no object or list.
pub(super) fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// The line that a record of Docker or of a log pipeline holds.
pub(super) fn content(line: &[u8]) -> Option<Vec<u8>> {
    let object = object(line)?;
    let text =
        ["log", "message", "msg", "MESSAGE", "line", "textPayload"].iter().find_map(|key| object.get(key)?.as_str())?;
    Some(text.trim().as_bytes().to_vec())
}

/// Reads a line whose keys tell what its values are.
pub(super) fn read(line: &[u8]) -> Option<LogEntry> {
    let object = object(line)?;
    let mut entry = LogEntry::default();
    let mut start = Start::default();
    visit(&object, "", MAX_DEPTH, &mut entry, &mut start);
    entry.set_start(start.time);
    let tells = entry.method.is_some() || entry.path.is_some() || entry.connection_id.is_some() || entry.code.is_some();
    (tells || entry.request_id.is_some()).then_some(entry)
}

/// The best time so far. What collects lines adds its own to Envoy's.
#[derive(Debug, Default)]
struct Start {
    rank: u8,
    time: Option<time::Time>,
}

fn visit(value: &Value, parent: &str, depth: usize, entry: &mut LogEntry, start: &mut Start) {
    let (Value::Object(members), true) = (value, depth > 0) else { return };
    // What the object itself says counts more than what objects in it say.
    for (key, value) in members {
        let Some(text) = scalar(value) else { continue };
        let name = normalised(key);
        let long = format!("{parent}{name}");
        let rank = start_rank(&name).max(start_rank(&long));
        if rank > start.rank
            && let Some(time) = time::usual(&text)
        {
            *start = Start { rank, time: Some(time) };
        }
        if let Some(field) = known(&long).or_else(|| known(&name)) {
            entry.set(field, text.as_bytes());
        }
    }
    for (key, value) in members {
        visit(value, &normalised(key), depth - 1, entry, start);
    }
}

/// How surely a key is that of the request's first byte; 0 if it is none.
fn start_rank(name: &str) -> u8 {
    match name {
        "starttime" | "requesttime" | "requeststarttime" => 3,
        "timestamp" => 2,
        "time" | "ts" => 1,
        _ => 0,
    }
}

/// Lower case, and letters and digits alone.
fn normalised(key: &str) -> String {
    key.chars().filter(char::is_ascii_alphanumeric).map(|char| char.to_ascii_lowercase()).collect()
}

/// The field of an attribute, such as `request.id`, or of another name.
pub(super) fn field_of(name: &str) -> Option<Field> {
    known(&normalised(name))
}

fn known(name: &str) -> Option<Field> {
    Some(match name {
        "method" | "requestmethod" | "httpmethod" | "verb" | "reqmethod" => Field::Method,
        "path" | "requestpath" | "url" | "uri" | "requesturi" | "httppath" | "reqpath" => Field::Path,
        "originalpath" | "xenvoyoriginalpath" | "requestoriginalpath" => Field::OriginalPath,
        "authority" | "host" | "requestauthority" | "requesthost" | "httphost" | "reqauthority" => Field::Authority,
        "requestid" | "xrequestid" | "reqid" => Field::RequestId,
        "traceparent" | "requestheaderstraceparent" => Field::Traceparent,
        "responsecode" | "status" | "code" | "statuscode" | "responsestatus" | "httpstatus" => Field::Code,
        "responseflags" | "flags" => Field::Flags,
        "responsecodedetails" | "codedetails" | "details" => Field::Details,
        "connectionid" | "downstreamconnectionid" => Field::ConnectionId,
        "upstreamconnectionid" => Field::UpstreamConnectionId,
        "upstreamhost" | "upstreamremoteaddress" | "upstreamaddress" => Field::UpstreamHost,
        "upstreamlocaladdress" => Field::UpstreamLocalAddress,
        "downstreamremoteaddress" | "sourceaddress" => Field::DownstreamRemoteAddress,
        "downstreamlocaladdress" | "destinationaddress" => Field::DownstreamLocalAddress,
        "requestduration" => Field::RequestDuration,
        "responseduration" => Field::ResponseDuration,
        "duration" => Field::Duration,
        "upstreamrequestattemptcount" | "requestattemptcount" | "attemptcount" | "attempts" => Field::Attempts,
        _ => return None,
    })
}
