//! Packets of connections that wait until it is known whether they are wanted.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    net::IpAddr,
    path::PathBuf,
};

use super::{Captures, Lane, OutputError};
use crate::{
    spool::Spool,
    synth::{Packet, PacketSink as _},
    timeline::Direction,
};

/// How many bytes of packets wait in memory. Of more, all go into a temporary file.
const MAX_IN_MEMORY: usize = 16 << 20;

/// How many bytes of packets may wait. With more, the connection with the most is given up.
const MAX_WAITING: u64 = 1 << 30;

/// What is known of a connection.
#[derive(Debug)]
enum Wanted {
    /// Nothing yet. Its packets wait, so many bytes of them, and so do the names of its addresses.
    Undecided { interface: u32, names: Vec<(IpAddr, String)>, bytes: u64 },
    /// It is written.
    Yes(Lane),
    /// Too much of it waited.
    GivenUp,
}

/// Writes the packets of those connections that are wanted, from their first packet on.
#[derive(Debug)]
pub(crate) struct Gate {
    captures: Captures,
    connections: BTreeMap<u64, Wanted>,
    spool: Spool,
    waiting: u64,
    max_waiting: u64,
    begun: u64,
    given_up: u64,
}

impl Gate {
    pub(crate) fn new(captures: Captures) -> Self {
        Self {
            captures,
            connections: BTreeMap::new(),
            spool: Spool::new(MAX_IN_MEMORY),
            waiting: 0,
            max_waiting: MAX_WAITING,
            begun: 0,
            given_up: 0,
        }
    }

    pub(super) fn captures(&self) -> &Captures {
        &self.captures
    }

    pub(super) fn captures_mut(&mut self) -> &mut Captures {
        &mut self.captures
    }

    /// How many connections were given up.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    pub(super) fn begin(&mut self, interface: u32, names: &[(IpAddr, String)]) -> Lane {
        self.begun += 1;
        self.connections.insert(self.begun, Wanted::Undecided { interface, names: names.to_vec(), bytes: 0 });
        Lane { interface, connection: self.begun }
    }

    pub(super) fn packet(&mut self, lane: Lane, packet: &Packet<'_>) -> io::Result<()> {
        match self.connections.get_mut(&lane.connection) {
            Some(Wanted::Yes(to)) => self.captures.lane(to.on(lane.interface)).packet(packet),
            Some(Wanted::Undecided { bytes, .. }) => {
                let mut added = 0;
                self.spool.push(lane.connection, |waiting| {
                    let before = waiting.len();
                    encode(waiting, lane.interface, packet);
                    added = (waiting.len() - before) as u64;
                })?;
                *bytes += added;
                self.waiting += added;
                if self.waiting > self.max_waiting { self.give_up() } else { Ok(()) }
            }
            Some(Wanted::GivenUp) | None => Ok(()),
        }
    }

    #[cold]
    fn give_up(&mut self) -> io::Result<()> {
        let waiting = |wanted: &Wanted| match wanted {
            Wanted::Undecided { bytes, .. } => *bytes,
            Wanted::Yes(_) | Wanted::GivenUp => 0,
        };
        let Some((&connection, wanted)) = self.connections.iter_mut().max_by_key(|(_, wanted)| waiting(wanted)) else {
            return Ok(());
        };
        self.waiting -= waiting(wanted);
        *wanted = Wanted::GivenUp;
        self.given_up += 1;
        self.spool.take(connection, |_| Ok(()))
    }

    /// The connection is wanted: what waits of it is written, and all that follows. Returns whether that is new.
    pub(super) fn want(&mut self, lane: Lane) -> io::Result<bool> {
        let Some(wanted @ Wanted::Undecided { .. }) = self.connections.get_mut(&lane.connection) else {
            return Ok(false);
        };
        let Wanted::Undecided { interface, names, bytes } = std::mem::replace(wanted, Wanted::GivenUp) else {
            return Ok(false);
        };
        self.waiting -= bytes;
        let to = self.captures.begin(interface, &names)?;
        *wanted = Wanted::Yes(to);
        let captures = &mut self.captures;
        let mut buffer = Vec::new();
        self.spool.take(lane.connection, |read| {
            while let Some((interface, packet)) = decode(read, &mut buffer)? {
                captures.lane(to.on(interface)).packet(&packet)?;
            }
            Ok::<_, io::Error>(())
        })?;
        Ok(true)
    }

    pub(super) fn end(&mut self, lane: Lane) -> io::Result<()> {
        match self.connections.remove(&lane.connection) {
            Some(Wanted::Yes(to)) => self.captures.end(to),
            Some(Wanted::Undecided { bytes, .. }) => {
                self.waiting -= bytes;
                self.spool.take(lane.connection, |_| Ok(()))
            }
            Some(Wanted::GivenUp) | None => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Result<Vec<PathBuf>, OutputError> {
        self.captures.finish()
    }
}

/// Numbers before the bytes of a packet: its interface, its direction, its time, the lengths of its parts, and its length
/// on the wire.
const NUMBERS: usize = 7;

fn encode(out: &mut Vec<u8>, interface: u32, packet: &Packet<'_>) {
    let Packet { time, direction, headers, payload, payload_len, comment } = *packet;
    let parts = [headers, payload, comment.as_bytes()];
    let lens = parts.map(|part| part.len() as u64);
    let numbers: [u64; NUMBERS] =
        [u64::from(interface), direction.index() as u64, time, lens[0], lens[1], lens[2], u64::from(payload_len)];
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// The next packet and its interface, or `None` at the end. `buffer` gets the packet's bytes.
fn decode<'a>(read: &mut dyn Read, buffer: &'a mut Vec<u8>) -> io::Result<Option<(u32, Packet<'a>)>> {
    let mut bytes = [0; NUMBERS * 8];
    match read.read_exact(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let mut numbers = [0; NUMBERS];
    for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *number = u64::from_le_bytes(*bytes);
    }
    let [interface, direction, time, headers, payload, comment, payload_len] = numbers;
    let len = |len: u64| usize::try_from(len).map_err(io::Error::other);
    let (headers, payload, comment) = (len(headers)?, len(payload)?, len(comment)?);
    buffer.resize(headers + payload + comment, 0);
    read.read_exact(buffer)?;
    let (headers, rest) = buffer.split_at(headers);
    let (payload, comment) = rest.split_at(payload);
    let direction =
        if direction == Direction::Inbound.index() as u64 { Direction::Inbound } else { Direction::Outbound };
    let packet = Packet {
        time,
        direction,
        headers,
        payload,
        payload_len: u32::try_from(payload_len).map_err(io::Error::other)?,
        comment: std::str::from_utf8(comment).map_err(io::Error::other)?,
    };
    Ok(Some((u32::try_from(interface).map_err(io::Error::other)?, packet)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Capture, CaptureFormat, Destination};

    fn packet(time: u64, payload: &[u8]) -> Packet<'_> {
        let payload_len = payload.len() as u32 + 1;
        Packet { time, direction: Direction::Outbound, headers: &[7; 54], payload, payload_len, comment: "what" }
    }

    #[test]
    fn packets_come_back_as_they_were() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 3, &packet(5, b"abc"));
        encode(&mut bytes, 4, &packet(6, b""));
        let (mut read, mut buffer) = (bytes.as_slice(), Vec::new());
        assert_eq!(decode(&mut read, &mut buffer).unwrap(), Some((3, packet(5, b"abc"))));
        assert_eq!(decode(&mut read, &mut buffer).unwrap(), Some((4, packet(6, b""))));
        assert_eq!(decode(&mut read, &mut buffer).unwrap(), None);
    }

    #[test]
    fn wanted_connections_are_written_from_their_first_packet_on_and_others_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let write = |all: bool| {
            let path = dir.path().join(format!("{all}.pcap"));
            let capture = Capture::create(&Destination::File(path.clone()), CaptureFormat::Pcap).unwrap();
            let mut gate = Gate::new(Captures::One(capture));
            let [one, two, three] = [0, 0, 0].map(|_| gate.begin(0, &[]));
            let put = |gate: &mut Gate, lane, time, payload| {
                if all || payload != b"no" {
                    gate.packet(lane, &packet(time, payload)).unwrap()
                }
            };
            put(&mut gate, one, 1, b"1a");
            put(&mut gate, two, 2, b"no");
            put(&mut gate, one, 3, b"1b");
            assert!(gate.want(one).unwrap() && !gate.want(one).unwrap());
            put(&mut gate, one, 4, b"1c");
            put(&mut gate, two, 5, b"no");
            gate.end(two).unwrap();
            put(&mut gate, two, 6, b"no");
            put(&mut gate, three, 7, b"no");
            gate.end(one).unwrap();
            assert_eq!(gate.captures().packets(), 3);
            gate.finish().unwrap();
            std::fs::read(path).unwrap()
        };
        assert_eq!(write(true), write(false));
    }

    #[test]
    fn when_too_much_waits_the_connection_with_the_most_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let destination = Destination::File(dir.path().join("out.pcap"));
        let mut gate = Gate::new(Captures::One(Capture::create(&destination, CaptureFormat::Pcap).unwrap()));
        gate.max_waiting = 10_000;
        let [small, large] = [0, 0].map(|_| gate.begin(0, &[]));
        gate.packet(small, &packet(1, &[0; 1000])).unwrap();
        for _ in 0..100 {
            gate.packet(large, &packet(1, &[0; 1000])).unwrap();
        }
        assert_eq!(gate.given_up(), 1);
        assert!(gate.want(small).unwrap() && !gate.want(large).unwrap());
        assert_eq!((gate.waiting, gate.captures().packets()), (0, 1));
    }
}
