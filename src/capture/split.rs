//! One capture, or several that the packets are split into: one for each connection, or one after another.
//!
//! The captures of connections may be open by the thousands. Their packets wait in a spool, which needs memory and one
//! file, and each capture is written when its connection is over.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    fs, io,
    net::IpAddr,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

#[cfg(feature = "live")]
use super::Gate;
use super::{
    Capture, CaptureFormat, Destination, OutputError, OutputOptions, OutputPacking, PacketBuffer,
    output::CompleteOutput,
};
use crate::{
    spool::Spool,
    synth::{Packet, PacketSink},
    trace::Nanos,
};

/// How many bytes of packets wait in memory for the ends of their connections.
const MAX_WAITING: usize = 32 << 20;

/// How many names are repeated in each of the captures that follow each other.
const MAX_NAMES: usize = 4096;

/// What gets a capture of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitBy {
    /// Each connection.
    Connection,
    /// As many packets as fit into this number of bytes, before they are packed, and at least one.
    Size(u64),
    /// As many nanoseconds of time as this, counted from the first packet of all, each slice with its last one.
    Time(Nanos),
}

/// Where the packets of a connection go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    pub(super) interface: u32,
    /// The connection, if each has a capture, or may be unwanted.
    pub(super) connection: u64,
}

impl Lane {
    /// The same connection on another interface.
    pub(crate) fn on(self, interface: u32) -> Self {
        Self { interface, ..self }
    }
}

/// One capture, or those that the packets are split into.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and each packet uses it")]
pub(crate) enum Captures {
    One(Capture),
    Split(Box<SplitCapture>),
    /// Of those connections alone that are wanted.
    #[cfg(feature = "live")]
    Gated(Box<Gate>),
}

impl Captures {
    /// Adds an interface, named after a trace file, and returns its number.
    pub(crate) fn add_interface(&mut self, name: &str) -> u32 {
        match self {
            Self::One(capture) => capture.add_interface(name),
            Self::Split(split) => split.add_interface(name),
            #[cfg(feature = "live")]
            Self::Gated(gate) => gate.captures_mut().add_interface(name),
        }
    }

    /// Begins a connection, some of whose addresses have `names`.
    pub(crate) fn begin(&mut self, interface: u32, names: &[(IpAddr, String)]) -> io::Result<Lane> {
        match self {
            Self::One(capture) => {
                capture.add_names(names);
                Ok(Lane { interface, connection: 0 })
            }
            Self::Split(split) => split.begin(interface, names),
            #[cfg(feature = "live")]
            Self::Gated(gate) => Ok(gate.begin(interface, names)),
        }
    }

    /// A sink for packets of a connection.
    #[inline(always)]
    pub(crate) fn lane(&mut self, lane: Lane) -> LaneSink<'_> {
        LaneSink { captures: self, lane }
    }

    /// Ends a connection: no packet of it follows.
    pub(crate) fn end(&mut self, lane: Lane) -> io::Result<()> {
        match self {
            Self::One(_) => Ok(()),
            Self::Split(split) => split.end(lane),
            #[cfg(feature = "live")]
            Self::Gated(gate) => gate.end(lane),
        }
    }

    /// How many packets have been added.
    pub(crate) fn packets(&self) -> u64 {
        match self {
            Self::One(capture) => capture.packets(),
            Self::Split(split) => split.packets,
            #[cfg(feature = "live")]
            Self::Gated(gate) => gate.captures().packets(),
        }
    }

    /// Hands everything added so far to the destination, for live streams.
    pub(crate) fn flush(&mut self) -> Result<(), OutputError> {
        match self {
            Self::One(capture) => capture.flush(),
            // A file cannot be seen before it is complete.
            Self::Split(_) => Ok(()),
            #[cfg(feature = "live")]
            Self::Gated(gate) => gate.captures_mut().flush(),
        }
    }

    /// The connection is wanted, if they are not all. Returns whether that is new.
    #[cfg(feature = "live")]
    pub(crate) fn want(&mut self, lane: Lane) -> io::Result<bool> {
        match self {
            Self::Gated(gate) => gate.want(lane),
            Self::One(_) | Self::Split(_) => Ok(false),
        }
    }

    /// How many connections were given up before it was known whether they are wanted.
    #[cfg(feature = "live")]
    pub(crate) fn given_up(&self) -> u64 {
        match self {
            Self::Gated(gate) => gate.given_up(),
            Self::One(_) | Self::Split(_) => 0,
        }
    }

    /// Adds the path to an error of a sink.
    pub(crate) fn error(&self, source: io::Error) -> OutputError {
        match self {
            Self::One(capture) => capture.error(source),
            Self::Split(split) => OutputError { path: split.failed.as_ref().unwrap_or(&split.path).clone(), source },
            #[cfg(feature = "live")]
            Self::Gated(gate) => gate.captures().error(source),
        }
    }

    /// Completes the captures, and returns where they are.
    pub(crate) fn finish(self) -> Result<Vec<PathBuf>, OutputError> {
        match self {
            Self::One(capture) => {
                let path = capture.path().to_owned();
                capture.finish().map(|()| vec![path])
            }
            Self::Split(split) => split.finish(),
            #[cfg(feature = "live")]
            Self::Gated(gate) => gate.finish(),
        }
    }
}

/// The packets of one connection.
#[derive(Debug)]
pub(crate) struct LaneSink<'a> {
    captures: &'a mut Captures,
    lane: Lane,
}

impl PacketSink for LaneSink<'_> {
    #[inline(always)]
    fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        match self.captures {
            Captures::One(capture) => capture.append(self.lane.interface, packet),
            Captures::Split(split) => split.packet(self.lane, packet),
            #[cfg(feature = "live")]
            Captures::Gated(gate) => gate.packet(self.lane, packet),
        }
    }
}

/// The interfaces that a capture has declared: their numbers among all, in the order of their numbers in it.
#[derive(Debug, Default)]
struct Declared(Vec<u32>);

impl Declared {
    /// The number of an interface in the capture. Declares it first if need be.
    fn number(&mut self, interface: u32, format: CaptureFormat, names: &[String], out: &mut PacketBuffer) -> u32 {
        let known = self.0.iter().rposition(|known| *known == interface);
        let number = known.unwrap_or_else(|| {
            format.append_interface(out, names.get(interface as usize).map_or("", |name| name));
            self.0.push(interface);
            self.0.len() - 1
        });
        number as u32
    }
}

/// A connection's capture before it is written.
#[derive(Debug, Default)]
struct Pending {
    /// Its number among the captures, once it has a packet.
    number: u64,
    declared: Declared,
}

/// The capture that packets go to, if captures follow each other.
#[derive(Debug)]
struct Current {
    capture: Capture,
    declared: Declared,
    bytes: u64,
    /// The last time that belongs to it.
    until: Nanos,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a conversion has one")]
enum Parts {
    /// By the numbers of their connections.
    Connections { pending: BTreeMap<u64, Pending>, spool: Spool, begun: u64 },
    Successive {
        current: Option<Current>,
        names: Vec<(IpAddr, String)>,
        /// The time of the first packet of all.
        first: Option<Nanos>,
    },
}

/// Captures that the packets are split into.
#[derive(Debug)]
pub(crate) struct SplitCapture {
    by: SplitBy,
    /// What their names are made of.
    path: PathBuf,
    format: CaptureFormat,
    options: OutputOptions,
    /// Whether each capture gets its name as soon as it is complete, and not together with all others.
    at_once: bool,
    /// How many complete captures are kept; an older one is removed.
    keep: usize,
    interfaces: Vec<String>,
    parts: Parts,
    /// How many captures have a number.
    numbered: u64,
    packets: u64,
    complete: Vec<CompleteOutput>,
    written: VecDeque<PathBuf>,
    /// The capture that could not be written.
    failed: Option<PathBuf>,
    scratch: PacketBuffer,
}

impl SplitCapture {
    /// Captures beside `path`, which gives them its name and a number each. Of a stream that may never end, they appear
    /// `at_once`.
    pub(crate) fn new(by: SplitBy, path: &Path, format: CaptureFormat, options: OutputOptions, at_once: bool) -> Self {
        let parts = match by {
            SplitBy::Connection => {
                Parts::Connections { pending: BTreeMap::new(), spool: Spool::new(MAX_WAITING), begun: 0 }
            }
            SplitBy::Size(_) | SplitBy::Time(_) => Parts::Successive { current: None, names: Vec::new(), first: None },
        };
        Self {
            by,
            path: path.to_owned(),
            format,
            // The caller waits for the disk, once for all.
            options: OutputOptions { many: true, ..options },
            at_once,
            keep: usize::MAX,
            interfaces: Vec::new(),
            parts,
            numbered: 0,
            packets: 0,
            complete: Vec::new(),
            written: VecDeque::new(),
            failed: None,
            scratch: PacketBuffer::default(),
        }
    }

    /// Keeps the last captures alone, so many of them.
    #[cfg(feature = "live")]
    pub(crate) fn keeping(self, keep: usize) -> Self {
        Self { keep, ..self }
    }

    fn add_interface(&mut self, name: &str) -> u32 {
        self.interfaces.push(name.to_owned());
        self.interfaces.len() as u32 - 1
    }

    fn begin(&mut self, interface: u32, new: &[(IpAddr, String)]) -> io::Result<Lane> {
        self.scratch.clear();
        self.format.append_names(&mut self.scratch, new);
        let bytes = self.scratch.as_bytes();
        match &mut self.parts {
            Parts::Connections { spool, begun, .. } => {
                *begun += 1;
                if !bytes.is_empty() {
                    spool.push(*begun, |waiting| waiting.extend_from_slice(bytes))?;
                }
                Ok(Lane { interface, connection: *begun })
            }
            Parts::Successive { current, names, .. } => {
                names.extend_from_slice(new);
                names.drain(..names.len().saturating_sub(MAX_NAMES));
                if let Some(current) = current {
                    current.bytes += bytes.len() as u64;
                    current.capture.append_encoded(bytes)?;
                }
                Ok(Lane { interface, connection: 0 })
            }
        }
    }

    #[cold]
    fn packet(&mut self, lane: Lane, packet: &Packet<'_>) -> io::Result<()> {
        let Self { format, interfaces, scratch, .. } = self;
        scratch.clear();
        if let Parts::Connections { pending, spool, .. } = &mut self.parts {
            let pending = pending.entry(lane.connection).or_default();
            if pending.number == 0 {
                self.numbered += 1;
                pending.number = self.numbered;
            }
            let interface = pending.declared.number(lane.interface, *format, interfaces, scratch);
            format.append_packet(scratch, interface, packet)?;
            spool.push(lane.connection, |waiting| waiting.extend_from_slice(scratch.as_bytes()))?;
        } else {
            self.successive(lane.interface, packet)?;
        }
        self.packets += 1;
        Ok(())
    }

    fn successive(&mut self, interface: u32, packet: &Packet<'_>) -> io::Result<()> {
        if self.current().is_some_and(|current| packet.time > current.until) {
            self.end_current()?;
        }
        if let Some(current) = self.encode(interface, packet)?
            && let SplitBy::Size(most) = self.by
            && current + self.scratch.len() as u64 > most
        {
            self.end_current()?;
        }
        if self.current().is_none() {
            self.begin_next(packet.time)?;
            self.encode(interface, packet)?;
        }
        let (Parts::Successive { current: Some(current), .. }, bytes) = (&mut self.parts, self.scratch.as_bytes())
        else {
            return Ok(());
        };
        current.bytes += bytes.len() as u64;
        let written = current.capture.append_encoded(bytes);
        if written.is_err() {
            self.failed = Some(part_path(&self.path, self.numbered));
        }
        written
    }

    fn current(&mut self) -> Option<&mut Current> {
        match &mut self.parts {
            Parts::Successive { current, .. } => current.as_mut(),
            Parts::Connections { .. } => None,
        }
    }

    /// Encodes a packet for the current capture, if there is one, and returns how long that is before it.
    fn encode(&mut self, interface: u32, packet: &Packet<'_>) -> io::Result<Option<u64>> {
        let Parts::Successive { current: Some(current), .. } = &mut self.parts else { return Ok(None) };
        self.scratch.clear();
        let interface = current.declared.number(interface, self.format, &self.interfaces, &mut self.scratch);
        self.format.append_packet(&mut self.scratch, interface, packet)?;
        Ok(Some(current.bytes))
    }

    fn begin_next(&mut self, time: Nanos) -> io::Result<()> {
        self.numbered += 1;
        let mut capture = self.create(self.numbered)?;
        if let Parts::Successive { current, names, first } = &mut self.parts {
            let first = *first.get_or_insert(time);
            let until = match self.by {
                SplitBy::Time(len) => {
                    let slices = time.saturating_sub(first).div_ceil(len.max(1)).max(1);
                    first.saturating_add(len.saturating_mul(slices))
                }
                SplitBy::Connection | SplitBy::Size(_) => Nanos::MAX,
            };
            capture.add_names(names);
            let bytes = capture.buffer.len() as u64;
            *current = Some(Current { capture, declared: Declared::default(), bytes, until });
        }
        Ok(())
    }

    fn end_current(&mut self) -> io::Result<()> {
        let Parts::Successive { current, .. } = &mut self.parts else { return Ok(()) };
        current.take().map_or(Ok(()), |current| self.keep(self.numbered, current.capture))
    }

    fn end(&mut self, lane: Lane) -> io::Result<()> {
        match &mut self.parts {
            Parts::Connections { .. } => self.write(lane.connection),
            Parts::Successive { .. } => Ok(()),
        }
    }

    /// Writes the capture of a connection, if it has packets.
    fn write(&mut self, connection: u64) -> io::Result<()> {
        let Parts::Connections { pending, spool, .. } = &mut self.parts else { return Ok(()) };
        let Some(Pending { number, .. }) = pending.remove(&connection) else {
            return spool.take(connection, |_| Ok(()));
        };
        let mut capture = self.create(number)?;
        let Parts::Connections { spool, .. } = &mut self.parts else { return Ok(()) };
        let mut piece = vec![0; 1 << 16];
        spool.take(connection, |bytes| {
            loop {
                match bytes.read(&mut piece)? {
                    0 => return Ok::<_, io::Error>(()),
                    len => capture.append_encoded(&piece[..len])?,
                }
            }
        })?;
        self.keep(number, capture)
    }

    fn create(&mut self, number: u64) -> io::Result<Capture> {
        let destination = Destination::File(part_path(&self.path, number));
        Capture::create_with(&destination, self.format, self.options).map_err(|error| self.fail(error))
    }

    /// Completes a capture.
    fn keep(&mut self, number: u64, capture: Capture) -> io::Result<()> {
        let complete = capture.output.complete(&capture.buffer).map_err(|error| self.fail(error))?;
        if self.at_once {
            complete.put_in_place().map_err(|error| self.fail(error))?;
        } else {
            self.complete.push(complete);
        }
        self.written.push_back(part_path(&self.path, number));
        if self.written.len() > self.keep
            && let Some(oldest) = self.written.pop_front()
        {
            // Whoever moved it away wanted to keep it.
            match fs::remove_file(&oldest) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(self.fail(OutputError { path: oldest, source }));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: OutputError) -> io::Error {
        let OutputError { path, source } = error;
        self.failed = Some(path);
        source
    }

    fn finish(mut self) -> Result<Vec<PathBuf>, OutputError> {
        let ended = match &self.parts {
            Parts::Successive { .. } => self.end_current(),
            Parts::Connections { pending, .. } => {
                let open: Vec<_> = pending.keys().copied().collect();
                open.into_iter().try_for_each(|connection| self.write(connection))
            }
        };
        if let Err(source) = ended {
            return Err(OutputError { path: self.failed.unwrap_or(self.path), source });
        }
        self.complete.into_iter().try_for_each(CompleteOutput::put_in_place)?;
        let mut written = Vec::from(self.written);
        written.sort_unstable();
        Ok(written)
    }
}

/// What a name of captures consists of: what comes before the number, and the suffixes that say what they are.
fn stem_and_suffix(path: &Path) -> (OsString, OsString) {
    let (mut stem, mut suffix) = (path.to_owned(), OsString::new());
    let packs = |suffix: &str| OutputPacking::of_suffix(suffix).is_some();
    let is_format = |suffix: &str| CaptureFormat::of_suffix(suffix).is_some();
    for is_known in [&packs as &dyn Fn(&str) -> bool, &is_format] {
        if stem.extension().and_then(|suffix| suffix.to_str()).is_some_and(is_known) {
            let mut longer = OsString::from(".");
            longer.push(stem.extension().unwrap_or_default());
            longer.push(&suffix);
            suffix = longer;
            stem.set_extension("");
        }
    }
    (stem.into_os_string(), suffix)
}

/// The path of the capture with this number, from 1: the number comes before the suffix.
pub(crate) fn part_path(path: &Path, number: u64) -> PathBuf {
    let (mut name, suffix) = stem_and_suffix(path);
    name.push(format!("-{number:05}"));
    name.push(suffix);
    name.into()
}

/// The path that gives captures their names, if this may be the path of one of them.
pub(crate) fn path_of_part(part: &Path) -> Option<PathBuf> {
    let (stem, suffix) = stem_and_suffix(part);
    let mut name = stem.into_vec();
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    name.truncate(name.len() - digits);
    if digits < 5 || name.pop() != Some(b'-') {
        return None;
    }
    let mut path = OsString::from_vec(name);
    path.push(suffix);
    Some(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_comes_before_the_suffix() {
        for (path, expected) in [
            ("a/out.pcapng", "a/out-00007.pcapng"),
            ("out.pcap.gz", "out-00007.pcap.gz"),
            ("in.pb.pcapng", "in.pb-00007.pcapng"),
            ("out", "out-00007"),
            ("a.b/out.ZST", "a.b/out-00007.ZST"),
            (".pcap", ".pcap-00007"),
        ] {
            assert_eq!(part_path(Path::new(path), 7), Path::new(expected));
            assert_eq!(path_of_part(Path::new(expected)).as_deref(), Some(Path::new(path)));
        }
        assert_eq!(part_path(Path::new("x.pcap"), 1_234_567), Path::new("x-1234567.pcap"));
        for other in ["out-1.pcap", "out.pcap", "00001.pcap", "out00001.pcap"] {
            assert_eq!(path_of_part(Path::new(other)), None);
        }
    }
}
