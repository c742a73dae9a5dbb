//! The open exchanges of a source, and the parts of them that are held.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Track;
use crate::trace::{HttpPart, Message, MessageView, Place};

/// Parts of an exchange that were copied out of the window.
#[derive(Debug, Default)]
pub(crate) struct HeldParts {
    message: Box<Message>,
    /// How much memory the parts take, roughly.
    pub bytes: usize,
}

impl HeldParts {
    /// The parts as a message.
    #[must_use]
    pub(crate) fn view(&self) -> MessageView<'_> {
        MessageView::new(&self.message, &[])
    }
}

/// One open exchange.
#[derive(Debug, Default)]
pub(crate) struct OpenExchange<S> {
    /// What the caller keeps with the exchange.
    pub state: S,
    /// What is known of the request and the response so far.
    pub tracks: [Track; 2],
    /// Where the first message of the exchange begins.
    pub origin: Place,
    /// How many bytes are held, including their records; 0 if nothing is held.
    pub held_bytes: usize,
    held: Option<HeldParts>,
    trace_id: u64,
    /// The value of [`OpenExchanges::stamp`] when the last part came.
    stamp: u64,
}

impl<S> OpenExchange<S> {
    /// Copies the parts of a message and holds them.
    pub(crate) fn hold(&mut self, view: MessageView<'_>) {
        let held = self.held.get_or_insert_default();
        held.message.append_http(view);
        held.bytes = held.message.held_bytes();
        self.held_bytes = held.bytes;
    }

    /// Takes the held parts.
    pub(crate) fn take_held(&mut self) -> Option<HeldParts> {
        self.held_bytes = 0;
        self.held.take()
    }

    /// Whether the last held part is a head that announces a body.
    #[must_use]
    pub(crate) fn announces_body(&self) -> bool {
        let last = self.held.as_ref().and_then(|held| held.message.http.last());
        last.is_some_and(|piece| piece.part == HttpPart::Headers && self.tracks[piece.side.index()].announces_body())
    }
}

/// Open exchanges by their `trace_id`, in slots that are reused.
#[derive(Debug, Default)]
pub(crate) struct OpenExchanges<S> {
    slots: Vec<Option<OpenExchange<S>>>,
    free: Vec<usize>,
    by_id: HashMap<u64, usize>,
    /// The slots by the stamp of their last use.
    order: BTreeMap<u64, usize>,
    /// Slots that looked complete, with their stamp at that time.
    complete: VecDeque<(usize, u64)>,
    /// Counts the segments.
    stamp: u64,
    spare: Vec<HeldParts>,
}

impl<S: Default> OpenExchanges<S> {
    /// The slot of a segment's exchange.
    pub(crate) fn of(&mut self, view: MessageView<'_>) -> usize {
        let message = view.message();
        self.stamp += 1;
        if let Some(&index) = self.by_id.get(&message.trace_id)
            && let Some(exchange) = &mut self.slots[index]
        {
            self.order.remove(&exchange.stamp);
            exchange.stamp = self.stamp;
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

    /// Reserves an empty slot.
    pub(crate) fn reserve(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        })
    }

    /// Frees a slot for another exchange.
    pub(crate) fn release(&mut self, index: usize) {
        self.free.push(index);
    }

    /// The exchange in a slot that [`OpenExchanges::of`] returned.
    pub(crate) fn get(&mut self, index: usize) -> &mut OpenExchange<S> {
        self.slots[index].as_mut().expect("a slot holds its exchange until that is removed")
    }

    /// The exchange in a slot, if it is still there.
    pub(crate) fn find(&mut self, index: usize) -> Option<&mut OpenExchange<S>> {
        self.slots.get_mut(index)?.as_mut()
    }

    /// Takes an exchange out; its slot stays reserved.
    pub(crate) fn remove(&mut self, index: usize) -> Option<OpenExchange<S>> {
        let exchange = self.slots.get_mut(index)?.take()?;
        self.order.remove(&exchange.stamp);
        self.by_id.remove(&exchange.trace_id);
        Some(exchange)
    }

    /// Gives memory back for the next exchange. Large memory is freed, because few exchanges need it.
    pub(crate) fn give_back(&mut self, mut held: HeldParts) {
        const SPARE: usize = 64;
        const LARGE: usize = 256 << 10;
        if self.spare.len() < SPARE && held.bytes <= LARGE {
            held.message.clear();
            held.bytes = 0;
            self.spare.push(held);
        }
    }

    /// Notes that an exchange looks complete.
    pub(crate) fn note_complete(&mut self, index: usize) {
        if let Some(exchange) = self.slots.get(index).and_then(Option::as_ref) {
            self.complete.push_back((index, exchange.stamp));
        }
    }

    /// An exchange that must end, because too many look complete or too many are open.
    pub(crate) fn next_to_end(&mut self, most: usize, most_complete: usize) -> Option<usize> {
        while self.complete.len() > most_complete {
            let (index, stamp) = self.complete.pop_front()?;
            // An exchange that went on since then has another stamp. It is in the queue again if it still looks complete.
            if self.slots[index].as_ref().is_some_and(|exchange| exchange.stamp == stamp) {
                return Some(index);
            }
        }
        if self.order.len() > most { self.order.first_key_value().map(|(_, index)| *index) } else { None }
    }

    /// All open exchanges, in the order in which they began.
    pub(crate) fn in_order(&self) -> Vec<usize> {
        let mut open: Vec<_> = self.order.values().copied().collect();
        open.sort_unstable_by_key(|index| self.slots[*index].as_ref().map(|exchange| exchange.origin));
        open
    }
}
