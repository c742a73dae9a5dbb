//! Names what is no trace, by its first bytes, and says what to do with it.

use std::{fmt, fmt::Write as _};

use memchr::memmem;

use super::{after_blanks, binary_trace, enveloped::Part};
use crate::{
    input::{
        outline::{InString, Outline, WRAPPERS, is_space, scalar},
        wire::Scanner,
    },
    trace::WireFault,
};

/// What the first bytes look like if they are not those of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Likeness {
    /// A pcapng capture.
    Pcapng,
    /// A pcap capture.
    Pcap,
    /// Packets in another form, by its name.
    Packets(&'static str),
    /// An image.
    Image,
    /// A PDF document.
    Pdf,
    /// An HTML page.
    Html,
    /// An XML document.
    Xml,
    /// gzip data within more layers than are taken off.
    Gzip,
    /// Zstandard data within more layers than are taken off.
    Zstandard,
    /// A tar archive, where only one trace is read.
    Tar,
    /// A ZIP archive.
    Zip,
    /// Packed data or an archive, with the command that unpacks it.
    Packed {
        /// The name of the format.
        name: &'static str,
        /// The command.
        command: &'static str,
    },
    /// Encrypted data, by the name of what encrypted it.
    Encrypted(&'static str),
    /// A program.
    Program,
    /// A database.
    Database,
    /// An HTTP archive.
    Har,
    /// Envoy's configuration.
    EnvoyConfig,
    /// The request that begins a tap at Envoy's admin endpoint.
    TapRequest,
    /// Envoy's statistics.
    EnvoyStats,
    /// An access log of Envoy.
    AccessLog,
    /// Envoy's own log.
    EnvoyLog,
    /// An error message instead of a trace.
    ErrorMessage,
    /// A trace in a record of a log, without anything in it.
    EmptyTrace,
    /// JSON without a tap trace. Directories of traces hold such files too.
    OtherJson,
    /// JSON with a string that is a trace in base64.
    JsonWithBase64,
    /// A JSON array.
    JsonArray,
    /// A dictionary as Python prints it.
    PythonDict,
    /// Bytes as Python prints them.
    PythonBytes,
    /// YAML.
    Yaml,
    /// A trace as YAML.
    YamlTrace,
    /// A hex dump of `xxd`.
    HexDump,
    /// A hex dump of `hexdump -C`.
    CanonicalDump,
    /// A dump of another program, which has no command that undoes it.
    OtherDump,
    /// Hexadecimal digits and nothing else.
    HexDigits,
    /// base64.
    Base64,
    /// base64 with the alphabet for URLs.
    UrlBase64,
    /// What `protoc --decode_raw` prints.
    DecodeRaw,
    /// What a program in Go or Rust prints of a value.
    DebugOutput,
    /// A PEM file.
    Pem,
    /// Only white space.
    Blank,
    /// Only zeros.
    Zeros,
    /// A binary trace whose line feeds a terminal turned into CR LF.
    TerminalDamage,
    /// Binary data that went through a conversion to UTF-8.
    Utf8Damage,
    /// A trace of Envoy's capture socket of 2018.
    Capture2018,
    /// A binary trace of early 2019.
    Trace2019,
    /// Text of no known kind.
    Text(FirstBytes),
    /// A protobuf message of some other type, or of any type.
    Protobuf,
    /// Nothing that is known.
    Nothing(FirstBytes),
}

impl Likeness {
    /// The same without any bytes of what it is about.
    pub(crate) fn without_bytes(self) -> Self {
        match self {
            Self::Text(first) => Self::Text(first.masked()),
            Self::Nothing(first) => Self::Nothing(first.masked()),
            other => other,
        }
    }

    /// Whether it is JSON that has nothing to do with a trace.
    pub(in crate::input) fn is_other_json(self) -> bool {
        matches!(
            self,
            Self::EmptyTrace
                | Self::OtherJson
                | Self::JsonArray
                | Self::Har
                | Self::Packets(_)
                | Self::EnvoyConfig
                | Self::TapRequest
                | Self::EnvoyStats
                | Self::AccessLog
        )
    }
}

/// The first bytes of something unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FirstBytes {
    bytes: [u8; Self::MOST],
    len: u8,
}

impl FirstBytes {
    const MOST: usize = 16;

    fn of(head: &[u8]) -> Self {
        let len = head.len().min(Self::MOST);
        let mut bytes = [0; Self::MOST];
        bytes[..len].copy_from_slice(&head[..len]);
        Self { bytes, len: len as u8 }
    }

    /// Asterisks in their place.
    fn masked(self) -> Self {
        Self { bytes: [b'*'; Self::MOST], len: self.len }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// In hexadecimal and as text.
impl fmt::Display for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().iter().try_for_each(|byte| write!(f, "{byte:02x} "))?;
        f.write_char('"')?;
        self.bytes().iter().try_for_each(|byte| match byte {
            b'"' => f.write_char('"'),
            b' '..=b'~' => f.write_char(char::from(*byte)),
            _ => f.write_char('.'),
        })?;
        f.write_char('"')
    }
}

impl fmt::Display for Likeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcapng => "it is a pcapng capture already",
            Self::Pcap => "it is a pcap capture already",
            Self::Packets(name) => return write!(f, "it is {name}, so it holds packets already"),
            Self::Image => "it is an image",
            Self::Pdf => "it is a PDF document",
            Self::Html => "it is an HTML page (an error page saved as a file?)",
            Self::Xml => "it is an XML document",
            Self::Gzip => "it is gzip data, in too many layers; unpack it first",
            Self::Zstandard => "it is Zstandard data, in too many layers; unpack it first",
            Self::Tar => "it is a tar archive",
            Self::Zip => "it is a ZIP archive",
            Self::Packed { name, command } => return write!(f, "it is {name}; unpack it first: {command}"),
            Self::Encrypted(name) => return write!(f, "it is encrypted ({name}); decrypt it first"),
            Self::Program => "it is a program",
            Self::Database => "it is an SQLite database",
            Self::Har => "it is an HTTP archive (HAR), not what it could be made from",
            Self::EnvoyConfig => {
                "it is Envoy's configuration; the traces are where its tap's path_prefix says, or come from the admin \
                 endpoint /tap"
            }
            Self::TapRequest => "it is the request for a tap, not its answer: curl -X POST -d @FILE http://ADMIN/tap",
            Self::EnvoyStats => "it is what Envoy's admin endpoint /stats prints; traces come from its endpoint /tap",
            Self::AccessLog => "it is an Envoy access log, which has no bytes of connections; tap the traffic instead",
            Self::EnvoyLog => "it is Envoy's own log; traces come from a tap",
            Self::ErrorMessage => "it is the text of an error message instead of a trace; read it, and tap again",
            Self::EmptyTrace => "it has the name of a tap trace, but no address, event, header or body of one",
            Self::OtherJson => "it is JSON, but holds none of a tap trace's fields",
            Self::JsonWithBase64 => {
                "it is JSON with a trace in base64; take that out first: jq -r .FIELD FILE | base64 -d"
            }
            Self::JsonArray => "it is a JSON array without tap traces",
            Self::PythonDict => "it is a dictionary as Python prints it; print json.dumps(it) instead",
            Self::PythonBytes => "it is bytes as Python prints them (b'...'); write the bytes themselves to a file",
            Self::Yaml => "it is YAML",
            Self::YamlTrace => "it is a trace as YAML; convert it to JSON first: yq -o=json",
            Self::HexDump => "it is a hex dump; turn it back into bytes first: xxd -r",
            Self::CanonicalDump => {
                "it is a hex dump of hexdump -C; if it has no line with *, which stands for others, turn it back into \
                 bytes first: cut -c11-58 FILE | xxd -r -p"
            }
            Self::OtherDump => {
                "it is a hex dump that cannot be turned back as it is; copy the file itself, or as base64"
            }
            Self::HexDigits => "it is hexadecimal digits; turn them into bytes first: xxd -r -p",
            Self::Base64 => "it is base64; decode it first: base64 -d",
            Self::UrlBase64 => "it is base64 for URLs; decode it first: tr _- /+ <FILE | base64 -d",
            Self::DecodeRaw => {
                "it is what protoc --decode_raw prints, which lacks the names of fields; use the file that was decoded"
            }
            Self::DebugOutput => {
                "it is what a program in Go or Rust prints of a value; write the message as JSON, or its bytes"
            }
            Self::Pem => "it is a PEM file (a key or certificate)",
            Self::Blank => "it holds only white space",
            Self::Zeros => "it holds only zeros (a file that was never written to, or a hole)",
            Self::TerminalDamage => {
                "a terminal turned each line feed of a binary trace into CR LF; copy it again with kubectl exec \
                 without -t, or with kubectl cp"
            }
            Self::Utf8Damage => {
                "binary data went through a text editor or a conversion to UTF-8, which changed its bytes (ef bf bd \
                 stands for lost ones); copy the original again, as binary"
            }
            Self::Capture2018 => {
                "it is a capture of 2018 (envoy.data.tap.v2alpha.Trace, Envoy 1.7 and 1.8), whose fields mean \
                 something else today; convert it with the tap2pcap.py of that Envoy"
            }
            Self::Trace2019 => {
                "it is a binary trace of early 2019 (envoy.data.tap.v2alpha, Envoy 1.9), whose fields mean something \
                 else today; convert it to text with the protoc and the .proto files of that Envoy"
            }
            Self::Text(first) => return write!(f, "it is text, but neither JSON nor protobuf text: it begins {first}"),
            Self::Protobuf => "it may be a protobuf message, but it has nothing that only a tap trace has",
            Self::Nothing(first) => {
                return write!(f, "none of Envoy's five formats fits its first bytes: {first}");
            }
        })
    }
}

/// Recognises captures by their magic numbers. They are often in the same directory as traces.
pub(super) fn capture(head: &[u8]) -> Option<Likeness> {
    let starts = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| head.starts_with(prefix));
    if starts(&[b"\x0a\x0d\x0d\x0a"]) {
        Some(Likeness::Pcapng)
    } else if starts(&[b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d"]) {
        Some(Likeness::Pcap)
    } else {
        None
    }
}

/// What the first bytes look like if they are not those of a trace.
pub(super) fn of(head: &[u8]) -> Likeness {
    let text = after_blanks(head);
    if let Some(known) = capture(head).or_else(|| by_magic(head)) {
        known
    } else if text.is_empty() {
        Likeness::Blank
    } else if head.iter().all(|byte| *byte == 0) {
        Likeness::Zeros
    } else if is_text(head) {
        of_text(text)
    } else if is_terminal_damage(head) {
        Likeness::TerminalDamage
    } else if is_utf8_damage(head)
        && (memmem::find(head, "\u{fffd}".as_bytes()).is_some() || binary_trace(&from_latin(head)).is_some())
    {
        Likeness::Utf8Damage
    } else if let Some(old) = old_trace(head) {
        old
    } else if is_protobuf(head) {
        Likeness::Protobuf
    } else {
        Likeness::Nothing(FirstBytes::of(head))
    }
}

/// Formats that begin with bytes of their own.
fn by_magic(head: &[u8]) -> Option<Likeness> {
    let packed = |name, command| Likeness::Packed { name, command };
    let known: [(&[u8], Likeness); 36] = [
        (b"\x89PNG", Likeness::Image),
        (b"\xff\xd8\xff", Likeness::Image),
        (b"GIF8", Likeness::Image),
        (b"%PDF-", Likeness::Pdf),
        (b"\x1f\x8b", Likeness::Gzip),
        (b"\x28\xb5\x2f\xfd", Likeness::Zstandard),
        (b"PK\x03\x04", Likeness::Zip),
        (b"PK\x05\x06", Likeness::Zip),
        (b"7z\xbc\xaf\x27\x1c", packed("a 7z archive", "7z x")),
        (b"Rar!\x1a\x07", packed("a RAR archive", "unrar x")),
        (b"\xfd7zXZ\x00", packed("xz data", "xz -d")),
        (b"BZh", packed("bzip2 data", "bzip2 -d")),
        (b"\x04\x22\x4d\x18", packed("LZ4 data", "lz4 -d")),
        (b"LZIP", packed("lzip data", "lzip -d")),
        (b"\x1f\x9d", packed("data of compress", "gzip -d")),
        (b"\xff\x06\x00\x00sNaPpY", packed("Snappy data", "snzip -d")),
        (b"!<arch>\n", packed("an ar archive", "ar x")),
        (b"070701", packed("a cpio archive", "cpio -i")),
        (b"Salted__", Likeness::Encrypted("openssl enc")),
        (b"age-encryption.org/", Likeness::Encrypted("age")),
        (b"-----BEGIN AGE ENCRYPTED FILE", Likeness::Encrypted("age")),
        (b"-----BEGIN PGP MESSAGE", Likeness::Encrypted("PGP")),
        (b"$ANSIBLE_VAULT", Likeness::Encrypted("Ansible Vault")),
        (b"-----BEGIN ", Likeness::Pem),
        (b"\x7fELF", Likeness::Program),
        (b"\xcf\xfa\xed\xfe", Likeness::Program),
        (b"MZ\x90\x00", Likeness::Program),
        (b"\x00asm", Likeness::Program),
        (b"#!", Likeness::Program),
        (b"SQLite format 3\x00", Likeness::Database),
        (b"snoop\x00\x00\x00", Likeness::Packets("a snoop capture")),
        (b"\x34\xcd\xb2\xa1", Likeness::Packets("a modified pcap capture")),
        (b"GMBU", Likeness::Packets("a capture of Network Monitor")),
        (b"+---------+---------------+", Likeness::Packets("a capture of a K12 analyser")),
        (b"XCP\x00", Likeness::Packets("a capture of NetXRay")),
        (b"RTSS", Likeness::Packets("a capture of Network Monitor")),
    ];
    // The header of a tar archive ends with its own name.
    let is_tar = head.get(257..262) == Some(b"ustar");
    known.into_iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, known)| known).or_else(|| {
        // A session key and the data that it encrypts.
        let is_pgp = matches!(head, [0x85, 0x01 | 0x02, _, 0x03, ..] | [0x84, 0x5e, 0x03, ..] | [0x8c, 0x0d, 0x04, ..]);
        is_tar.then_some(Likeness::Tar).or_else(|| is_pgp.then_some(Likeness::Encrypted("PGP")))
    })
}

/// Whether the head is text: UTF-8 without control characters. Its last character may be incomplete.
fn is_text(head: &[u8]) -> bool {
    let text = match str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
        Err(_) => return false,
    };
    // Terminals print colours with ESC, and progress with backspaces.
    text.chars().all(|char| !char.is_control() || matches!(char, '\t' | '\n' | '\r' | '\x0c' | '\x1b' | '\x08'))
}

fn of_text(text: &[u8]) -> Likeness {
    let tag = |word: &[u8]| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let lines =
        || text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).filter(|line| !line.is_empty()).take(40);
    let first = lines().next().unwrap_or_default();
    if tag(b"<!doctype html") || tag(b"<html") || tag(b"<head") || tag(b"<body") {
        Likeness::Html
    } else if tag(b"<?xml") {
        Likeness::Xml
    } else if matches!(text, [b'[' | b'{', ..])
        && let Some(json) = of_json(text)
    {
        json
    } else if matches!(text, [b'{', rest @ ..] if rest.trim_ascii_start().starts_with(b"'")) {
        Likeness::PythonDict
    } else if is_python_bytes(text) {
        Likeness::PythonBytes
    } else if is_error_message(text) {
        Likeness::ErrorMessage
    } else if lines().all(is_dump_line) && is_dump_line(first) && first.contains(&b' ') {
        of_dump(first)
    } else if is_packet_list(first) {
        Likeness::Packets("a list of packets as tcpdump or tshark prints them")
    } else if is_access_log(first) {
        Likeness::AccessLog
    } else if is_envoy_log(first) {
        Likeness::EnvoyLog
    } else if is_stats(lines()) {
        Likeness::EnvoyStats
    } else if is_capture_2018_text(text) {
        Likeness::Capture2018
    } else if is_decode_raw(lines()) {
        Likeness::DecodeRaw
    } else if is_digits(text, u8::is_ascii_hexdigit) {
        Likeness::HexDigits
    } else if is_digits(text, |byte| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte)) {
        // The head may be too short to have one of these, but it hardly is.
        if text.iter().any(|byte| b"-_".contains(byte)) { Likeness::UrlBase64 } else { Likeness::Base64 }
    } else if is_debug_output(text) {
        Likeness::DebugOutput
    } else if is_yaml(lines()) {
        of_yaml(text)
    } else {
        Likeness::Text(FirstBytes::of(text))
    }
}

/// `b'...'`, with its end or so long that the end is not in sight.
fn is_python_bytes(text: &[u8]) -> bool {
    let Some([quote @ (b'\'' | b'"'), rest @ ..]) = text.strip_prefix(b"b") else { return false };
    rest.trim_ascii_end().last() == Some(quote) || memmem::find(rest, b"\\x").is_some()
}

/// The keys of the first object, or of the first object in an array, and of the objects directly in it.
fn keys(text: &[u8]) -> Option<Vec<(usize, &[u8])>> {
    let mut outline = Outline::default();
    let mut keys = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        if *byte == b'"' {
            let is_key = outline.at_key();
            if !outline.string() {
                return None;
            }
            let Some(len) = InString::default().end(&text[at..]) else { break };
            if is_key {
                keys.push((outline.depth(), &text[at..at + len - 1]));
            }
            at += len;
        } else if let Some((len, is_scalar)) = scalar(&text[at - 1..]) {
            let is_whole = at - 1 + len < text.len();
            if is_whole && !(is_scalar && outline.wants_value()) {
                return None;
            }
            outline.value();
            at += len - 1;
        } else if !outline.byte(*byte) {
            return None;
        }
        if outline.depth() == 0 && !is_space(*byte) {
            break;
        }
    }
    Some(keys)
}

/// What kind of JSON it is; `None` if it is none.
fn of_json(text: &[u8]) -> Option<Likeness> {
    let keys = keys(text)?;
    let has = |name: &str| keys.iter().any(|(_, key)| *key == name.as_bytes());
    let is_array = text.starts_with(b"[");
    Some(if has("log") && has("entries") && (has("creator") || has("version")) {
        Likeness::Har
    } else if (has("_index") && has("_source"))
        || (has("index") && has("_index"))
        || (has("layers") && has("timestamp"))
    {
        Likeness::Packets("packets as tshark prints them in JSON")
    } else if has("tap_config") && has("config_id") {
        Likeness::TapRequest
    } else if ["static_resources", "dynamic_resources", "configs", "staticResources"].iter().any(|name| has(name)) {
        Likeness::EnvoyConfig
    } else if has("stats") && (has("name") || has("histograms")) || has("cluster_statuses") {
        Likeness::EnvoyStats
    } else if has("response_code") && (has("upstream_host") || has("upstream_cluster") || has("response_flags")) {
        Likeness::AccessLog
    } else if holds_base64(text) {
        Likeness::JsonWithBase64
    } else if is_array {
        Likeness::JsonArray
    } else {
        Likeness::OtherJson
    })
}

/// Whether a string of the JSON is a binary trace in base64.
fn holds_base64(text: &[u8]) -> bool {
    let mut at = 0;
    while let Some(quote) = memchr::memchr(b'"', &text[at..]) {
        at += quote + 1;
        let Some(len) = InString::default().end(&text[at..]) else { return false };
        let string = &text[at..at + len - 1];
        let is_long = string.len() >= 40;
        if is_long && base64_simd::forgiving_decode_to_vec(string).is_ok_and(|bytes| binary_trace(&bytes).is_some()) {
            return true;
        }
        at += len;
    }
    false
}

/// What Envoy's admin endpoint, curl and kubectl answer instead of a trace.
fn is_error_message(text: &[u8]) -> bool {
    const MESSAGES: [&str; 20] = [
        "An attached /tap admin stream",
        "Another tap",
        "Connection refused",
        "Error from server",
        "Error response from daemon",
        "Method Not Allowed",
        "No admin handler",
        "Not Found",
        "Proto constraint validation failed",
        "Protobuf message (type",
        "Unable to convert YAML",
        "Unable to parse JSON",
        "Unknown config id",
        "/tap requires",
        "curl: (",
        "error: ",
        "invalid path",
        "no healthy upstream",
        "upstream connect error",
        "upstream request timeout",
    ];
    MESSAGES.iter().any(|message| text.starts_with(message.as_bytes()))
}

/// A line of `xxd`, `hexdump`, `od`, tcpdump or tshark: an offset, then groups of digits.
fn is_dump_line(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    let line = line.strip_prefix(b"0x").unwrap_or(line);
    let is_digit = |byte: &&u8| byte.is_ascii_hexdigit();
    let offset = line.iter().take_while(is_digit).count();
    let rest = line[offset..].strip_prefix(b":").unwrap_or(&line[offset..]);
    // A line without bytes ends `hexdump` and `od`; `*` stands for lines that are the same.
    if line == b"*" || (offset >= 6 && rest.is_empty()) {
        return true;
    }
    if !(4..=16).contains(&offset) || !rest.starts_with(b" ") {
        return false;
    }
    let groups = rest.split(|byte| *byte == b' ').filter(|group| !group.is_empty());
    // `od -c` prints characters.
    let mut is_group = groups.take(4).map(|group| match group {
        [b'\\', _] | [_] => true,
        _ => group.len() <= 16 && group.iter().all(u8::is_ascii_hexdigit),
    });
    is_group.next() == Some(true)
}

/// Whose dump begins with this line, because `xxd -r` makes other bytes of what is not its own.
fn of_dump(line: &[u8]) -> Likeness {
    let offset = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    match &line[offset..] {
        [b':', b' ', ..] => Likeness::HexDump,
        [b' ', b' ', bytes @ .., b'|'] if offset == 8 && bytes.contains(&b'|') => Likeness::CanonicalDump,
        _ => Likeness::OtherDump,
    }
}

/// `21:33:22.000000 IP 10.0.0.1.1 > 10.0.0.2.80: Flags [S]` or `    1 0.000000000 10.0.0.1 → 10.0.0.2 TCP`
fn is_packet_list(line: &[u8]) -> bool {
    let has = |part: &str| memmem::find(line, part.as_bytes()).is_some();
    let is_numbered = line.trim_ascii_start().first().is_some_and(u8::is_ascii_digit);
    is_numbered && (has(" → ") || (has(" > ") && (has(" IP ") || has(" IP6 "))))
}

/// `[2024-05-01T10:00:00.000Z] "GET / HTTP/1.1" 200 - 0 5 ...`: Envoy's default format.
fn is_access_log(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"[") else { return false };
    let is_time = rest.get(..11).is_some_and(|time| time[4] == b'-' && time[7] == b'-' && time[10] == b'T');
    is_time
        && memmem::find(rest, b"] \"")
            .is_some_and(|at| memmem::find(&rest[at..], b" HTTP/").is_some() || rest[at..].starts_with(b"] \"- - -\""))
}

/// `[2024-05-01 10:00:00.000][1][info][main] ...`
fn is_envoy_log(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"[") else { return false };
    let is_time = rest.get(..11).is_some_and(|time| time[4] == b'-' && time[7] == b'-' && time[10] == b' ');
    is_time
        && ["info", "warning", "error", "debug", "trace", "critical"]
            .iter()
            .any(|level| memmem::find(rest, format!("][{level}][").as_bytes()).is_some())
}

/// `cluster.x.upstream_cx_total: 0`, or Prometheus' format.
fn is_stats<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    const FIRST: [&str; 8] =
        ["cluster", "listener", "server", "http", "cluster_manager", "listener_manager", "runtime", "filesystem"];
    let mut any = false;
    for line in lines.take(20) {
        if line.starts_with(b"# TYPE envoy_") || line.starts_with(b"envoy_") || line.starts_with(b"# HELP envoy_") {
            any = true;
            continue;
        }
        let Some(at) = memmem::find(line, b": ") else { return false };
        let (name, value) = (&line[..at], &line[at + 2..]);
        let root = name.split(|byte| *byte == b'.').next().unwrap_or_default();
        let is_value = value.first().is_some_and(|byte| byte.is_ascii_digit() || matches!(byte, b'P' | b'N' | b'"'));
        if !name.contains(&b'.') || name.contains(&b' ') || !is_value {
            return false;
        }
        any |= FIRST.iter().any(|first| root == first.as_bytes());
    }
    any
}

/// `1 {`, `2: 7`, `}`: fields without names.
fn is_decode_raw<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut fields = 0;
    for line in lines {
        let line = line.trim_ascii_start();
        let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 && matches!(&line[digits..], [b':', b' ', ..] | [b' ', b'{', ..]) {
            fields += 1;
        } else if line != b"}" {
            return false;
        }
    }
    fields > 0
}

/// Only digits of this kind, in lines without blanks, and enough of them not to be a word.
fn is_digits(text: &[u8], is_digit: impl Fn(&u8) -> bool) -> bool {
    const LEAST: usize = 32;
    let text = text.trim_ascii_end();
    let digits = text.iter().filter(|byte| is_digit(byte)).count();
    // Words have fewer digits and capitals.
    let mixed = text.iter().any(u8::is_ascii_digit) && text.iter().any(|byte| byte.is_ascii_alphabetic());
    digits >= LEAST && mixed && text.iter().all(|byte| is_digit(byte) || matches!(byte, b'\n' | b'\r'))
}

/// `TraceWrapper { trace: Some(...`, `&tapv3.TraceWrapper{...`: a type's name before its fields.
fn is_debug_output(text: &[u8]) -> bool {
    let start = &text[..text.len().min(400)];
    let name = start.strip_prefix(b"&").unwrap_or(start);
    let len = name.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_.:".contains(byte)).count();
    let is_type = name[..len]
        .rsplit(|byte| b".:".contains(byte))
        .next()
        .is_some_and(|name| name.first().is_some_and(u8::is_ascii_uppercase) && memchr::memchr(b'_', name).is_none());
    let has = |part: &str| memmem::find(start, part.as_bytes()).is_some();
    let is_value = matches!(&name[len..], [b'{' | b'(', ..] | [b' ', b'{', ..]) && (has("Trace") || has("Some("));
    (is_type && is_value) || start.starts_with(b"map[")
}

/// Every line is a key, an item of a list, a comment, or the rest of one of those.
fn is_yaml<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut keys, mut items, mut others) = (0, 0, 0);
    for line in lines {
        let line = line.trim_ascii_start();
        let word = line.strip_prefix(b"- ").unwrap_or(line);
        let len = word.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_-./@\"'".contains(byte)).count();
        if len > 0 && matches!(&word[len..], [b':'] | [b':', b' ', ..]) {
            keys += 1;
        } else if line.starts_with(b"- ") || line.starts_with(b"#") || matches!(line, b"---" | b"..." | b"-") {
            items += 1;
        } else {
            others += 1;
        }
    }
    keys > 0 && others * 4 <= keys + items
}

fn of_yaml(text: &[u8]) -> Likeness {
    let has = |key: &str| {
        memmem::find_iter(text, key.as_bytes()).any(|at| {
            let before = at.checked_sub(1).map_or(b'\n', |before| text[before]);
            matches!(before, b'\n' | b' ' | b'"') && matches!(&text[at + key.len()..], [b':', ..] | [b'"', b':', ..])
        })
    };
    if WRAPPERS.iter().any(|name| has(name)) {
        Likeness::YamlTrace
    } else if ["static_resources", "dynamic_resources", "filter_chains", "typed_config"].iter().any(|name| has(name)) {
        Likeness::EnvoyConfig
    } else if has("tap_config") || (has("config_id") && has("match_config")) {
        Likeness::TapRequest
    } else {
        Likeness::Yaml
    }
}

/// Whether removing the carriage return before each line feed makes a binary trace of the head.
pub(super) fn is_terminal_damage(head: &[u8]) -> bool {
    let mut undone = Vec::with_capacity(head.len());
    let mut at = 0;
    for line_feed in memchr::memchr_iter(b'\n', head) {
        let Some(line) = head[at..line_feed].strip_suffix(b"\r") else { return false };
        undone.extend_from_slice(line);
        undone.push(b'\n');
        at = line_feed + 1;
    }
    undone.extend_from_slice(&head[at..]);
    at > 0 && binary_trace(&undone).is_some()
}

/// Whether the head is what a conversion to UTF-8 makes of binary data: valid UTF-8, which binary data hardly ever is,
/// with control characters and others that are not ASCII.
pub(super) fn is_utf8_damage(head: &[u8]) -> bool {
    let is_utf8 = str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true);
    let is_control = |byte: &u8| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r');
    is_utf8 && !head.is_ascii() && head.iter().any(is_control)
}

/// The bytes that were taken for characters of Latin-1.
fn from_latin(head: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(head).chars().filter_map(|char| u8::try_from(char).ok()).collect()
}

/// Whether the head consists of protobuf fields. The last one may be incomplete.
fn is_protobuf(head: &[u8]) -> bool {
    let mut scan = Scanner::new(head, 0, head.len(), false);
    while !scan.is_empty() {
        match scan.tag().and_then(|tag| scan.skip(tag)) {
            Ok(()) => {}
            Err(error) => {
                return error.at > 0 && matches!(error.reason, WireFault::EndInField | WireFault::Overlong { .. });
            }
        }
    }
    !head.is_empty()
}

/// A binary trace of 2018 or 2019, in a layout whose fields have other numbers today.
fn old_trace(head: &[u8]) -> Option<Likeness> {
    let whole = Part::whole(head, true);
    if is_capture(head, whole) {
        return Some(Likeness::Capture2018);
    }
    let wrapper = fields(head, whole);
    let [trace] = wrapper[..] else { return None };
    // BufferedTraceWrapper: http_buffered_trace = 1 with lists of header fields = 2 to 5, socket_buffered_trace = 2.
    let is_old = match trace.number {
        1 => {
            let lists = fields(head, trace);
            let is_pseudo =
                |field: &Part| fields(head, *field).first().is_some_and(|key| head[key.start..].starts_with(b":"));
            lists.iter().all(|field| (2..=5).contains(&field.number)) && lists.first().is_some_and(is_pseudo)
        }
        2 => is_capture(head, trace),
        _ => false,
    };
    is_old.then_some(Likeness::Trace2019)
}

/// The fields of a message up to what is no field.
fn fields(head: &[u8], part: Part) -> Vec<Part> {
    let mut fields = Vec::new();
    let mut at = part.start;
    while let Some(field) = Part::field(head, at, part.end, part.is_cut).filter(|field| at < field.end) {
        at = field.end;
        fields.push(field);
    }
    fields
}

/// `envoy.data.tap.v2alpha.Trace` of 2018: connection = 1 has an id and the addresses, and each of events = 2 a
/// timestamp and a read = 2 or write = 3.
fn is_capture(head: &[u8], part: Part) -> bool {
    let is = |part: &Part, number: u32| part.is_delimited && part.number == number;
    let mut counts = [0; 2];
    let fits = fields(head, part).iter().all(|field| {
        let inside = fields(head, *field);
        match field.number {
            1 => {
                counts[0] += 1;
                inside.iter().any(|field| is(field, 2)) && inside.iter().any(|field| is(field, 3))
            }
            2 => {
                counts[1] += 1;
                let is_event = matches!(inside[..], [time, data, ..] if is(&time, 1) && (is(&data, 2) || is(&data, 3)));
                is_event || field.is_cut
            }
            _ => false,
        }
    });
    fits && counts[0] == 1 && counts[1] > 0
}

fn is_capture_2018_text(text: &[u8]) -> bool {
    let block = |name: &[u8]| text.strip_prefix(name).is_some_and(|rest| rest.trim_ascii_start().starts_with(b"{"));
    block(b"connection") || block(b"events")
}
