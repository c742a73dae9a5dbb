//! The classic format: a file header, then a 16-byte header before each packet. Little-endian.

use std::io;

use pcap_file::{DataLink, Endianness, TsResolution, pcap::PcapHeader};

use super::{PacketBuffer, SNAP_LENGTH};
use crate::{synth::Packet, trace::Nanos};

/// The latest time that pcap can hold, in the year 2106: it has 32 bits for the seconds.
pub const LATEST_PCAP_TIME: Nanos = u32::MAX as Nanos * 1_000_000_000 + 999_999_999;

pub(super) fn append_file_header(buffer: &mut PacketBuffer, ts_resolution: TsResolution) {
    let header = PcapHeader {
        version_major: 2,
        version_minor: 4,
        ts_correction: 0,
        ts_accuracy: 0,
        snaplen: SNAP_LENGTH,
        datalink: DataLink::ETHERNET,
        ts_resolution,
        endianness: Endianness::Little,
    };
    header.write_to(buffer).expect("writing to memory cannot fail");
}

/// Adds a packet. `unit` is the format's time unit in nanoseconds. Times are rounded down, which keeps their order.
#[inline(always)]
pub(super) fn append_packet(buffer: &mut PacketBuffer, packet: &Packet<'_>, unit: Nanos) -> io::Result<()> {
    let seconds = u32::try_from(packet.time / 1_000_000_000).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "a time after the year 2106 does not fit pcap; write pcapng")
    })?;
    let fraction = (packet.time % 1_000_000_000 / unit) as u32;
    // This fits 32 bits: headers are at most 86 bytes, and a segment fits an IP packet.
    let captured = (packet.headers.len() + packet.payload.len()) as u32;
    let original = packet.headers.len() as u32 + packet.payload_len;
    let record = buffer.extend(16 + captured as usize);
    let (header, frame) = record.split_at_mut(16);
    for (field, value) in header.as_chunks_mut::<4>().0.iter_mut().zip([seconds, fraction, captured, original]) {
        *field = value.to_le_bytes();
    }
    let (headers, payload) = frame.split_at_mut(packet.headers.len());
    headers.copy_from_slice(packet.headers);
    payload.copy_from_slice(packet.payload);
    Ok(())
}
