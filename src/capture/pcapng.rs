//! The pcapng draft (draft-ietf-opsawg-pcapng). pcap-file writes the rare blocks. The enhanced packet blocks, which may
//! number millions, are written by hand, because that is faster.

use std::{borrow::Cow, net::IpAddr};

use pcap_file::{
    DataLink, Endianness,
    pcapng::{
        PcapNgWriter,
        blocks::{
            Block,
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            name_resolution::{Ipv4Record, Ipv6Record, NameResolutionBlock, Record},
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};

use super::{PacketBuffer, SNAP_LENGTH};
use crate::{synth::Packet, timeline::Direction, untrusted};

/// The longest name and comment in bytes: the length of an option or record has 16 bits. Both may quote a trace, so
/// this module escapes and caps all of them.
const MAX_NAME: usize = 4096;
const MAX_COMMENT: usize = 32 * 1024;

const ENHANCED_PACKET: u32 = 6;
const OPT_COMMENT: u16 = 1;
const EPB_FLAGS: u16 = 2;

/// Bytes of an enhanced packet block before the packet, and after the packet and its comment.
const BEFORE_PACKET: usize = 28;
const AFTER_PACKET: usize = 16;

/// Ethernet, IPv4 and TCP headers without options, which most packets have. Copying a constant number of bytes needs no
/// call.
const USUAL_HEADERS: usize = 54;

pub(super) fn append_section_header(buffer: &mut PacketBuffer) {
    let application = concat!("tap2pcap ", env!("CARGO_PKG_VERSION"));
    let header = SectionHeaderBlock {
        endianness: Endianness::Little,
        options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(application))],
        ..SectionHeaderBlock::default()
    };
    // Written as all other blocks are: each kind of writer would be compiled with all kinds of blocks.
    let writer = PcapNgWriter::with_section_header(Vec::new(), header).expect("writing to memory cannot fail");
    buffer.append(writer.get_ref());
}

/// Escapes `text` with `escape` and caps the result at `max` bytes.
fn clean(text: &str, max: usize, escape: fn(&str) -> Cow<'_, str>) -> Cow<'_, str> {
    // The text is capped first as well, so that no more of it is escaped than is kept.
    let capped = untrusted::cap(text, max);
    if let (Cow::Borrowed(text), Cow::Borrowed(_)) = (&capped, escape(&capped)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(untrusted::cap(&escape(&capped), max).into_owned())
}

fn clean_name(name: &str) -> Cow<'_, str> {
    clean(name, MAX_NAME, untrusted::escape)
}

pub(super) fn append_interface(buffer: &mut PacketBuffer, name: &str) {
    append_block(
        buffer,
        &Block::InterfaceDescription(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: SNAP_LENGTH,
            options: vec![
                InterfaceDescriptionOption::IfName(clean_name(name)),
                InterfaceDescriptionOption::IfTsResol(9),
            ],
        }),
    );
}

pub(super) fn append_names(buffer: &mut PacketBuffer, names: &[(IpAddr, String)]) {
    // Readers refuse the whole block if a record lacks a name.
    let records: Vec<_> = names
        .iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(ip, name)| {
            let names = vec![clean_name(name)];
            match ip {
                IpAddr::V4(ip) => Record::Ipv4(Ipv4Record { ip_addr: Cow::Owned(ip.octets().to_vec()), names }),
                IpAddr::V6(ip) => Record::Ipv6(Ipv6Record { ip_addr: Cow::Owned(ip.octets().to_vec()), names }),
            }
        })
        .collect();
    if records.is_empty() {
        return;
    }
    append_block(buffer, &Block::NameResolution(NameResolutionBlock { records, options: Vec::new() }));
}

fn append_block(buffer: &mut PacketBuffer, block: &Block<'_>) {
    const REASON: &str = "writing to memory cannot fail";
    // A writer begins with a section header, which the capture already has, so it is cleared. Each block gets a new
    // writer, because a writer keeps every interface that it wrote.
    let mut writer = PcapNgWriter::with_endianness(Vec::new(), Endianness::Little).expect(REASON);
    writer.get_mut().clear();
    writer.write_block(block).expect(REASON);
    buffer.append(writer.get_ref());
}

#[inline(always)]
pub(super) fn append_packet(buffer: &mut PacketBuffer, interface: u32, packet: &Packet<'_>) {
    if packet.comment.is_empty() {
        append_with_comment(buffer, interface, packet, "");
    } else {
        append_commented(buffer, interface, packet);
    }
}

#[cold]
fn append_commented(buffer: &mut PacketBuffer, interface: u32, packet: &Packet<'_>) {
    append_with_comment(buffer, interface, packet, &clean(packet.comment, MAX_COMMENT, untrusted::escape_lines));
}

#[inline(always)]
fn append_with_comment(buffer: &mut PacketBuffer, interface: u32, packet: &Packet<'_>, comment: &str) {
    // Headers are at most 86 bytes, a segment fits an IP packet and a comment an option, so the sums fit 32 bits.
    let captured = packet.headers.len() + packet.payload.len();
    let padded = captured.next_multiple_of(4);
    let comment_len = if comment.is_empty() { 0 } else { 4 + comment.len().next_multiple_of(4) };
    let block_len = BEFORE_PACKET + padded + comment_len + AFTER_PACKET;
    let before = [
        ENHANCED_PACKET,
        block_len as u32,
        interface,
        (packet.time >> 32) as u32,
        packet.time as u32,
        captured as u32,
        packet.headers.len() as u32 + packet.payload_len,
    ];
    let flags = match packet.direction {
        Direction::Inbound => 1,
        Direction::Outbound => 2,
    };
    // The option's code and length, its value, opt_endofopt, and the block's length again.
    let after = [u32::from(EPB_FLAGS) | 4 << 16, flags, 0, block_len as u32];

    let block = buffer.extend(block_len);
    put(&mut block[..BEFORE_PACKET], &before);
    let (frame, rest) = block[BEFORE_PACKET..].split_at_mut(padded);
    if let Some(last) = frame.last_chunk_mut::<4>() {
        // The packet is copied over these zeros; those left are the padding.
        *last = [0; 4];
    }
    let (headers, payload) = frame[..captured].split_at_mut(packet.headers.len());
    match (headers.first_chunk_mut::<USUAL_HEADERS>(), packet.headers.first_chunk::<USUAL_HEADERS>()) {
        (Some(to), Some(from)) if packet.headers.len() == USUAL_HEADERS => *to = *from,
        _ => headers.copy_from_slice(packet.headers),
    }
    payload.copy_from_slice(packet.payload);
    let (option, rest) = rest.split_at_mut(comment_len);
    if !comment.is_empty() {
        put_comment(option, comment);
    }
    put(rest, &after);
}

/// Writes 32-bit fields, little-endian.
#[inline(always)]
fn put(to: &mut [u8], fields: &[u32]) {
    for (field, value) in to.as_chunks_mut::<4>().0.iter_mut().zip(fields) {
        *field = value.to_le_bytes();
    }
}

fn put_comment(option: &mut [u8], comment: &str) {
    let (head, value) = option.split_at_mut(4);
    // At most MAX_COMMENT bytes.
    put(head, &[u32::from(OPT_COMMENT) | (comment.len() as u32) << 16]);
    let (text, padding) = value.split_at_mut(comment.len());
    text.copy_from_slice(comment.as_bytes());
    padding.fill(0);
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{PcapNgReader, blocks::enhanced_packet::EnhancedPacketOption};
    use proptest::prelude::*;

    use super::*;

    /// Control characters, invisible characters and ordinary text, some of it longer than an option can hold.
    fn text() -> impl Strategy<Value = String> {
        let piece =
            prop_oneof!["\\PC{0,20}", "[\\x00-\\x1f\\x7f-\\u{9f}]{1,8}", "[\u{200b}-\u{202e}\u{2066}\u{feff}é]{1,8}"];
        let repeated = (piece, prop_oneof![4 => 1..4_usize, 1 => 1..20_000_usize]);
        proptest::collection::vec(repeated, 0..4)
            .prop_map(|pieces| pieces.into_iter().map(|(piece, times)| piece.repeat(times)).collect())
    }

    fn is_clean(text: &str) -> bool {
        matches!(untrusted::escape_lines(text), Cow::Borrowed(_))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_gives_blocks_that_are_read_back_whole(
            interfaces in proptest::collection::vec(text(), 1..3),
            names in proptest::collection::vec((any::<IpAddr>(), text()), 0..4),
            comments in proptest::collection::vec(text(), 1..4),
        ) {
            let mut buffer = PacketBuffer::default();
            append_section_header(&mut buffer);
            interfaces.iter().for_each(|name| append_interface(&mut buffer, name));
            append_names(&mut buffer, &names);
            for comment in &comments {
                let (headers, payload) = (&[1; 54], &[2; 9]);
                let direction = Direction::Inbound;
                let packet = Packet { time: 7, direction, headers, payload, payload_len: 9, comment };
                append_packet(&mut buffer, 0, &packet);
            }
            let mut reader = PcapNgReader::new(buffer.as_bytes()).unwrap();
            let (mut packets, mut named) = (0, 0);
            while let Some(block) = reader.next_block() {
                match block.unwrap() {
                    Block::EnhancedPacket(packet) => {
                        prop_assert_eq!(&packet.data[54..], &[2; 9]);
                        let read = packet.options.iter().find_map(|option| match option {
                            EnhancedPacketOption::Comment(comment) => Some(&**comment),
                            _ => None,
                        });
                        let comment = &comments[packets];
                        prop_assert_eq!(read.is_some(), !comment.is_empty());
                        let read = read.unwrap_or_default();
                        prop_assert!(is_clean(read), "{:?}", read);
                        // The comment is whole, with each harmful character escaped once, unless it is too long.
                        let expected = untrusted::escape_lines(comment);
                        prop_assert!(read == expected || (expected.len() > MAX_COMMENT && read.ends_with('…')));
                        packets += 1;
                    }
                    Block::NameResolution(block) => {
                        for record in &block.records {
                            let names = match record {
                                Record::Ipv4(record) => &record.names,
                                Record::Ipv6(record) => &record.names,
                                _ => continue,
                            };
                            prop_assert!(names.iter().all(|name| is_clean(name) && !name.contains('\n')));
                            named += 1;
                        }
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(packets, comments.len());
            prop_assert_eq!(named, names.iter().filter(|(_, name)| !name.is_empty()).count());
            prop_assert_eq!(reader.interfaces().len(), interfaces.len());
            for interface in reader.interfaces() {
                for option in &interface.options {
                    if let InterfaceDescriptionOption::IfName(name) = option {
                        prop_assert!(is_clean(name) && !name.contains('\n'), "{:?}", name);
                    }
                }
            }
        }
    }
}
