//! Packets to captures: pcap and pcapng, into files that are complete or absent, or into pipes.
//!
//! ```
//! use tap2pcap::{
//!     capture::{Capture, CaptureFormat, Destination},
//!     synth::{Packet, PacketSink as _},
//!     timeline::Direction,
//! };
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("one.pcapng");
//! let mut capture = Capture::create(&Destination::File(path.clone()), CaptureFormat::Pcapng)?;
//! let interface = capture.add_interface("made by hand");
//! capture.interface(interface).packet(&Packet {
//!     time: 1_769_860_800_000_000_000,
//!     direction: Direction::Inbound,
//!     // Ethernet, IP and TCP headers; `synth` makes them.
//!     headers: &[0; 14],
//!     payload: b"hello",
//!     payload_len: 5,
//!     comment: "says hello",
//! })?;
//! assert!(!path.exists());
//! capture.finish()?;
//! assert!(path.exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod chunk;
#[cfg(feature = "live")]
mod gate;
mod output;
mod pcap;
mod pcapng;
mod split;

use std::{io, net::IpAddr, path::Path};

use pcap_file::TsResolution;

pub(crate) use chunk::PacketBuffer;
#[cfg(feature = "live")]
pub(crate) use gate::Gate;
pub(crate) use output::ReadOnlyOutput;
#[cfg(feature = "record")]
pub(crate) use output::create_folders;
pub use output::{Access, Destination, OutputError, OutputOptions, OutputPacking};
pub(crate) use output::{Output, file_at, folder, put_all_in_place, sync_outputs};
pub use pcap::LATEST_PCAP_TIME;
pub use split::SplitBy;
pub(crate) use split::{Captures, Lane, SplitCapture, part_path, path_of_part};

use crate::{
    synth::{Packet, PacketSink},
    trace::Nanos,
};

/// A capture's file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureFormat {
    /// libpcap's classic format, with nanoseconds.
    Pcap,
    /// The classic format with microseconds, for readers that do not know nanoseconds.
    PcapMicros,
    /// The pcapng draft, with comments, directions, interface names and name resolution.
    Pcapng,
}

impl CaptureFormat {
    /// The format that a file's suffix, without its dot, stands for: those of Wireshark and tcpdump.
    pub(crate) fn of_suffix(suffix: &str) -> Option<Self> {
        let pcap = ["pcap", "cap", "dmp"].map(|name| (name, Self::Pcap));
        let pcapng = ["pcapng", "ntar"].map(|name| (name, Self::Pcapng));
        pcap.into_iter().chain(pcapng).find_map(|(name, format)| suffix.eq_ignore_ascii_case(name).then_some(format))
    }

    /// The latest time that it can hold, in nanoseconds since the Unix epoch; `None` if it can hold any.
    pub(crate) fn latest_time(self) -> Option<Nanos> {
        (self != Self::Pcapng).then_some(LATEST_PCAP_TIME)
    }

    fn append_header(self, buffer: &mut PacketBuffer) {
        match self {
            Self::Pcap => pcap::append_file_header(buffer, TsResolution::NanoSecond),
            Self::PcapMicros => pcap::append_file_header(buffer, TsResolution::MicroSecond),
            Self::Pcapng => pcapng::append_section_header(buffer),
        }
    }

    /// pcap has no interfaces.
    fn append_interface(self, buffer: &mut PacketBuffer, name: &str) {
        if self == Self::Pcapng {
            pcapng::append_interface(buffer, name);
        }
    }

    /// pcap has no place for names.
    fn append_names(self, buffer: &mut PacketBuffer, names: &[(IpAddr, String)]) {
        if self == Self::Pcapng && !names.is_empty() {
            pcapng::append_names(buffer, names);
        }
    }

    #[inline(always)]
    fn append_packet(self, buffer: &mut PacketBuffer, interface: u32, packet: &Packet<'_>) -> io::Result<()> {
        match self {
            Self::Pcapng => pcapng::append_packet(buffer, interface, packet),
            Self::Pcap => pcap::append_packet(buffer, packet, 1)?,
            Self::PcapMicros => pcap::append_packet(buffer, packet, 1000)?,
        }
        Ok(())
    }
}

/// The snap length that captures declare. All interfaces have the same one, because libpcap refuses different ones. It
/// is larger than any packet, because no packet is cut for its length.
pub(crate) const SNAP_LENGTH: u32 = 262_144;

/// The buffer goes to the destination once it has this many bytes.
const CHUNK: usize = 512 * 1024;

/// A capture being written.
#[derive(Debug)]
pub struct Capture {
    format: CaptureFormat,
    buffer: PacketBuffer,
    output: Output,
    interfaces: u32,
    packets: u64,
}

impl Capture {
    /// Begins a capture at `destination`.
    ///
    /// # Errors
    /// [`OutputError`] where the destination cannot be created.
    pub fn create(destination: &Destination, format: CaptureFormat) -> Result<Self, OutputError> {
        Self::create_with(destination, format, OutputOptions::default())
    }

    /// Begins a capture at `destination`, created with `options`.
    ///
    /// # Errors
    /// [`OutputError`] where the destination cannot be created.
    pub fn create_with(
        destination: &Destination,
        format: CaptureFormat,
        options: OutputOptions,
    ) -> Result<Self, OutputError> {
        let output = Output::create(destination, options)?;
        let mut buffer = PacketBuffer::default();
        format.append_header(&mut buffer);
        Ok(Self { format, buffer, output, interfaces: 0, packets: 0 })
    }

    /// Another handle for the pipe or device that the capture goes to, before any packet.
    #[cfg(feature = "live")]
    pub(crate) fn pipe(&mut self) -> Option<std::os::fd::OwnedFd> {
        self.output.pipe()
    }

    /// Adds an interface, named after a trace file, and returns its number. pcap has no interfaces.
    pub fn add_interface(&mut self, name: &str) -> u32 {
        self.format.append_interface(&mut self.buffer, name);
        self.interfaces += 1;
        self.interfaces - 1
    }

    /// Adds the true names of made-up addresses. pcap has no place for them.
    pub fn add_names(&mut self, names: &[(IpAddr, String)]) {
        self.format.append_names(&mut self.buffer, names);
    }

    /// A sink for the packets of one interface.
    pub fn interface(&mut self, number: u32) -> Interface<'_> {
        Interface { capture: self, number }
    }

    fn path(&self) -> &Path {
        self.output.path()
    }

    /// How many packets have been added.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Hands everything added so far to the destination, for live streams.
    ///
    /// # Errors
    /// [`OutputError`] where the destination cannot be written.
    pub fn flush(&mut self) -> Result<(), OutputError> {
        if !self.buffer.is_empty() {
            self.output.write(&mut self.buffer)?;
        }
        self.output.flush()
    }

    /// Adds the capture's path to the error of an [`Interface`].
    pub(crate) fn error(&self, source: io::Error) -> OutputError {
        self.output.error(source)
    }

    /// Completes the capture; a file appears under its name only now.
    ///
    /// # Errors
    /// [`OutputError`] where the destination cannot be written.
    pub fn finish(self) -> Result<(), OutputError> {
        self.output.finish(&self.buffer)
    }

    /// Gives up the capture: no file appears.
    pub fn abandon(self) {
        drop(self);
    }

    #[inline(always)]
    fn append(&mut self, interface: u32, packet: &Packet<'_>) -> io::Result<()> {
        self.format.append_packet(&mut self.buffer, interface, packet)?;
        self.packets += 1;
        if self.buffer.len() >= CHUNK { self.write_chunk() } else { Ok(()) }
    }

    /// Adds bytes in the capture's own format.
    fn append_encoded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.append(bytes);
        if self.buffer.len() >= CHUNK { self.write_chunk() } else { Ok(()) }
    }

    #[cold]
    fn write_chunk(&mut self) -> io::Result<()> {
        self.output.write(&mut self.buffer).map_err(OutputError::into_io)
    }
}

/// One interface of a capture, as a sink of packets.
#[derive(Debug)]
pub struct Interface<'a> {
    capture: &'a mut Capture,
    number: u32,
}

impl PacketSink for Interface<'_> {
    #[inline(always)]
    fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        self.capture.append(self.number, packet)
    }
}
