//! Exchanges that are streams of one HTTP/2 connection (RFC 9113 section 5).
//!
//! Each exchange is replayed as a connection of its own: a greeting, then stream 1. The first exchange of a connection
//! keeps these bytes. The frames of each exchange that joins it get the next stream number that a client may use. Their
//! connection frames (stream 0) are left out, because a connection has one greeting and one window for all streams.
//! Every entry of a replay ends where a frame ends, so entries of several exchanges can follow each other in any order.

use std::io;

use super::{Flow, FlowIdentity, PacketSink, comments};
use crate::{
    timeline::{Data, Direction, PREFACE, TrueLength},
    trace::Nanos,
};

/// How many exchanges may join a connection. Each takes an odd stream number above 1, and numbers have 31 bits (RFC
/// 9113 section 5.1.1).
pub const MAX_JOINED: u32 = (1 << 30) - 1;

/// The length of a frame's header, and the frame types that matter here (RFC 9113 sections 4.1 and 6).
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 8;

/// After so many bytes of joined exchanges, the receiver opens the connection's window again.
///
/// The greeting opens the window to 2^31-1 bytes. The first exchange reopens it for its own bytes before 2^30 of them
/// are outstanding. The joined exchanges together keep at most this many outstanding, so the window never runs out,
/// however many exchanges there are.
const UPDATE_AFTER: u64 = 1 << 29;

/// State that the streams of a connection share.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnectionShared {
    /// How many streams have joined.
    joined: u32,
    /// Their body bytes since the last window update, by direction.
    outstanding: [u64; 2],
}

/// One exchange of a connection that others may share.
#[derive(Debug)]
pub struct ExchangeStream {
    /// `None` for the first exchange.
    joined: Option<JoinedStream>,
}

#[derive(Debug)]
struct JoinedStream {
    client: Direction,
    /// `None` before the first frame, because a client's stream numbers rise in the order in which it uses them.
    id: Option<u32>,
    /// The comment of the first packet.
    comment: String,
    bytes: Vec<u8>,
}

impl ExchangeStream {
    /// The first exchange of a connection.
    #[must_use]
    pub fn first() -> Self {
        Self { joined: None }
    }

    /// An exchange that joins the connection of `flow`.
    #[must_use]
    pub fn joining(flow: &Flow, identity: &FlowIdentity<'_>) -> Self {
        let client = identity.opening.role.client_direction();
        Self { joined: Some(JoinedStream { client, id: None, comment: flow.comment_of(identity), bytes: Vec::new() }) }
    }

    /// Writes an entry's bytes. `time` is `recorded`, or later if the connection already has packets of a later time.
    ///
    /// # Errors
    /// The sink's.
    pub fn data(
        &mut self,
        flow: &mut Flow,
        time: Nanos,
        recorded: Nanos,
        data: &Data<'_>,
        sink: &mut impl PacketSink,
    ) -> io::Result<()> {
        let late = if recorded < time { comments::late(recorded) } else { String::new() };
        match &mut self.joined {
            None => flow.data_with(time, data, &late, sink),
            Some(joined) => joined.data(flow, time, data, &late, sink),
        }
    }
}

impl JoinedStream {
    fn data(
        &mut self,
        flow: &mut Flow,
        time: Nanos,
        data: &Data<'_>,
        line: &str,
        sink: &mut impl PacketSink,
    ) -> io::Result<()> {
        let before = self.id;
        let body = self.renumber(flow, data);
        let left_out = (data.payload.len() - self.bytes.len()) as u64;
        let left = |length: u64| length.saturating_sub(left_out);
        let length = data.length.map(left);
        if length == TrueLength::Known(0) {
            return Ok(());
        }
        let outstanding = &mut flow.shared.outstanding[data.direction.index()];
        *outstanding += body;
        if *outstanding > UPDATE_AFTER && *outstanding > body {
            // The bytes that were outstanding before these; far fewer than 2^31.
            let credit = (*outstanding - body) as u32;
            *outstanding = body;
            open_window(flow, time, data.direction.reverse(), credit, sink)?;
        }
        let data = Data { payload: &self.bytes, length, framing: left(data.framing), ..*data };
        if let (None, Some(id)) = (before, self.id) {
            let mut comment = std::mem::take(&mut self.comment);
            comment.push_str(&comments::joined(id));
            flow.say(time, &data, comment, sink)?;
        }
        flow.data_with(time, &data, line, sink)
    }

    /// Puts the frames of the exchange's stream into `bytes`, with their new stream number. Returns how many bytes
    /// count against the window.
    fn renumber(&mut self, flow: &mut Flow, data: &Data<'_>) -> u64 {
        self.bytes.clear();
        let mut body = 0;
        let mut rest = data.payload;
        if data.direction == self.client && rest.starts_with(PREFACE) {
            rest = &rest[PREFACE.len()..];
        }
        while let Some((head, after)) = rest.split_first_chunk::<FRAME_HEAD>() {
            let &[l0, l1, l2, kind, flags, stream @ ..] = head;
            let len = u32::from_be_bytes([0, l0, l1, l2]);
            // The last frame of an entry may lack bytes, because the tap cut them.
            let (payload, next) = after.split_at(after.len().min(len as usize));
            rest = next;
            if stream == [0; 4] {
                continue;
            }
            if kind == DATA {
                body += u64::from(len);
            }
            let id = *self.id.get_or_insert_with(|| {
                flow.shared.joined += 1;
                1 + 2 * flow.shared.joined
            });
            self.bytes.extend_from_slice(&[l0, l1, l2, kind, flags]);
            self.bytes.extend_from_slice(&id.to_be_bytes());
            self.bytes.extend_from_slice(payload);
        }
        body
    }
}

/// The receiver opens the connection's window (RFC 9113 section 6.9).
fn open_window(
    flow: &mut Flow,
    time: Nanos,
    from: Direction,
    credit: u32,
    sink: &mut impl PacketSink,
) -> io::Result<()> {
    let mut frame = [0, 0, 4, WINDOW_UPDATE, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frame[FRAME_HEAD..].copy_from_slice(&credit.to_be_bytes());
    let length = frame.len() as u64;
    let data = Data { framing: length, ..Data::whole(from, &frame, length) };
    flow.data_with(time, &data, comments::WINDOW, sink)
}

#[cfg(test)]
mod tests;
