//! The head of a request or response, with the fields that decide how it is framed.

use crate::trace::{Header, HttpPart, HttpPiece, HttpSide, MessageView, Nanos};

/// Pseudo-headers (RFC 9113 section 8.3, RFC 8441 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pseudo {
    Method,
    Path,
    Authority,
    Status,
    Scheme,
    Protocol,
}

const PSEUDO: usize = 6;

impl Pseudo {
    fn of(key: &[u8]) -> Option<Self> {
        Some(match key {
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":authority" => Self::Authority,
            b":status" => Self::Status,
            b":scheme" => Self::Scheme,
            b":protocol" => Self::Protocol,
            _ => return None,
        })
    }
}

/// `content-length` as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Absent,
    One(u64),
    /// It is not a number, or several fields differ.
    Bad,
}

/// Which kind of gRPC a content-type names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grpc {
    No,
    Yes,
    /// gRPC-Web, which also works over HTTP/1.1: its trailers are in the body.
    Web,
    /// gRPC-Web in base64.
    WebText,
}

/// How all of gRPC's content-types begin.
const GRPC: &[u8] = b"application/grpc";

impl Grpc {
    fn of(content_type: &[u8]) -> Self {
        // The first word rules out nearly all of them.
        let start = content_type.trim_ascii_start().get(..GRPC.len());
        if !start.is_some_and(|start| start.eq_ignore_ascii_case(GRPC)) {
            return Self::No;
        }
        let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        // What follows a plus sign is the encoding of the messages.
        let essence = essence.split(|byte| *byte == b'+').next().unwrap_or_default();
        let names: [(&[u8], Self); 3] =
            [(GRPC, Self::Yes), (b"application/grpc-web", Self::Web), (b"application/grpc-web-text", Self::WebText)];
        names.into_iter().find(|(name, _)| essence.eq_ignore_ascii_case(name)).map_or(Self::No, |(_, grpc)| grpc)
    }
}

/// The lengths of the names that [`MessageHead::read`] looks for.
const NAME_LENGTHS: [bool; 18] = {
    let mut lengths = [false; 18];
    let mut names: &[usize] = &[2, 4, 5, 7, 9, 10, 12, 14, 17];
    while let [length, rest @ ..] = names {
        lengths[*length] = true;
        names = rest;
    }
    lengths
};

/// A head whose fields were read once.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageHead<'a> {
    view: MessageView<'a>,
    pub(super) fields: &'a [Header],
    /// The index of the first field of each pseudo-header.
    pseudo: [Option<usize>; PSEUDO],
    length: Length,
    /// The transfer-encoding ends in chunked.
    pub(super) chunked: bool,
    upgrade: bool,
    /// Connection: close says that no other exchange follows on the connection (RFC 9112 section 9.6).
    pub(super) closes: bool,
    /// The kind of gRPC by the content-type.
    grpc: Grpc,
    te_trailers: bool,
    date: Option<&'a [u8]>,
}

impl<'a> MessageHead<'a> {
    pub(super) fn read(view: MessageView<'a>, piece: &HttpPiece) -> Self {
        let fields = view.headers(piece);
        let mut head = Self {
            view,
            fields,
            pseudo: [None; PSEUDO],
            length: Length::Absent,
            chunked: false,
            upgrade: false,
            closes: false,
            grpc: Grpc::No,
            te_trailers: false,
            date: None,
        };
        for (index, field) in fields.iter().enumerate() {
            // The length of its name alone rules out most fields.
            if !NAME_LENGTHS.get(field.key.len()).is_some_and(|has| *has) {
                continue;
            }
            let key = view.bytes(field.key);
            if key.first() == Some(&b':') {
                if let Some(pseudo) = Pseudo::of(key) {
                    head.pseudo[pseudo as usize].get_or_insert(index);
                }
                continue;
            }
            match key.len() {
                2 if key.eq_ignore_ascii_case(b"te") => {
                    head.te_trailers |= has_token(view.bytes(field.value), b"trailers");
                }
                4 if key.eq_ignore_ascii_case(b"date") => head.date = Some(view.bytes(field.value)),
                7 if key.eq_ignore_ascii_case(b"upgrade") => head.upgrade = true,
                12 if key.eq_ignore_ascii_case(b"content-type") => {
                    head.grpc = Grpc::of(view.bytes(field.value));
                }
                14 if key.eq_ignore_ascii_case(b"content-length") => head.add_length(view.bytes(field.value)),
                10 if key.eq_ignore_ascii_case(b"connection") => {
                    head.closes |= has_token(view.bytes(field.value), b"close");
                }
                17 if key.eq_ignore_ascii_case(b"transfer-encoding") => {
                    head.chunked = ends_in_chunked(view.bytes(field.value));
                }
                _ => {}
            }
        }
        head
    }

    fn add_length(&mut self, value: &[u8]) {
        let parsed = str::from_utf8(value.trim_ascii()).ok();
        // RFC 9110 section 8.6 allows digits only, but Rust's parser accepts a sign.
        let parsed =
            parsed.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse().ok());
        self.length = match (self.length, parsed) {
            (Length::Absent, Some(length)) => Length::One(length),
            (Length::One(before), Some(length)) if before == length => self.length,
            _ => Length::Bad,
        };
    }

    pub(super) fn pseudo(&self, pseudo: Pseudo) -> Option<&'a [u8]> {
        self.pseudo[pseudo as usize].map(|index| self.view.bytes(self.fields[index].value))
    }

    /// Whether the field at `index` is a pseudo-header that this side may have, and the first with its name.
    pub(super) fn is_pseudo(&self, index: usize, side: HttpSide) -> bool {
        let of_request = |pseudo| pseudo != Pseudo::Status as usize;
        let position = self.pseudo.iter().position(|first| *first == Some(index));
        position.is_some_and(|pseudo| of_request(pseudo) == (side == HttpSide::Request))
    }

    pub(super) fn field(&self, field: &Header) -> (&'a [u8], &'a [u8]) {
        (self.view.bytes(field.key), self.view.bytes(field.value))
    }

    pub(super) fn method(&self) -> Option<&'a [u8]> {
        self.pseudo(Pseudo::Method)
    }

    /// The status, if it has three digits (RFC 9110 section 15).
    pub(super) fn status(&self) -> Option<u16> {
        match self.pseudo(Pseudo::Status)? {
            digits @ [_, _, _] if digits.iter().all(u8::is_ascii_digit) => {
                Some(digits.iter().fold(0, |status, digit| 10 * status + u16::from(digit - b'0')))
            }
            _ => None,
        }
    }

    /// Whether the status is 1xx, so that another response follows. 101 is an exception, because it ends HTTP.
    pub(super) fn is_informational(&self) -> bool {
        self.status().is_some_and(|status| (100..200).contains(&status) && status != 101)
    }

    /// Whether the response never has a body (RFC 9110 section 6.4.1).
    pub(super) fn is_bodiless(&self) -> bool {
        self.status().is_some_and(|status| status < 200 || status == 204 || status == 304)
    }

    pub(super) fn content_length(&self) -> Option<u64> {
        match self.length {
            Length::One(length) => Some(length),
            Length::Absent | Length::Bad => None,
        }
    }

    /// Whether the content-length is invalid.
    pub(super) fn has_bad_length(&self) -> bool {
        self.length == Length::Bad
    }

    /// Whether there is a sign of HTTP/2: gRPC, a client that accepts trailers, or extended CONNECT.
    pub(super) fn wants_http2(&self) -> bool {
        self.grpc == Grpc::Yes || self.te_trailers || self.pseudo(Pseudo::Protocol).is_some()
    }

    /// Whether the body consists of messages with a length before each: gRPC, or gRPC-Web that is not in base64.
    pub(super) fn has_grpc_messages(&self) -> bool {
        matches!(self.grpc, Grpc::Yes | Grpc::Web)
    }

    /// Whether the body is gRPC-Web in base64, which a dissector decodes frame by frame.
    pub(super) fn is_grpc_web_text(&self) -> bool {
        self.grpc == Grpc::WebText
    }

    /// Whether another protocol begins after this request or response.
    pub(super) fn opens_tunnel(&self) -> bool {
        let connect = self.method() == Some(b"CONNECT") && self.pseudo(Pseudo::Protocol).is_none();
        connect
            || self.status() == Some(101)
            || (self.upgrade && self.method().is_some() && self.length == Length::Absent)
    }

    /// The date header, in nanoseconds since the Unix epoch.
    pub(super) fn date(&self) -> Option<u64> {
        let text = str::from_utf8(self.date?).ok()?;
        let since_epoch = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        u64::try_from(since_epoch.as_nanos()).ok()
    }
}

/// Whether a comma-separated list has this element.
fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|element| element.trim_ascii().eq_ignore_ascii_case(token))
}

/// Whether the last coding is chunked, the only place where it may be (RFC 9112 section 6.1).
fn ends_in_chunked(codings: &[u8]) -> bool {
    codings.rsplit(|byte| *byte == b',').next().is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// The date header of a response in this message.
pub(in crate::timeline) fn date(view: MessageView<'_>) -> Option<Nanos> {
    let pieces = view.message().http.iter();
    let mut heads = pieces.filter(|piece| (piece.side.index(), piece.part) == (1, HttpPart::Headers));
    heads.find_map(|piece| MessageHead::read(view, piece).date())
}
