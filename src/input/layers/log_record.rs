//! Lines of a log that hold a line of a trace, or a whole one, as a string: JSON of Docker and of log pipelines, and the
//! lines that Kubernetes writes for containers (CRI).

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

/// How deep the string may be in the object. Elasticsearch and Loki nest it in lists of results.
const MOST_DEPTH: usize = 8;

/// The keys of the string, without regard to case.
const KEYS: [&str; 18] = [
    "log",
    "message",
    "msg",
    "line",
    "textpayload",
    "body",
    "@message",
    "_raw",
    "raw",
    "stringvalue",
    "short_message",
    "full_message",
    "logentry",
    "logmessage",
    "log_message",
    "original",
    "payload",
    "data",
];

/// Parts of the keys whose values tell one writer of lines from another.
const WRITERS: [&str; 12] = [
    "stream",
    "pod",
    "container",
    "host",
    "unit",
    "service",
    "task",
    "instance",
    "namespace",
    "_pid",
    "file",
    "source",
];

/// The most braces, brackets and commas of a record outside of its strings. A parsed value takes many times the memory
/// of its text, and a record of a log has hundreds of them at most.
const MOST_VALUES: usize = 16 * 1024;

/// The most strings of a record that are looked at.
const MOST_STRINGS: usize = 256;

/// A string in a record.
#[derive(Debug)]
pub(super) struct Content {
    /// Where it is in the record, and who wrote it.
    pub(super) writer: u64,
    pub(super) text: Vec<u8>,
    /// The text goes on in the writer's next record.
    pub(super) is_partial: bool,
}

/// The strings of a JSON object that may hold a trace. What follows the object is passed over.
pub(super) fn of_json(object: &[u8]) -> Vec<Content> {
    let mut found = Vec::new();
    if values(object) > MOST_VALUES {
        return found;
    }
    // The parser of bytes is the decoder's alone: with a second user, the compiler would not inline it there.
    let object = String::from_utf8_lossy(object);
    let mut values = serde_json::Deserializer::from_str(&object).into_iter::<Value>();
    let Some(Ok(value)) = values.next() else { return found };
    let mut writer = DefaultHasher::new();
    writers(&value, MOST_DEPTH, &mut writer);
    // Docker splits a long line into records, of which only the last one has the line break.
    let is_docker = value.get("stream").is_some_and(Value::is_string) && value.get("log").is_some();
    strings(value, MOST_DEPTH, &mut writer, &mut |writer, text| {
        if found.len() == MOST_STRINGS {
            return;
        }
        let is_partial = is_docker && !text.ends_with('\n');
        found.push(Content { writer, text: text.into_bytes(), is_partial });
    });
    found
}

/// Braces, brackets and commas outside of strings.
fn values(object: &[u8]) -> usize {
    let (mut count, mut at) = (0, 0);
    while let Some(byte) = object.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' | b',' => count += 1,
            b'"' => {
                while let Some(len) = memchr::memchr2(b'"', b'\\', &object[at..]) {
                    at += len + 1;
                    if object[at - 1] == b'"' {
                        break;
                    }
                    at += 1;
                    if at > object.len() {
                        return count;
                    }
                }
            }
            _ => {}
        }
    }
    count
}

/// Hashes what tells who wrote a record.
fn writers(value: &Value, depth: usize, writer: &mut DefaultHasher) {
    let Value::Object(members) = value else { return };
    for (key, value) in members {
        match value {
            Value::String(text) if is_writer(key) => (key, text).hash(writer),
            Value::Object(_) if depth > 0 => writers(value, depth - 1, writer),
            _ => {}
        }
    }
}

fn is_writer(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    WRITERS.iter().any(|part| key.contains(part)) && !KEYS.contains(&key.as_str())
}

/// Visits the strings that may hold a trace.
fn strings(value: Value, depth: usize, path: &mut DefaultHasher, visit: &mut dyn FnMut(u64, String)) {
    match value {
        Value::Object(members) if depth > 0 => {
            for (key, value) in members {
                let mut path = path.clone();
                key.hash(&mut path);
                match value {
                    Value::String(text) if KEYS.contains(&key.to_ascii_lowercase().as_str()) => {
                        visit(path.finish(), text);
                    }
                    value => strings(value, depth - 1, &mut path, visit),
                }
            }
        }
        // The places in a list are all alike: each may be a record.
        Value::Array(values) if depth > 0 => {
            values.into_iter().for_each(|value| strings(value, depth - 1, path, visit));
        }
        _ => {}
    }
}

/// A line that Kubernetes writes for a container: a time, the stream, `F` or `P` for a full or partial line, and the
/// line. Returns where the line begins, and the stream, and whether it is partial.
pub(super) fn of_cri(line: &[u8]) -> Option<(usize, u64, bool)> {
    let time = memchr::memchr(b' ', &line[..line.len().min(64)])?;
    let is_time = line[..time].get(10) == Some(&b'T') && line[..4].iter().all(u8::is_ascii_digit);
    let rest = &line[time + 1..];
    let (stream, rest) = match rest {
        [b's', b't', b'd', b'o', b'u', b't', b' ', rest @ ..] => (1, rest),
        [b's', b't', b'd', b'e', b'r', b'r', b' ', rest @ ..] => (2, rest),
        _ => return None,
    };
    // More tags may follow after a colon.
    let tags = rest.iter().take(32).position(|byte| matches!(byte, b' ' | b'\n' | b'\r')).unwrap_or(rest.len());
    let is_partial = match rest.first()? {
        b'P' => true,
        b'F' => false,
        _ => return None,
    };
    let blank = usize::from(rest.get(tags) == Some(&b' '));
    is_time.then_some((line.len() - rest.len() + tags + blank, stream, is_partial))
}
