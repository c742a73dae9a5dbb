//! One connection as packets.
//!
//! Each direction is a half with its own sequence number. Every packet acknowledges all that the other half has sent,
//! so data carries the acknowledgement if the other side speaks next. Otherwise a pure acknowledgement is sent.

mod preface;

use std::io;

use self::preface::Piece;
use super::{
    Packet, PacketSink, SeqNumber, SynthOptions, TcpMode, TruncatedMode, comments,
    headers::{ACK, FIN, PSH, PacketFields, SCALED_WINDOW, SYN, SYN_WINDOW, Template, max_segment},
    multiplex::ConnectionShared,
};
use crate::{
    pairing::Certainty,
    timeline::{Data, Direction, Endpoints, Opening, StableHasher, TrueLength},
    trace::Nanos,
};

/// How many packets without payload, or zero bytes, may stand for lost bytes. A hostile trace can claim to have lost
/// any number. So a connection has a budget that grows with each event; beyond it, sequence numbers are skipped. The
/// budget always suffices for an event of 8 MiB, or of 256 KiB with [`TruncatedMode::Zero`].
const LOST_SEGMENTS: u64 = 1024;
const LOST_SEGMENTS_PER_EVENT: u64 = 128;
const ZEROS: u64 = 256 << 10;

/// The limit for a replayed body, whose content-length may be any number. If it needs more packets than these, none is
/// written.
const LOST_SEGMENTS_OF_BODY: u64 = 16;

/// How long a receiver waits for data to carry its acknowledgement, in nanoseconds. Linux waits 40 ms; RFC 1122 section
/// 4.2.3.2 allows 500 ms.
const DELAYED_ACK: Nanos = 40_000_000;

/// What identifies a connection: its packets are derived from this, and its first packet's comment tells it.
#[derive(Clone, Copy, Debug)]
pub struct FlowIdentity<'a> {
    /// The name of the trace file as the user gave it, for the comment.
    pub trace_file: &'a str,
    /// The trace file's name without directory and suffix, so that it does not depend on the path or the encoding.
    pub source: &'a str,
    /// What the timeline knows.
    pub opening: &'a Opening,
    /// The addresses.
    pub endpoints: &'a Endpoints,
    /// The time of the first entry.
    pub time: Nanos,
    /// The connections on Envoy's other side that carried the same requests.
    pub paired: &'a [PairedConnection],
}

/// A connection on Envoy's other side that carried some of the same requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairedConnection {
    /// The name of its trace file, for the comment.
    pub trace_file: String,
    /// Its `trace_id`.
    pub trace_id: u64,
    /// Whether it is Envoy's connection with an upstream.
    pub is_upstream: bool,
    /// How many requests both carried.
    pub requests: u64,
    /// How sure that is of the least sure of them.
    pub certainty: Certainty,
}

#[derive(Debug)]
struct HalfConnection {
    headers: Template,
    next: SeqNumber,
    /// The other half has acknowledged everything before this number.
    acknowledged: SeqNumber,
    /// The window in the other half's last packet: how many bytes after [`HalfConnection::acknowledged`] it has room
    /// for.
    window: u32,
    /// When the first unacknowledged byte was sent.
    unacknowledged_since: Nanos,
    closed: bool,
    /// Whole events up to this size take the fast path. It is 0 while HTTP/2's preface may come or pieces of it are
    /// held.
    plain: u16,
}

/// What differs from packet to packet.
#[derive(Clone, Copy, Debug, Default)]
struct Segment<'a> {
    flags: u8,
    captured: &'a [u8],
    /// Bytes of payload on the wire.
    payload_len: u16,
    comment: &'a str,
}

/// A connection being written.
#[derive(Debug)]
pub struct Flow {
    options: SynthOptions,
    halves: [HalfConnection; 2],
    client: Direction,
    segment: u16,
    /// What the client has sent while it may become HTTP/2's preface. It is written when more comes or the connection
    /// ends.
    held: Vec<Piece>,
    /// The bytes are replayed from an HTTP tap trace.
    replayed: bool,
    /// The comment of the next packet that is written.
    first_comment: Option<String>,
    /// How many more packets and zero bytes may stand for lost bytes.
    lost_segments: u64,
    lost_zeros: u64,
    /// The state that the exchanges of an HTTP/2 connection share.
    pub(super) shared: ConnectionShared,
}

impl Flow {
    /// Creates a connection that has no packets yet.
    #[must_use]
    pub fn new(options: SynthOptions, identity: &FlowIdentity<'_>) -> Self {
        let Endpoints { local, remote, .. } = identity.endpoints;
        let v6 = local.is_ipv6();
        let segment = options.mss.unwrap_or(u16::MAX).clamp(1, max_segment(v6));
        let client = identity.opening.role.client_direction();
        let number = initial_sequence_number(identity);
        let half = |direction: Direction| {
            let (from, to) = match direction {
                Direction::Inbound => (*remote, *local),
                Direction::Outbound => (*local, *remote),
            };
            let first = number(direction);
            HalfConnection {
                headers: Template::new(from, to, segment),
                next: first,
                acknowledged: first,
                window: SYN_WINDOW,
                unacknowledged_since: identity.time,
                closed: false,
                plain: if direction == client && options.tcp == TcpMode::Full { 0 } else { segment },
            }
        };
        Self {
            options,
            halves: [half(Direction::Inbound), half(Direction::Outbound)],
            client,
            segment,
            held: Vec::new(),
            replayed: identity.opening.http.is_some(),
            first_comment: Some(comments::first(&options, identity)),
            lost_segments: LOST_SEGMENTS,
            lost_zeros: ZEROS,
            shared: ConnectionShared::default(),
        }
    }

    /// The comment for the first packet of an exchange, whether it opens the connection or joins it.
    pub(super) fn comment_of(&self, identity: &FlowIdentity<'_>) -> String {
        comments::first(&self.options, identity)
    }

    /// Puts `comment` on the first packet of `data`, which the caller writes next.
    pub(super) fn say(
        &mut self,
        time: Nanos,
        data: &Data<'_>,
        comment: String,
        sink: &mut impl PacketSink,
    ) -> io::Result<()> {
        // An acknowledgement that precedes `data` belongs to earlier exchanges, so it must not get the comment.
        let len = data.payload.len().min(usize::from(self.segment));
        self.acknowledge_if_due(data.direction, time, len as u32, sink)?;
        self.first_comment = Some(match self.first_comment.take() {
            Some(before) => before + "\n" + &comment,
            None => comment,
        });
        Ok(())
    }

    /// Continues the connection with another exchange, whose first packet says so.
    pub fn resume(&mut self, identity: &FlowIdentity<'_>) {
        let mut comment = self.comment_of(identity);
        comment.push_str(comments::RESUMED);
        self.first_comment = Some(comment);
    }

    /// Writes the three packets that open the connection.
    ///
    /// # Errors
    /// The sink's.
    pub fn open(&mut self, time: Nanos, sink: &mut impl PacketSink) -> io::Result<()> {
        if self.options.tcp == TcpMode::Bare {
            return Ok(());
        }
        let server = self.client.reverse();
        self.control(self.client, time, SYN, sink)?;
        self.control(server, time, SYN | ACK, sink)?;
        self.control(self.client, time, ACK, sink)
    }

    /// Writes an event's bytes.
    ///
    /// # Errors
    /// The sink's.
    #[inline(always)]
    pub fn data(&mut self, time: Nanos, data: &Data<'_>, sink: &mut impl PacketSink) -> io::Result<()> {
        let present = data.payload.len();
        let whole = data.length == TrueLength::Known(present as u64);
        let plain = usize::from(self.halves[data.direction.index()].plain);
        if !whole || data.end_stream || present == 0 || present > plain || !data.notes.is_empty() {
            return self.any_data(time, data, "", sink);
        }
        self.acknowledge_if_due(data.direction, time, present as u32, sink)?;
        // An event that fits one packet fits the field's type.
        let segment = Segment { flags: PSH | ACK, captured: data.payload, payload_len: present as u16, comment: "" };
        self.emit_inline(data.direction, time, &segment, sink)
    }

    /// Writes an event's bytes. Their comment has the line `line` before the event's notes, unless it is empty.
    pub(super) fn data_with(
        &mut self,
        time: Nanos,
        data: &Data<'_>,
        line: &str,
        sink: &mut impl PacketSink,
    ) -> io::Result<()> {
        if line.is_empty() { self.data(time, data, sink) } else { self.any_data(time, data, line, sink) }
    }

    /// The slow path of [`Flow::data`], which few events take.
    fn any_data(&mut self, time: Nanos, data: &Data<'_>, line: &str, sink: &mut impl PacketSink) -> io::Result<()> {
        if data.direction == self.client && self.half(data.direction).plain == 0 {
            return self.first_data(time, data, line, sink);
        }
        self.release(sink)?;
        self.one_event(time, data, data, line, sink)
    }

    /// Writes the bytes of `data`: the `whole` event, or what is left of it after the preface.
    fn one_event(
        &mut self,
        time: Nanos,
        data: &Data<'_>,
        whole: &Data<'_>,
        line: &str,
        sink: &mut impl PacketSink,
    ) -> io::Result<()> {
        let present = data.payload.len() as u64;
        let length = match data.length {
            TrueLength::Known(length) => length.max(present),
            // One lost byte stands for all, so that nothing takes the next bytes for the continuation.
            TrueLength::MoreThan(present) => present + 1,
            TrueLength::Unframed(present) => present,
        };
        if length == 0 && self.options.tcp == TcpMode::Full {
            // A half-close without data needs only the FIN below.
        } else if data.length == TrueLength::Known(present) {
            let comment = comments::lines([line, &comments::replayed(data.notes)]);
            self.segments(data.direction, time, data.payload, length, &comment, sink)?;
        } else {
            let mut comment = comments::cut(whole, whole.payload.len() as u64);
            if self.skips(present, length) {
                let skipped = length - self.filled(present).min(length);
                comment.push_str(&comments::skipped(skipped));
            }
            let comment = comments::lines([&comment, line, &comments::replayed(data.notes)]);
            self.incomplete(data.direction, time, data.payload, length, &comment, sink)?;
        }
        if data.end_stream && self.options.tcp == TcpMode::Full && !self.half(data.direction).closed {
            self.finish(data.direction, time, sink)?;
        }
        Ok(())
    }

    /// Writes bytes that the trace lacks.
    ///
    /// # Errors
    /// The sink's.
    pub fn gap(
        &mut self,
        time: Nanos,
        direction: Direction,
        bytes: u64,
        certain: bool,
        sink: &mut impl PacketSink,
    ) -> io::Result<()> {
        if self.options.tcp == TcpMode::Bare {
            self.half(direction).next += bytes;
            return Ok(());
        }
        self.release(sink)?;
        let comment = comments::gap(bytes, certain);
        self.incomplete(direction, time, &[], bytes, &comment, sink)
    }

    /// Writes `length` bytes, of which only the first ones, `present`, are known.
    fn incomplete(
        &mut self,
        direction: Direction,
        time: Nanos,
        present: &[u8],
        length: u64,
        comment: &str,
        sink: &mut impl PacketSink,
    ) -> io::Result<()> {
        let present_len = present.len() as u64;
        self.lost_segments += LOST_SEGMENTS_PER_EVENT + u64::from(u16::MAX / self.segment);
        self.lost_zeros += ZEROS;
        match self.options.truncated {
            TruncatedMode::Snap => self.segments(direction, time, present, length, comment, sink),
            TruncatedMode::Gap => {
                if !present.is_empty() {
                    self.segments(direction, time, present, present_len, comment, sink)?;
                }
                self.half(direction).next += length - present_len;
                Ok(())
            }
            TruncatedMode::Zero => {
                let shown = (length - present_len).min(self.lost_zeros);
                self.lost_zeros -= shown;
                // This buffer is local, because thousands of connections must not each keep one. It is bounded by the
                // bytes that are there plus the budget of zeros.
                let mut filled = present.to_vec();
                filled.resize(present.len() + shown as usize, 0);
                self.segments(direction, time, &filled, present_len + shown, comment, sink)?;
                self.half(direction).next += length - present_len - shown;
                Ok(())
            }
        }
    }

    /// Closes the connection: each open half sends its FIN, and both are acknowledged.
    ///
    /// # Errors
    /// The sink's.
    pub fn close(&mut self, time: Nanos, sink: &mut impl PacketSink) -> io::Result<()> {
        if self.options.tcp == TcpMode::Bare {
            return Ok(());
        }
        self.release(sink)?;
        let server = self.client.reverse();
        let first = if self.half(server).closed { server } else { self.client };
        if !self.half(first).closed {
            self.finish(first, time, sink)?;
        }
        if !self.half(first.reverse()).closed {
            self.finish(first.reverse(), time, sink)?;
        }
        // If both halves were closed before, no FIN has carried the last acknowledgement.
        self.acknowledge_rest(time, sink)
    }

    /// The trace stops before the connection ended. What was sent is acknowledged; nothing more is known.
    ///
    /// # Errors
    /// The sink's.
    pub fn abandon(&mut self, time: Nanos, sink: &mut impl PacketSink) -> io::Result<()> {
        match self.options.tcp {
            TcpMode::Full => {
                self.release(sink)?;
                self.acknowledge_rest(time, sink)
            }
            TcpMode::Bare => Ok(()),
        }
    }

    fn acknowledge_rest(&mut self, time: Nanos, sink: &mut impl PacketSink) -> io::Result<()> {
        for direction in [Direction::Inbound, Direction::Outbound] {
            if self.unacknowledged(direction) > 0 {
                self.control(direction.reverse(), time, ACK, sink)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn half(&mut self, direction: Direction) -> &mut HalfConnection {
        &mut self.halves[direction.index()]
    }

    #[inline]
    fn unacknowledged(&self, direction: Direction) -> u32 {
        let half = &self.halves[direction.index()];
        half.next - half.acknowledged
    }

    fn finish(&mut self, direction: Direction, time: Nanos, sink: &mut impl PacketSink) -> io::Result<()> {
        self.half(direction).closed = true;
        if self.exceeds_window(direction, 1) {
            self.control(direction.reverse(), time, ACK, sink)?;
        }
        self.control(direction, time, FIN | ACK, sink)
    }

    /// Sends a pure acknowledgement before `len` more bytes of the same direction, if a receiver would have sent one.
    #[inline]
    fn acknowledge_if_due(
        &mut self,
        direction: Direction,
        time: Nanos,
        len: u32,
        sink: &mut impl PacketSink,
    ) -> io::Result<()> {
        let unacknowledged = self.unacknowledged(direction);
        if unacknowledged == 0 || self.options.tcp == TcpMode::Bare {
            return Ok(());
        }
        // RFC 5681 section 4.2: a receiver acknowledges at least every second full-sized segment, and after a short
        // delay.
        let waited = time.saturating_sub(self.half(direction).unacknowledged_since);
        if unacknowledged >= 2 * u32::from(self.segment) || waited > DELAYED_ACK || self.exceeds_window(direction, len)
        {
            self.control(direction.reverse(), time, ACK, sink)?;
        }
        Ok(())
    }

    /// Whether `len` more sequence numbers would reach the end of the window that their receiver has announced. The
    /// sender stops before that, because tools report a window that is exactly full.
    #[inline]
    fn exceeds_window(&self, direction: Direction, len: u32) -> bool {
        let used = u64::from(self.unacknowledged(direction)) + u64::from(len);
        used >= u64::from(self.halves[direction.index()].window)
    }

    /// Writes a packet without payload. SYN and FIN take one sequence number each.
    fn control(&mut self, direction: Direction, time: Nanos, flags: u8, sink: &mut impl PacketSink) -> io::Result<()> {
        self.emit(direction, time, &Segment { flags, ..Segment::default() }, sink)?;
        if flags & (SYN | FIN) != 0 {
            self.half(direction).next += 1;
        }
        Ok(())
    }

    /// How many bytes fit in the packets that `present` bytes need.
    fn filled(&self, present: u64) -> u64 {
        let segment = u64::from(self.segment);
        present.div_ceil(segment).max(1) * segment
    }

    /// Whether the missing bytes of a replayed body are only counted, because they would need many empty packets.
    fn skips(&self, present: u64, length: u64) -> bool {
        let empty = length.saturating_sub(self.filled(present)).div_ceil(u64::from(self.segment));
        let counts = self.options.truncated == TruncatedMode::Snap && self.options.tcp == TcpMode::Full;
        self.replayed && counts && empty > LOST_SEGMENTS_OF_BODY
    }

    /// Writes `length` bytes, of which the first ones, `captured`, are known, as segments.
    fn segments(
        &mut self,
        direction: Direction,
        time: Nanos,
        captured: &[u8],
        length: u64,
        comment: &str,
        sink: &mut impl PacketSink,
    ) -> io::Result<()> {
        let segment = u64::from(self.segment);
        if length <= segment {
            self.acknowledge_if_due(direction, time, length as u32, sink)?;
            // What fits one packet fits the field's type.
            let whole = Segment { flags: PSH | ACK, captured, payload_len: length as u16, comment };
            return self.emit(direction, time, &whole, sink);
        }
        let present = captured.len() as u64;
        let shown = match self.options.tcp {
            TcpMode::Full if self.skips(present, length) => length.min(self.filled(present)),
            TcpMode::Full => {
                let empty = (length.div_ceil(segment) - present.div_ceil(segment)).min(self.lost_segments);
                self.lost_segments -= empty;
                length.min((present.div_ceil(segment) + empty) * segment)
            }
            // Bare mode writes nothing but the event: lost bytes after its last packet are only counted.
            TcpMode::Bare => length.min(self.filled(present)),
        };
        let mut sent = 0;
        let mut comment = comment;
        while sent < shown {
            let len = segment.min(shown - sent);
            let last = sent + len == length;
            // Both ends are within `captured`, so they fit its index type.
            let part = &captured[sent.min(present) as usize..(sent + len).min(present) as usize];
            let cut = (part.len() as u64) < len;
            // The comment goes on the first cut packet, or on the last packet if the lost bytes have no packets.
            let takes_comment = cut || length == present || sent + len == shown;
            let this_comment = if takes_comment { std::mem::take(&mut comment) } else { "" };
            let flags = if last { PSH | ACK } else { ACK };
            self.acknowledge_if_due(direction, time, len as u32, sink)?;
            let part = Segment { flags, captured: part, payload_len: len as u16, comment: this_comment };
            self.emit(direction, time, &part, sink)?;
            sent += len;
        }
        self.half(direction).next += length - shown;
        Ok(())
    }

    fn emit(
        &mut self,
        direction: Direction,
        time: Nanos,
        segment: &Segment<'_>,
        sink: &mut impl PacketSink,
    ) -> io::Result<()> {
        self.emit_inline(direction, time, segment, sink)
    }

    #[inline(always)]
    fn emit_inline(
        &mut self,
        direction: Direction,
        time: Nanos,
        segment: &Segment<'_>,
        sink: &mut impl PacketSink,
    ) -> io::Result<()> {
        let Segment { flags, captured, payload_len, comment } = *segment;
        let [inbound, outbound] = &mut self.halves;
        let (half, other) = match direction {
            Direction::Inbound => (inbound, outbound),
            Direction::Outbound => (outbound, inbound),
        };
        // The first SYN has nothing to acknowledge yet.
        let ack = if flags & ACK == 0 { SeqNumber(0) } else { other.next };
        if flags & ACK != 0 {
            other.acknowledged = other.next;
        }
        if flags & SYN == 0 {
            other.window = SCALED_WINDOW;
        }
        if half.next == half.acknowledged {
            half.unacknowledged_since = time;
        }
        let fields = PacketFields { flags, seq: half.next, ack, payload_len };
        half.next += u64::from(payload_len);
        let headers = half.headers.packet(&fields, captured);
        let packet =
            Packet { time, direction, headers, payload: captured, payload_len: u32::from(payload_len), comment };
        match &self.first_comment {
            None => sink.packet(&packet),
            Some(_) => Self::first_packet(&mut self.first_comment, packet, sink),
        }
    }

    #[cold]
    fn first_packet(
        first_comment: &mut Option<String>,
        packet: Packet<'_>,
        sink: &mut impl PacketSink,
    ) -> io::Result<()> {
        let mut comment = first_comment.take().unwrap_or_default();
        if !packet.comment.is_empty() {
            comment.push('\n');
            comment.push_str(packet.comment);
        }
        sink.packet(&Packet { comment: &comment, ..packet })
    }
}

/// A number that depends on what identifies the connection, so that it is the same in every run and another one when
/// the addresses are used again.
fn initial_sequence_number(identity: &FlowIdentity<'_>) -> impl Fn(Direction) -> SeqNumber {
    let connection = StableHasher::default()
        .part(identity.source.as_bytes())
        .part(&identity.opening.trace_id.to_le_bytes())
        .part(&identity.time.to_le_bytes());
    move |direction| SeqNumber(connection.part(&[direction as u8]).finish() as u32)
}

#[cfg(test)]
mod tests;
