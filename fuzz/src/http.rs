//! HTTP tap traces replayed, and the bytes read again as HTTP: whatever a trace holds, nothing in it may end a line, a
//! head or a frame where the replay did not.

use std::path::Path;

use loona_hpack::Decoder;
use tap2pcap::{
    input::{Advance, Source},
    timeline::{EntryKind, Timelines, TrueLength},
    trace::{Code, Findings},
};

use crate::{convert::Plan, pieces::InPieces};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection showed, by direction of the client: request first.
#[derive(Default)]
struct Connection {
    version: Option<u8>,
    client: usize,
    sides: [DirectionTotals; 2],
}

/// The bytes of one side up to the first that is missing.
#[derive(Default)]
struct DirectionTotals {
    bytes: Vec<u8>,
    cut: bool,
}

/// Replays `trace` and reads what comes of it.
pub fn replay(plan: &Plan, trace: &[u8]) {
    let reader = InPieces::new(trace, plan.pieces);
    let source = Source::from_reader(Path::new("path_0"), reader, plan.input).expect("not empty, of a given encoding");
    let mut timelines = Timelines::new(source, plan.timeline);
    let mut findings = Findings::default();
    let mut open: Vec<Option<Connection>> = Vec::new();
    let mut over = Vec::new();
    // Without a head, a body goes as it is; of one that is cut off, nothing is said.
    let mut headless = false;
    loop {
        let advance = timelines.advance(&mut findings);
        headless |= findings
            .take()
            .iter()
            .any(|finding| [Code::MissingHeader, Code::OutOfOrder, Code::CutOff].contains(&finding.code()));
        match advance {
            Advance::Message => {}
            Advance::NeedInput => {
                timelines.fill(&mut findings);
                continue;
            }
            Advance::End => break,
        }
        let entry = timelines.entry().expect("there is one after Message");
        if open.len() <= entry.connection.index() {
            open.resize_with(entry.connection.index() + 1, || None);
        }
        let place = &mut open[entry.connection.index()];
        match entry.kind {
            EntryKind::Opened => {
                let opening = timelines.opening(entry.connection).expect("the current entry is its");
                assert!(place.is_none());
                *place = Some(Connection {
                    version: opening.http.as_ref().map(|http| http.version),
                    client: opening.role.client_direction().index(),
                    ..Connection::default()
                });
            }
            EntryKind::Data(data) => {
                let connection = place.as_mut().expect("opened");
                let side = &mut connection.sides[data.direction.index()];
                assert!(data.framing <= data.payload.len() as u64);
                if connection.version == Some(2) {
                    whole_frames(data.payload, data.length);
                }
                if !side.cut {
                    side.bytes.extend_from_slice(data.payload);
                }
                let present = data.payload.len() as u64;
                side.cut |= ![TrueLength::Known(present), TrueLength::Unframed(present)].contains(&data.length);
            }
            EntryKind::Gap { direction, .. } => {
                place.as_mut().expect("opened").sides[direction.index()].cut = true;
            }
            EntryKind::Closed { .. } | EntryKind::Abandoned => over.extend(place.take()),
        }
    }
    assert!(open.iter().all(Option::is_none), "every connection ends");
    for connection in over {
        let [request, response] =
            [&connection.sides[connection.client], &connection.sides[1 - connection.client]].map(|side| side);
        match connection.version {
            Some(2) => {
                frames(request, request.bytes.strip_prefix(PREFACE).expect("a client begins with the preface"));
                frames(response, &response.bytes);
            }
            Some(1) if !headless => {
                if !request.bytes.is_empty() {
                    request_head(&request.bytes);
                }
                if !response.bytes.is_empty() {
                    response_head(&response.bytes);
                }
            }
            _ => {}
        }
    }
}

/// An entry of HTTP/2 ends where a frame ends, so that another exchange's entry can follow it.
fn whole_frames(payload: &[u8], length: TrueLength) {
    let (mut rest, mut there) = (payload.strip_prefix(PREFACE).unwrap_or(payload), payload.len() as u64);
    while let Some((head, after)) = rest.split_first_chunk::<9>() {
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        there += len.saturating_sub(after.len()) as u64;
        rest = &after[len.min(after.len())..];
    }
    assert!(rest.is_empty(), "the head of a frame is cut");
    // One byte stands for those of which nobody knows how many they were.
    let lengths =
        [TrueLength::Known(there), TrueLength::Unframed(there), TrueLength::MoreThan(there.saturating_sub(1))];
    assert!(lengths.contains(&length), "{there} {length:?}");
}

/// RFC 9113 sections 4.1 and 6, as far as one exchange goes.
fn frames(side: &DirectionTotals, mut rest: &[u8]) {
    let mut block = Vec::new();
    let mut continues = false;
    let mut first = true;
    while !rest.is_empty() {
        let Some((head, after)) = rest.split_first_chunk::<9>() else {
            assert!(side.cut, "a frame's head is cut");
            return;
        };
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let Some((body, after)) = after.split_at_checked(len) else {
            assert!(side.cut, "a frame is cut");
            return;
        };
        rest = after;
        assert!(len <= 16_384, "no SETTINGS allow larger frames");
        assert_eq!(first, kind == 4 && flags == 0, "SETTINGS come first, and once");
        assert_eq!(continues, kind == 9, "CONTINUATION follows a block that is not over, and nothing else does");
        first = false;
        match (kind, stream) {
            (0, 1) => {}
            (1 | 9, 1) => {
                block.extend_from_slice(body);
                continues = flags & 4 == 0;
                if !continues {
                    // Blocks of other exchanges may stand between two of this one: none refers to another.
                    fields(&block);
                    block.clear();
                }
            }
            (4, 0) => assert_eq!(len, if flags == 1 { 0 } else { len / 6 * 6 }),
            (8, 0 | 1) => assert_eq!(len, 4),
            other => panic!("a frame of {other:?}"),
        }
    }
    assert!(!continues);
}

fn fields(block: &[u8]) {
    let fields = Decoder::new().decode(block).expect("HPACK");
    for (name, value) in &fields {
        let forbidden: [&[u8]; 5] =
            [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];
        assert!(!forbidden.contains(&&name[..]) && (&name[..] != b"te" || value[..].eq_ignore_ascii_case(b"trailers")));
        let token = name.strip_prefix(b":").unwrap_or(name);
        assert!(is_token(token), "{}", name.escape_ascii());
    }
    let unsafe_byte = |byte: &u8| [b'\r', b'\n', 0].contains(byte);
    for (name, value) in &fields {
        assert!(!name.iter().any(|byte| unsafe_byte(byte) || byte.is_ascii_uppercase()), "{}", name.escape_ascii());
        assert!(!value.iter().any(unsafe_byte), "{}", value.escape_ascii());
    }
    assert!(fields.is_sorted_by_key(|(name, _)| name.first() != Some(&b':')), "pseudo-headers come first");
}

fn request_head(bytes: &[u8]) {
    let line = head(bytes);
    let parts: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { panic!("a request line of {}", line.escape_ascii()) };
    assert!(is_token(method) && !target.is_empty() && version == b"HTTP/1.1");
}

fn response_head(bytes: &[u8]) {
    let line = head(bytes);
    let status = line.strip_prefix(b"HTTP/1.1 ").expect("a status line");
    assert!(status[..3].iter().all(u8::is_ascii_digit) && status[3] == b' ');
}

/// RFC 9112 section 2.1: the first line, after checking the others up to the empty one.
fn head(bytes: &[u8]) -> &[u8] {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head has an end");
    let mut lines = bytes[..end].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().expect("split gives one at least");
    for line in lines.clone().chain([first]) {
        assert!(!line.contains(&b'\r') && !line.contains(&0), "{}", line.escape_ascii());
    }
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').expect("a field has a name");
        assert!(is_token(&line[..colon]), "{}", line.escape_ascii());
    }
    first
}

/// RFC 9110 section 5.6.2.
fn is_token(name: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(is_tchar)
}
