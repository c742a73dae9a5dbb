//! What comes from one connection to Envoy, until that ends.

use std::{
    io::Read,
    sync::{Arc, atomic::AtomicBool, mpsc::Receiver},
};

use super::{
    backlog::{BacklogWriter, Cut, backlog},
    feed::Keeping,
};
use crate::input::{Arrivals, Encoding};

/// A stream of traces. Envoy's `trace_id`s are unique within it, but not beyond it, because Envoy may have restarted.
pub(super) struct Session {
    /// From 1.
    pub number: u64,
    pub reader: Box<dyn Read + Send>,
    pub arrivals: Arc<Arrivals>,
    pub cut: Arc<Cut>,
    pub encoding: Encoding,
}

impl Session {
    /// A new one, and where its bytes go.
    pub(super) fn begin(number: u64, encoding: Encoding, keeping: &Keeping) -> (BacklogWriter, Self) {
        let (writer, reader) = backlog(keeping.max_backlog, keeping.until.clone());
        let (arrivals, cut) = (reader.arrivals(), reader.cut());
        (writer, Self { number, reader: Box::new(reader), arrivals, cut, encoding })
    }
}

/// The sessions of a live source, one after another, as its thread begins them. The last one is followed by the end of
/// the channel.
pub(super) struct Sessions {
    pub receiver: Receiver<Session>,
    /// Whether something was lost. The user was told of it.
    pub failed: Arc<AtomicBool>,
}
