//! The real traces in `testdata/envoy`, and what is known to have crossed their sockets.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::util::ROOT;

/// One trace that a real Envoy wrote.
#[derive(Clone, Debug)]
pub struct Sample {
    pub path: PathBuf,
    /// Version and name, for messages.
    pub name: String,
    pub version: String,
    /// The first word of the scenario's name.
    pub kind: String,
    pub format: Format,
    pub streaming: bool,
    /// A cluster's connection was tapped rather than a listener's.
    pub upstream: bool,
    /// The trace may hold fewer bytes than there were.
    pub limited: bool,
    pub listener: Option<SocketAddr>,
    /// What crossed the sockets of the scenario; one of them is this trace's.
    pub truths: Vec<Truth>,
}

/// What crossed one socket.
#[derive(Clone, Debug)]
pub struct Truth {
    pub client: Option<SocketAddr>,
    pub read: Bytes,
    pub write: Bytes,
}

/// The bytes that a client or server logged.
#[derive(Clone, Debug)]
pub struct Bytes {
    pub len: u64,
    pub sha256: String,
    /// The bytes themselves, if there were few.
    pub bytes: Option<Vec<u8>>,
}

impl Bytes {
    /// Whether `bytes` are the logged ones.
    pub fn are(&self, bytes: &[u8]) -> bool {
        self.len == bytes.len() as u64 && self.sha256 == hex(&Sha256::digest(bytes))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Binary,
    Delimited,
    Text,
    JsonBytes,
    JsonString,
}

impl Format {
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Binary => "pb",
            Self::Delimited => "pb_length_delimited",
            Self::Text => "pb_text",
            Self::JsonBytes | Self::JsonString => "json",
        }
    }
}

impl Sample {
    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    pub fn file_name(&self) -> &str {
        self.path.file_name().unwrap().to_str().unwrap()
    }

    /// The file's name without the suffix that tells its format.
    pub fn stem(&self) -> &str {
        self.file_name().strip_suffix(&format!(".{}", self.format.suffix())).unwrap()
    }

    /// Whether the trace comes from the HTTP tap filter.
    pub fn is_http(&self) -> bool {
        self.kind.starts_with("filter")
    }
}

/// All traces, in order of their names.
pub fn samples() -> Vec<Sample> {
    let mut samples: Vec<_> = ["1.36.2", "1.40.0"].into_iter().flat_map(of_version).collect();
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    // A test that loops over no samples would pass.
    assert_eq!(samples.len(), 242);
    samples
}

/// Traces of the tap transport socket.
pub fn socket_samples() -> Vec<Sample> {
    let samples: Vec<_> = samples().into_iter().filter(|sample| !sample.is_http()).collect();
    assert_eq!(samples.len(), 182);
    samples
}

/// The samples whose version and name start with `prefix`. There must be some.
#[track_caller]
pub fn socket_samples_of(prefix: &str) -> Vec<Sample> {
    let samples: Vec<_> = socket_samples().into_iter().filter(|sample| sample.name.starts_with(prefix)).collect();
    assert!(!samples.is_empty(), "no trace is called {prefix}*");
    samples
}

/// The only sample whose version and name start with `prefix`.
#[track_caller]
pub fn sample(prefix: &str) -> Sample {
    let samples = socket_samples_of(prefix);
    assert_eq!(samples.len(), 1, "several traces are called {prefix}*");
    samples.into_iter().next().unwrap()
}

fn of_version(version: &str) -> Vec<Sample> {
    let dir = Path::new(ROOT).join("testdata/envoy").join(version);
    let manifest: Value = serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    let traces = manifest["traces"].as_object().unwrap();
    traces
        .iter()
        .map(|(name, entry)| {
            let scenario = entry["scenario"].as_str().unwrap();
            Sample {
                path: dir.join(name),
                name: format!("{version}/{name}"),
                version: version.to_owned(),
                kind: scenario.split('_').next().unwrap().to_owned(),
                format: match entry["format"].as_str().unwrap() {
                    "PROTO_BINARY" => Format::Binary,
                    "PROTO_BINARY_LENGTH_DELIMITED" => Format::Delimited,
                    "PROTO_TEXT" => Format::Text,
                    "JSON_BODY_AS_BYTES" => Format::JsonBytes,
                    "JSON_BODY_AS_STRING" => Format::JsonString,
                    other => panic!("{name}: {other}"),
                },
                streaming: entry["streaming"].as_bool().unwrap(),
                upstream: entry["tapped"] == "up",
                limited: entry["bytes_limited"].as_bool().unwrap(),
                listener: socket(&entry["listener"]),
                truths: entry["connections"].as_array().into_iter().flatten().map(truth).collect(),
            }
        })
        .collect()
}

fn truth(connection: &Value) -> Truth {
    let bytes = |name: &str| Bytes {
        len: connection[format!("{name}_len")].as_u64().unwrap(),
        sha256: connection[format!("{name}_sha256")].as_str().unwrap().to_owned(),
        bytes: connection[format!("{name}_b64")]
            .as_str()
            .map(|text| base64_simd::STANDARD.decode_to_vec(text).unwrap()),
    };
    Truth { client: socket(&connection["client"]), read: bytes("read"), write: bytes("write") }
}

/// `["127.0.0.1", 80]`, with two more numbers for IPv6; a unix socket has a path in its place.
fn socket(value: &Value) -> Option<SocketAddr> {
    let [address, port, ..] = value.as_array()?.as_slice() else { return None };
    Some(SocketAddr::new(address.as_str()?.parse().unwrap(), u16::try_from(port.as_u64()?).unwrap()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
