//! The exchanges of a source that are open, and what of them is held.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Track;
use crate::trace::{HttpPart, Message, MessageView, Place};

/// Parts of an exchange that were copied out of the window.
#[derive(Debug, Default)]
pub(crate) struct HeldParts {
    message: Box<Message>,
    /// How many, roughly.
    pub bytes: usize,
}

impl HeldParts {
    /// The parts.
    #[must_use]
    pub(crate) fn view(&self) -> MessageView<'_> {
        MessageView::new(&self.message, &[])
    }
}

/// One open exchange.
#[derive(Debug, Default)]
pub(crate) struct OpenExchange<S> {
    /// What its user keeps with it.
    pub state: S,
    /// Request and response so far.
    pub tracks: [Track; 2],
    /// Offset and index of the message that began it.
    pub origin: Place,
    /// Bytes held, counted with their records; 0 where nothing is.
    pub held_bytes: usize,
    held: Option<HeldParts>,
    trace_id: u64,
    /// When a part of it came last.
    stamp: u64,
}

impl<S> OpenExchange<S> {
    /// Copies the parts of a message.
    pub(crate) fn hold(&mut self, view: MessageView<'_>) {
        let held = self.held.get_or_insert_default();
        held.message.append_http(view);
        held.bytes = held.message.held_bytes();
        self.held_bytes = held.bytes;
    }

    /// What is held, which then is no longer.
    pub(crate) fn take_held(&mut self) -> Option<HeldParts> {
        self.held_bytes = 0;
        self.held.take()
    }

    /// Whether what is held ends in a head that announces a body.
    #[must_use]
    pub(crate) fn announces_body(&self) -> bool {
        let last = self.held.as_ref().and_then(|held| held.message.http.last());
        last.is_some_and(|piece| piece.part == HttpPart::Headers && self.tracks[piece.side.index()].announces_body())
    }
}

/// Streams by their `trace_id`, in dense slots that are used again.
#[derive(Debug, Default)]
pub(crate) struct Streams<S> {
    slots: Vec<Option<OpenExchange<S>>>,
    free: Vec<usize>,
    by_id: HashMap<u64, usize>,
    /// Slots by when they were used last.
    order: BTreeMap<u64, usize>,
    /// Slots that looked complete when the stamp was given.
    complete: VecDeque<(usize, u64)>,
    stamp: u64,
    spare: Vec<HeldParts>,
}

impl<S: Default> Streams<S> {
    /// The stream of a segment.
    pub(crate) fn of(&mut self, view: MessageView<'_>) -> usize {
        let message = view.message();
        self.stamp += 1;
        if let Some(&index) = self.by_id.get(&message.trace_id)
            && let Some(stream) = &mut self.slots[index]
        {
            self.order.remove(&stream.stamp);
            stream.stamp = self.stamp;
            self.order.insert(self.stamp, index);
            return index;
        }
        let index = self.reserve();
        self.slots[index] = Some(OpenExchange {
            state: S::default(),
            tracks: Default::default(),
            origin: message.place(),
            held_bytes: 0,
            held: self.spare.pop(),
            trace_id: message.trace_id,
            stamp: self.stamp,
        });
        self.by_id.insert(message.trace_id, index);
        self.order.insert(self.stamp, index);
        index
    }

    /// A slot without a stream in it.
    pub(crate) fn reserve(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        })
    }

    /// The slot may be used again.
    pub(crate) fn release(&mut self, index: usize) {
        self.free.push(index);
    }

    /// The stream in a slot that [`Streams::of`] answered.
    pub(crate) fn get(&mut self, index: usize) -> &mut OpenExchange<S> {
        self.slots[index].as_mut().expect("a slot holds its stream until that is removed")
    }

    /// The stream in a slot, if it is still there.
    pub(crate) fn find(&mut self, index: usize) -> Option<&mut OpenExchange<S>> {
        self.slots.get_mut(index)?.as_mut()
    }

    /// Takes a stream out; its slot stays reserved.
    pub(crate) fn remove(&mut self, index: usize) -> Option<OpenExchange<S>> {
        let stream = self.slots.get_mut(index)?.take()?;
        self.order.remove(&stream.stamp);
        self.by_id.remove(&stream.trace_id);
        Some(stream)
    }

    /// Gives memory back for the next stream, unless it is much: few streams are that large.
    pub(crate) fn give_back(&mut self, mut held: HeldParts) {
        const SPARE: usize = 64;
        const LARGE: usize = 256 << 10;
        if self.spare.len() < SPARE && held.bytes <= LARGE {
            held.message.clear();
            held.bytes = 0;
            self.spare.push(held);
        }
    }

    /// Notes that the stream may be over.
    pub(crate) fn note_complete(&mut self, index: usize) {
        if let Some(stream) = self.slots.get(index).and_then(Option::as_ref) {
            self.complete.push_back((index, stream.stamp));
        }
    }

    /// A stream that has to make room: there are too many that look complete, or too many at all.
    pub(crate) fn next_to_end(&mut self, most: usize, most_complete: usize) -> Option<usize> {
        while self.complete.len() > most_complete {
            let (index, stamp) = self.complete.pop_front()?;
            // One that went on since then is in the queue again, if it still looks complete.
            if self.slots[index].as_ref().is_some_and(|stream| stream.stamp == stamp) {
                return Some(index);
            }
        }
        if self.order.len() > most { self.order.first_key_value().map(|(_, index)| *index) } else { None }
    }

    /// All open streams, in the order in which they began.
    pub(crate) fn in_order(&self) -> Vec<usize> {
        let mut open: Vec<_> = self.order.values().copied().collect();
        open.sort_unstable_by_key(|index| self.slots[*index].as_ref().map(|stream| stream.origin));
        open
    }
}
