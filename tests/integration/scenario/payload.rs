//! Payloads: text, bytes, filler, and HTTP/2 frames.

use serde::Deserialize;

/// A piece of a payload.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    /// Text without changes.
    Text(String),
    /// Lines that end in CR LF on the wire.
    Lines(String),
    /// Bytes in hexadecimal. Spaces are ignored.
    Hex(String),
    /// This many bytes of numbered lines.
    Filler(usize),
    /// A frame of HTTP/2 (RFC 9113 section 4.1).
    Frame(Frame),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    r#type: FrameType,
    #[serde(default)]
    flags: u8,
    #[serde(default)]
    stream: u32,
    /// A header block, each field a literal that stays out of the compressor's table (RFC 7541 section 6.2.2).
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    payload: Vec<Part>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum FrameType {
    Data = 0,
    Headers = 1,
    Settings = 4,
    Ping = 6,
    Goaway = 7,
    WindowUpdate = 8,
}

/// The bytes of all parts, one after another.
pub fn bytes(parts: &[Part]) -> Vec<u8> {
    parts.iter().flat_map(Part::bytes).collect()
}

impl Part {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Lines(lines) => lines.replace('\n', "\r\n").into_bytes(),
            Self::Hex(text) => hex(text),
            Self::Filler(len) => (1..).flat_map(|line| format!("line {line:08}\n").into_bytes()).take(*len).collect(),
            Self::Frame(frame) => frame.bytes(),
        }
    }
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let short = |text: &str| u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("a short text");
        let mut payload = Vec::new();
        for (name, value) in &self.headers {
            payload.extend([0, short(name)]);
            payload.extend(name.bytes());
            payload.push(short(value));
            payload.extend(value.bytes());
        }
        payload.extend(bytes(&self.payload));
        let len = u32::try_from(payload.len()).expect("a frame's length").to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], self.r#type as u8, self.flags];
        frame.extend(self.stream.to_be_bytes());
        frame.extend(payload);
        frame
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|char| !char.is_whitespace())
        .map(|char| char.to_digit(16).unwrap_or_else(|| panic!("{char:?} is no hexadecimal digit")))
        .collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "an odd number of hexadecimal digits: {text}");
    pairs.iter().map(|[high, low]| u8::try_from(high << 4 | low).expect("two digits")).collect()
}
