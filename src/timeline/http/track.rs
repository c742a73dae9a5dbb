//! What is known of one half of an exchange, part by part.

use super::head::MessageHead;
use crate::trace::{HttpPart, HttpPiece, HttpSide, MessageView};

/// How much of a request, a response or both is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Completeness {
    /// As far as one can tell, all.
    Complete,
    /// Fewer body bytes than content-length says, and not because they were truncated.
    Unfinished,
    /// No headers.
    Headless,
}

/// What is known of a request or a response so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// Headers came, and not only those of an informational response.
    pub has_head: bool,
    /// Body bytes so far.
    pub body: u64,
    /// Body parts with at least one byte, there or truncated.
    pub has_body: bool,
    /// A part of the body was truncated.
    pub truncated: bool,
    /// A part of the body is JSON_BODY_AS_STRING's.
    pub as_string: bool,
    /// Trailers came.
    pub has_trailers: bool,
    /// Parts came in another order than they are sent in.
    pub out_of_order: bool,
    /// HTTP/2 or gRPC, by its fields.
    pub wants_http2: bool,
    /// An upgrade or CONNECT: bytes of another protocol follow.
    pub tunnel: bool,
    content_length: Option<u64>,
    head_request: bool,
    bodiless: bool,
    last: Option<HttpPart>,
}

impl Track {
    /// Takes the next part.
    pub fn add(&mut self, view: MessageView<'_>, piece: &HttpPiece) {
        // Informational responses come before the final one.
        self.out_of_order |= self.last > Some(piece.part) || (self.has_head && piece.part == HttpPart::Headers);
        self.last = Some(piece.part);
        match piece.part {
            HttpPart::Headers => self.add_head(&MessageHead::read(view, piece), piece.side),
            HttpPart::Body => {
                self.body += piece.body.payload.len() as u64;
                self.has_body |= piece.body.truncated || !piece.body.payload.is_empty();
                self.truncated |= piece.body.truncated;
                self.as_string |= piece.body.as_string;
            }
            HttpPart::Trailers => self.has_trailers = true,
        }
    }

    fn add_head(&mut self, head: &MessageHead<'_>, side: HttpSide) {
        if side == HttpSide::Response && head.is_informational() {
            return;
        }
        self.has_head = true;
        self.content_length = head.content_length();
        self.head_request = side == HttpSide::Request && head.method() == Some(b"HEAD");
        self.bodiless = head.is_bodiless();
        self.wants_http2 |= head.wants_http2();
        self.tunnel |= head.opens_tunnel();
    }

    /// Whether nothing of it came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Whether it is a request whose response has no body.
    #[must_use]
    pub fn is_head_request(&self) -> bool {
        self.head_request
    }

    /// Whether it is a response that has no body by its status.
    #[must_use]
    pub fn is_bodiless(&self) -> bool {
        self.bodiless
    }

    /// The recorded content-length, if there is one.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Whether there is nothing that could still come but trailers.
    #[must_use]
    pub fn has_known_end(&self) -> bool {
        self.has_trailers || self.bodiless || self.content_length.is_some()
    }

    /// Whether a body of known length is to follow.
    #[must_use]
    pub fn announces_body(&self) -> bool {
        !self.bodiless && self.content_length.is_some_and(|length| length > self.body)
    }

    /// How much of it is there. The response to a HEAD request has no body, whatever its content-length.
    #[must_use]
    pub fn completeness(&self, to_head_request: bool) -> Completeness {
        if !self.has_head {
            return Completeness::Headless;
        }
        let whole = to_head_request || !self.announces_body() || self.truncated || self.as_string;
        if whole { Completeness::Complete } else { Completeness::Unfinished }
    }
}
