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

use super::SNAP_LENGTH;
use crate::{synth::Packet, timeline::Direction, untrusted};

/// Bytes of a name that are kept; the format allows 65,535 for a whole option or record.
const MAX_NAME: usize = 4096;

const ENHANCED_PACKET: u32 = 6;
const OPT_COMMENT: u16 = 1;
const EPB_FLAGS: u16 = 2;
const PADDING: [u8; 3] = [0; 3];

pub(super) fn append_section_header(buffer: &mut Vec<u8>) {
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

pub(super) fn append_interface(buffer: &mut Vec<u8>, name: &str) {
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

pub(super) fn append_names(buffer: &mut Vec<u8>, names: &[(IpAddr, String)]) {
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

fn append_block(buffer: &mut Vec<u8>, block: Block<'_>) {
    block.write_to::<LittleEndian, _>(buffer).expect("writing to memory cannot fail");
}

#[inline]
pub(super) fn append_packet(buffer: &mut Vec<u8>, interface: u32, packet: &Packet<'_>) {
    // Headers are at most 86 bytes, a segment fits an IP packet and a comment an option, so the sums fit 32 bits.
    let captured = packet.headers.len() + packet.payload.len();
    let padding = captured.wrapping_neg() & 3;
    let comment_len = if packet.comment.is_empty() { 0 } else { 4 + packet.comment.len().next_multiple_of(4) };
    let block_len = (28 + captured + padding + comment_len + 12 + 4) as u32;
    let original = packet.headers.len() as u32 + packet.payload_len;

    buffer.reserve(block_len as usize);
    let mut header = [0; 28];
    let fields = [
        ENHANCED_PACKET,
        block_len,
        interface,
        (packet.time >> 32) as u32,
        packet.time as u32,
        captured as u32,
        original,
    ];
    for (field, value) in header.as_chunks_mut::<4>().0.iter_mut().zip(fields) {
        *field = value.to_le_bytes();
    }
    buffer.extend_from_slice(&header);
    buffer.extend_from_slice(packet.headers);
    buffer.extend_from_slice(packet.payload);
    let flags: u32 = match packet.direction {
        Direction::Inbound => 1,
        Direction::Outbound => 2,
    };
    // Padding, then epb_flags, opt_endofopt and the block's length again: one piece from where the padding begins.
    let mut trailer = [0; 19];
    trailer[3..5].copy_from_slice(&EPB_FLAGS.to_le_bytes());
    trailer[5..7].copy_from_slice(&4_u16.to_le_bytes());
    trailer[7..11].copy_from_slice(&flags.to_le_bytes());
    trailer[15..].copy_from_slice(&block_len.to_le_bytes());
    if comment_len > 0 {
        buffer.extend_from_slice(&trailer[3 - padding..3]);
        append_comment(buffer, packet.comment);
        buffer.extend_from_slice(&trailer[3..]);
    } else {
        buffer.extend_from_slice(&trailer[3 - padding..]);
    }
}

#[cold]
fn append_comment(buffer: &mut Vec<u8>, comment: &str) {
    buffer.extend_from_slice(&OPT_COMMENT.to_le_bytes());
    // `synth` caps comments far below 65,535 bytes.
    buffer.extend_from_slice(&(comment.len() as u16).to_le_bytes());
    buffer.extend_from_slice(comment.as_bytes());
    buffer.extend_from_slice(&PADDING[..comment.len().wrapping_neg() & 3]);
}
