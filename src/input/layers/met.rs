//! What layers meet while their source is read.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU8, Ordering},
};

use super::Layer;
use crate::input::skipped::SkippedText;

/// What layers met so far. They share it with the source that reads them.
#[derive(Clone, Debug, Default)]
pub(in crate::input) struct Met(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// What was taken off lines, as bits.
    lines: AtomicU8,
    skipped: Mutex<SkippedText>,
}

/// What is taken off lines, the outermost first.
const OF_LINES: [Layer; 2] = [Layer::LogRecords, Layer::LinePrefix];

impl Met {
    /// Notes what was taken off a line.
    pub(super) fn line(&self, layer: Layer) {
        for (bit, of_lines) in OF_LINES.iter().enumerate() {
            if *of_lines == layer {
                self.0.lines.fetch_or(1 << bit, Ordering::Relaxed);
            }
        }
    }

    /// What was taken off lines so far.
    pub(in crate::input) fn layers(&self) -> impl Iterator<Item = Layer> {
        let lines = self.0.lines.load(Ordering::Relaxed);
        OF_LINES.into_iter().enumerate().filter(move |(bit, _)| lines & (1 << bit) != 0).map(|(_, layer)| layer)
    }

    /// Notes text around the messages that the source does not get to see.
    pub(super) fn skipped(&self, text: SkippedText) {
        self.0.skipped.lock().unwrap_or_else(PoisonError::into_inner).merge(text);
    }

    /// The text that was skipped since the last call.
    pub(in crate::input) fn take_skipped(&self) -> SkippedText {
        std::mem::take(&mut *self.0.skipped.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
