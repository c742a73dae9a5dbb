//! Exchanges that are streams of one HTTP/2 connection (RFC 9113 section 5).
//!
//! Each exchange is replayed as a connection of its own: greeting, then stream 1. The first exchange of a connection keeps
//! these bytes. Of another one that joins it, the frames go out with the next number that a client may use, and those of
//! the connection (stream 0) are left out: there is one greeting, and one window for all streams. Every entry of a replay
//! ends where a frame ends, so entries of several exchanges can follow each other in any order.

use std::io;

use super::{Flow, FlowIdentity, PacketSink, comments};
use crate::{
    timeline::{Data, Direction, PREFACE, TrueLength},
    trace::Nanos,
};

/// Exchanges that may join a connection: each takes an odd number after 1, and numbers have 31 bits (RFC 9113 section
/// 5.1.1).
pub const MAX_JOINED: u32 = (1 << 30) - 1;

/// Bytes of a frame before its payload, and the types that matter here (RFC 9113 sections 4.1 and 6).
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 8;

/// Bytes of joined exchanges after which the connection's window is opened again.
///
/// The greeting opens it to 2^31-1 bytes. The first exchange opens it again for its own bytes, before 2^30 of them are
/// outstanding, and leaves the rest outstanding when it ends. What joins has these bytes, so both together stay within
/// the window, however many exchanges there are.
const UPDATE_AFTER: u64 = 1 << 29;

/// What the streams of a connection share.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnectionShared {
    /// Streams that have joined.
    joined: u32,
    /// Body bytes of these, by direction, since the window was opened again.
    outstanding: [u64; 2],
}

/// One exchange of a connection that others may share.
#[derive(Debug)]
pub struct ExchangeStream {
    /// `None` for the first one.
    joined: Option<JoinedStream>,
}

#[derive(Debug)]
struct JoinedStream {
    client: Direction,
    /// Not before the first frame: a client's numbers rise in the order in which it uses them.
    id: Option<u32>,
    /// For the first packet.
    comment: String,
    bytes: Vec<u8>,
}

impl ExchangeStream {
    /// The exchange that the connection began with.
    #[must_use]
    pub fn first() -> Self {
        Self { joined: None }
    }

    /// Another exchange of a connection.
    #[must_use]
    pub fn joining(flow: &Flow, identity: &FlowIdentity<'_>) -> Self {
        let client = identity.opening.role.client_direction();
        Self { joined: Some(JoinedStream { client, id: None, comment: flow.comment_of(identity), bytes: Vec::new() }) }
    }

    /// An entry of the exchange with its bytes. `time` is `recorded`, or later where the connection has come further.
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
        let mut note;
        let mut data = *data;
        if recorded < time {
            note = comments::late(recorded);
            if !data.note.is_empty() {
                note.push('\n');
                note.push_str(data.note);
            }
            data.note = &note;
        }
        match &mut self.joined {
            None => flow.data(time, &data, sink),
            Some(joined) => joined.data(flow, time, &data, sink),
        }
    }
}

impl JoinedStream {
    fn data(&mut self, flow: &mut Flow, time: Nanos, data: &Data<'_>, sink: &mut impl PacketSink) -> io::Result<()> {
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
            // What was outstanding before these bytes; far below 2^31.
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
        flow.data(time, &data, sink)
    }

    /// Puts the frames of the exchange's stream into `bytes`, with their new number, and answers how many bytes count
    /// for the windows.
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
            // The last frame of an entry may lack bytes that the tap cut.
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
    let data = Data { framing: length, note: comments::WINDOW, ..Data::whole(from, &frame, length) };
    flow.data(time, &data, sink)
}

#[cfg(test)]
mod tests;
