//! What is shown of one request: its heads, the beginnings of its bodies, and how to open it.

use std::{ffi::OsStr, path::Path};

use crate::{
    commands::info::{quoted, quoted_word},
    http::{Exchange, Fields, HttpMessage, decoded},
    page,
    words::{bytes_are, count},
};

/// How many bytes of a body are shown.
const MAX_SHOWN: usize = 4 << 10;

/// How many fields of a head are shown, how many bytes of each, and of all.
const MAX_FIELDS: usize = 100;
const MAX_FIELD: usize = 2 << 10;
const MAX_HEAD: usize = 8 << 10;

/// The details of an exchange. `file` is what is shown of the trace's path, if it can be opened.
pub(super) fn of(exchange: &Exchange, file: Option<&Path>) -> page::Detail {
    page::Detail {
        exchange: self::exchange(exchange),
        commands: file.into_iter().flat_map(|file| commands(exchange, file)).collect(),
        ..page::Detail::default()
    }
}

/// The two messages of an exchange.
pub(super) fn exchange(exchange: &Exchange) -> page::Exchange {
    let lossy = |bytes: &Option<Vec<u8>>| bytes.clone().unwrap_or_else(|| b"?".to_vec());
    let protocol = exchange.protocol.unwrap_or("HTTP").as_bytes();
    let request = [&*lossy(&exchange.method), &*lossy(&exchange.path), protocol].join(&b' ');
    let code = exchange.code.map_or_else(|| "?".to_owned(), |code| code.to_string());
    let response = [protocol, code.as_bytes()].join(&b' ');
    page::Exchange {
        request: exchange.request.has_head.then(|| message(request, &exchange.request)),
        response: exchange.response.has_head.then(|| message(response, &exchange.response)),
    }
}

fn message(mut line: Vec<u8>, message: &HttpMessage) -> page::Message {
    line.truncate(MAX_FIELD);
    let (fields, trailers, mut body) = (fields(&message.fields), fields(&message.trailers), body(message));
    let left_out = message.fields.iter().count() - fields.len() + message.trailers.iter().count() - trailers.len();
    if left_out > 0 {
        let separator = if body.note.is_empty() { "" } else { "; " };
        body.note += &format!("{separator}{} not shown", count(left_out as u64, "more field"));
    }
    page::Message { line, fields, trailers, body }
}

fn fields(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut room = MAX_HEAD;
    let mut cut = |bytes: &[u8]| {
        let shown = &bytes[..bytes.len().min(MAX_FIELD).min(room)];
        room -= shown.len();
        shown.to_vec()
    };
    let shown = fields.iter().take(MAX_FIELDS).map(|(name, value)| (cut(name), cut(value)));
    shown.take_while(|(name, _)| !name.is_empty()).collect()
}

fn body(message: &HttpMessage) -> page::Body {
    // One more byte tells whether there is more.
    let mut shown = decoded(message, MAX_SHOWN + 1).into_owned();
    let mut notes = Vec::new();
    if shown.len() > MAX_SHOWN {
        shown.truncate(MAX_SHOWN);
        notes.push(format!("only the first {MAX_SHOWN} bytes are shown"));
    }
    let coding = message.fields.get("content-encoding").filter(|_| !shown.is_empty());
    if let Some(coding) = coding {
        notes.push(format!("content-encoding: {}", String::from_utf8_lossy(&coding[..coding.len().min(64)])));
    }
    match message.size() {
        _ if message.complete => {}
        Some(size) if size > message.body.len() as u64 && coding.is_none() => {
            notes.push(format!("{} not shown or not in the trace", bytes_are(size - message.body.len() as u64)));
        }
        _ => notes.push("it is not complete in the trace".to_owned()),
    }
    page::Body { shown, size: message.size(), note: notes.join("; ") }
}

/// A shell line that opens a request's connection together with those of its attempts, whose files and `trace_id`s these
/// are.
pub(super) fn both_sides(own: (&Path, u64), attempts: &[(&Path, u64)]) -> page::Command {
    let (mut files, mut ids) = (Vec::new(), Vec::new());
    for (file, id) in std::iter::once(&own).chain(attempts) {
        let (file, id) = (quoted(file), format!("connection.id == {id}"));
        if !files.contains(&file) {
            files.push(file);
        }
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let expression = quoted_word(OsStr::new(&ids.join(" || ")));
    page::Command {
        label: "Open both sides in Wireshark".to_owned(),
        text: format!("tap2pcap open --where {expression} {}", files.join(" ")),
    }
}

/// Shell lines that open an exchange's connection.
fn commands(exchange: &Exchange, file: &Path) -> Vec<page::Command> {
    let path = quoted(file);
    let expression =
        format!("connection.id == {} && trace.offset == {}", exchange.connection.trace_id, exchange.place.offset);
    let expression = quoted_word(OsStr::new(&expression));
    let command = |label: &str, text: String| page::Command { label: label.to_owned(), text };
    vec![
        command("Open its connection in Wireshark", format!("tap2pcap open --where {expression} {path}")),
        command("Print it as JSON", format!("tap2pcap http --json --where {expression} {path}")),
    ]
}
