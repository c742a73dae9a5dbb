//! Bounds of what redaction holds and writes, for all connections of a source together.

use std::sync::Arc;

use super::message::BodyFields;

/// How many streams of HTTP/2 may be open. The bytes of more are taken out as a whole.
const MAX_STREAMS: usize = 1 << 16;

/// How many bodies may be unpacked at once: with gzip and deflate, which take tens of kilobytes each, and with the others,
/// which may take megabytes.
const MAX_SMALL_DECODERS: usize = 256;
const MAX_LARGE_DECODERS: usize = 16;

/// How many bytes may be written besides [`MAX_GROWTH`] times those that came. A few bytes can stand for many in a packed
/// body or a header block.
const ALWAYS: u64 = 64 << 20;
const MAX_GROWTH: u64 = 64;

/// What is open and what was written. Each stream and decoder has a clone of its counter.
#[derive(Debug, Default)]
pub(super) struct Limits {
    streams: Arc<()>,
    small_decoders: Arc<()>,
    large_decoders: Arc<()>,
    /// How many bytes came.
    came: u64,
    /// How many were written.
    written: u64,
}

fn permit(counter: &Arc<()>, max: usize) -> Option<Arc<()>> {
    // The limits have one clone themselves.
    (Arc::strong_count(counter) <= max).then(|| Arc::clone(counter))
}

impl Limits {
    /// Counts bytes of an entry.
    pub(super) fn come(&mut self, bytes: usize) {
        self.came = self.came.saturating_add(bytes as u64);
    }

    /// Counts bytes that were written for an entry.
    pub(super) fn written(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes as u64);
    }

    /// Whether more may be written than came, after `written` bytes of the current entry.
    pub(super) fn may_grow(&self, written: usize) -> bool {
        let max = self.came.saturating_mul(MAX_GROWTH).saturating_add(ALWAYS);
        self.written.saturating_add(written as u64) < max
    }

    pub(super) fn has_room_for_stream(&self) -> bool {
        Arc::strong_count(&self.streams) <= MAX_STREAMS
    }

    pub(super) fn stream(&self) -> Option<Arc<()>> {
        permit(&self.streams, MAX_STREAMS)
    }

    /// Says whether the body after a head with these fields may be unpacked, after `written` bytes of the current entry.
    pub(super) fn decoder(&self, fields: &BodyFields, written: usize) -> Option<Arc<()>> {
        if !self.may_grow(written) {
            return None;
        }
        match fields.has_large_decoder() {
            true => permit(&self.large_decoders, MAX_LARGE_DECODERS),
            false => permit(&self.small_decoders, MAX_SMALL_DECODERS),
        }
    }
}
