//! Lines of a log that hold a line of a trace, or a whole one, as a string: JSON of Docker and of log pipelines, and the
//! lines that Kubernetes writes for containers (CRI).

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

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

/// The most that the values of a record may weigh. A parsed value takes many times the memory of its text, above all an
/// object, and a record of a log has hundreds of them at most. A list of bytes may be longer.
const MOST_WEIGHT: usize = 256 * 1024;

/// What `kubectl apply` keeps of an object, which has the same strings once more.
const COPY: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A string in a record.
#[derive(Debug)]
pub(super) struct Content {
    /// Where it is in the record, and who wrote it.
    pub(super) writer: u64,
    pub(super) text: Vec<u8>,
    /// The text goes on in the writer's next record.
    pub(super) is_partial: bool,
    /// Its key is that of a line of a log.
    pub(super) is_known: bool,
}

/// The strings of JSON that may hold a trace. Those of a list are lines of one text.
pub(super) fn of_json(json: &[u8]) -> Vec<Content> {
    if weight(json) > MOST_WEIGHT {
        return Vec::new();
    }
    // The parser of bytes is the decoder's alone: with a second user, the compiler would not inline it there.
    let json = String::from_utf8_lossy(json);
    let mut strings = Strings::default();
    // Splunk takes records without a line break between them.
    for value in serde_json::Deserializer::from_str(&json).into_iter::<Value>() {
        let Ok(value) = value else { break };
        let log = value.get("log");
        // An HTTP archive may show a trace that someone has looked at, as it does any other document.
        if log.is_some_and(|log| log.get("entries").is_some_and(Value::is_array)) {
            break;
        }
        // Docker splits a long line into records, of which only the last one has the line break.
        strings.is_docker = value.get("stream").is_some_and(Value::is_string) && log.is_some();
        let mut writer = DefaultHasher::new();
        writers(&value, MOST_DEPTH, &mut writer);
        strings.visit(value, MOST_DEPTH, &writer, false);
    }
    strings.found
}

/// What the values of a record weigh: objects most, numbers in a list least.
fn weight(json: &[u8]) -> usize {
    let (mut weight, mut at) = (0, 0);
    while let Some(byte) = json.get(at) {
        at += 1;
        match byte {
            b'{' => weight += 16,
            b'[' => weight += 4,
            b',' => {
                let is_number = json[at..].trim_ascii_start().first().is_some_and(u8::is_ascii_digit);
                weight += if is_number { 1 } else { 4 };
            }
            b'"' => {
                while let Some(len) = memchr::memchr2(b'"', b'\\', &json[at..]) {
                    at += len + 1;
                    if json[at - 1] == b'"' {
                        break;
                    }
                    at += 1;
                    if at > json.len() {
                        return weight;
                    }
                }
            }
            _ => {}
        }
    }
    weight
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

/// Collects strings that may hold a trace.
#[derive(Debug, Default)]
struct Strings {
    found: Vec<Content>,
    /// Where the strings of each writer are among them.
    places: HashMap<u64, usize>,
    is_docker: bool,
}

impl Strings {
    /// Visits a value. `is_known` says that its key is that of a line.
    fn visit(&mut self, value: Value, depth: usize, path: &DefaultHasher, is_known: bool) {
        match value {
            Value::String(text) => self.add(path.finish(), text.into_bytes(), is_known),
            Value::Object(members) if depth > 0 => {
                for (key, value) in members {
                    if key == COPY {
                        continue;
                    }
                    let mut path = path.clone();
                    key.hash(&mut path);
                    let is_known = KEYS.contains(&key.to_ascii_lowercase().as_str());
                    self.visit(value, depth - 1, &path, is_known);
                }
            }
            Value::Array(values) if depth > 0 => match bytes(&values).filter(|_| is_known) {
                Some(bytes) => self.add(path.finish(), bytes, is_known),
                None => self.list(values, depth - 1, path, is_known),
            },
            _ => {}
        }
    }

    /// The places in a list are all alike: each may be a record, or a line.
    fn list(&mut self, values: Vec<Value>, depth: usize, path: &DefaultHasher, is_known: bool) {
        for value in values {
            match value {
                // Loki's records are lists of a time and a line, and those of CloudWatch lists of fields.
                Value::Array(columns) if depth > 0 => {
                    for (index, column) in columns.into_iter().enumerate() {
                        let mut path = path.clone();
                        index.hash(&mut path);
                        self.visit(column, depth - 1, &path, is_known);
                    }
                }
                value => {
                    let mut path = path.clone();
                    writers(&value, depth, &mut path);
                    self.visit(value, depth, &path, is_known);
                }
            }
        }
    }

    fn add(&mut self, writer: u64, text: Vec<u8>, is_known: bool) {
        let is_partial = self.is_docker && !text.ends_with(b"\n");
        let index = *self.places.entry(writer).or_insert(self.found.len());
        match self.found.get_mut(index) {
            Some(before) => {
                if !before.is_partial && !before.text.ends_with(b"\n") {
                    before.text.push(b'\n');
                }
                before.text.extend_from_slice(&text);
                before.is_partial = is_partial;
            }
            None => self.found.push(Content { writer, text, is_partial, is_known }),
        }
    }
}

/// The bytes that a list of numbers stands for. journald writes a line so that has control characters in it.
fn bytes(values: &[Value]) -> Option<Vec<u8>> {
    let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
    values.iter().map(byte).collect::<Option<Vec<_>>>().filter(|bytes| !bytes.is_empty())
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
