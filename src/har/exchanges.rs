//! Collects whole exchanges: a HAR entry needs both the request and the response, each with its whole body.

use crate::{
    timeline::{Completeness, OpenExchanges, Track},
    trace::{HttpPart, HttpSide, MessageView, Place, TraceKind},
};

/// The most exchanges that may be open. Nothing marks the end of a streamed exchange, so past this limit, the one that
/// has been silent longest ends.
const MAX_OPEN: usize = 8192;

/// The most exchanges that stay open although they look complete: trailers may follow even a body of known length.
const MAX_COMPLETE: usize = 64;

/// Collects the segments of streamed exchanges.
#[derive(Debug)]
pub struct Exchanges {
    open: OpenExchanges<()>,
    held: usize,
    max_held: usize,
}

impl Exchanges {
    /// Holds at most `max_held` bytes of all exchanges together. Past that, the one that has been silent longest ends.
    #[must_use]
    pub fn new(max_held: usize) -> Self {
        Self { open: OpenExchanges::default(), held: 0, max_held }
    }

    /// Adds a message, and passes the exchanges that end with it to `each`, with the place of the first message of each.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn message<E>(
        &mut self,
        view: MessageView<'_>,
        mut each: impl FnMut(Place, MessageView<'_>, &[Track; 2]) -> Result<(), E>,
    ) -> Result<(), E> {
        let message = view.message();
        match message.kind {
            Some(TraceKind::HttpBuffered) => {
                let mut tracks = <[Track; 2]>::default();
                message.http.iter().for_each(|piece| tracks[piece.side.index()].add(view, piece));
                each(message.place(), view, &tracks)
            }
            Some(TraceKind::HttpStreamed) if !message.http.is_empty() => {
                let index = self.open.of(view);
                let stream = self.open.get(index);
                message.http.iter().for_each(|piece| stream.tracks[piece.side.index()].add(view, piece));
                let before = stream.held_bytes;
                stream.hold(view);
                self.held += stream.held_bytes - before;
                let [request, response] = &stream.tracks;
                let to_head = request.is_head_request();
                let whole = request.completeness(false).max(response.completeness(to_head)) == Completeness::Complete;
                let known_end = response.has_known_end();
                let is_end = (HttpSide::Response, HttpPart::Trailers);
                if message.http.iter().any(|piece| (piece.side, piece.part) == is_end) {
                    self.end_one(index, &mut each)?;
                } else if whole && known_end {
                    self.open.note_complete(index);
                }
                let max_open = if self.held > self.max_held { 0 } else { MAX_OPEN };
                while let Some(index) = self.open.next_to_end(max_open, MAX_COMPLETE) {
                    self.end_one(index, &mut each)?;
                    if self.held <= self.max_held && max_open == 0 {
                        break;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Ends every open exchange, because the source has ended.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn end<E>(
        &mut self,
        mut each: impl FnMut(Place, MessageView<'_>, &[Track; 2]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open.in_order().into_iter().try_for_each(|index| self.end_one(index, &mut each))
    }

    fn end_one<E>(
        &mut self,
        index: usize,
        each: &mut impl FnMut(Place, MessageView<'_>, &[Track; 2]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(mut stream) = self.open.remove(index) else { return Ok(()) };
        let (held, origin) = (stream.take_held(), stream.origin);
        self.open.release(index);
        let Some(held) = held else { return Ok(()) };
        self.held -= held.bytes;
        let result = each(origin, held.view(), &stream.tracks);
        self.open.give_back(held);
        result
    }
}
