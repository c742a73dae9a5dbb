//! Heads and bodies of the requests that are looked at.

use std::fmt::Write as _;

use super::{
    model::{Body, Command, Detail, Exchange, Message, Page, Request},
    rows::{self, Clock, MAX_TEXT, Status},
    units,
};
use crate::untrusted::cap;

/// How much of a body is shown, as text and as a hex dump.
const MAX_TEXT_BODY: usize = 16 << 10;
const MAX_HEX_BODY: usize = 1 << 10;

/// The longest line of a head that is shown, and the most lines.
const MAX_FIELD: usize = 4 << 10;
const MAX_FIELDS: usize = 200;

/// A request with everything that is known of it.
#[derive(Clone, Debug)]
pub(super) struct DetailView<'a> {
    pub(super) status: Status,
    pub(super) what: String,
    pub(super) time: String,
    pub(super) duration: String,
    pub(super) slow: bool,
    pub(super) failed: bool,
    pub(super) facts: Vec<Fact>,
    pub(super) attempts: Vec<AttemptView>,
    pub(super) messages: Vec<MessageView>,
    pub(super) commands: &'a [Command],
}

/// A name, what Envoy calls it, and a value.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) operator: &'static str,
    pub(super) value: String,
}

#[derive(Clone, Debug)]
pub(super) struct AttemptView {
    pub(super) number: usize,
    pub(super) begin: String,
    pub(super) duration: String,
    pub(super) code: String,
    pub(super) address: String,
    pub(super) connection: u64,
    pub(super) complete: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct MessageView {
    pub(super) title: String,
    /// Empty if the message is not in the trace.
    pub(super) line: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) trailers: Vec<(String, String)>,
    pub(super) body: BodyView,
}

#[derive(Clone, Debug)]
pub(super) struct BodyView {
    pub(super) title: String,
    /// Without line feeds.
    pub(super) lines: Vec<String>,
}

impl<'a> DetailView<'a> {
    /// Nothing if the model has no such request.
    pub(super) fn of(page: &'a Page, detail: &'a Detail, clock: Clock) -> Option<Self> {
        let request = page.requests.get(detail.request)?;
        let mut messages = Vec::new();
        add_messages(&mut messages, &detail.exchange, "");
        for (index, exchange) in detail.attempts.iter().enumerate() {
            add_messages(&mut messages, exchange, &format!(" of attempt {}", index + 1));
        }
        Some(Self {
            status: Status::of(request),
            what: rows::what(request),
            time: clock.maybe(request.time),
            duration: units::maybe_duration(request.duration),
            slow: detail.slow,
            failed: detail.failed,
            facts: facts(page, request, clock),
            attempts: attempts(request),
            messages,
            commands: &detail.commands,
        })
    }
}

fn facts(page: &Page, request: &Request, clock: Clock) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |name, operator, value: String| {
        if !value.is_empty() && value != units::ABSENT {
            facts.push(Fact { name, operator, value });
        }
    };
    let parts = request.parts;
    add("Time", "%START_TIME%", clock.maybe(request.time));
    let failure = match rows::maybe_origin(request) {
        "" => String::new(),
        origin if request.origin_reason.is_empty() => origin.to_owned(),
        origin => format!("{origin}: {}", cap(&request.origin_reason, MAX_TEXT)),
    };
    add("Failure from", "", failure);
    add("Request's last byte in", "%REQUEST_DURATION%", units::maybe_duration(parts.request_end));
    add("First byte to the upstream", "", units::maybe_duration(parts.upstream_begin));
    add("First byte from the upstream", "%RESPONSE_DURATION%", units::maybe_duration(parts.upstream_first_byte));
    add("Response's first byte out", "", units::maybe_duration(parts.response_begin));
    add("Response's last byte out", "%DURATION%", units::maybe_duration(parts.response_end));
    add("Envoy's share of the request", "", units::maybe_duration(request.request_latency));
    add("Envoy's share of the response", "", units::maybe_duration(request.response_latency));
    add("Request body", "%BYTES_RECEIVED%", units::maybe_bytes(request.sent));
    add("Response body", "%BYTES_SENT%", units::maybe_bytes(request.received));
    add("Pairing", "", rows::pairing(request.pairing).to_owned());
    add("Connection", "%CONNECTION_ID%", rows::connection_label(page, request.connection));
    let file = rows::file(page, request.file);
    add("Trace", "", format!("{}, offset {}", cap(file, MAX_TEXT), request.offset));
    if !request.complete {
        add("Completeness", "", "parts are missing in the trace".to_owned());
    }
    facts
}

fn attempts(request: &Request) -> Vec<AttemptView> {
    let view = |(index, attempt): (usize, &super::model::Attempt)| AttemptView {
        number: index + 1,
        begin: match attempt.begin {
            None => units::ABSENT.to_owned(),
            Some(begin) => {
                format!("{}{}", if begin < 0 { "−" } else { "+" }, units::duration(begin.unsigned_abs()))
            }
        },
        duration: units::maybe_duration(attempt.duration),
        code: attempt.code.map_or_else(|| "no response".to_owned(), |code| code.to_string()),
        address: cap(&attempt.address, MAX_TEXT).into_owned(),
        connection: attempt.connection_id,
        complete: if attempt.complete { "yes" } else { "no" },
    };
    request.attempts.iter().enumerate().map(view).collect()
}

/// Adds request and response, one beside the other, also where the trace has not both.
fn add_messages(messages: &mut Vec<MessageView>, exchange: &Exchange, of: &str) {
    let is_unread = exchange.request.is_none() && exchange.response.is_none();
    let why = if is_unread { "Not in the trace, or it could not be read again" } else { "Not in the trace" };
    for (name, message) in [("Request", &exchange.request), ("Response", &exchange.response)] {
        let title = format!("{name}{of}");
        messages.push(match message {
            Some(message) => MessageView::of(message, title),
            None => MessageView::absent(title, why),
        });
    }
}

impl MessageView {
    fn absent(title: String, why: &str) -> Self {
        let body = BodyView { title: why.to_owned(), lines: Vec::new() };
        Self { title, line: String::new(), fields: Vec::new(), trailers: Vec::new(), body }
    }

    fn of(message: &Message, title: String) -> Self {
        Self {
            title,
            line: text(&message.line),
            fields: fields(&message.fields),
            trailers: fields(&message.trailers),
            body: BodyView::of(&message.body),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    // A character has at most four bytes: whatever is cut off here would not be shown.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_FIELD + 4)]);
    cap(&text, MAX_FIELD).into_owned()
}

fn fields(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<(String, String)> {
    let mut shown: Vec<_> = fields.iter().take(MAX_FIELDS).map(|(name, value)| (text(name), text(value))).collect();
    if fields.len() > MAX_FIELDS {
        shown.push(("…".to_owned(), format!("{} more", fields.len() - MAX_FIELDS)));
    }
    shown
}

impl BodyView {
    fn of(body: &Body) -> Self {
        let as_text = readable(&body.shown);
        let (lines, shown) = match as_text {
            Some(text) => {
                let text = cap(text, MAX_TEXT_BODY);
                (text_lines(&text), text.len())
            }
            None => {
                let shown = body.shown.len().min(MAX_HEX_BODY);
                (hex_lines(&body.shown[..shown]), shown)
            }
        };
        let mut title = body.size.map_or_else(|| "Body".to_owned(), |size| format!("Body, {}", units::bytes(size)));
        if body.size == Some(0) && body.shown.is_empty() {
            title = "No body".to_owned();
        }
        if shown < body.shown.len() {
            let _ = write!(title, ", the first {} shown", units::bytes(shown as u64));
        }
        if as_text.is_none() {
            title.push_str(", as a hex dump");
        }
        if !body.note.is_empty() {
            let _ = write!(title, ": {}", body.note);
        }
        Self { title, lines }
    }
}

/// Text that has next to no control characters. The last character may be cut.
fn readable(bytes: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let controls = text.chars().filter(|char| char.is_control() && !matches!(char, '\t' | '\n' | '\r')).count();
    (controls * 20 <= text.len()).then_some(text)
}

/// The lines of a text. Tabs become spaces, since the template would show them as escapes.
fn text_lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.replace('\t', "    ")).collect()
}

/// Sixteen bytes a line, as `hexdump -C` shows them.
fn hex_lines(bytes: &[u8]) -> Vec<String> {
    let line = |(index, chunk): (usize, &[u8])| {
        let mut line = format!("{:08x} ", index * 16);
        for place in 0..16 {
            if place == 8 {
                line.push(' ');
            }
            match chunk.get(place) {
                Some(byte) => {
                    // Writing to a String cannot fail.
                    let _ = write!(line, " {byte:02x}");
                }
                None => line.push_str("   "),
            }
        }
        line.push_str("  |");
        line.extend(chunk.iter().map(|byte| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' }));
        line.push('|');
        line
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(shown: &[u8]) -> BodyView {
        BodyView::of(&Body { shown: shown.to_vec(), size: Some(shown.len() as u64), note: String::new() })
    }

    #[test]
    fn text_has_lines() {
        assert_eq!(body(b"a\r\n\tb\n\nc").lines, ["a", "    b", "", "c"]);
        assert_eq!(body("日本".as_bytes().split_last().unwrap().1).lines, ["日"]);
        assert_eq!(body(b"").title, "No body");
    }

    #[test]
    fn responses_stand_beside_their_requests_also_after_one_that_is_missing() {
        let request = Message { line: b"GET / HTTP/1.1".to_vec(), ..Message::default() };
        let unanswered = Exchange { request: Some(request.clone()), response: None };
        let answered = Exchange { response: Some(request), ..unanswered.clone() };
        let mut views = Vec::new();
        add_messages(&mut views, &unanswered, "");
        add_messages(&mut views, &answered, " of attempt 1");
        add_messages(&mut views, &Exchange::default(), " of attempt 2");
        let titles: Vec<_> = views[..4].iter().map(|view| view.title.as_str()).collect();
        assert_eq!(titles, ["Request", "Response", "Request of attempt 1", "Response of attempt 1"]);
        let missing: Vec<_> = views.iter().map(|view| view.line.is_empty()).collect();
        assert_eq!(missing, [false, true, false, false, true, true]);
        assert_eq!(views[1].body.title, "Not in the trace");
        assert!(views[5].body.title.contains("could not be read"));
    }

    #[test]
    fn bytes_have_a_hex_dump() {
        let view = body(b"\x00\xff<script>\x01\x02\x03\x04\x05\x06\x07");
        assert_eq!(
            view.lines,
            [
                "00000000  00 ff 3c 73 63 72 69 70  74 3e 01 02 03 04 05 06  |..<script>......|",
                "00000010  07                                                |.|"
            ]
        );
        assert_eq!(view.title, "Body, 17 B, as a hex dump");
    }

    #[test]
    fn much_is_cut_and_says_so() {
        let view = body(&[b'a'; 100_000]);
        assert_eq!((view.lines.len(), view.title.as_str()), (1, "Body, 97.6 KiB, the first 16.0 KiB shown"));
        assert_eq!(body(&[0xff; 2_000]).lines.len(), 64);
        assert_eq!(fields(&vec![(vec![], vec![]); 300]).len(), 201);
    }
}
