//! A TCP connection as its packets show it, judged by the rules of TCP and not by those of the program.

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr};

use crate::tshark::Frame;

pub const FIN: u16 = 0x01;
pub const SYN: u16 = 0x02;
pub const PSH: u16 = 0x08;
pub const ACK: u16 = 0x10;

/// What one side sent.
#[derive(Clone, Debug, Default)]
pub struct Half {
    /// The sequence number of its SYN.
    pub first: u32,
    /// Sequence numbers used: its SYN, its bytes on the wire, its FIN.
    pub used: u64,
    /// How many of them the other side has acknowledged.
    pub acknowledged: u64,
    /// How many the other side has allowed, by its last packet.
    pub allowed: u64,
    pub fin: bool,
}

impl Half {
    /// Bytes on the wire.
    pub fn bytes(&self) -> u64 {
        self.used - 1 - u64::from(self.fin)
    }
}

/// One connection, from its SYN on.
#[derive(Clone, Debug)]
pub struct Conversation<'a> {
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub frames: Vec<&'a Frame>,
    /// The client's, then the server's.
    pub halves: [Half; 2],
}

/// Whether sequence numbers may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skips {
    Never,
    Allowed,
}

impl<'a> Conversation<'a> {
    /// Follows a connection. Times and acknowledgements never go back. Nothing is sent twice, beyond the receiver's
    /// window or after a FIN, and nothing is acknowledged before it was sent.
    #[track_caller]
    pub fn follow(name: &str, frames: impl IntoIterator<Item = &'a Frame>, skips: Skips) -> Self {
        let frames: Vec<_> = frames.into_iter().collect();
        let first = *frames.first().unwrap_or_else(|| panic!("{name}: no packets"));
        assert_eq!(first.flags, SYN, "{name}: {first:?}");
        let (client, server) = (first.src.unwrap(), first.dst.unwrap());
        let mut halves: [Half; 2] = <_>::default();
        let mut time = first.time;
        for (index, frame) in frames.iter().enumerate() {
            let what = || format!("{name}: packet {index}\n{}\n{frame:?}", transcript(&frames[..=index]));
            assert!(frame.time >= time, "time goes back: {}", what());
            time = frame.time;
            let side = usize::from(frame.src == Some(server));
            let ends = [(client, server), (server, client)];
            assert_eq!((frame.src.unwrap(), frame.dst.unwrap()), ends[side], "{}", what());
            let [a, b] = &mut halves;
            let (own, other) = if side == 0 { (a, b) } else { (b, a) };
            assert_eq!(frame.flags & SYN != 0, own.used == 0, "{}", what());
            if own.used == 0 {
                own.first = frame.seq;
            }
            let ahead = frame.seq.wrapping_sub(own.first.wrapping_add(own.used as u32));
            assert!(ahead == 0 || (skips == Skips::Allowed && ahead < 1 << 31), "off by {}: {}", ahead as i32, what());
            assert!(!own.fin || frame.tcp_len == 0 && frame.flags & FIN == 0, "after the FIN: {}", what());
            let taken = u64::from(frame.tcp_len) + u64::from(frame.flags & (SYN | FIN) != 0);
            own.used += u64::from(ahead) + taken;
            // Neither side has announced a window before its own SYN.
            assert!(taken == 0 || index < 2 || own.used <= own.allowed, "beyond the window: {}", what());
            own.fin |= frame.flags & FIN != 0;
            if frame.flags & ACK == 0 {
                assert_eq!((index, frame.flags), (0, SYN), "{}", what());
                continue;
            }
            let ahead = frame.ack.wrapping_sub(other.first.wrapping_add(other.acknowledged as u32));
            assert!(ahead < 1 << 31, "acknowledges less than before: {}", what());
            other.acknowledged += u64::from(ahead);
            other.allowed = other.acknowledged + u64::from(frame.window);
            match skips {
                Skips::Never => assert!(other.acknowledged <= other.used, "never sent: {}", what()),
                Skips::Allowed => other.used = other.used.max(other.acknowledged),
            }
        }
        Self { client, server, frames, halves }
    }

    /// Every byte was acknowledged by the end, and so was each FIN.
    #[track_caller]
    pub fn expect_all_acknowledged(&self, name: &str) {
        for half in &self.halves {
            assert_eq!(half.acknowledged, half.used, "{name}: {:?}\n{}", self.halves, transcript(&self.frames));
        }
    }

    /// Packets of one side that carry payload, or that stand for lost payload.
    pub fn data(&self, from: SocketAddr) -> Vec<&'a Frame> {
        self.frames.iter().filter(|frame| frame.tcp_len > 0 && frame.src == Some(from)).copied().collect()
    }

    pub fn half(&self, of: SocketAddr) -> &Half {
        &self.halves[usize::from(of == self.server)]
    }

    /// The offset of a packet in the bytes of its direction.
    pub fn place(&self, frame: &Frame) -> u64 {
        let half = self.half(frame.src.unwrap());
        u64::from(frame.seq.wrapping_sub(half.first).wrapping_sub(1))
    }

    /// The captured bytes of one side, each piece with its offset. Adjacent pieces are joined.
    pub fn captured(&self, from: SocketAddr) -> Vec<(u64, Vec<u8>)> {
        let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
        for frame in self.data(from).into_iter().filter(|frame| !frame.payload.is_empty()) {
            let place = self.place(frame);
            match pieces.last_mut() {
                Some((start, bytes)) if *start + bytes.len() as u64 == place => bytes.extend_from_slice(&frame.payload),
                _ => pieces.push((place, frame.payload.clone())),
            }
        }
        pieces
    }
}

/// The connections of a capture as Wireshark tells them apart.
pub fn streams(frames: &[Frame]) -> Vec<Vec<&Frame>> {
    let mut streams: BTreeMap<u32, Vec<&Frame>> = BTreeMap::new();
    for frame in frames {
        streams.entry(frame.stream).or_default().push(frame);
    }
    streams.into_values().collect()
}

/// The packets of one connection as lines: microseconds since the first packet, the sender (client `>`, server `<`),
/// flags, sequence number and length, acknowledgement, and the captured length if it is smaller.
pub fn transcript(frames: &[&Frame]) -> String {
    let mut text = String::new();
    let Some(first) = frames.first() else { return text };
    let mut start: [Option<u32>; 2] = [None; 2];
    for frame in frames {
        let side = usize::from(frame.src != first.src);
        let own = *start[side].get_or_insert(frame.seq);
        let names = [(SYN, "SYN"), (FIN, "FIN"), (PSH, "PSH"), (ACK, "ACK")];
        let flags: Vec<_> = names.iter().filter(|(flag, _)| frame.flags & flag != 0).map(|(_, name)| *name).collect();
        let seq = frame.seq.wrapping_sub(own);
        let sign = [">", "<"][side];
        let micros = frame.time.wrapping_sub(first.time) as i64 / 1000;
        write!(text, "{micros} {sign} {} {seq}+{}", flags.join(" "), frame.tcp_len).unwrap();
        if frame.flags & ACK != 0 {
            let other = *start[1 - side].get_or_insert(frame.ack);
            write!(text, " ack {}", frame.ack.wrapping_sub(other)).unwrap();
        }
        if frame.payload.len() != frame.tcp_len as usize {
            write!(text, " captured {}", frame.payload.len()).unwrap();
        }
        text.push('\n');
    }
    text
}

/// Compares the packets of a connection with the expected lines.
#[track_caller]
pub fn expect_transcript<'a>(frames: impl IntoIterator<Item = &'a Frame>, expected: &str) {
    let found = transcript(&frames.into_iter().collect::<Vec<_>>());
    let expected: String = expected.trim().lines().map(|line| format!("{}\n", line.trim())).collect();
    assert!(found == expected, "found:\n{found}\nexpected:\n{expected}");
}
