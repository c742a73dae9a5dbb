//! `tap2pcap info`: what is in traces, and how to open their captures.

use std::path::Path;

use crate::timeline::{Endpoints, Protocol, Summary};

/// The server's port, where Wireshark has to be told what runs on it: it does not recognise HTTP/2 without TLS unless
/// the port is one of HTTP's.
pub(super) fn decode_as_port(summary: &Summary, endpoints: &Endpoints) -> Option<u16> {
    const HTTP_PORTS: [u16; 4] = [80, 3128, 8080, 8088];
    let port = endpoints.tuple(summary.opening.role).1.port();
    let http2 = matches!(summary.protocol, Protocol::Http2 | Protocol::Grpc);
    (http2 && !HTTP_PORTS.contains(&port)).then_some(port)
}

/// The command that shows a capture dissected.
pub(super) fn open_command(capture: &Path, http2_ports: &[u16]) -> String {
    let mut command = format!("tshark -r {}", quoted(capture));
    for port in http2_ports {
        command.push_str(&format!(" -d tcp.port=={port},http2"));
    }
    command
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+,:@%".contains(char);
    if !path.is_empty() && path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}
