//! Traces in layers and archives, by a plan of a few bytes.

use std::{fs, io::Write as _, path::Path};

use prost::Message as _;
use tap2pcap::{
    input::{Encoding, Layer, Source, SourceOptions, open_all},
    proto::tap::TraceWrapper,
    tap::TraceFormat,
};

use crate::{
    messages::{WINDOW, read, read_source},
    pieces::{InPieces, Pieces},
    script,
};

/// The most bytes of a trace in its layers.
const MAX_LEN: usize = 1 << 20;

/// What an input says: how a trace is wrapped, what is then changed, and the script of the trace.
pub struct Plan<'a> {
    format: TraceFormat,
    encoding: Encoding,
    repeat: usize,
    layers: Vec<u8>,
    change: Change,
    pieces: Pieces,
    script: &'a [u8],
}

/// What happens to the bytes after they were wrapped.
enum Change {
    None,
    Cut(usize),
    Flip(usize, u8),
    Insert(usize, usize, u8),
    /// In the wrapped trace, before the last layer goes around it.
    FlipInside(usize, u8),
}

impl<'a> Plan<'a> {
    /// What an input says.
    pub fn split(input: &'a [u8]) -> Option<Self> {
        let (&[kind, change, at, by, first, second, third, how], script) = input.split_first_chunk::<8>()?;
        let (format, encoding) = [
            (TraceFormat::ProtoBinary, Encoding::Binary),
            (TraceFormat::ProtoBinaryLengthDelimited, Encoding::Delimited),
            (TraceFormat::ProtoText, Encoding::Text),
            (TraceFormat::JsonBodyAsBytes, Encoding::Json),
        ][usize::from(kind & 3)];
        let (place, value) = (usize::from(at) << 4 | usize::from(by & 15), by);
        let change = match change % 6 {
            0 | 1 => Change::None,
            2 => Change::Cut(place),
            3 => Change::Flip(place, value | 1),
            4 => Change::Insert(place, usize::from(change) << 6, value),
            _ => Change::FlipInside(place, value | 1),
        };
        Some(Self {
            format,
            encoding,
            repeat: if how & 0xe0 == 0xe0 { 40 } else { 1 },
            layers: [first, second, third].into_iter().take(usize::from(kind >> 2 & 3)).collect(),
            change,
            pieces: [Pieces::Whole, Pieces::Of(1 + usize::from(how & 31)), Pieces::Mixed(how.into()), Pieces::Of(4096)]
                [usize::from(kind >> 4 & 3)],
            script,
        })
    }
}

/// Wraps, changes and reads a trace. An unchanged one gives the messages that it gives without any layer.
pub fn check(plan: &Plan<'_>) {
    let mut plain = Vec::new();
    let delimited = script::trace(plan.script);
    let mut rest = &delimited[..];
    while let (false, Ok(message)) = (rest.is_empty(), TraceWrapper::decode_length_delimited(&mut rest)) {
        plan.format.encode(&message, &mut plain);
    }
    let mut plain = plain.repeat(plan.repeat);
    if plain.is_empty() || plain.len() > MAX_LEN {
        return;
    }
    if let Change::FlipInside(at, by) = plan.change {
        let at = at % plain.len();
        plain[at] ^= by;
    }
    let (mut bytes, mut layers, mut in_archive) = (plain.clone(), Vec::new(), false);
    for choice in &plan.layers {
        // By its name, an archive would count as a trace.
        let suffix = if in_archive { "" } else { [".json", ".pb", ".pb_text", ".pb.gz"][usize::from(choice >> 4 & 3)] };
        let is_text = matches!(plan.encoding, Encoding::Text | Encoding::Json);
        match wrap(*choice, &bytes, suffix, is_text) {
            Wrapped::Layer(layer, wrapped) => {
                layers.push(layer);
                bytes = wrapped;
            }
            Wrapped::Archive(wrapped) => {
                in_archive = true;
                bytes = wrapped;
            }
            Wrapped::Not => {}
        }
    }
    let is_changed = match plan.change {
        Change::None | Change::FlipInside(..) => false,
        Change::Cut(at) => {
            bytes.truncate(at % bytes.len());
            true
        }
        Change::Flip(at, by) => {
            let at = at % bytes.len();
            bytes[at] ^= by;
            true
        }
        Change::Insert(at, count, byte) => {
            let at = at % bytes.len();
            bytes.splice(at..at, std::iter::repeat_n(byte, count));
            true
        }
    };
    let options = SourceOptions { encoding: Some(plan.encoding), read_size: Some(WINDOW), ..SourceOptions::default() };
    let path = Path::new("path_0");
    let sources = if in_archive {
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        fs::write(file.path(), &bytes).expect("it can be written");
        open_all(file.path(), options).0
    } else {
        // A megabyte in pieces of a few bytes takes too long.
        let pieces = if bytes.len() > 64 << 10 { Pieces::Of(4096) } else { plan.pieces };
        vec![Source::unpack(path, InPieces::new(&bytes, pieces), options)]
    };
    let readings: Vec<_> = sources.into_iter().flatten().map(|mut source| read_source(&mut source)).collect();
    if is_changed {
        return;
    }
    let expected = read(&plain, path, Pieces::Whole, options).expect("it is not empty");
    // What a changed trace says may itself begin like a layer.
    if matches!(plan.change, Change::None) {
        assert_eq!(readings, [expected], "{layers:?}, in an archive: {in_archive}");
    }
}

enum Wrapped {
    Layer(Layer, Vec<u8>),
    Archive(Vec<u8>),
    /// It cannot hold these bytes.
    Not,
}

/// Puts the layer or archive that a byte chooses around `bytes`.
fn wrap(choice: u8, bytes: &[u8], suffix: &str, is_text: bool) -> Wrapped {
    let size = 1 + usize::from(choice >> 3) * 7;
    match choice & 7 {
        0 => Wrapped::Layer(Layer::Gzip, bytes.chunks(size * 200).flat_map(gzip).collect()),
        1 => Wrapped::Layer(Layer::Zstandard, zstd::encode_all(bytes, 1).expect("memory does not fail")),
        2 => Wrapped::Layer(Layer::HttpResponse, [head(choice >> 3).as_bytes(), bytes].concat()),
        3 => {
            let mut chunks = Vec::new();
            for chunk in bytes.chunks(size) {
                chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                chunks.extend_from_slice(chunk);
                chunks.extend_from_slice(b"\r\n");
            }
            chunks.extend_from_slice(if choice & 8 == 0 { b"0\r\n\r\n" } else { b"0\r\na: b\r\n\r\n" });
            Wrapped::Layer(Layer::Chunked, chunks)
        }
        4 | 5 => match std::str::from_utf8(bytes) {
            Ok(text) if is_text && text.starts_with(|char: char| char.is_ascii_graphic()) => {
                let units = text.encode_utf16();
                let mark = (choice & 8 == 0).then_some(0xfeff);
                let to_bytes = if choice & 1 == 0 { u16::to_le_bytes } else { u16::to_be_bytes };
                Wrapped::Layer(Layer::Utf16, mark.into_iter().chain(units).flat_map(to_bytes).collect())
            }
            _ => Wrapped::Not,
        },
        6 => {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            let name = format!("{}path_0{suffix}", "d/".repeat(if choice & 8 == 0 { 0 } else { 90 }));
            archive.append_data(&mut header, name, bytes).expect("memory does not fail");
            Wrapped::Archive(archive.into_inner().expect("memory does not fail"))
        }
        _ => Wrapped::Archive(zip(bytes, choice & 8 == 0, suffix).expect("memory does not fail")),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory does not fail")
}

fn zip(bytes: &[u8], packs: bool, suffix: &str) -> Result<Vec<u8>, rawzip::Error> {
    let mut archive = rawzip::ZipArchiveWriter::new(Vec::new());
    let method = if packs { rawzip::CompressionMethod::DEFLATE } else { rawzip::CompressionMethod::STORE };
    let (mut entry, config) = archive.new_file(&format!("path_0{suffix}")).compression_method(method).start()?;
    let descriptor = if packs {
        let mut writer = config.wrap(flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::fast()));
        writer.write_all(bytes)?;
        let (encoder, descriptor) = writer.finish()?;
        encoder.finish()?;
        descriptor
    } else {
        let mut writer = config.wrap(&mut entry);
        writer.write_all(bytes)?;
        writer.finish()?.1
    };
    entry.finish(descriptor)?;
    archive.finish()
}

/// The head of a response, as curl prints it.
fn head(choice: u8) -> &'static str {
    match choice % 5 {
        0 => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        1 => "HTTP/2 200 \r\nserver: envoy\r\n\r\n",
        2 => "$ curl -i localhost\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\n\n",
        3 => "* Connected\r\n> GET / HTTP/1.1\r\n>\r\n< HTTP/1.1 200 OK\r\n< a: b\r\n< \r\n{ [5 bytes data]\r\n",
        _ => "HTTP/3 302\r\n\r\nHTTP/1.1 200 OK\r\n\x1b[1ma\x1b[0m: b\r\n\r\n",
    }
}
