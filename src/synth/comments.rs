//! The text of packet comments: what was made up around the tapped bytes, and which bytes are missing.
//!
//! Comments call a setting what the user calls it. The caller gives these names in [`SettingNames`].

use std::fmt::{self, Write as _};

use super::{FlowIdentity, PairedConnection, Redacted, SynthOptions, TcpMode};
use crate::{
    timeline::{
        AddressNote, Data, Direction, HttpOpening, JoinedEvents, Opening, Other, PREFACE, Role, TimesFrom, TrueLength,
    },
    trace::{FieldNames, MadeUpField, Nanos, Owner, Quote, ReplayNote, UnfitFields},
    untrusted,
    words::count,
};

/// The user's names for the settings that comments mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingNames {
    /// Who opened the connections.
    pub role: &'static str,
    /// The start time for connections without a time.
    pub start_time: &'static str,
    /// The largest payload of a segment.
    pub mss: &'static str,
    /// What rewrites addresses.
    pub map: &'static str,
}

impl SettingNames {
    /// Names that fit any interface.
    pub const PLAIN: Self =
        Self { role: "given", start_time: "the given time", mss: "the largest segment", map: "a given one" };
}

/// Seconds and nanoseconds since the Unix epoch.
fn seconds(time: Nanos) -> String {
    format!("{}.{:09}", time / 1_000_000_000, time % 1_000_000_000)
}

/// Bytes that nearly every comment on the first packet of a connection fits into.
const USUAL_LENGTH: usize = 1024;

/// The comment for the first packet of a connection, or of an exchange that continues one.
pub(super) fn first(options: &SynthOptions, identity: &FlowIdentity<'_>) -> String {
    let Opening { trace_id, buffered, role, role_given, times, http, .. } = identity.opening;
    // An HTTP trace may have such a comment for every few KiB. Most of it is put together without formatting, in memory
    // that it hardly ever outgrows.
    let mut comment = String::with_capacity(USUAL_LENGTH);
    comment.push_str("trace ");
    comment.push_str(&untrusted::one_line(identity.trace_file));
    // Writing to a String cannot fail, here and below.
    let _ = write!(comment, ", trace_id {trace_id}");
    comment.push_str(if *buffered { ", buffered, " } else { ", streamed, " });
    comment.push_str(role.word());
    comment.push_str(" (");
    if *role_given {
        comment.push_str(options.names.role);
        comment.push_str(": ");
    }
    comment.push_str(match role {
        Role::Downstream => "the remote side opened the connection)",
        Role::Upstream => "Envoy opened the connection)",
    });
    if let Some(HttpOpening { version, .. }) = http {
        comment.push_str(if *version == 2 { "\nHTTP/2" } else { "\nHTTP/1.1" });
        comment.push_str(" replayed from an HTTP tap trace: fields and bodies are recorded, their framing is made up");
    }
    comment.push_str("\nsynthesized: Ethernet, IP and TCP headers, sequence numbers");
    if options.tcp == TcpMode::Full {
        comment.push_str(", handshake, acknowledgements, close");
    }
    if let Some(redacted) = &options.redacted {
        comment.push('\n');
        comment.push_str(&how_redacted(*redacted));
    }
    if *times == TimesFrom::Arrival {
        comment.push_str("\nwhat has no time of its own has the time of its arrival");
    } else if *times != TimesFrom::Recorded {
        comment.push_str("\nthe trace has no time for the beginning of this connection; it is made up");
    }
    let from = match times {
        TimesFrom::Recorded if http.is_some() => {
            comment.push_str("\ntimes between the recorded ones are made up");
            None
        }
        TimesFrom::Recorded | TimesFrom::Arrival => None,
        TimesFrom::Date => Some("the response's date header"),
        TimesFrom::Given => Some(options.names.start_time),
        TimesFrom::Before => Some("the last time before it in the trace"),
        TimesFrom::Next => Some("the first time after it in the trace"),
        TimesFrom::Neighbours => Some("the earliest time of the other traces"),
        TimesFrom::Modified => Some("the file's modification time"),
        TimesFrom::Nothing => Some("the Unix epoch"),
    };
    if let Some(from) = from {
        let _ = write!(comment, ", from {from} on");
    }
    if let Some(HttpOpening { end_assumed, notes, of_socket, .. }) = http {
        if *of_socket {
            comment.push_str(
                "\nthe addresses are those of the tapped socket that carried the same request at the same time",
            );
        }
        if *end_assumed {
            comment.push_str("\nthe trace does not say where the exchange ends; its last segment is taken for the end");
        }
        if !notes.is_empty() {
            comment.push('\n');
            match options.redacted {
                Some(_) => {
                    let notes: Vec<_> = notes.iter().map(ReplayNote::without_values).collect();
                    add_notes(&mut comment, &notes);
                }
                None => add_notes(&mut comment, notes),
            }
        }
    }
    comment.push_str(&paired(identity.paired));
    for note in &identity.endpoints.notes {
        let _ = write!(comment, "\n{}", untrusted::one_line(&address(options.names, note)));
    }
    comment
}

/// How many paired connections a comment has.
const MAX_PAIRED: usize = 8;

/// Says which connections on Envoy's other side carried the same requests.
fn paired(connections: &[PairedConnection]) -> String {
    let mut text = String::new();
    for connection in connections.iter().take(MAX_PAIRED) {
        let PairedConnection { trace_file, trace_id, is_upstream, requests, certainty } = connection;
        let (requests, certainty) = (count(*requests, "request"), certainty.word());
        let direction = if *is_upstream { "went on to the upstream on" } else { "came from the client on" };
        let trace_file = untrusted::one_line(trace_file);
        let _ = write!(
            text,
            "\npaired ({certainty}): {requests} {direction} the connection with trace_id {trace_id}, trace {trace_file}"
        );
    }
    match connections.len().saturating_sub(MAX_PAIRED) {
        0 => {}
        more => text.push_str(&format!("\npaired with {} more", count(more as u64, "connection"))),
    }
    text
}

/// Says how secrets were taken out of the bytes.
fn how_redacted(redacted: Redacted) -> String {
    let Redacted { bodies, keeps_unknown, addresses, names } = redacted;
    let mut text = String::from(
        "redacted: asterisks stand for secret values of header fields, URLs, forms, JSON and other bodies; header \
         blocks of HTTP/2 are encoded again; compressed bodies are unpacked",
    );
    if bodies {
        text.push_str("; asterisks stand for all bodies");
    }
    text.push_str(match keeps_unknown {
        true => "; bytes of other protocols are kept",
        false => "; bytes that are not understood are left out",
    });
    if addresses {
        text.push_str("; IP addresses are replaced");
    }
    if names {
        text.push_str("; names of hosts, sockets and files and trace_ids are replaced");
    }
    text
}

/// Describes what was made up or rewritten in an address.
fn address(names: &SettingNames, note: &AddressNote) -> String {
    let word = |owner: &Owner| owner.word();
    match note {
        AddressNote::Missing { owner, made_up, unconnected } => {
            let why = match unconnected {
                true => " (a streamed tap of a cluster has it only with socket_tap_config.set_connection_per_event)",
                false => "",
            };
            format!("{} address missing in the trace, made up: {made_up}{why}", word(owner))
        }
        AddressNote::Named { owner, name, made_up } => {
            format!("{} address is {name}, made up for it: {made_up}", word(owner))
        }
        AddressNote::NoPort { owner, made_up } => {
            format!("{} port missing in the trace, made up: {made_up}", word(owner))
        }
        AddressNote::BadPort { owner, port, made_up } => {
            format!("{} port {port} does not exist, made up: {made_up}", word(owner))
        }
        AddressNote::BadAddress { owner, text, made_up } => {
            format!("{} address '{text}' is not an IP address, made up: {made_up}", word(owner))
        }
        AddressNote::Rewritten { owner, old, new } => {
            format!("{} address rewritten with {}: {old} to {new}", word(owner), names.map)
        }
        AddressNote::Mapped => "the IPv4 side is written as an IPv4-mapped IPv6 address".to_owned(),
        AddressNote::KeptApart { from: Other::Connection, old, new } if new.ip() != old.ip() => {
            format!("other connections with these addresses are open at the same time; client made up: {new} for {old}")
        }
        AddressNote::KeptApart { from, old, new } => {
            let why = match from {
                Other::OwnEnd => &format!("both ends have the address {old}"),
                Other::Exchange => {
                    "this exchange cannot be joined to another one of its connection: only exchanges of one HTTP \
                     version can be joined, and those of HTTP/1 only if they follow each other"
                }
                Other::Socket => "the socket has packets of its own",
                Other::Connection => "another connection with these addresses is open at the same time",
            };
            format!("{why}; client port made up: {} for {}", new.port(), old.port())
        }
    }
}

/// Puts the parts of a comment that are not empty below each other.
pub(super) fn lines<const N: usize>(parts: [&str; N]) -> String {
    let mut comment = String::new();
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        if !comment.is_empty() {
            comment.push('\n');
        }
        comment.push_str(part);
    }
    comment
}

/// The most bytes of the lines about replayed HTTP in one comment.
const MAX_NOTES: usize = 8 << 10;

/// Stands for lines beyond [`MAX_NOTES`].
const MORE_NOTES: &str = "more notes do not fit in this comment";

/// What people should know of replayed HTTP, in lines.
pub(super) fn replayed(notes: &[ReplayNote]) -> String {
    let mut lines = String::new();
    add_notes(&mut lines, notes);
    lines
}

/// Adds what people should know of replayed HTTP to a comment, in lines.
fn add_notes(comment: &mut String, notes: &[ReplayNote]) {
    let begin = comment.len();
    for note in notes {
        let before = comment.len();
        if before > begin {
            comment.push('\n');
        }
        let line = comment.len();
        let _ = write!(comment, "{note}");
        if comment.len() - begin > MAX_NOTES {
            comment.truncate(line);
            comment.push_str(MORE_NOTES);
        }
        if &comment[line..] == MORE_NOTES && comment[begin..before].ends_with(MORE_NOTES) {
            comment.truncate(before);
        }
    }
}

impl fmt::Display for ReplayNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MadeUp(field) => field.fmt(f),
            Self::Unfit(fields) => fields.fmt(f),
            Self::Added { side, field } => write!(f, "added to the {}: {field}", side.word()),
            Self::ConnectionFields(side, fields) => write!(
                f,
                "left out of the {}, because they are fields of an HTTP/1 connection: {}",
                side.word(),
                names(fields)
            ),
            Self::LengthOfChunks { side, length } => {
                write!(f, "left out of the {}, because its body is in chunks: content-length: {length}", side.word())
            }
            Self::NoPlace { connect, name, value } => {
                let place = if *connect { "CONNECT" } else { "HTTP/1.1" };
                write!(f, "left out of the request, because {place} has no place for it: {name} {}", quoted(value))
            }
            Self::NoChunk { side, bytes } => write!(
                f,
                "by its content-length, {bytes} bytes of the {} are missing; no chunk stands for them",
                side.word()
            ),
            Self::NoFrame { side, bytes } => write!(
                f,
                "by its content-length, {bytes} bytes of the {} are missing; no frame stands for them",
                side.word()
            ),
            Self::NoFrameOfMessage { side, bytes } => write!(
                f,
                "by its length, {bytes} bytes of a message of the {} are missing; no frame stands for them",
                side.word()
            ),
            Self::More => f.write_str(MORE_NOTES),
        }
    }
}

impl fmt::Display for MadeUpField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("the request has no :method; GET is made up"),
            Self::Path => f.write_str("the request has no :path; / is made up"),
            Self::Status => f.write_str("the response has no :status; 000 is made up"),
            Self::StatusDigits(None) => f.write_str("the response has no :status of three digits; 000 is made up"),
            Self::StatusDigits(Some(value)) => {
                write!(f, "the response's :status '{}' is not three digits; 000 is made up", quoted(value))
            }
        }
    }
}

impl fmt::Display for UnfitFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Escaped(side, fields) => write!(f, "escaped in the {}: {}", side.word(), names(fields)),
            Self::LeftOut(side, fields) => {
                write!(f, "left out of the {}, because HTTP/2 has no such names there: {}", side.word(), names(fields))
            }
        }
    }
}

/// A list of names. Quotation marks show where a name begins and ends if nothing else does.
fn names(fields: &FieldNames) -> String {
    let name = |name: &Quote| if name.has_clear_ends() { quoted(name) } else { format!("\"{}\"", quoted(name)) };
    let mut list = fields.names.iter().map(name).collect::<Vec<_>>().join(", ");
    if fields.more > 0 {
        let _ = write!(list, " and {} more", fields.more);
    }
    list
}

/// A piece of a trace in printable ASCII, so that no terminal acts on it.
fn quoted(quote: &Quote) -> String {
    format!("{}{}", quote.shown().escape_ascii(), if quote.is_cut() { "…" } else { "" })
}

/// Follows the comment of an exchange that continues the connection of another one.
pub(super) const RESUMED: &str =
    "\nthis exchange continues the connection of the one before, which has the same addresses";

/// Follows the comment of an exchange that is another stream of a connection.
pub(super) fn joined(stream: u32) -> String {
    format!(
        "\nthis exchange is stream {stream} of the connection of the exchanges before it, which have the same \
         addresses; the connection has the greeting of the first one"
    )
}

/// The note on bytes of a shared connection whose packet has a later time than the trace.
pub(super) fn late(recorded: Nanos) -> String {
    format!(
        "its recorded time is {}; it has the time of the packets above it, because they belong to the same connection \
         and came before it in the trace",
        seconds(recorded)
    )
}

/// The note on a window update for all streams of a connection.
pub(super) const WINDOW: &str = "made up: the connection's window is opened again for all of its streams";

/// The comment for HTTP/2's preface in a packet of its own: `pieces` pieces came before the last one, the first of them
/// at `began`. `goes_on` says that more of its event follows.
pub(super) fn preface(
    names: &SettingNames,
    segment: u16,
    pieces: usize,
    began: Option<Nanos>,
    goes_on: bool,
) -> String {
    let mut comment = String::from(
        "the preface of HTTP/2 is in a packet of its own, made up so that Wireshark's HTTP dissector hands the \
         connection to the one for HTTP/2",
    );
    if let Some(began) = began {
        let _ = write!(comment, "; it came in {} pieces, the first at {}", pieces + 1, seconds(began));
    }
    if goes_on {
        comment.push_str("; the rest of its event is in the next packet");
    }
    if PREFACE.len() > usize::from(segment) {
        let _ = write!(comment, "; it is longer than {}, because readers need it whole", names.mss);
    }
    comment
}

/// The comment for bytes that the trace lacks. `certain` is that of
/// [`EntryKind::Gap`](crate::timeline::EntryKind::Gap).
pub(super) fn gap(bytes: u64, certain: bool) -> String {
    if certain {
        format!("{bytes} bytes are missing here: more of the event before, which the trace has only in part")
    } else {
        format!(
            "{bytes} bytes are missing here: the trace has no event for them; whether Envoy read or wrote them is not \
             known"
        )
    }
}

/// Follows the comment of a cut event when some of its missing bytes have no packets.
pub(super) fn skipped(bytes: u64) -> String {
    format!("; {bytes} of the missing bytes have no packets, only sequence numbers")
}

/// What Envoy did with bytes of this direction.
fn verb(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "read",
        Direction::Outbound => "wrote",
    }
}

/// The comment for an event with missing bytes; `present` bytes are here.
pub(super) fn cut(data: &Data<'_>, present: u64) -> String {
    let verb = verb(data.direction);
    // The numbers count neither the whole event that the cut one was joined to nor the framing of a replayed body.
    let other = data.joined.map_or(0, |joined| joined.first) + data.framing;
    let what = if data.framing > 0 { "body bytes" } else { "bytes" };
    let present = present.saturating_sub(other);
    let mut comment = match data.length {
        TrueLength::Known(length) if data.as_string && !data.truncated => {
            let length = length - other;
            format!(
                "{present} of the {length} {what} that Envoy {verb} are here; JSON_BODY_AS_STRING replaced runs of \
                 binary data by spaces, so the bytes after them may come too early"
            )
        }
        TrueLength::Known(length) => {
            let length = length - other;
            format!("{present} of the {length} {what} that Envoy {verb} are here")
        }
        TrueLength::MoreThan(_) => format!(
            "{present} of the {what} that Envoy {verb} are here; how many there were is not known; one lost byte \
             stands for the rest"
        ),
        TrueLength::Unframed(_) => format!(
            "{present} of the {what} that Envoy {verb} are here; how many there were is not known; the made-up framing \
             ends with those that are here"
        ),
    };
    if data.withheld > 0 {
        let _ = write!(comment, "; {} of the others were left out, because they are not understood", data.withheld);
    }
    if let Some(JoinedEvents { first, time }) = data.joined {
        let _ = write!(
            comment,
            "; they came at {} and are joined to the {first} bytes before them, so that those are dissected",
            seconds(time)
        );
    }
    if data.recording_stopped {
        comment.push_str("; recording of this direction stopped here");
    }
    comment
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::HttpSide;

    fn escaped(text: &[u8]) -> ReplayNote {
        let fields = FieldNames { names: vec![Quote::new(text)], more: 0 };
        ReplayNote::Unfit(UnfitFields::Escaped(HttpSide::Response, fields))
    }

    #[test]
    fn quotes_of_a_trace_are_printable_ascii_of_one_line() {
        let harmful = "\x1b[2J\r\n\u{202e}\u{9b}'\"\\\0".as_bytes();
        let value = || Quote::new(harmful);
        let names = || FieldNames { names: vec![value(), Quote::new(&[0xff; 100])], more: 2 };
        for note in [
            ReplayNote::MadeUp(MadeUpField::StatusDigits(Some(value()))),
            ReplayNote::Unfit(UnfitFields::Escaped(HttpSide::Request, names())),
            ReplayNote::Unfit(UnfitFields::LeftOut(HttpSide::Request, names())),
            ReplayNote::ConnectionFields(HttpSide::Request, names()),
            ReplayNote::NoPlace { connect: true, name: ":path", value: value() },
        ] {
            let line = note.to_string();
            assert!(line.contains(r#"\x1b[2J\r\n\xe2\x80\xae\xc2\x9b\'\"\\\x00"#), "{line}");
            assert!(line.chars().all(|char| matches!(char, ' '..='~' | '…')), "{line}");
        }
    }

    #[test]
    fn names_show_where_they_begin_and_end() {
        let mut fields = FieldNames::default();
        for name in ["a", "", " b", "c\t", "d e", "f", "g", "h", "i", "j"] {
            fields.add(name.as_bytes());
        }
        assert_eq!(names(&fields), r#"a, "", " b", "c\t", d e, f, g, h and 2 more"#);
        assert_eq!(escaped(&[b'x'; 65]).to_string(), format!("escaped in the response: {}…", "x".repeat(64)));
    }

    #[test]
    fn lines_about_replayed_http_stop_where_a_comment_is_full() {
        assert_eq!(replayed(&[]), "");
        let few = replayed(&[escaped(b"a"), escaped(b"b")]);
        assert_eq!(few, "escaped in the response: a\nescaped in the response: b");
        let many = vec![escaped(&[0; 64]); 1000];
        let lines = replayed(&many);
        assert!(lines.len() < MAX_NOTES + 1 + MORE_NOTES.len(), "{} bytes", lines.len());
        assert_eq!((lines.matches(MORE_NOTES).count(), lines.lines().last()), (1, Some(MORE_NOTES)));
        // The replay has left notes out itself.
        assert_eq!(replayed(&[escaped(b"a"), ReplayNote::More]), format!("escaped in the response: a\n{MORE_NOTES}"));
        assert_eq!(replayed(&[many, vec![ReplayNote::More]].concat()), lines);
    }
}
