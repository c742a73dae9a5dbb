//! The search for the first message of a source that begins with text.
//!
//! Only what it finds shows that there is a trace at all, so the name of a trace is not enough: source code, schemas and
//! documents have it too. A message must say something of a connection or an exchange.

use crate::{
    input::{
        around::{Found, Search},
        decode::{Decode, Step},
        detect::Encoding,
        json::JsonDecoder,
        text::TextDecoder,
    },
    trace::Message,
};

/// How many bytes of a message are waited for until it says something, and how many after a damaged one until another
/// message shows that it is a trace's.
const MOST: usize = 1 << 20;

/// How many bytes are decoded in all to tell messages from quotations. Without a bound, each of many beginnings could be
/// decoded to the end of the text.
const MOST_DECODED: usize = 64 << 20;

/// How many damaged messages are looked at closely.
const MOST_DAMAGED: usize = 8;

/// What the search finds.
pub(super) enum First {
    /// A message in this encoding begins at the offset.
    Message(Encoding, usize),
    /// The search goes on after so many bytes, which may be given up, with what is there already.
    Skip(usize),
    /// Nothing is there yet. The first bytes, as many as this, may be given up.
    Nothing(usize),
    /// What may be the message is too short to tell. No byte may be given up.
    Unknown,
    /// The text ends before there is a message.
    Binary,
}

/// What one candidate shows.
enum Candidate {
    Message,
    Empty,
    Damaged,
    Unknown,
}

#[derive(Debug)]
pub(super) struct FirstSearch {
    search: Search,
    /// A message in this encoding begins here, and is damaged before it says anything. A whole one must follow.
    damaged: Option<Encoding>,
    /// How many more messages may be waited for like that. Each takes a search of its own.
    patience: usize,
    decoded: usize,
}

impl Default for FirstSearch {
    fn default() -> Self {
        Self { search: Search::for_first(), damaged: None, patience: MOST_DAMAGED, decoded: 0 }
    }
}

impl FirstSearch {
    /// Goes on searching. `text` is what the last call saw, without the bytes that were given up, plus those that have
    /// arrived since.
    pub(super) fn find(&mut self, text: &[u8], at_end: bool) -> First {
        if let Some(encoding) = self.damaged {
            if self.is_followed(text) {
                return First::Message(encoding, 0);
            }
            if !at_end && text.len() < MOST {
                return First::Unknown;
            }
            self.damaged = None;
            self.search = Search::for_first();
            // It is passed over where it is found again.
            if let Found::Message(..) = self.search.find(text, at_end, false) {
                self.search.pass_over();
            }
        }
        loop {
            if self.decoded > MOST_DECODED {
                return First::Nothing(text.len());
            }
            let (encoding, at) = match self.search.find(text, at_end, false) {
                Found::Message(encoding, at) => (encoding, at),
                Found::Nothing(skip) => return First::Nothing(skip),
                Found::Binary(_) => return First::Binary,
            };
            match self.look(encoding, &text[at..], at_end) {
                Candidate::Message => return First::Message(encoding, at),
                Candidate::Unknown => return First::Unknown,
                Candidate::Damaged if self.patience > 0 => {
                    self.patience -= 1;
                    self.damaged = Some(encoding);
                    return First::Skip(at);
                }
                Candidate::Empty | Candidate::Damaged => self.search.pass_over(),
            }
        }
    }

    /// Whether a message that says something follows the one that the text begins with.
    fn is_followed(&mut self, text: &[u8]) -> bool {
        let mut search = Search::for_first();
        while let Found::Message(encoding, at) = search.find(text, true, false) {
            if self.decoded > MOST_DECODED {
                return false;
            }
            if at > 0 && matches!(self.look(encoding, &text[at..], true), Candidate::Message) {
                return true;
            }
            search.pass_over();
        }
        false
    }

    /// Looks at the message that the text begins with.
    fn look(&mut self, encoding: Encoding, text: &[u8], at_end: bool) -> Candidate {
        let mut decoder: Box<dyn Decode> = match encoding {
            Encoding::Json => Box::new(JsonDecoder::default()),
            _ => Box::new(TextDecoder::default()),
        };
        let mut out = Message::default();
        let step = decoder.step(text, true, &mut out);
        self.decoded += match step {
            Step::Message { end, .. } | Step::Damaged { end, .. } => end,
            _ => text.len(),
        };
        if out.holds_anything() {
            return Candidate::Message;
        }
        match step {
            Step::Damaged { fault, .. } if fault.is_cut_off() => match at_end || text.len() > MOST {
                true => Candidate::Damaged,
                false => Candidate::Unknown,
            },
            Step::Damaged { .. } => Candidate::Damaged,
            _ => Candidate::Empty,
        }
    }
}
