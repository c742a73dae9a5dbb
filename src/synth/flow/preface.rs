//! HTTP/2's preface in a packet of its own, however it came.

use std::io;

use super::{Flow, Segment};
use crate::{
    synth::{
        PacketSink, comments,
        headers::{ACK, PSH},
    },
    timeline::{Data, PREFACE, TrueLength},
    trace::Nanos,
};

/// A client's event that consists of nothing but a part of HTTP/2's preface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    time: Nanos,
    /// The offset in the preface where the piece ends.
    end: usize,
}

impl Flow {
    /// Writes the client's first bytes. Wireshark's HTTP dissector hands a connection to the HTTP/2 dissector at the
    /// packet with the preface. It misses a preface in pieces, and Wireshark 4.0 loses a frame that is only partly in
    /// that packet. So the preface gets a packet of its own, at the time of its last byte. Its pieces are held until
    /// then.
    pub(super) fn first_data(
        &mut self,
        time: Nanos,
        data: &Data<'_>,
        line: &str,
        sink: &mut impl PacketSink,
    ) -> io::Result<()> {
        let held = self.held.last().map_or(0, |piece| piece.end);
        let expected = &PREFACE[held..];
        let present = data.payload.len();
        let matching = expected.iter().zip(data.payload).take_while(|(expected, byte)| expected == byte).count();
        let whole = data.length == TrueLength::Known(present as u64) && !data.end_stream;
        if matching == present && matching < expected.len() && whole {
            if present > 0 {
                self.held.push(Piece { time, end: held + present });
                // The server's next event must take the slow path, which first writes what is held.
                self.half(self.client.reverse()).plain = 0;
            }
            return Ok(());
        }
        let segment = self.segment;
        self.half(data.direction).plain = segment;
        let alone = held == 0 && matching == present && whole && matching <= usize::from(segment);
        if matching < expected.len() || alone {
            self.release(sink)?;
            return self.one_event(time, data, data, line, sink);
        }
        let split = matching as u64;
        let rest = Data {
            payload: &data.payload[matching..],
            length: data.length.map(|length| length.saturating_sub(split)),
            ..*data
        };
        let goes_on = rest.length != TrueLength::Known(0);
        let began = self.held.first().map(|piece| piece.time);
        let comment = comments::preface(self.options.names, self.segment, self.held.len(), began, goes_on);
        self.forget_held();
        self.acknowledge_if_due(data.direction, time, PREFACE.len() as u32, sink)?;
        // The last packet of an event sets PSH.
        let flags = if goes_on { ACK } else { PSH | ACK };
        let preface = Segment { flags, captured: PREFACE, payload_len: PREFACE.len() as u16, comment: &comment };
        self.emit(data.direction, time, &preface, sink)?;
        self.one_event(time, &rest, data, line, sink)
    }

    /// Writes the held pieces as they came, because they are no preface or something else comes first. Nothing of the
    /// connection has been written since then, so its packets stay in order.
    pub(super) fn release(&mut self, sink: &mut impl PacketSink) -> io::Result<()> {
        let mut start = 0;
        for Piece { time, end } in self.forget_held() {
            self.segments(self.client, time, &PREFACE[start..end], (end - start) as u64, "", sink)?;
            start = end;
        }
        Ok(())
    }

    fn forget_held(&mut self) -> Vec<Piece> {
        if !self.held.is_empty() {
            let segment = self.segment;
            self.halves.iter_mut().for_each(|half| half.plain = segment);
        }
        std::mem::take(&mut self.held)
    }
}
