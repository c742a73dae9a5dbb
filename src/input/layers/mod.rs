//! What may stand around a trace: layers, each recognised by its first bytes and read through.
//!
//! A layer is a reader of what it holds, so layers stack: a gzip file may hold an HTTP response, whose body is chunked.
//! None of them needs more memory than its buffer, and a live stream flows through all of them.

mod chunked;
mod depth;
mod envelope;
mod grpc;
mod http_response;
mod lines;
mod log_record;
mod packed;
mod prefix;
#[cfg(test)]
mod tests;
mod utf16;

use std::{
    fmt,
    io::{self, Read},
};

pub(super) use self::lines::Used;

/// How many layers are taken off. Nobody stacks more by accident, and a bomb of layers must end.
pub(super) const MAX_LAYERS: usize = 6;

/// The most bytes that are read to recognise a layer. The head of an HTTP response is the largest: this is what Envoy
/// itself accepts (`max_response_headers_kb`, 60 KiB).
const MAX_HEAD: usize = 64 * 1024;

/// Something around a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layer {
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstandard,
    /// The head of an HTTP response, as `curl -i` prints it.
    HttpResponse,
    /// HTTP's chunked coding (RFC 9112, section 7.1), as `curl --raw` leaves it.
    Chunked,
    /// Text in UTF-16, as PowerShell's redirection writes it.
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
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstandard => "Zstandard",
            Self::HttpResponse => "an HTTP response",
            Self::Chunked => "chunked coding",
            Self::Utf16 => "UTF-16",
            Self::ProtobufEnvelope => "a protobuf message",
            Self::Grpc => "gRPC frames",
            Self::JsonEnvelope => "a JSON envelope",
            Self::LinePrefix => "line prefixes",
            Self::LogRecords => "log records",
        })
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
    const ALL: [Self; 7] =
        [Self::Gzip, Self::Zstandard, Self::HttpResponse, Self::Chunked, Self::Utf16, Self::Grpc, Self::JsonEnvelope];

    fn matches(self, head: &[u8]) -> Match {
        match self {
            Self::Gzip => Match::of_magic(head, packed::GZIP),
            Self::Zstandard => Match::of_magic(head, packed::ZSTANDARD),
            Self::HttpResponse => http_response::matches(head),
            Self::Chunked => chunked::matches(head),
            Self::Utf16 => utf16::matches(head),
            // Only the decoder knows where the traces are, so it skips the rest.
            Self::ProtobufEnvelope | Self::LinePrefix | Self::LogRecords => Match::No,
            Self::Grpc => grpc::matches(head),
            Self::JsonEnvelope => envelope::matches(head),
        }
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
            Self::JsonEnvelope => Box::new(envelope::Envelope::new(inside)),
        })
    }
}

type Inside = Box<dyn Read + Send>;

/// What is inside of all layers.
pub(super) struct TakenOff {
    pub(super) inside: Inside,
    /// The layers, the outermost first.
    pub(super) layers: Vec<Layer>,
    /// What is taken off lines of text while they are read.
    pub(super) used: Used,
}

/// Takes off the layers that `reader` begins with.
///
/// # Errors
/// If reading fails, or this build lacks what a layer needs.
pub(super) fn take_off(mut reader: Inside) -> io::Result<TakenOff> {
    let mut layers = Vec::new();
    let used = Used::default();
    let mut in_lines = false;
    loop {
        let mut head = Vec::new();
        let found = look(&mut reader, &mut head, !in_lines)?;
        let (layer, skip) = match found {
            Found::Layer(layer, skip) if layers.len() < MAX_LAYERS => (layer, skip),
            Found::Text => {
                in_lines = true;
                // A record may hold another one, as that of a container does, and its lines may have a prefix.
                for _ in 0..lines::STAGES {
                    reader = Box::new(Rewound { head: std::mem::take(&mut head), at: 0, rest: reader });
                    reader = Box::new(lines::Lines::new(reader, used.clone()));
                }
                continue;
            }
            Found::Layer(..) | Found::Nothing => {
                return Ok(TakenOff { inside: Box::new(Rewound { head, at: 0, rest: reader }), layers, used });
            }
        };
        if layer == Layer::JsonEnvelope {
            // Only JSON is inside of it, or nothing: then the head tells what it is.
            let start = head.clone();
            let mut envelope = envelope::Envelope::new(Rewound { head, at: skip, rest: reader });
            let inside: Inside = if envelope.seek()? {
                layers.push(layer);
                Box::new(envelope)
            } else {
                Box::new(io::Cursor::new(start))
            };
            return Ok(TakenOff { inside, layers, used });
        }
        reader = layer.read_through(Rewound { head, at: skip, rest: reader })?;
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

/// Reads no more into `head` than it takes to tell what comes.
fn look(reader: &mut Inside, head: &mut Vec<u8>, may_be_text: bool) -> io::Result<Found> {
    let mut buffer = [0; 4096];
    loop {
        // The first read is short, because the first bytes tell most, and what is read here is copied once more.
        let room = if head.is_empty() { 4 } else { buffer.len() };
        let at_end = match reader.read(&mut buffer[..room]) {
            Ok(0) => true,
            Ok(count) => {
                head.extend_from_slice(&buffer[..count]);
                head.len() >= MAX_HEAD
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if head.is_empty() => return Err(error),
            // What came before the error is still read.
            Err(error) => {
                *reader = Box::new(Failed(Some(error)));
                true
            }
        };
        let mut unknown = false;
        for layer in Layer::ALL {
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
struct Rewound {
    head: Vec<u8>,
    at: usize,
    rest: Inside,
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
