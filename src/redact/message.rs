//! The body of one message, whose bytes come in pieces.

use std::sync::Arc;

use super::{Body, ContentDecoder, Counts, Kind, Redaction};

/// How the bytes of a body are written.
#[derive(Debug)]
enum Coding {
    /// As they are, but for the secrets in them.
    Identity(Body),
    /// Without their content coding.
    Decoded(Box<ContentDecoder>, Body),
    /// The content coding cannot be taken off any more. The head says that there is none.
    Undecodable,
    /// As asterisks: they cannot be read.
    Masked,
}

/// A message whose head was read.
#[derive(Debug)]
pub(super) struct Message {
    coding: Coding,
    /// Whether the bytes that are written keep their length and are not in the content coding that the head says.
    hides_coding: bool,
    /// Whether what cannot be read was counted.
    counted: bool,
    /// The prefixes of gRPC messages, which stay when all bodies are taken out.
    prefixes: Option<Prefixes>,
    /// Says by its existence that there is a decoder.
    _permit: Option<Arc<()>>,
}

/// Finds the prefixes of gRPC messages: a byte that says whether the message is compressed, and four of its length.
#[derive(Debug, Default)]
struct Prefixes {
    have: usize,
    length: u32,
    /// How many bytes of the message are still to come.
    left: u32,
}

impl Prefixes {
    const LEN: usize = 5;

    /// Puts back what was in the place of asterisks. Asterisks are not compressed.
    fn restore(&mut self, bytes: &[u8], written: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let skipped = (self.left as usize).min(bytes.len() - at);
                self.left -= skipped as u32;
                at += skipped;
                continue;
            }
            if let (Some(byte), Some(written)) = (bytes.get(at), written.get_mut(at)) {
                // The first bit says that a frame of gRPC-Web has trailers.
                *written = if self.have == 0 { *byte & 0x80 } else { *byte };
                self.length = self.length << 8 | u32::from(*byte);
            }
            (at, self.have) = (at + 1, self.have + 1);
            if self.have == Self::LEN {
                (self.have, self.left) = (0, self.length);
            }
        }
    }
}

/// What a head says about its body.
#[derive(Debug, Default)]
pub(super) struct BodyFields {
    content_type: Option<Vec<u8>>,
    codings: Vec<Vec<u8>>,
    /// The body has a coding that nobody takes off.
    has_other_coding: bool,
}

impl BodyFields {
    /// Looks at a field of the head.
    pub(super) fn look(&mut self, name: &[u8], value: &[u8]) {
        if name.eq_ignore_ascii_case(b"content-type") {
            self.content_type = Some(match self.content_type.take() {
                Some(before) => super::body::strictest(before, value),
                None => value.to_vec(),
            });
        } else if name.eq_ignore_ascii_case(b"content-encoding") {
            self.codings.push(value.to_vec());
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            self.has_other_coding |= codings.any(|coding| {
                !coding.is_empty()
                    && !coding.eq_ignore_ascii_case(b"chunked")
                    && !coding.eq_ignore_ascii_case(b"identity")
            });
        }
    }

    /// Whether the body is of a type that may be text, and without a content coding.
    pub(super) fn is_text(&self) -> bool {
        const TYPES: [&[u8]; 9] = [
            b"text/",
            b"json",
            b"xml",
            b"javascript",
            b"form-urlencoded",
            b"graphql",
            b"yaml",
            b"multipart/",
            // Many send text without saying so.
            b"application/octet-stream",
        ];
        let kind = self.content_type.as_deref().unwrap_or_default().to_ascii_lowercase();
        // Without a type, it is read as text.
        self.codings.is_empty()
            && (kind.is_empty() || TYPES.iter().any(|text| memchr::memmem::find(&kind, text).is_some()))
    }

    /// Whether a decoder of the body may take megabytes.
    pub(super) fn has_large_decoder(&self) -> bool {
        let mut codings = self.codings.iter().flat_map(|value| value.split(|byte| *byte == b','));
        codings.any(|coding| {
            let coding = coding.trim_ascii();
            ![&b"gzip"[..], b"x-gzip", b"deflate", b"identity", b""]
                .iter()
                .any(|small| coding.eq_ignore_ascii_case(small))
        })
    }
}

impl Message {
    /// A message whose head is not known, so that nobody can tell what its bytes are.
    pub(super) fn without_head() -> Self {
        Self { coding: Coding::Masked, hides_coding: true, counted: false, prefixes: None, _permit: None }
    }

    /// A message with this head. With a `permit`, its content coding may be taken off, and the head will say so.
    pub(super) fn new(redaction: &Redaction, fields: &BodyFields, permit: Option<Arc<()>>) -> Self {
        let mut body = Body::new(redaction, fields.content_type.as_deref());
        let decoder = ContentDecoder::new(fields.codings.iter().map(Vec::as_slice));
        let hides_coding = match &decoder {
            None => false,
            Some(Ok(_)) => redaction.bodies || fields.has_other_coding || permit.is_none(),
            Some(Err(_)) => true,
        };
        let coding = match (decoder, &permit) {
            _ if fields.has_other_coding => Coding::Masked,
            (None, _) => Coding::Identity(body),
            // All of it becomes asterisks, so that its coding means nothing.
            _ if redaction.bodies => {
                body.lose();
                Coding::Identity(body)
            }
            (Some(Ok(decoder)), Some(_)) => Coding::Decoded(Box::new(decoder), body),
            (Some(_), _) => Coding::Masked,
        };
        let is_grpc = fields.content_type.as_ref().is_some_and(|kind| {
            kind.starts_with(b"application/grpc") && !kind.starts_with(b"application/grpc-web-text")
        });
        let prefixes = (redaction.bodies && is_grpc && fields.codings.is_empty()).then(Prefixes::default);
        let permit = permit.filter(|_| matches!(coding, Coding::Decoded(..)));
        Self { coding, hides_coding, counted: false, prefixes, _permit: permit }
    }

    /// Whether the body is written without its content coding, so that its length changes.
    pub(super) fn is_decoded(&self) -> bool {
        matches!(self.coding, Coding::Decoded(..) | Coding::Undecodable)
    }

    /// Whether the bytes that are written keep their length and are not in the content coding that the head says.
    pub(super) fn hides_coding(&self) -> bool {
        self.hides_coding
    }

    /// Appends what is written in the place of the next bytes.
    pub(super) fn data(&mut self, bytes: &[u8], counts: &mut Counts, out: &mut Vec<u8>) {
        let start = out.len();
        match &mut self.coding {
            Coding::Identity(body) => {
                out.extend_from_slice(bytes);
                body.data(&mut out[start..], counts);
                if let Some(prefixes) = &mut self.prefixes {
                    prefixes.restore(bytes, &mut out[start..]);
                }
            }
            Coding::Decoded(decoder, body) => {
                let good = decoder.data(bytes, out);
                body.data(&mut out[start..], counts);
                if good.is_err() {
                    self.coding = Coding::Undecodable;
                    self.count(counts);
                }
            }
            Coding::Undecodable | Coding::Masked => {
                self.count(counts);
                out.resize(start + bytes.len(), b'*');
            }
        }
    }

    /// Appends what is still to be written when the body ends.
    pub(super) fn end(&mut self, counts: &mut Counts, out: &mut Vec<u8>) {
        if let Coding::Decoded(decoder, body) = &mut self.coding {
            let start = out.len();
            // What is missing at the end was never there.
            let _ = decoder.end(out);
            body.data(&mut out[start..], counts);
        }
    }

    /// Bytes are missing.
    pub(super) fn lose(&mut self) {
        self.prefixes = None;
        match &mut self.coding {
            Coding::Identity(body) => body.lose(),
            Coding::Decoded(..) => {
                self.coding = Coding::Undecodable;
                self._permit = None;
            }
            Coding::Undecodable | Coding::Masked => {}
        }
    }

    /// Bytes are missing, and those that come may not even be of this message.
    pub(super) fn go_adrift(&mut self) {
        self.prefixes = None;
        self._permit = None;
        self.coding = match self.coding {
            Coding::Decoded(..) | Coding::Undecodable => Coding::Undecodable,
            Coding::Identity(_) | Coding::Masked => Coding::Masked,
        };
    }

    fn count(&mut self, counts: &mut Counts) {
        if !std::mem::replace(&mut self.counted, true) {
            counts.add(Kind::Body, 1);
        }
    }
}
