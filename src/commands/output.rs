//! What an output's name and the options make of it.

use std::path::Path;

use super::error::Error;
use crate::{
    capture::{Destination, Format, Packing},
    cli::{self, ConvertArgs},
};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Capture(Format),
    Har,
}

/// What is written to `output`, and how it is packed.
///
/// # Errors
/// Where nothing says what to write, or the options contradict each other.
pub(super) fn kind(args: &ConvertArgs, output: &Destination) -> Result<(Kind, Packing), Error> {
    let (by_name, packing) = match output.file() {
        Some(path) if !output.is_directory() => by_suffix(path),
        _ => (Some(Name::Any), Packing::None),
    };
    let path = output.path().display();
    let contradiction = |words: &str| Err(Error::Arguments(words.to_owned()));
    let micros = args.precision == Some(cli::Precision::Us);
    let pcap = if micros { Format::PcapMicros } else { Format::Pcap };
    let kind = match (args.format, by_name) {
        (Some(cli::Format::Pcap), _) | (None, Some(Name::Pcap)) => Kind::Capture(pcap),
        (Some(cli::Format::Har), _) | (None, Some(Name::Har)) => Kind::Har,
        (Some(cli::Format::Pcapng), _) | (None, Some(Name::Pcapng | Name::Any)) => Kind::Capture(Format::Pcapng),
        // A device or a pipe may have any name.
        (None, None) if output.is_stream() => Kind::Capture(Format::Pcapng),
        (None, None) => {
            return Err(Error::Arguments(format!(
                "{path}: what to write is not clear: the name ends in none of .pcapng, .pcap and .har, with .gz or .zst \
                 after it or not; say it with -F"
            )));
        }
    };
    if micros && kind != Kind::Capture(Format::PcapMicros) {
        return contradiction("--precision us is for pcap alone");
    }
    if packing == Packing::Zstd && !cfg!(feature = "zstd") {
        return contradiction(&format!("{path}: this build of tap2pcap lacks Zstandard; write .gz or unpacked"));
    }
    if kind == Kind::Har && !args.map.is_empty() {
        return contradiction("--map rewrites the addresses of captures; a HAR file has those of the trace");
    }
    Ok((kind, packing))
}

/// The format of a capture, and how it is packed, where nobody else has given them. `None`: `output`'s name says nothing,
/// or that no capture is to be written.
pub(super) fn capture_format(given: Option<Format>, output: &Destination) -> Option<(Format, Packing)> {
    let (by_name, packing) = output.file().map_or((Some(Name::Any), Packing::None), by_suffix);
    let format = given.or(match by_name {
        Some(Name::Pcap) => Some(Format::Pcap),
        Some(Name::Pcapng | Name::Any) => Some(Format::Pcapng),
        Some(Name::Har) => None,
        None => output.is_stream().then_some(Format::Pcapng),
    });
    Some((format?, packing))
}

/// What a suffix stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Pcap,
    Pcapng,
    Har,
    /// There is none.
    Any,
}

/// Wireshark's and tcpdump's suffixes. `None`: another one.
fn by_suffix(output: &Path) -> (Option<Name>, Packing) {
    let suffix = |path: &Path| path.extension().map(|suffix| suffix.to_string_lossy().to_ascii_lowercase());
    let (inner, packing) = match suffix(output).as_deref().and_then(Packing::of_suffix) {
        Some(packing) => (output.with_extension(""), packing),
        None => (output.to_owned(), Packing::None),
    };
    let name = match suffix(&inner).as_deref() {
        Some("pcap" | "cap" | "dmp") => Some(Name::Pcap),
        Some("pcapng" | "ntar") => Some(Name::Pcapng),
        Some("har") => Some(Name::Har),
        // `capture.gz` says how it is packed, and not what.
        None if packing == Packing::None => Some(Name::Any),
        _ => None,
    };
    (name, packing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_say_what_is_written_and_how_it_is_packed() {
        use Packing::{Gzip, None as Plain, Zstd};
        for (output, expected) in [
            ("x.pcap", (Some(Name::Pcap), Plain)),
            ("x.CAP", (Some(Name::Pcap), Plain)),
            ("x.dmp.gz", (Some(Name::Pcap), Gzip)),
            ("a.b/x.pcapng", (Some(Name::Pcapng), Plain)),
            ("x.ntar", (Some(Name::Pcapng), Plain)),
            ("x.pcapng.ZST", (Some(Name::Pcapng), Zstd)),
            ("x.pcap.gz.zst", (None, Zstd)),
            ("x.har.gz", (Some(Name::Har), Gzip)),
            ("a.b/x", (Some(Name::Any), Plain)),
            (".pcap", (Some(Name::Any), Plain)),
            ("x.gz", (None, Gzip)),
            ("x.pb", (None, Plain)),
            ("x.pcapng.tmp", (None, Plain)),
        ] {
            assert_eq!(by_suffix(Path::new(output)), expected, "{output}");
        }
    }
}
