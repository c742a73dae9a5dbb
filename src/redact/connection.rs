//! One connection, whose bytes are written again.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Counts, Kind, Redaction,
    head::{Head, Reframing, chunk_line},
    header_block::{self, BlockEncoder},
    limits::Limits,
    message::{BodyFields, Message},
    out::Out,
    web_socket::WebSocketWriter,
};
use crate::{
    http::{
        BlockField, FrameHead, Framing, HeaderBlock, Representation, Wire, WireKind, WirePart,
        frame::{
            DATA, DEFAULT_MAX_LEN, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, PRIORITY_UPDATE, RST_STREAM, SETTINGS,
            WINDOW_UPDATE,
        },
    },
    timeline::Direction,
    trace::HttpSide,
};

/// How many streams of a connection may ask for more than HTTP.
const MAX_WISHES: usize = 16_384;

/// What a stream carries besides HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    WebSocket,
    Tunnel,
}

/// What a stream carries in one direction.
#[derive(Debug)]
enum Stream {
    Message(Message),
    WebSocket(Box<WebSocketWriter>),
    /// Another protocol, which nobody reads.
    Tunnel,
}

/// A stream that is open in one direction.
#[derive(Debug)]
struct OpenStream {
    carries: Stream,
    /// What [`Half::losses`] was when the last of its bytes came.
    losses: u64,
    /// Says by its existence that there is a stream.
    _permit: Arc<()>,
}

/// The body of an HTTP/1 message.
#[derive(Debug)]
enum Body1 {
    /// As it is framed.
    Same(Message),
    /// It comes in chunks, which are made up if the flag is not set.
    Chunks(Message, bool),
    /// It was written with its head.
    Written,
}

/// One direction.
#[derive(Debug, Default)]
struct Half {
    /// The current message of HTTP/1.
    body: Option<Body1>,
    web_socket: Option<Box<WebSocketWriter>>,
    /// Bytes are missing since the last head of HTTP/1.
    has_lost: bool,
    /// A made-up chunk whose bytes are missing has not ended.
    owes_end: bool,
    streams: BTreeMap<u32, OpenStream>,
    /// The stream of the DATA frame whose bytes come.
    data: Option<u32>,
    /// The stream of the last DATA frame.
    last_data: u32,
    encoder: BlockEncoder,
    /// How often bytes could not be read that may have been of any stream.
    losses: u64,
    /// The last stream whose head was seen, if none before it was missed.
    last_stream: u32,
}

/// A connection that is being written.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) trace_id: u64,
    pub(super) counts: Counts,
    /// Nothing tells the true lengths of its bytes.
    pub(super) is_buffered: bool,
    /// Bytes are from JSON_BODY_AS_STRING, which shortens what is not text, and nothing tells how many there were.
    pub(super) as_string: bool,
    /// More streams asked for more than HTTP than are remembered.
    has_forgotten: bool,
    halves: [Half; 2],
    /// Streams that ask for more than HTTP.
    wishes: BTreeMap<u32, (Wish, [bool; 2])>,
}

/// What the parts of an entry are written with.
struct Writer<'a> {
    wire: &'a Wire,
    redaction: &'a Redaction,
    /// The entry is a gap, which is written by itself.
    is_gap: bool,
    limits: &'a Limits,
    out: &'a mut Out,
}

impl Connection {
    pub(super) fn new(trace_id: u64, is_buffered: bool) -> Self {
        Self {
            trace_id,
            counts: Counts::default(),
            is_buffered,
            as_string: false,
            has_forgotten: false,
            halves: Default::default(),
            wishes: BTreeMap::new(),
        }
    }

    /// Takes the parts of an entry.
    pub(super) fn take(&mut self, wire: &Wire, redaction: &Redaction, is_gap: bool, limits: &Limits, out: &mut Out) {
        let mut writer = Writer { wire, redaction, is_gap, limits, out };
        for (index, part) in wire.parts().iter().enumerate() {
            self.part(&mut writer, index, part);
        }
    }

    /// The last bytes of a direction were cut. The framing of a replayed body may not show it.
    pub(super) fn cut_body(&mut self, direction: Direction) {
        let half = self.half(direction);
        if let Some(Body1::Same(message) | Body1::Chunks(message, _)) = &mut half.body {
            message.lose();
        }
        // The made-up frame of a replayed body is whole even if its part of the body is not.
        if let Some(Stream::Message(message)) = half.stream(half.last_data) {
            message.lose();
        }
    }

    fn half(&mut self, direction: Direction) -> &mut Half {
        &mut self.halves[direction.index()]
    }

    fn part(&mut self, writer: &mut Writer<'_>, index: usize, part: &WirePart) {
        let bytes = writer.wire.bytes(part);
        let direction = part.direction;
        match &part.kind {
            WireKind::Framing => {
                // The chunks of a body that is written without its coding are made up.
                if !self.half(direction).is_in_chunks() {
                    writer.out.write(direction, bytes);
                }
            }
            WireKind::Proxy => self.proxy(writer, direction, bytes),
            WireKind::Head(framing) => self.head(writer, index, part, *framing),
            WireKind::CutHead => self.cut_head(writer, part),
            WireKind::ChunkLine => self.chunk_line(writer, direction, bytes),
            WireKind::Trailers => self.trailers(writer, direction, bytes),
            WireKind::Body => self.body(writer, direction, bytes),
            WireKind::MessageEnd => self.end_message(writer, direction),
            WireKind::WebSocket => self.web_socket(writer, part),
            WireKind::Frame(head) => self.frame(writer, direction, *head, bytes),
            WireKind::HeaderBlock(block) => self.header_block(writer, part, block),
            WireKind::DataHead(head) => self.begin_data(writer, direction, *head),
            WireKind::Data(head) => self.data(writer, index, direction, *head, bytes),
            WireKind::PadLength => {
                if !self.half(direction).is_decoded() {
                    writer.out.write(direction, bytes);
                }
            }
            WireKind::Padding => {
                if !self.half(direction).is_decoded() {
                    // It is zeros (RFC 9113 section 6.1); nobody says what anything else is.
                    writer.out.room(direction, |out| out.resize(out.len() + bytes.len(), 0));
                }
            }
            WireKind::DataEnd(head) => self.end_data(writer, direction, *head),
            WireKind::Lost { bytes, adrift } => {
                self.lose(writer, direction, *bytes);
                self.half(direction).losses += u64::from(*adrift);
            }
            WireKind::Unreadable(count) => {
                self.withhold(writer, direction, *count);
                self.half(direction).go_adrift();
            }
            WireKind::Unknown => {
                self.unknown(writer, direction, bytes);
                self.half(direction).go_adrift();
            }
        }
    }

    /// Bytes that nobody understands.
    fn unknown(&mut self, writer: &mut Writer<'_>, direction: Direction, bytes: &[u8]) {
        if writer.redaction.keep_unknown {
            writer.out.write(direction, bytes);
        } else {
            self.withhold(writer, direction, bytes.len() as u64);
        }
    }

    fn withhold(&mut self, writer: &mut Writer<'_>, direction: Direction, bytes: u64) {
        self.counts.add(Kind::UnknownByte, bytes);
        writer.out.withhold(direction, bytes);
    }

    fn proxy(&mut self, writer: &mut Writer<'_>, direction: Direction, bytes: &[u8]) {
        let mut header = bytes.to_vec();
        writer.redaction.proxy_header(&mut header, &mut self.counts);
        writer.out.write(direction, &header);
    }

    fn head(&mut self, writer: &mut Writer<'_>, index: usize, part: &WirePart, framing: Framing) {
        let (direction, bytes) = (part.direction, writer.wire.bytes(part));
        let Some(head) = Head::new(part.side, bytes) else {
            self.withhold(writer, direction, bytes.len() as u64);
            self.half(direction).body = None;
            return;
        };
        let fields = head.body_fields();
        let rest = match framing {
            Framing::Length(_) => whole_body(writer.wire, index, direction),
            _ => None,
        };
        let may_decode = match framing {
            Framing::None | Framing::Unknown => false,
            Framing::Length(_) => head.has_one_length() && (rest.is_some() || !head.is_http10()),
            Framing::Chunked | Framing::UntilClose => true,
        };
        let permit = if may_decode { writer.limits.decoder(&fields, writer.out.bytes()) } else { None };
        let mut message = match self.as_string && !fields.is_text() {
            // What is not text is shorter than the head says, so that the body has taken in what follows it.
            true => Message::without_head(),
            false => Message::new(writer.redaction, &fields, permit),
        };
        let is_decoded = message.is_decoded();
        let mut body = Vec::new();
        let reframing = match (is_decoded, framing, rest) {
            // A response to HEAD has the coding of what would be its body.
            _ if framing == Framing::None => Reframing::Same,
            (true, Framing::Length(_), Some(parts)) => {
                for bytes in parts {
                    bound(writer, body.len(), &mut message);
                    message.data(bytes, &mut self.counts, &mut body);
                }
                message.end(&mut self.counts, &mut body);
                Reframing::Length(body.len() as u64)
            }
            (true, Framing::Length(_), None) => Reframing::Chunked,
            (true, ..) => Reframing::Decoded,
            (false, ..) if message.hides_coding() => Reframing::Masked,
            (false, ..) => Reframing::Same,
        };
        let edits = head.edits(writer.redaction, reframing, &mut self.counts);
        writer.out.room(direction, |out| edits.apply(head.bytes(), out));
        if let Reframing::Length(_) = reframing {
            writer.out.write(direction, &body);
        }
        let half = self.half(direction);
        half.owes_end = false;
        half.has_lost = false;
        if part.side == HttpSide::Request {
            // It may ask for HTTP/2, whose first stream it is then (RFC 7540 section 3.2).
            half.last_stream = half.last_stream.max(1);
        }
        half.body = match (reframing, framing) {
            (_, Framing::None | Framing::Unknown) => None,
            (Reframing::Length(_), _) => Some(Body1::Written),
            (Reframing::Chunked, _) => Some(Body1::Chunks(message, false)),
            (Reframing::Decoded, Framing::Chunked) => Some(Body1::Chunks(message, true)),
            _ => Some(Body1::Same(message)),
        };
    }

    fn cut_head(&mut self, writer: &mut Writer<'_>, part: &WirePart) {
        let bytes = writer.wire.bytes(part);
        self.half(part.direction).body = None;
        let whole = [bytes, b"\r\n"].concat();
        match Head::new(part.side, &whole) {
            Some(head) => {
                let edits = head.edits(writer.redaction, Reframing::Same, &mut self.counts);
                writer.out.room(part.direction, |out| {
                    edits.apply(head.bytes(), out);
                    out.truncate(out.len().saturating_sub(2));
                });
            }
            None => self.withhold(writer, part.direction, bytes.len() as u64),
        }
    }

    fn chunk_line(&mut self, writer: &mut Writer<'_>, direction: Direction, line: &[u8]) {
        let counts = &mut self.counts;
        match &mut self.halves[direction.index()].body {
            Some(Body1::Chunks(message, true)) => {
                // Chunks of the same body are made up. The last one has no bytes.
                if line.iter().take_while(|byte| byte.is_ascii_hexdigit()).all(|byte| *byte == b'0') {
                    let mut body = Vec::new();
                    message.end(counts, &mut body);
                    self.write_chunk(writer, direction, &body);
                    writer.out.write(direction, b"0\r\n");
                }
            }
            _ => {
                let mut masked = false;
                writer.out.room(direction, |out| masked = chunk_line(line, out));
                counts.add(Kind::UnknownByte, u64::from(masked));
            }
        }
    }

    fn trailers(&mut self, writer: &mut Writer<'_>, direction: Direction, bytes: &[u8]) {
        if bytes.len() <= 2 {
            writer.out.write(direction, bytes);
            return;
        }
        match Head::of_trailers(bytes) {
            Some(head) => {
                let edits = head.edits(writer.redaction, Reframing::Same, &mut self.counts);
                writer.out.room(direction, |out| edits.apply(head.bytes(), out));
            }
            None => self.withhold(writer, direction, bytes.len() as u64),
        }
    }

    fn body(&mut self, writer: &mut Writer<'_>, direction: Direction, bytes: &[u8]) {
        let counts = &mut self.counts;
        let half = &mut self.halves[direction.index()];
        match half.body.get_or_insert_with(|| Body1::Same(Message::without_head())) {
            Body1::Same(message) => {
                bound(writer, 0, message);
                writer.out.room(direction, |out| message.data(bytes, counts, out));
            }
            Body1::Chunks(message, _) => {
                bound(writer, 0, message);
                let mut body = Vec::new();
                message.data(bytes, counts, &mut body);
                self.write_chunk(writer, direction, &body);
            }
            Body1::Written => {}
        }
    }

    /// Writes a made-up chunk.
    fn write_chunk(&mut self, writer: &mut Writer<'_>, direction: Direction, bytes: &[u8]) {
        self.pay_end(writer, direction);
        if !bytes.is_empty() {
            writer.out.write(direction, format!("{:x}\r\n", bytes.len()).as_bytes());
            writer.out.write(direction, bytes);
            writer.out.write(direction, b"\r\n");
        }
    }

    /// Ends a made-up chunk whose bytes were missing.
    fn pay_end(&mut self, writer: &mut Writer<'_>, direction: Direction) {
        if std::mem::take(&mut self.half(direction).owes_end) {
            // A reader that misses the chunk's bytes would take a visible end for an empty line.
            writer.out.miss(direction, 2);
        }
    }

    fn end_message(&mut self, writer: &mut Writer<'_>, direction: Direction) {
        match self.half(direction).body.take() {
            Some(Body1::Same(mut message)) => {
                let counts = &mut self.counts;
                writer.out.room(direction, |out| message.end(counts, out));
            }
            Some(Body1::Chunks(mut message, false)) => {
                let mut body = Vec::new();
                message.end(&mut self.counts, &mut body);
                if std::mem::take(&mut self.half(direction).owes_end) {
                    writer.out.miss(direction, b"\r\n0\r\n\r\n".len() as u64);
                    return;
                }
                self.write_chunk(writer, direction, &body);
                writer.out.write(direction, b"0\r\n\r\n");
            }
            Some(Body1::Chunks(_, true) | Body1::Written) | None => {}
        }
    }

    fn web_socket(&mut self, writer: &mut Writer<'_>, part: &WirePart) {
        let bytes = writer.wire.bytes(part);
        let (counts, half) = (&mut self.counts, &mut self.halves[part.direction.index()]);
        let has_lost = std::mem::take(&mut half.has_lost);
        let frames = half.web_socket.get_or_insert_with(|| Box::new(WebSocketWriter::new(part.side)));
        if has_lost {
            frames.lose(0);
        }
        let mut withheld = 0;
        writer.out.room(part.direction, |out| withheld = frames.data(writer.redaction, bytes, counts, out));
        self.withhold(writer, part.direction, withheld as u64);
    }

    /// Bytes are not in the trace; 0 stands for an unknown number.
    fn lose(&mut self, writer: &mut Writer<'_>, direction: Direction, lost: u64) {
        let half = &mut self.halves[direction.index()];
        half.has_lost = half.web_socket.is_none();
        let mut held = 0;
        if let Some(frames) = &mut half.web_socket {
            held = frames.lose(lost);
        }
        let mut in_chunks = false;
        match &mut half.body {
            Some(Body1::Same(message)) => message.lose(),
            Some(Body1::Chunks(message, _)) => {
                message.lose();
                in_chunks = true;
            }
            Some(Body1::Written) | None => {}
        }
        let stream = half.data.unwrap_or_default();
        let in_data = match half.data.and_then(|stream| half.stream(stream)) {
            Some(Stream::Message(message)) => {
                message.lose();
                message.is_decoded()
            }
            Some(Stream::WebSocket(frames)) => {
                held += frames.lose(lost);
                false
            }
            Some(Stream::Tunnel) | None => false,
        };
        self.withhold(writer, direction, held as u64);
        if lost > 0 && in_chunks {
            self.pay_end(writer, direction);
            writer.out.write(direction, format!("{lost:x}\r\n").as_bytes());
            self.half(direction).owes_end = true;
        } else if lost > 0 && in_data {
            let len = u32::try_from(lost).unwrap_or(u32::MAX) & 0x00ff_ffff;
            let head = FrameHead::new(len, DATA, 0, stream);
            writer.out.write(direction, &head.to_bytes());
        }
        if !writer.is_gap {
            writer.out.miss(direction, lost);
        }
    }

    fn frame(&mut self, writer: &mut Writer<'_>, direction: Direction, head: FrameHead, payload: &[u8]) {
        let replaces_names = writer.redaction.addresses.is_some();
        writer.out.write(direction, &head.to_bytes());
        match head.kind {
            _ if !head.is_sound() => self.unknown(writer, direction, payload),
            WINDOW_UPDATE | PRIORITY => writer.out.write(direction, payload),
            // Both sides send the same bytes, which may be anything.
            PING => writer.out.room(direction, |out| out.resize(out.len() + payload.len(), b'*')),
            SETTINGS if are_settings(payload) => writer.out.write(direction, payload),
            RST_STREAM => {
                writer.out.write(direction, payload);
                self.end_stream(head.stream);
            }
            GOAWAY => {
                let (known, debug) = payload.split_at(payload.len().min(8));
                writer.out.write(direction, known);
                if !debug.is_empty() {
                    self.counts.add(Kind::Text, 1);
                    writer.out.room(direction, |out| out.resize(out.len() + debug.len(), b'*'));
                }
            }
            PRIORITY_UPDATE if !replaces_names && is_priority(payload) => writer.out.write(direction, payload),
            _ => self.unknown(writer, direction, payload),
        }
    }

    /// One direction of a stream is over.
    fn end_half(&mut self, direction: Direction, stream: u32) -> Option<OpenStream> {
        if let Some((_, ended)) = self.wishes.get_mut(&stream) {
            ended[direction.index()] = true;
            if *ended == [true; 2] {
                self.wishes.remove(&stream);
            }
        }
        self.half(direction).streams.remove(&stream)
    }

    fn end_stream(&mut self, stream: u32) {
        self.halves.iter_mut().for_each(|half| drop(half.streams.remove(&stream)));
        self.wishes.remove(&stream);
    }

    fn header_block(&mut self, writer: &mut Writer<'_>, part: &WirePart, block: &HeaderBlock) {
        let direction = part.direction;
        let Some(first) = block.frames.first() else { return };
        if !block.is_sound || !writer.limits.may_grow(writer.out.bytes()) {
            self.withhold_block(writer, direction, block);
            return;
        }
        let promises = first.head.kind != HEADERS;
        let stream = first.head.stream;
        let is_trailers = self.half(direction).streams.contains_key(&stream);
        let ends = !promises && first.head.has(END_STREAM);
        let mut decoded = false;
        let mut hides_coding = false;
        if !promises && !is_trailers {
            let mut head = BlockHead::of(writer.wire, block);
            head.is_partial |= block.cut.is_some();
            if !head.is_informational {
                (decoded, hides_coding) = self.begin_stream(writer, part, stream, &head, ends);
            }
        }
        if is_trailers && let Some(Stream::Message(message)) = self.halves[direction.index()].stream(stream) {
            let mut body = Vec::new();
            message.end(&mut self.counts, &mut body);
            write_data(writer, direction, stream, &body, false);
        }
        let mut encoded = Vec::new();
        for field in writer.wire.fields(block) {
            let changed = match (field.name, field.value) {
                (Some(b"content-length"), _) if decoded => continue,
                (Some(b"content-encoding"), Some(_)) if decoded || hides_coding => Some(b"identity".to_vec()),
                (Some(name), Some(value)) => header_block::redacted(writer.redaction, name, value, &mut self.counts),
                _ => None,
            };
            self.half(direction).encoder.field(field, changed, block.cut.is_some(), &mut encoded);
        }
        if encoded.is_empty() {
            // None of its fields is known.
            self.withhold_block(writer, direction, block);
        } else {
            writer.out.room(direction, |out| header_block::frames(&block.frames, &encoded, block.cut, out));
        }
        if ends {
            drop(self.end_half(direction, stream));
        }
    }

    fn withhold_block(&mut self, writer: &mut Writer<'_>, direction: Direction, block: &HeaderBlock) {
        self.counts.add(Kind::HeaderBlock, 1);
        for frame in &block.frames {
            writer.out.write(direction, &frame.head.to_bytes());
            writer.out.write(direction, &frame.prefix);
            writer.out.withhold(direction, (frame.fragment + frame.padding) as u64);
        }
    }

    /// A head opens one direction of a stream. Returns whether the body's coding is taken off, and whether the head must
    /// not say it.
    fn begin_stream(
        &mut self,
        writer: &Writer<'_>,
        part: &WirePart,
        stream: u32,
        head: &BlockHead,
        ends: bool,
    ) -> (bool, bool) {
        if let Some(wish) = head.wish
            && part.side == HttpSide::Request
        {
            if self.wishes.len() < MAX_WISHES {
                self.wishes.insert(stream, (wish, [false; 2]));
            } else {
                self.has_forgotten = true;
            }
        }
        if part.side == HttpSide::Request {
            let requests = self.half(part.direction);
            requests.last_stream = requests.last_stream.max(stream);
        }
        let wish = self.wishes.get(&stream).map(|(wish, _)| *wish);
        let wish = wish
            .or(self.has_forgotten.then_some(Wish::Tunnel))
            .filter(|_| part.side == HttpSide::Request || head.is_success)
            .or(head.wish);
        if ends || !writer.limits.has_room_for_stream() {
            // Without room, the bytes are those of a message without head.
            return (false, false);
        }
        // Without its request, nobody knows whether it opens a tunnel.
        let requests = &mut self.halves[1 - part.direction.index()];
        let may_be_tunnel = part.side == HttpSide::Response
            && !head.has_type
            && (requests.losses > 0 || stream > requests.last_stream)
            && stream % 2 == 1;
        let value = match wish {
            _ if head.is_partial || may_be_tunnel || (head.is_get && !head.has_type) => {
                Stream::Message(Message::without_head())
            }
            Some(Wish::WebSocket) => Stream::WebSocket(Box::new(WebSocketWriter::new(part.side))),
            Some(Wish::Tunnel) => Stream::Tunnel,
            None => {
                let message =
                    Message::new(writer.redaction, &head.body, writer.limits.decoder(&head.body, writer.out.bytes()));
                Stream::Message(message)
            }
        };
        let coding = match &value {
            Stream::Message(message) => (message.is_decoded(), message.hides_coding()),
            Stream::WebSocket(_) | Stream::Tunnel => (false, false),
        };
        self.half(part.direction).open(stream, value, writer.limits);
        coding
    }

    fn begin_data(&mut self, writer: &mut Writer<'_>, direction: Direction, head: FrameHead) {
        let half = self.half(direction);
        (half.data, half.last_data) = (Some(head.stream), head.stream);
        if !half.streams.contains_key(&head.stream) {
            half.open(head.stream, Stream::Message(Message::without_head()), writer.limits);
        }
        if !half.is_decoded() {
            writer.out.write(direction, &head.to_bytes());
        }
    }

    fn data(&mut self, writer: &mut Writer<'_>, index: usize, direction: Direction, head: FrameHead, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let (counts, half) = (&mut self.counts, &mut self.halves[direction.index()]);
        match half.stream(head.stream) {
            Some(Stream::Message(message)) if message.is_decoded() => {
                bound(writer, 0, message);
                let mut body = Vec::new();
                message.data(bytes, counts, &mut body);
                let parts = writer.wire.parts().get(index + 1..).unwrap_or_default();
                let mut after = parts.iter().filter(|part| part.direction == direction);
                let is_last = after.find(|part| !matches!(part.kind, WireKind::Padding)).is_some_and(
                    |part| matches!(&part.kind, WireKind::DataEnd(end) if *end == head && end.has(END_STREAM)),
                );
                if is_last {
                    message.end(counts, &mut body);
                    half.streams.remove(&head.stream);
                }
                write_data(writer, direction, head.stream, &body, is_last);
            }
            Some(Stream::Message(message)) => writer.out.room(direction, |out| message.data(bytes, counts, out)),
            Some(Stream::WebSocket(frames)) => {
                let mut withheld = 0;
                writer.out.room(direction, |out| withheld = frames.data(writer.redaction, bytes, counts, out));
                self.withhold(writer, direction, withheld as u64);
            }
            Some(Stream::Tunnel) => self.unknown(writer, direction, bytes),
            None => {
                counts.add(Kind::Body, 1);
                writer.out.room(direction, |out| out.resize(out.len() + bytes.len(), b'*'));
            }
        }
    }

    fn end_data(&mut self, writer: &mut Writer<'_>, direction: Direction, head: FrameHead) {
        self.half(direction).data = None;
        if !head.has(END_STREAM) {
            return;
        }
        if let Some(OpenStream { carries: Stream::Message(mut message), .. }) = self.end_half(direction, head.stream)
            && message.is_decoded()
        {
            let mut body = Vec::new();
            message.end(&mut self.counts, &mut body);
            write_data(writer, direction, head.stream, &body, true);
        }
    }
}

/// Whether a payload of SETTINGS has only parameters that exist (RFC 9113 section 6.5.2 and later ones) or that senders
/// make up so that receivers learn to ignore them (draft-bishop-httpbis-grease).
fn are_settings(payload: &[u8]) -> bool {
    let (settings, rest) = payload.as_chunks::<6>();
    rest.is_empty()
        && settings.iter().all(|[high, low, ..]| {
            let number = u16::from_be_bytes([*high, *low]);
            (1..=16).contains(&number) || number & 0x0f0f == 0x0a0a || number & 0xf000 == 0xf000
        })
}

/// Whether a payload is a stream and a short priority (RFC 9218 section 7.1).
fn is_priority(payload: &[u8]) -> bool {
    payload.len() <= 64
        && payload.get(4..).is_some_and(|priority| priority.iter().all(|byte| matches!(byte, b' '..=b'~')))
}

/// Stops unpacking a body if so much was written already that it may be an attack; `more` bytes are about to be.
fn bound(writer: &Writer<'_>, more: usize, message: &mut Message) {
    if message.is_decoded() && !writer.limits.may_grow(writer.out.bytes() + more) {
        message.go_adrift();
    }
}

/// Writes made-up DATA frames.
fn write_data(writer: &mut Writer<'_>, direction: Direction, stream: u32, body: &[u8], ends: bool) {
    let mut rest = body;
    loop {
        let (payload, after) = rest.split_at(rest.len().min(DEFAULT_MAX_LEN as usize));
        rest = after;
        let ends = ends && rest.is_empty();
        if payload.is_empty() && !ends {
            return;
        }
        let flags = if ends { END_STREAM } else { 0 };
        let head = FrameHead::new(payload.len() as u32, DATA, flags, stream);
        writer.out.write(direction, &head.to_bytes());
        writer.out.write(direction, payload);
        if rest.is_empty() {
            return;
        }
    }
}

/// The pieces of the body after the head with this index, if all of it came with the head.
fn whole_body(wire: &Wire, index: usize, direction: Direction) -> Option<Vec<&[u8]>> {
    let mut pieces = Vec::new();
    let after = wire.parts().get(index + 1..)?;
    for part in after.iter().filter(|part| part.direction == direction) {
        match part.kind {
            WireKind::Body => pieces.push(wire.bytes(part)),
            WireKind::MessageEnd => return Some(pieces),
            _ => return None,
        }
    }
    None
}

/// What a header block says besides its fields.
#[derive(Debug, Default)]
struct BlockHead {
    body: BodyFields,
    wish: Option<Wish>,
    is_informational: bool,
    is_success: bool,
    /// Fields are missing, which may say what the body is.
    is_partial: bool,
    /// It says what the body is.
    has_type: bool,
    /// It is a request that has no body, unless it asked for another protocol.
    is_get: bool,
}

impl BlockHead {
    fn of(wire: &Wire, block: &HeaderBlock) -> Self {
        let mut head = Self::default();
        for BlockField { name, value, form } in wire.fields(block) {
            if matches!(form.representation, Representation::TableSize(_)) {
                continue;
            }
            let (Some(name), Some(value)) = (name, value) else {
                head.is_partial = true;
                continue;
            };
            head.has_type |= name == b"content-type";
            match (name, value) {
                (b":method", b"GET") => head.is_get = true,
                (b":method", b"CONNECT") => {
                    head.wish.get_or_insert(Wish::Tunnel);
                }
                (b":protocol", b"websocket") => head.wish = Some(Wish::WebSocket),
                // Only an HTTP tap has it here, whose exchange is replayed in another version than it had.
                (b":status", b"101") => head.wish = Some(Wish::Tunnel),
                (b":status", [b'1', ..]) => head.is_informational = true,
                (b":status", [b'2', ..]) => head.is_success = true,
                _ => head.body.look(name, value),
            }
        }
        head
    }
}

impl Half {
    /// Bytes came that could not be read, and may have been of any message.
    fn go_adrift(&mut self) {
        self.body = None;
        self.losses += 1;
    }

    /// A stream whose bytes come. If any were lost that may have been its own, it knows.
    fn stream(&mut self, stream: u32) -> Option<&mut Stream> {
        let open = self.streams.get_mut(&stream)?;
        if std::mem::replace(&mut open.losses, self.losses) != self.losses {
            match &mut open.carries {
                Stream::Message(message) => message.go_adrift(),
                Stream::WebSocket(frames) => drop(frames.lose(0)),
                Stream::Tunnel => {}
            }
        }
        Some(&mut open.carries)
    }

    fn open(&mut self, stream: u32, carries: Stream, limits: &Limits) {
        if let Some(permit) = limits.stream() {
            self.streams.insert(stream, OpenStream { carries, losses: self.losses, _permit: permit });
        }
    }

    /// Whether the chunks of the current HTTP/1 body are made up.
    fn is_in_chunks(&self) -> bool {
        matches!(self.body, Some(Body1::Chunks(..)))
    }

    /// Whether the body of the current DATA frame's stream is written without its content coding.
    fn is_decoded(&self) -> bool {
        match self.data.and_then(|stream| self.streams.get(&stream)).map(|open| &open.carries) {
            Some(Stream::Message(message)) => message.is_decoded(),
            Some(Stream::WebSocket(_) | Stream::Tunnel) | None => false,
        }
    }
}
