//! Counts what Envoy's limit on a body cut off, over all inputs of a conversion.

use crate::{
    timeline::{Direction, Summary, Track},
    words,
};

/// Counts of bodies that are shorter in the traces than they were on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cuts {
    /// Bodies by the setting that limits them: those that Envoy received, and those that it sent.
    bodies: [u64; 2],
    /// Bytes known to be missing.
    bytes: u64,
    /// Bodies that miss an unknown number of bytes.
    open_ended: u64,
    connections: u64,
    /// Directions of buffered socket traces, which are not recorded any further after a cut.
    stopped: u64,
}

impl Cuts {
    /// Counts what is missing from a connection.
    pub(super) fn connection(&mut self, summary: &Summary) {
        let opening = &summary.opening;
        // The HTTP filter's settings are named from the client's side, whichever connection is replayed.
        let received = match opening.http {
            Some(_) => opening.role.client_direction(),
            None => Direction::Inbound,
        };
        let mut cut = false;
        for (index, direction) in [received, received.reverse()].into_iter().enumerate() {
            let side = &summary.sides[direction.index()];
            if side.truncated > 0 {
                cut = true;
                self.bodies[index] += side.truncated;
                self.bytes = self.bytes.saturating_add(side.truncated_bytes);
                self.open_ended += side.open_ended;
                self.stopped += u64::from(opening.buffered && opening.http.is_none());
            }
        }
        self.connections += u64::from(cut);
    }

    /// Counts what is missing from an exchange that is not replayed.
    pub(super) fn exchange(&mut self, tracks: &[Track; 2]) {
        for (bodies, track) in self.bodies.iter_mut().zip(tracks) {
            *bodies += u64::from(track.truncated);
            self.open_ended += u64::from(track.truncated);
        }
        self.connections += u64::from(tracks.iter().any(|track| track.truncated));
    }

    /// Adds other counts.
    pub(super) fn add(&mut self, other: Self) {
        for (bodies, more) in self.bodies.iter_mut().zip(other.bodies) {
            *bodies += more;
        }
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.open_ended += other.open_ended;
        self.connections += other.connections;
        self.stopped += other.stopped;
    }

    /// What to tell people, and what to do about it.
    pub(super) fn words(&self) -> Option<String> {
        let Self { bodies: [received, sent], bytes, open_ended, connections, stopped } = *self;
        let sides: Vec<_> = [
            (received, "that it received (raise max_buffered_rx_bytes)"),
            (sent, "that it sent (raise max_buffered_tx_bytes)"),
        ]
        .into_iter()
        .filter(|(bodies, _)| *bodies > 0)
        .map(|(bodies, what)| format!("{bodies} {what}"))
        .collect();
        if sides.is_empty() {
            return None;
        }
        let cut = words::count_of(received.saturating_add(sent), "body", "bodies");
        let missing = match (bytes, open_ended) {
            (_, 0) => format!("{} missing", words::bytes_are(bytes)),
            (0, _) => "how many bytes are missing is not known".to_owned(),
            _ => format!("more than {} missing", words::bytes_are(bytes)),
        };
        let mut text = format!(
            "Envoy's limit cut {cut} in {}: {}; {missing}",
            words::count(connections, "connection"),
            words::list(&sides)
        );
        if stopped > 0 {
            let directions = words::count_of(stopped, "direction", "directions");
            text.push_str(&format!(
                ". A buffered tap stops recording a direction at its limit: everything that came later in \
                 {directions}, whole requests and responses too, is not in the trace"
            ));
        }
        Some(text)
    }
}
