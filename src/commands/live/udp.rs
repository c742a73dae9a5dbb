//! Receives what Envoy's UDP sink sends: one message a datagram, in PROTO_BINARY, PROTO_TEXT or JSON.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, ToSocketAddrs as _, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

use super::{
    super::error::Error,
    backlog::{BacklogWriter, Refusal},
    feed::{Keeping, now},
    sessions::{Session, Sessions},
};
use crate::{
    input::Encoding,
    interrupt,
    report::{Verbosity, print_line},
};

/// The largest payload of a UDP datagram over IPv6 (RFC 8200 section 4.5), and over IPv4.
const MAX_DATAGRAM: usize = 1 << 16;

/// How many bytes the kernel is asked to keep until they are read. It may keep fewer: net.core.rmem_max.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Binds the address, and starts a thread that receives.
///
/// # Errors
/// The address cannot be bound.
pub(super) fn start(place: &str, keeping: Keeping) -> Result<Sessions, Error> {
    let bind = || -> io::Result<UdpSocket> {
        let mut failed = io::Error::from(ErrorKind::AddrNotAvailable);
        for address in place.to_socket_addrs()? {
            match UdpSocket::bind(address) {
                Ok(socket) => return Ok(socket),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    };
    let socket = bind().map_err(|error| Error::Arguments(format!("cannot receive on udp://{place}: {error}")))?;
    // If the kernel gives less, datagrams of a burst are lost sooner. Those are counted by `seq_num`.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
    socket.set_read_timeout(Some(interrupt::INTERVAL))?;
    if keeping.verbosity > Verbosity::Quiet {
        print_line("note", &format_args!("receiving on udp://{}", socket.local_addr()?));
    }
    let (sender, receiver) = sync_channel(1);
    let failed = Arc::new(AtomicBool::new(false));
    let receiving =
        Receiving { socket, keeping, sessions: sender, failed: Arc::clone(&failed), session: None, told: false };
    thread::Builder::new().name("udp".into()).spawn(move || receiving.run())?;
    Ok(Sessions { receiver, failed })
}

struct Receiving {
    socket: UdpSocket,
    keeping: Keeping,
    sessions: SyncSender<Session>,
    failed: Arc<AtomicBool>,
    session: Option<(Encoding, SocketAddr, BacklogWriter)>,
    /// Whether the user was told that datagrams are left out.
    told: bool,
}

impl Receiving {
    fn run(mut self) {
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let received = self.socket.recv_from(&mut buffer);
            if self.keeping.until.is_over() {
                return;
            }
            match received {
                Ok((count, from)) => {
                    if !self.datagram(&buffer[..count], from) {
                        return;
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                }
                Err(error) => {
                    self.fail("error", &format!("receiving failed: {error}"));
                    return;
                }
            }
        }
    }

    fn fail(&self, kind: &str, text: &str) {
        self.failed.store(true, Ordering::Relaxed);
        if self.keeping.verbosity > Verbosity::Quiet || kind == "error" {
            print_line(kind, &format_args!("{}: {text}", self.keeping.name));
        }
    }

    /// A datagram is not converted. The user is told of the first one.
    fn leave_out(&mut self, why: &str) {
        if !std::mem::replace(&mut self.told, true) {
            self.fail("warning", why);
        }
    }

    /// Passes a datagram on. Returns whether anybody still wants more.
    fn datagram(&mut self, bytes: &[u8], from: SocketAddr) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let Some(encoding) = encoding_of(bytes) else {
            self.leave_out(&format!("a datagram from {from} is no trace; such are left out"));
            return true;
        };
        let writer = match &mut self.session {
            Some((known, host, writer)) if *known == encoding && host.ip() == from.ip() => writer,
            Some((known, host, _)) => {
                let (known, host) = (known.name(), host.ip());
                self.leave_out(&format!(
                    "what {} sends in {} is left out: only {host}'s {known} is converted, which came first. Receive it on \
                     another port",
                    from.ip(),
                    encoding.name()
                ));
                return true;
            }
            session => {
                let (writer, new) = Session::begin(1, encoding, &self.keeping);
                if self.sessions.send(new).is_err() {
                    return false;
                }
                &mut session.insert((encoding, from, writer)).2
            }
        };
        let mut message = Vec::with_capacity(bytes.len() + 4);
        match encoding {
            Encoding::Delimited => {
                prost::encoding::encode_varint(bytes.len() as u64, &mut message);
                message.extend_from_slice(bytes);
            }
            _ => {
                message.extend_from_slice(bytes);
                message.push(b'\n');
            }
        }
        match writer.write(&message, now()) {
            Ok(()) => true,
            Err(Refusal::Abandoned) => false,
            Err(Refusal::Full) => {
                self.leave_out("the capture is read too slowly: datagrams are lost");
                true
            }
            Err(Refusal::Failed(error)) => {
                self.fail("error", &format!("the temporary file for what waits failed: {error}"));
                false
            }
        }
    }
}

/// The encoding of a datagram, or `None` if it is no message. One in PROTO_BINARY has no length in front of it; it gets
/// one here, so that a lost datagram does not join two others.
fn encoding_of(bytes: &[u8]) -> Option<Encoding> {
    const NAMES: [&[u8]; 4] = [
        b"http_buffered_trace",
        b"http_streamed_trace_segment",
        b"socket_buffered_trace",
        b"socket_streamed_trace_segment",
    ];
    let text = bytes.trim_ascii_start();
    // A line feed and a brace may also be the tag and the length of a binary message. That has other control characters.
    let is_text = || bytes.iter().all(|byte| !byte.is_ascii_control() || byte.is_ascii_whitespace());
    match text.first() {
        Some(b'{') if is_text() => Some(Encoding::Json),
        _ if NAMES.iter().any(|name| text.starts_with(name)) => Some(Encoding::Text),
        _ => is_wrapper(bytes).then_some(Encoding::Delimited),
    }
}

/// Whether the bytes can be a TraceWrapper: one of its four traces, and after it nothing but other fields.
fn is_wrapper(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    if !matches!(bytes.first(), Some(0x0A | 0x12 | 0x1A | 0x22)) {
        return false;
    }
    while !rest.is_empty() {
        // Every field of a TraceWrapper has a length.
        if !prost::encoding::decode_varint(&mut rest).is_ok_and(|key| key & 7 == 2) {
            return false;
        }
        match prost::encoding::decode_varint(&mut rest).map(usize::try_from) {
            Ok(Ok(len)) if len <= rest.len() => rest = &rest[len..],
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_message_has_no_encoding() {
        for (bytes, encoding) in [
            (&b"\n{\"socket_streamed_trace_segment\": {}}"[..], Some(Encoding::Json)),
            (b" socket_streamed_trace_segment {}", Some(Encoding::Text)),
            (b"\x22\x02\x08\x01", Some(Encoding::Delimited)),
            (b"\x22\x02\x08\x01\x2a\x00", Some(Encoding::Delimited)),
            (b"\x0a\x00\x00", None),
            (b"x", None),
            (b"\x22\x02\x08", None),
            (b"GET / HTTP/1.1", None),
            (b"", None),
        ] {
            assert_eq!(encoding_of(bytes), encoding, "{bytes:?}");
        }
        // Its length is a brace, and it begins with a line feed, twice.
        let binary = [&b"\x0a{\x0a\x79\x12\x77"[..], &[b'a'; 119]].concat();
        assert_eq!(encoding_of(&binary), Some(Encoding::Delimited));
    }
}
