//! What is written to an output. Its name and the options decide.

use std::path::Path;

use super::error::Error;
use crate::{
    capture::{CaptureFormat, Destination, OutputPacking},
    cli::{self, ConvertArgs},
};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Capture(CaptureFormat),
    Har,
}

/// What is written to `output`, and how it is packed.
///
/// # Errors
/// The name and the options do not say what to write, or the options contradict each other.
pub(super) fn kind(args: &ConvertArgs, output: &Destination) -> Result<(Kind, OutputPacking), Error> {
    let (by_name, packing) = match output.file() {
        Some(path) if !output.is_directory() => by_suffix(path),
        _ => (Some(Suffix::Any), OutputPacking::None),
    };
    let path = output.path().display();
    let contradiction = |words: &str| Err(Error::Arguments(words.to_owned()));
    let micros = args.precision == Some(cli::Precision::Us);
    let pcap = if micros { CaptureFormat::PcapMicros } else { CaptureFormat::Pcap };
    let kind = match (args.format, by_name) {
        (Some(cli::OutputFormat::Pcap), _) | (None, Some(Suffix::Pcap)) => Kind::Capture(pcap),
        (Some(cli::OutputFormat::Har), _) | (None, Some(Suffix::Har)) => Kind::Har,
        (Some(cli::OutputFormat::Pcapng), _) | (None, Some(Suffix::Pcapng | Suffix::Any)) => {
            Kind::Capture(CaptureFormat::Pcapng)
        }
        // A device or a pipe may have any name.
        (None, None) if output.is_stream() => Kind::Capture(CaptureFormat::Pcapng),
        (None, None) => {
            return Err(Error::Arguments(format!(
                "{path}: what to write is not clear: the name does not end in .pcapng, .pcap or .har, with or without \
                 .gz or .zst after it; -F says what to write"
            )));
        }
    };
    if micros && kind != Kind::Capture(CaptureFormat::PcapMicros) {
        return contradiction("--precision us is for pcap alone");
    }
    if packing == OutputPacking::Zstd && !cfg!(feature = "zstd") {
        return contradiction(&format!("{path}: this build of tap2pcap lacks Zstandard; write .gz or unpacked"));
    }
    if args.split.is_some() && (kind == Kind::Har || output.is_stream()) {
        return contradiction("--split is for captures in files: the output must be a capture's name or a directory");
    }
    if kind == Kind::Har && !args.conversion.map.is_empty() {
        return contradiction("--map rewrites the addresses of captures; a HAR file has those of the trace");
    }
    Ok((kind, packing))
}

/// The format of a capture and how it is packed: the `given` format, or else what `output`'s name says. `None` if the
/// name says nothing, or that the output is not a capture.
pub(super) fn capture_format(
    given: Option<CaptureFormat>,
    output: &Destination,
) -> Option<(CaptureFormat, OutputPacking)> {
    let (by_name, packing) = output.file().map_or((Some(Suffix::Any), OutputPacking::None), by_suffix);
    let format = given.or(match by_name {
        Some(Suffix::Pcap) => Some(CaptureFormat::Pcap),
        Some(Suffix::Pcapng | Suffix::Any) => Some(CaptureFormat::Pcapng),
        Some(Suffix::Har) => None,
        None => output.is_stream().then_some(CaptureFormat::Pcapng),
    });
    Some((format?, packing))
}

/// What a suffix stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suffix {
    Pcap,
    Pcapng,
    Har,
    /// The name has no suffix.
    Any,
}

/// Recognises the suffixes of Wireshark and tcpdump. `None` stands for any other suffix.
fn by_suffix(output: &Path) -> (Option<Suffix>, OutputPacking) {
    let suffix = |path: &Path| path.extension().map(|suffix| suffix.to_string_lossy().to_ascii_lowercase());
    let (inner, packing) = match suffix(output).as_deref().and_then(OutputPacking::of_suffix) {
        Some(packing) => (output.with_extension(""), packing),
        None => (output.to_owned(), OutputPacking::None),
    };
    let name = match suffix(&inner).as_deref() {
        Some("har") => Some(Suffix::Har),
        Some(suffix) => CaptureFormat::of_suffix(suffix).map(|format| match format {
            CaptureFormat::Pcap | CaptureFormat::PcapMicros => Suffix::Pcap,
            CaptureFormat::Pcapng => Suffix::Pcapng,
        }),
        // `capture.gz` says how the output is packed, but not what is in it.
        None if packing == OutputPacking::None => Some(Suffix::Any),
        None => None,
    };
    (name, packing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_say_what_is_written_and_how_it_is_packed() {
        use OutputPacking::{Gzip, None as Plain, Zstd};
        for (output, expected) in [
            ("x.pcap", (Some(Suffix::Pcap), Plain)),
            ("x.CAP", (Some(Suffix::Pcap), Plain)),
            ("x.dmp.gz", (Some(Suffix::Pcap), Gzip)),
            ("a.b/x.pcapng", (Some(Suffix::Pcapng), Plain)),
            ("x.ntar", (Some(Suffix::Pcapng), Plain)),
            ("x.pcapng.ZST", (Some(Suffix::Pcapng), Zstd)),
            ("x.pcap.gz.zst", (None, Zstd)),
            ("x.har.gz", (Some(Suffix::Har), Gzip)),
            ("a.b/x", (Some(Suffix::Any), Plain)),
            (".pcap", (Some(Suffix::Any), Plain)),
            ("x.gz", (None, Gzip)),
            ("x.pb", (None, Plain)),
            ("x.pcapng.tmp", (None, Plain)),
        ] {
            assert_eq!(by_suffix(Path::new(output)), expected, "{output}");
        }
    }
}
