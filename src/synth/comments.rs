//! The text of packet comments: what was made up around the tapped bytes, and which bytes are missing.
//!
//! Comments call a setting what the user calls it. The caller gives these names in [`SettingNames`].

use std::fmt::Write as _;

use super::{FlowIdentity, SynthOptions, TcpMode};
use crate::{
    timeline::{
        AddressNote, Data, Direction, HttpOpening, JoinedEvents, Opening, Other, PREFACE, Role, TimesFrom, TrueLength,
    },
    trace::{Nanos, Owner},
    untrusted,
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

/// The comment for the first packet of a connection, or of an exchange that continues one.
pub(super) fn first(options: &SynthOptions, identity: &FlowIdentity<'_>) -> String {
    let Opening { trace_id, buffered, role, role_given, times, http, .. } = identity.opening;
    let given = if *role_given { format!("{}: ", options.names.role) } else { String::new() };
    let opener = match role {
        Role::Downstream => "the remote side",
        Role::Upstream => "Envoy",
    };
    let mut comment = format!(
        "trace {}, trace_id {trace_id}, {}, {} ({given}{opener} opened the connection)",
        untrusted::one_line(identity.trace_file),
        if *buffered { "buffered" } else { "streamed" },
        role.word(),
    );
    if let Some(HttpOpening { version, .. }) = http {
        // Writing to a String cannot fail, here and below.
        let _ = write!(
            comment,
            "\nHTTP/{} replayed from an HTTP tap trace: fields and bodies are recorded, their framing is made up",
            if *version == 2 { "2" } else { "1.1" },
        );
    }
    comment.push_str("\nsynthesized: Ethernet, IP and TCP headers, sequence numbers");
    if options.tcp == TcpMode::Full {
        comment.push_str(", handshake, acknowledgements, close");
    }
    if *times != TimesFrom::Recorded {
        comment.push_str("\nthe trace has no time for the beginning of this connection; it is made up");
    }
    let from = match times {
        TimesFrom::Recorded if http.is_some() => {
            comment.push_str("\ntimes between the recorded ones are made up");
            None
        }
        TimesFrom::Recorded => None,
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
    if let Some(HttpOpening { end_assumed, notes, .. }) = http {
        if *end_assumed {
            comment.push_str("\nthe trace does not say where the exchange ends; its last segment is taken for the end");
        }
        if !notes.is_empty() {
            let _ = write!(comment, "\n{notes}");
        }
    }
    for note in &identity.endpoints.notes {
        let _ = write!(comment, "\n{}", untrusted::one_line(&address(options.names, note)));
    }
    comment
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
                Other::Connection => "another connection with these addresses is open at the same time",
            };
            format!("{why}; client port made up: {} for {}", new.port(), old.port())
        }
    }
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
    let present = present - other;
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
