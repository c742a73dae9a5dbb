//! Lines of a log that hold a line of a trace, or a whole one, as a string: JSON of Docker and of log pipelines, and the
//! lines that Kubernetes writes for containers (CRI).

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde_json::Value;

use crate::input::around;

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

/// Keys of objects that are a writer, as the Elastic Common Schema has them, and of the members that name it. A key such
/// as `_source` is none of them: an `id` in it may be that of the record.
const WRITING: [&str; 8] = ["pod", "container", "host", "service", "file", "instance", "namespace", "node"];
const NAMES: [&str; 5] = ["name", "id", "uid", "path", "hostname"];

/// Keys of lists of `key:value`, as Datadog has them.
const TAGS: [&str; 2] = ["tags", "ddtags"];

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
    let mut root_string = false;
    // Splunk takes records without a line break between them.
    for value in serde_json::Deserializer::from_str(&json).into_iter::<Value>() {
        let Ok(value) = value else {
            // A string is the whole of its line, or one of several lines, and no column of CSV.
            return if root_string { Vec::new() } else { strings.found };
        };
        if root_string {
            return Vec::new();
        }
        root_string = value.is_string();
        let log = value.get("log");
        // An HTTP archive may show a trace that someone has looked at, as it does any other document.
        if log.is_some_and(|log| log.get("entries").is_some_and(Value::is_array)) {
            break;
        }
        // Docker splits a long line into records, of which only the last one has the line break.
        strings.is_docker = value.get("stream").is_some_and(Value::is_string) && log.is_some();
        let mut writer = DefaultHasher::new();
        writers(&value, MOST_DEPTH, "", &mut writer);
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

/// Hashes what tells who wrote a record. `parent` is the key of the value.
fn writers(value: &Value, depth: usize, parent: &str, writer: &mut DefaultHasher) {
    let Value::Object(members) = value else { return };
    let is_writing = WRITING.iter().any(|key| parent.eq_ignore_ascii_case(key));
    for (key, value) in members {
        match value {
            _ if TAGS.contains(&key.as_str()) => tags(value, writer),
            Value::String(text) if is_writer(key) || is_writing && NAMES.contains(&key.as_str()) => {
                (parent, key, text).hash(writer);
            }
            Value::Object(_) if depth > 0 => writers(value, depth - 1, key, writer),
            _ => {}
        }
    }
}

/// Hashes the tags that tell who wrote a record, in whatever order they are.
fn tags(value: &Value, writer: &mut DefaultHasher) {
    let texts = match value {
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        Value::String(text) => vec![text.as_str()],
        _ => return,
    };
    let all = texts.into_iter().flat_map(|text| text.split(','));
    let mut tags: Vec<_> =
        all.filter(|tag| tag.split_once(':').is_some_and(|(key, _)| is_writer(key.trim()))).collect();
    tags.sort_unstable();
    tags.hash(writer);
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
                // Ansible writes an output once more as a list of lines.
                let is_copy = |key: &&String| {
                    key.strip_suffix("_lines").is_some_and(|whole| members.contains_key(whole)) || *key == COPY
                };
                let copies: Vec<_> = members.keys().filter(is_copy).cloned().collect();
                for (key, value) in members {
                    if copies.contains(&key) {
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
                    writers(&value, depth, "", &mut path);
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

/// How far the time reaches on a line of a container, with the name of the file that grep puts before it.
const MOST_CRI: usize = 512;

/// A line that Kubernetes writes for a container: a time, the stream, `F` or `P` for a full or partial line, and the
/// line. Returns where the line begins, and the stream, and whether it is partial.
pub(super) fn of_cri(line: &[u8]) -> Option<(usize, u64, bool)> {
    let time = memchr::memchr(b' ', &line[..line.len().min(MOST_CRI)])?;
    let name = name_len(&line[..time]);
    let digits = &line[name..time];
    let is_time = digits.get(10) == Some(&b'T') && digits[..4].iter().all(u8::is_ascii_digit);
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
    let stream = match file_of(&line[..name]) {
        b"" => stream,
        file => {
            let mut hasher = DefaultHasher::new();
            (file, stream).hash(&mut hasher);
            hasher.finish()
        }
    };
    is_time.then_some((line.len() - rest.len() + tags + blank, stream, is_partial))
}

/// How many bytes grep has put before the time that a line of a container begins with: the name of the file, perhaps the
/// number of the line, and the `:` or `-` after each.
fn name_len(bytes: &[u8]) -> usize {
    let begins = |at: usize| {
        let time = bytes.get(at..at + 11).unwrap_or_default();
        matches!(bytes[at - 1], b':' | b'-')
            && matches!(time, [_, _, _, _, b'-', _, _, b'-', _, _, b'T'])
            && time[..4].iter().all(u8::is_ascii_digit)
    };
    (1..bytes.len().saturating_sub(10)).find(|at| begins(*at)).unwrap_or(0)
}

/// The name of the file, of what grep has put before a line.
fn file_of(before: &[u8]) -> &[u8] {
    let Some((_, name)) = before.split_last() else { return b"" };
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    match &name[..name.len() - digits] {
        // `-n` alone gives a number and no name.
        [] => b"",
        [file @ .., b':' | b'-'] if digits > 0 => file,
        _ => name,
    }
}

/// The values of a line in logfmt, of a row of CSV, or of a line of YAML whose value is in double quotes.
pub(super) fn of_fields(line: &[u8]) -> Option<Vec<Content>> {
    let line = str::from_utf8(line).ok()?;
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    logfmt(line).or_else(|| yaml(line)).or_else(|| csv(line))
}

/// `level=info msg="a \"b\""`: at least two keys with values, and nothing else.
fn logfmt(line: &str) -> Option<Vec<Content>> {
    let mut strings = Strings::default();
    let mut writer = DefaultHasher::new();
    let mut rest = line;
    let mut values = Vec::new();
    while !rest.is_empty() {
        let is_key = |char: &char| char.is_ascii_alphanumeric() || "_-.@/".contains(*char);
        let len = rest.chars().take_while(is_key).count();
        let (key, after) = rest.split_at(len);
        let after = after.strip_prefix('=').filter(|_| len > 0)?;
        let (value, after) = match after.starts_with('"') {
            true => quoted(after)?,
            false => {
                let end = after.find(' ').unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        if is_writer(key) {
            (key, &value).hash(&mut writer);
        }
        values.push((key, value));
        if !after.is_empty() && !after.starts_with(' ') {
            return None;
        }
        rest = after.trim_start_matches(' ');
    }
    if values.len() < 2 {
        return None;
    }
    for (key, value) in values {
        let mut path = writer.clone();
        key.hash(&mut path);
        strings.add(path.finish(), value.into_bytes(), KEYS.contains(&key.to_ascii_lowercase().as_str()));
    }
    Some(strings.found)
}

/// `  key: "a \"b\""` and nothing else. A list in source code would go on with a comma.
fn yaml(line: &str) -> Option<Vec<Content>> {
    let text = line.trim_start();
    let text = text.strip_prefix("- ").unwrap_or(text);
    let value = if text.starts_with('"') {
        text
    } else {
        let (key, value) = text.split_once(": ")?;
        let is_key = |char: char| char.is_ascii_alphanumeric() || "_-./".contains(char);
        Some(value).filter(|_| !key.is_empty() && key.chars().all(is_key))?
    };
    let (value, after) = Some(value).filter(|value| value.starts_with('"')).and_then(quoted)?;
    if !after.trim_end().is_empty() {
        return None;
    }
    let mut strings = Strings::default();
    let mut path = DefaultHasher::new();
    text[..text.len() - text.trim_start_matches(|char| char != '"').len()].hash(&mut path);
    strings.add(path.finish(), value.into_bytes(), false);
    Some(strings.found)
}

/// A string as JSON quotes it, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

/// What may separate columns.
const SEPARATORS: [char; 3] = [',', ';', '\t'];

/// The columns of a row of CSV (RFC 4180), for each separator that it may have.
fn csv(line: &str) -> Option<Vec<Content>> {
    let mut strings = Strings::default();
    for separator in SEPARATORS {
        // Numbers of lines are before a tab too. Without a quote, what is before the last column is a prefix.
        if separator == '\t' && !line.starts_with('"') && !line.contains("\t\"") {
            continue;
        }
        let Some(columns) = columns(line, separator).filter(|columns| columns.len() > 1) else { continue };
        let count = columns.len();
        for (index, column) in columns.into_iter().enumerate() {
            let mut path = DefaultHasher::new();
            (separator, count, index).hash(&mut path);
            strings.add(path.finish(), column.into_bytes(), false);
        }
    }
    Some(strings.found)
}

fn columns(line: &str, separator: char) -> Option<Vec<String>> {
    let mut columns = Vec::new();
    let mut rest = line;
    loop {
        let after = match rest.strip_prefix('"') {
            Some(text) => {
                let end = csv_end(text)?;
                columns.push(text[..end].replace("\"\"", "\""));
                &text[end + 1..]
            }
            None => {
                let end = rest.find(separator).unwrap_or(rest.len());
                // A column with quotes is quoted as a whole.
                columns.push(Some(&rest[..end]).filter(|column| !column.contains('"'))?.to_owned());
                &rest[end..]
            }
        };
        if after.is_empty() {
            return Some(columns);
        }
        rest = after.strip_prefix(separator)?;
    }
}

/// Where the quoted column ends, after its opening quote.
fn csv_end(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += text[at..].find('"')?;
        if !text[at + 1..].starts_with('"') {
            return Some(at);
        }
        at += 2;
    }
}

/// Whether a column that begins in this row, with a trace, ends in a later one.
pub(super) fn opens_column(row: &[u8]) -> bool {
    let Ok(row) = str::from_utf8(row) else { return false };
    let starts = row
        .match_indices('"')
        .filter(|(at, _)| row[..*at].chars().last().is_none_or(|last| SEPARATORS.contains(&last)));
    let mut end = 0;
    for (at, _) in starts {
        if at < end {
            continue;
        }
        match csv_end(&row[at + 1..]) {
            Some(len) => end = at + 1 + len + 1,
            None => {
                let text = row[at + 1..].trim();
                return text == "{" || around::text_name(text.as_bytes()) == Some(0) || text.contains("\"\"");
            }
        }
    }
    false
}

/// Whether the quotes of a column that goes on are doubled in this line, and whether it ends here.
pub(super) fn goes_on_column(line: &[u8]) -> Option<bool> {
    let line = str::from_utf8(line).ok()?;
    match csv_end(line) {
        None => Some(false),
        Some(end) => {
            matches!(line[end + 1..].chars().next(), None | Some(',' | ';' | '\t' | '\r' | '\n')).then_some(true)
        }
    }
}
