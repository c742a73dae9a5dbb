//! What may stand around a trace: layers, each recognised by its first bytes and read through.
//!
//! A layer is a reader of what it holds, so layers stack: a gzip file may hold an HTTP response, whose body is chunked.
//! None of them needs more memory than its buffer, and a live stream flows through all of them.

mod chunked;
mod depth;
mod entities;
mod envelope;
mod escapes;
mod grpc;
mod http_response;
mod lines;
mod log_record;
mod met;
mod packed;
mod prefix;
mod rewritten;
#[cfg(test)]
mod tests;
mod utf16;

pub(super) use self::http_response::begins_trace;

use std::{
    fmt,
    io::{self, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use clap::ValueEnum;

pub(super) use self::met::Met;
use self::{entities::Entities, escapes::Escapes, rewritten::Rewritten};
use super::{InputError, around, decode::BYTE_ORDER_MARK};

/// How many layers are taken off. Nobody stacks more by accident, and a bomb of layers must end.
pub const MAX_LAYERS: usize = 6;

/// How much larger than its file a trace may be that was unpacked, beyond [`ROOM`]. DEFLATE cannot do better than 1,032,
/// and only a bomb is packed twice with any success.
const MAX_RATIO: u64 = 2000;
const ROOM: u64 = 1 << 30;

/// The most bytes that are read to recognise a layer. The head of an HTTP response is the largest: this is what Envoy
/// itself accepts (`max_response_headers_kb`, 60 KiB).
const MAX_HEAD: usize = 64 * 1024;

/// Whether a head of this length is to be looked at once more, after it was looked at when it had `looked` bytes. One that
/// is long must have grown by a sixteenth. Live streams show what they are earlier.
pub(super) fn is_due(len: usize, looked: usize) -> bool {
    const LONG: usize = 4096;
    len <= LONG || len >= looked + looked / 16
}

/// Bytes of the first read. They tell nearly all plain traces.
const FIRST: usize = 64;

/// Something around a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
#[non_exhaustive]
pub enum Layer {
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    #[value(alias = "zstd")]
    Zstandard,
    /// The head of an HTTP response, as `curl -i` prints it.
    HttpResponse,
    /// HTTP's chunked coding, as curl leaves it on demand.
    Chunked,
    /// Text in UTF-16, as PowerShell's redirection writes it.
    #[value(name = "utf-16", alias = "utf16")]
    Utf16,
    /// A protobuf message of another type, such as `envoy.service.tap.v3.StreamTapsRequest`.
    ProtobufEnvelope,
    /// gRPC's framing of messages.
    Grpc,
    /// JSON around traces: an array, or an object that holds them somewhere.
    JsonEnvelope,
    /// What a log writes before each line.
    LinePrefix,
    /// The lines of a log, each in an object or another record.
    LogRecords,
    /// zlib (RFC 1950), or DEFLATE (RFC 1951) alone in an HTTP response that says so.
    #[value(alias = "deflate")]
    Zlib,
}

impl Layer {
    /// The word that people read and write.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstandard => "zstandard",
            Self::HttpResponse => "http-response",
            Self::Chunked => "chunked",
            Self::Utf16 => "utf-16",
            Self::ProtobufEnvelope => "protobuf-envelope",
            Self::Grpc => "grpc",
            Self::JsonEnvelope => "json-envelope",
            Self::LinePrefix => "line-prefix",
            Self::LogRecords => "log-records",
            Self::Zlib => "zlib",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Layers that are taken off whatever the bytes look like, the outermost first. Others that are inside of them are
/// recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    list: [Option<Layer>; MAX_LAYERS],
}

impl Layers {
    /// These layers, the outermost first. `None` if there are more than [`MAX_LAYERS`].
    #[must_use]
    pub fn new(layers: &[Layer]) -> Option<Self> {
        let mut list = [None; MAX_LAYERS];
        list.get_mut(..layers.len())?.iter_mut().zip(layers).for_each(|(place, layer)| *place = Some(*layer));
        Some(Self { list })
    }

    /// The layers, the outermost first.
    pub fn iter(&self) -> impl Iterator<Item = Layer> {
        self.list.iter().map_while(|layer| *layer)
    }
}

/// Whether bytes begin with a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    /// They do, and the first `skip` bytes are no part of what the layer holds.
    Yes {
        skip: usize,
    },
    No,
    /// Too few bytes to tell.
    Unknown,
}

impl Match {
    /// Whether `head` begins with `magic`.
    fn of_magic(head: &[u8], magic: &[u8]) -> Self {
        if head.starts_with(magic) {
            Self::Yes { skip: 0 }
        } else if magic.starts_with(head) {
            Self::Unknown
        } else {
            Self::No
        }
    }
}

impl Layer {
    /// The layers that a head shows. The others are taken off where they are met.
    const ALL: [Self; 8] = [
        Self::Gzip,
        Self::Zstandard,
        Self::HttpResponse,
        Self::Chunked,
        Self::Utf16,
        Self::Grpc,
        Self::JsonEnvelope,
        Self::Zlib,
    ];

    fn matches(self, head: &[u8]) -> Match {
        match self {
            Self::Gzip => Match::of_magic(head, packed::GZIP),
            Self::Zstandard => packed::is_zstandard(head),
            Self::HttpResponse => http_response::matches(head),
            Self::Chunked => chunked::matches(head),
            Self::Utf16 => utf16::matches(head),
            // Only the decoder knows where the traces are, so it skips the rest.
            Self::ProtobufEnvelope | Self::LinePrefix | Self::LogRecords => Match::No,
            Self::Grpc => grpc::matches(head),
            Self::JsonEnvelope => envelope::matches(head),
            Self::Zlib => packed::is_zlib(head),
        }
    }

    /// Whether the layer is read through on demand, even if the bytes do not begin with anything that shows it.
    fn needs_no_sign(self) -> bool {
        match self {
            Self::Utf16 | Self::ProtobufEnvelope => true,
            Self::Gzip
            | Self::Zstandard
            | Self::HttpResponse
            | Self::Chunked
            | Self::Grpc
            | Self::JsonEnvelope
            | Self::LinePrefix
            | Self::LogRecords
            | Self::Zlib => false,
        }
    }

    /// Whether what is inside may be much longer.
    fn packs(self) -> bool {
        matches!(self, Self::Gzip | Self::Zstandard | Self::Zlib)
    }

    /// Reads what the layer holds. `skip` bytes of the head were left out already.
    fn read_through(self, inside: Rewound) -> io::Result<Inside> {
        Ok(match self {
            Self::Gzip => packed::gzip(inside),
            Self::Zstandard => packed::zstandard(inside)?,
            Self::HttpResponse => Box::new(inside),
            Self::Chunked => Box::new(chunked::Chunked::new(inside)),
            Self::Utf16 => Box::new(utf16::Utf16::new(inside)),
            Self::ProtobufEnvelope | Self::LinePrefix | Self::LogRecords => Box::new(inside),
            Self::Grpc => Box::new(grpc::Grpc::new(inside)),
            Self::JsonEnvelope => Box::new(envelope::Envelope::new(inside, Met::default())),
            Self::Zlib => packed::zlib(inside, false),
        })
    }
}

pub(super) type Inside = Box<dyn Read + Send>;

/// What is inside of all layers.
pub(super) struct TakenOff {
    pub(super) inside: Inside,
    /// The layers, the outermost first.
    pub(super) layers: Vec<Layer>,
    /// What the layers meet while they are read.
    pub(super) met: Met,
}

/// Why layers were not taken off.
#[derive(Debug)]
pub(super) enum Refused {
    /// Reading failed, or this build lacks what a layer needs.
    Read(io::Error),
    /// A layer was asked for, and the bytes within these others do not begin with it.
    Unfit { layer: Layer, within: Vec<Layer> },
}

impl Refused {
    /// The error for the source of this name.
    pub(super) fn of(self, path: &Path) -> InputError {
        let path = path.to_owned();
        match self {
            Self::Read(source) => InputError::Read { path, source },
            Self::Unfit { layer, within } => InputError::Unfit { path, layer, within },
        }
    }
}

/// Takes off the layers that `reader` begins with: first those that are asked for, then all that are recognised.
/// `count` has the bytes that were read from the reader so far.
pub(super) fn take_off(mut reader: Inside, asked: Layers, count: &Arc<AtomicU64>) -> Result<TakenOff, Refused> {
    let mut layers = Vec::new();
    let met = Met::default();
    let mut in_lines = false;
    // A response has said that its body is DEFLATE, of which nothing else shows the beginning.
    let mut may_be_raw = false;
    let mut asked = asked.iter();
    loop {
        let (mut head, mut late) = (Vec::new(), None);
        let asked = asked.next();
        let found = match asked {
            Some(Layer::LinePrefix | Layer::LogRecords) => Ok(Found::Text),
            Some(layer) => look(&mut *reader, &mut head, &mut late, &[layer], false),
            None => look(&mut *reader, &mut head, &mut late, &Layer::ALL, !in_lines),
        };
        if late.is_some() {
            reader = Box::new(Failed(late));
        }
        let found = found.map_err(Refused::Read)?;
        // What is taken off lines and values begins without it.
        let is_of_text = matches!(found, Found::Text | Found::Layer(Layer::JsonEnvelope, _));
        if is_of_text && head.starts_with(BYTE_ORDER_MARK) {
            head.drain(..BYTE_ORDER_MARK.len());
        }
        let is_raw = may_be_raw
            && matches!(found, Found::Text | Found::Nothing)
            && layers.len() < MAX_LAYERS
            && matches!(asked, None | Some(Layer::Zlib))
            && !around::is_text(&head)
            && packed::inflates(&head, false) != Match::No;
        if is_raw {
            reader = packed::zlib(Rewound::new(head, reader), true);
            reader = Box::new(Bounded { inside: reader, packed: Arc::clone(count), unpacked: 0 });
            layers.push(Layer::Zlib);
            may_be_raw = false;
            continue;
        }
        let (layer, skip) = match (found, asked) {
            (Found::Layer(layer, skip), _) if layers.len() < MAX_LAYERS => (layer, skip),
            (Found::Text, _) => {
                reader = Box::new(Rewound::new(std::mem::take(&mut head), reader));
                if !in_lines {
                    reader = Box::new(Rewritten::new(reader, Escapes::new()));
                    reader = Box::new(Rewritten::new(reader, Entities::new()));
                }
                // A record may hold another one, as that of a container does, and its lines may have a prefix.
                for _ in 0..if in_lines { 0 } else { lines::STAGES } {
                    reader = Box::new(lines::Lines::new(reader, met.clone()));
                }
                in_lines = true;
                continue;
            }
            (Found::Nothing, Some(layer)) if layer.needs_no_sign() => (layer, 0),
            (Found::Nothing, Some(layer)) => return Err(Refused::Unfit { layer, within: layers }),
            (Found::Layer(..) | Found::Nothing, _) => {
                return Ok(TakenOff { inside: Box::new(Rewound::new(head, reader)), layers, met });
            }
        };
        if layer == Layer::JsonEnvelope {
            // Only JSON is inside of it, or nothing: then the head tells what it is.
            let start = head.clone();
            let mut envelope = envelope::Envelope::new(Rewound { head, at: skip, rest: reader }, met.clone());
            let inside: Inside = if envelope.seek().map_err(Refused::Read)? {
                layers.push(layer);
                Box::new(envelope)
            } else {
                Box::new(io::Cursor::new(start))
            };
            return Ok(TakenOff { inside, layers, met });
        }
        may_be_raw = match layer {
            Layer::HttpResponse => http_response::says_deflate(&head[..skip]),
            Layer::Chunked => may_be_raw,
            _ => false,
        };
        reader = layer.read_through(Rewound { head, at: skip, rest: reader }).map_err(Refused::Read)?;
        if layer.packs() {
            reader = Box::new(Bounded { inside: reader, packed: Arc::clone(count), unpacked: 0 });
        }
        layers.push(layer);
    }
}

/// What a head shows.
enum Found {
    /// A layer, and how many bytes are to be left out.
    Layer(Layer, usize),
    /// Text whose lines may have something around them.
    Text,
    Nothing,
}

/// Reads no more into `head` than it takes to tell which of the layers comes, or whether text does. An error after the
/// first byte becomes `late`, because what came before it is still read.
fn look(
    reader: &mut dyn Read,
    head: &mut Vec<u8>,
    late: &mut Option<io::Error>,
    layers: &[Layer],
    may_be_text: bool,
) -> io::Result<Found> {
    let mut buffer = [0; 4096];
    let mut looked = 0;
    loop {
        // The first read is short, because the first bytes tell most, and what is read here is copied once more.
        let room = if head.is_empty() { FIRST } else { buffer.len() };
        let at_end = match reader.read(&mut buffer[..room]) {
            Ok(0) => true,
            Ok(count) => {
                head.extend_from_slice(&buffer[..count]);
                head.len() >= MAX_HEAD
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if head.is_empty() => return Err(error),
            Err(error) => {
                *late = Some(error);
                true
            }
        };
        // A long head is not looked at again for each few bytes.
        if !at_end && !is_due(head.len(), looked) {
            continue;
        }
        looked = head.len();
        let mut unknown = false;
        for layer in layers.iter().copied() {
            match layer.matches(head) {
                Match::Yes { skip } => return Ok(Found::Layer(layer, skip)),
                Match::No => {}
                Match::Unknown => unknown = true,
            }
        }
        let is_text = if may_be_text { lines::matches(head, at_end) } else { Match::No };
        if at_end || !unknown {
            match is_text {
                Match::Yes { .. } => return Ok(Found::Text),
                Match::Unknown if !at_end => {}
                Match::No | Match::Unknown => return Ok(Found::Nothing),
            }
        }
    }
}

/// Fails once, after everything that came before.
struct Failed(Option<io::Error>);

impl Read for Failed {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Reads again the bytes that were looked at, then the rest.
pub(super) struct Rewound {
    head: Vec<u8>,
    at: usize,
    rest: Inside,
}

impl Rewound {
    pub(super) fn new(head: Vec<u8>, rest: Inside) -> Self {
        Self { head, at: 0, rest }
    }

    /// Puts bytes back that were read, but for the first `skip` ones.
    fn push_back(&mut self, mut bytes: Vec<u8>, skip: usize) {
        bytes.extend_from_slice(&self.head[self.at..]);
        (self.head, self.at) = (bytes, skip);
    }
}

impl Read for Rewound {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at < self.head.len() {
            let count = (&self.head[self.at..]).read(buffer)?;
            self.at += count;
            return Ok(count);
        }
        self.rest.read(buffer)
    }
}

/// Ends what is unpacked where only a bomb goes on.
struct Bounded {
    inside: Inside,
    packed: Arc<AtomicU64>,
    unpacked: u64,
}

impl Read for Bounded {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inside.read(buffer)?;
        self.unpacked += count as u64;
        if self.unpacked > ROOM && self.unpacked / MAX_RATIO > self.packed.load(Ordering::Relaxed) {
            let text = format!("unpacked, it is more than {MAX_RATIO} times as long; unpack it first");
            return Err(io::Error::other(text));
        }
        Ok(count)
    }
}
