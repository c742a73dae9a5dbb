//! The pcapng draft (draft-ietf-opsawg-pcapng). Blocks that a capture has few of are written with pcap-file; the
//! enhanced packet block, of which it has millions, is put together by hand.

use std::{borrow::Cow, net::IpAddr};

use byteorder::LittleEndian;
use pcap_file::{
    DataLink, Endianness,
    pcapng::blocks::{
        Block,
        interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        name_resolution::{Ipv4Record, Ipv6Record, NameResolutionBlock, Record},
        section_header::{SectionHeaderBlock, SectionHeaderOption},
    },
};

use super::{Chunk, SNAP_LENGTH};
use crate::{synth::Packet, timeline::Direction, untrusted};

/// Bytes of a name that are kept; the format allows 65,535 for a whole option or record.
const MAX_NAME: usize = 4096;

const ENHANCED_PACKET: u32 = 6;
const OPT_COMMENT: u16 = 1;
const EPB_FLAGS: u16 = 2;

/// Bytes of an enhanced packet block before the packet, and behind it and its comment.
const BEFORE_PACKET: usize = 28;
const BEHIND_PACKET: usize = 16;

/// Ethernet, IPv4 and TCP headers without options: what most packets have. Copying a known number of bytes needs no
/// call.
const USUAL_HEADERS: usize = 54;

pub(super) fn append_section_header(buffer: &mut Chunk) {
    let application = concat!("tap2pcap ", env!("CARGO_PKG_VERSION"));
    append_block(
        buffer,
        Block::SectionHeader(SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(application))],
            ..SectionHeaderBlock::default()
        }),
    );
}

pub(super) fn append_interface(buffer: &mut Chunk, name: &str) {
    let name = untrusted::escape(name);
    append_block(
        buffer,
        Block::InterfaceDescription(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: SNAP_LENGTH,
            options: vec![
                InterfaceDescriptionOption::IfName(untrusted::cap(&name, MAX_NAME)),
                InterfaceDescriptionOption::IfTsResol(9),
            ],
        }),
    );
}

pub(super) fn append_names(buffer: &mut Chunk, names: &[(IpAddr, String)]) {
    // A record without a name is none, and makes the whole block unreadable.
    let records = names
        .iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(ip, name)| {
            let name = untrusted::escape(name);
            let names = vec![Cow::Owned(untrusted::cap(&name, MAX_NAME).into_owned())];
            match ip {
                IpAddr::V4(ip) => Record::Ipv4(Ipv4Record { ip_addr: Cow::Owned(ip.octets().to_vec()), names }),
                IpAddr::V6(ip) => Record::Ipv6(Ipv6Record { ip_addr: Cow::Owned(ip.octets().to_vec()), names }),
            }
        })
        .collect();
    append_block(buffer, Block::NameResolution(NameResolutionBlock { records, options: Vec::new() }));
}

fn append_block(buffer: &mut Chunk, block: Block<'_>) {
    block.write_to::<LittleEndian, _>(buffer).expect("writing to memory cannot fail");
}

#[inline(always)]
pub(super) fn append_packet(buffer: &mut Chunk, interface: u32, packet: &Packet<'_>) {
    // Headers are at most 86 bytes, a segment fits an IP packet and a comment an option, so the sums fit 32 bits.
    let captured = packet.headers.len() + packet.payload.len();
    let padded = captured.next_multiple_of(4);
    let comment_len = if packet.comment.is_empty() { 0 } else { 4 + packet.comment.len().next_multiple_of(4) };
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
    let (comment, rest) = rest.split_at_mut(comment_len);
    if !packet.comment.is_empty() {
        put_comment(comment, packet.comment);
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

#[cold]
fn put_comment(option: &mut [u8], comment: &str) {
    let (head, value) = option.split_at_mut(4);
    // `synth` caps comments far below 65,535 bytes.
    put(head, &[u32::from(OPT_COMMENT) | (comment.len() as u32) << 16]);
    let (text, padding) = value.split_at_mut(comment.len());
    text.copy_from_slice(comment.as_bytes());
    padding.fill(0);
}
