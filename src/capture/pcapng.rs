//! The pcapng draft (draft-ietf-opsawg-pcapng). Blocks that a capture has few of are written with pcap-file; the
//! enhanced packet block, of which it has millions, is put together by hand.

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

use super::{Chunk, SNAP_LENGTH};
use crate::{synth::Packet, timeline::Direction, untrusted};

/// Bytes of a name and of a comment that are kept: the length of an option or record has 16 bits. What is written here
/// may come from a trace, so this is the place where it is escaped and capped, whoever made it.
const MAX_NAME: usize = 4096;
const MAX_COMMENT: usize = 32 * 1024;

const ENHANCED_PACKET: u32 = 6;
const OPT_COMMENT: u16 = 1;
const EPB_FLAGS: u16 = 2;

/// Bytes of an enhanced packet block before the packet, and after it and its comment.
const BEFORE_PACKET: usize = 28;
const BEHIND_PACKET: usize = 16;

/// Ethernet, IPv4 and TCP headers without options: what most packets have. Copying a known number of bytes needs no
/// call.
const USUAL_HEADERS: usize = 54;

pub(super) fn append_section_header(buffer: &mut Chunk) {
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

/// At most `max` bytes of what `escape` makes of `text`.
fn clean(text: &str, max: usize, escape: fn(&str) -> Cow<'_, str>) -> Cow<'_, str> {
    // Capped before as well, so that a long text is not escaped for nothing.
    let capped = untrusted::cap(text, max);
    if let (Cow::Borrowed(text), Cow::Borrowed(_)) = (&capped, escape(&capped)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(untrusted::cap(&escape(&capped), max).into_owned())
}

fn clean_name(name: &str) -> Cow<'_, str> {
    clean(name, MAX_NAME, untrusted::escape)
}

pub(super) fn append_interface(buffer: &mut Chunk, name: &str) {
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

pub(super) fn append_names(buffer: &mut Chunk, names: &[(IpAddr, String)]) {
    // A record without a name is none, and makes the whole block unreadable.
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

fn append_block(buffer: &mut Chunk, block: &Block<'_>) {
    const REASON: &str = "writing to memory cannot fail";
    // A writer begins with a section header, which the capture has already. It also keeps every interface that it wrote,
    // which this one does not live to do.
    let mut writer = PcapNgWriter::with_endianness(Vec::new(), Endianness::Little).expect(REASON);
    writer.get_mut().clear();
    writer.write_block(block).expect(REASON);
    buffer.append(writer.get_ref());
}

#[inline(always)]
pub(super) fn append_packet(buffer: &mut Chunk, interface: u32, packet: &Packet<'_>) {
    if packet.comment.is_empty() {
        append_with_comment(buffer, interface, packet, "");
    } else {
        append_commented(buffer, interface, packet);
    }
}

#[cold]
fn append_commented(buffer: &mut Chunk, interface: u32, packet: &Packet<'_>) {
    append_with_comment(buffer, interface, packet, &clean(packet.comment, MAX_COMMENT, untrusted::escape_lines));
}

#[inline(always)]
fn append_with_comment(buffer: &mut Chunk, interface: u32, packet: &Packet<'_>, comment: &str) {
    // Headers are at most 86 bytes, a segment fits an IP packet and a comment an option, so the sums fit 32 bits.
    let captured = packet.headers.len() + packet.payload.len();
    let padded = captured.next_multiple_of(4);
    let comment_len = if comment.is_empty() { 0 } else { 4 + comment.len().next_multiple_of(4) };
    let block_len = BEFORE_PACKET + padded + comment_len + BEHIND_PACKET;
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
    let behind = [u32::from(EPB_FLAGS) | 4 << 16, flags, 0, block_len as u32];

    let block = buffer.extend(block_len);
    put(&mut block[..BEFORE_PACKET], &before);
    let (frame, rest) = block[BEFORE_PACKET..].split_at_mut(padded);
    if let Some(last) = frame.last_chunk_mut::<4>() {
        // What is left of it is the padding.
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
    put(rest, &behind);
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

    /// What a terminal acts on, what looks like it, and ordinary text, up to more than any option holds.
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
            let mut buffer = Chunk::default();
            append_section_header(&mut buffer);
            interfaces.iter().for_each(|name| append_interface(&mut buffer, name));
            append_names(&mut buffer, &names);
            for comment in &comments {
                let (headers, payload) = (&[1; 54], &[2; 9]);
                let direction = Direction::Inbound;
                append_packet(&mut buffer, 0, &Packet { time: 7, direction, headers, payload, payload_len: 9, comment });
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
                        // Whole, and each harmful character escaped once, unless it is too long.
                        let expected = untrusted::escape_lines(comment);
                        prop_assert!(read == expected || (expected.len() > MAX_COMMENT && read.ends_with('…')));
                        packets += 1;
                    }
                    Block::NameResolution(block) => {
                        for record in &block.records {
                            let (Record::Ipv4(Ipv4Record { names, .. }) | Record::Ipv6(Ipv6Record { names, .. })) = record
                            else {
                                continue;
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
