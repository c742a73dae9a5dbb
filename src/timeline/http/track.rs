//! What is known of a request or response so far. Each part adds to it.

use super::head::{HeadFacts, MessageHead};
use crate::trace::{HttpPart, HttpPiece, HttpSide, MessageView};

/// How complete a request, a response or both are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Completeness {
    /// Nothing is known to be missing.
    Complete,
    /// The body has fewer bytes than content-length says, and was not truncated.
    Unfinished,
    /// There are no headers.
    Headless,
}

/// What is known of a request or a response so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// Headers came that are not those of an informational response.
    pub has_head: bool,
    /// How many body bytes came so far.
    pub body: u64,
    /// A part of the body came that is not empty, or was truncated.
    pub has_body: bool,
    /// A part of the body was truncated.
    pub truncated: bool,
    /// A part of the body is from JSON_BODY_AS_STRING.
    pub as_string: bool,
    /// Trailers came.
    pub has_trailers: bool,
    /// Parts came in an order in which they cannot have been sent.
    pub out_of_order: bool,
    /// The fields are a sign of HTTP/2 or gRPC.
    pub wants_http2: bool,
    /// Bytes of another protocol follow, because of an upgrade or CONNECT.
    pub tunnel: bool,
    content_length: Option<u64>,
    head_request: bool,
    bodiless: bool,
    last: Option<HttpPart>,
    /// The last head.
    head: Option<HeadFacts>,
}

impl Track {
    /// Takes the next part.
    pub fn add(&mut self, view: MessageView<'_>, piece: &HttpPiece) {
        // Informational responses come before the final one.
        self.out_of_order |= self.last > Some(piece.part) || (self.has_head && piece.part == HttpPart::Headers);
        self.last = Some(piece.part);
        match piece.part {
            HttpPart::Headers => {
                let head = MessageHead::read(view, piece);
                self.head = Some(head.facts(piece));
                self.add_head(&head, piece.side);
            }
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

    /// What the fields of the last head say, for those who have its message.
    pub(super) fn last_head(&self) -> Option<HeadFacts> {
        self.head
    }

    /// Whether no part came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Whether this is a HEAD request, whose response has no body.
    #[must_use]
    pub fn is_head_request(&self) -> bool {
        self.head_request
    }

    /// Whether this is a response whose status allows no body.
    #[must_use]
    pub fn is_bodiless(&self) -> bool {
        self.bodiless
    }

    /// The recorded content-length, if there is one.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Whether the end of the body is known, so that only trailers may still come.
    #[must_use]
    pub fn has_known_end(&self) -> bool {
        self.has_trailers || self.bodiless || self.content_length.is_some()
    }

    /// Whether more bytes of a body of known length should follow.
    #[must_use]
    pub fn announces_body(&self) -> bool {
        !self.bodiless && self.content_length.is_some_and(|length| length > self.body)
    }

    /// How complete this half is. The response to a HEAD request has no body, whatever its content-length.
    #[must_use]
    pub fn completeness(&self, to_head_request: bool) -> Completeness {
        if !self.has_head {
            return Completeness::Headless;
        }
        let whole = to_head_request || !self.announces_body() || self.truncated || self.as_string;
        if whole { Completeness::Complete } else { Completeness::Unfinished }
    }
}
