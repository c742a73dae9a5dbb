//! Where exchanges are written, whatever protocol frames them.

use super::{
    HttpOptions,
    out::{BodyChunk, MadeKind, Missing, Out, Sending, add_note},
};
use crate::{
    timeline::{Direction, start::Start},
    trace::{ExchangeFact, Fact, Finding, Findings, HttpSide, Nanos, Span},
};

/// What the exchanges of a source share: what the replay is to do, and where the clock of made-up times stands.
#[derive(Debug)]
pub(super) struct ReplayShared {
    pub(super) options: HttpOptions,
    pub(super) start_time: Option<Nanos>,
    pub(super) start: Start,
    /// The latest time that the capture can hold.
    pub(super) latest: Nanos,
    /// The last time that was made up.
    pub(super) clock: Option<Nanos>,
    pub(super) out: Out,
}

/// What an exchange is written with.
pub(super) struct Env<'e> {
    pub(super) shared: &'e mut ReplayShared,
    pub(super) findings: &'e mut Findings,
}

/// Where the framers write.
pub(super) struct HttpSink<'e> {
    shared: &'e mut ReplayShared,
    findings: &'e mut Findings,
    at: Sending,
    client: Direction,
    trace_id: u64,
}

impl<'e> HttpSink<'e> {
    /// For what an exchange with this client sends at `at`.
    pub(super) fn new(env: &'e mut Env<'_>, at: Sending, client: Direction, trace_id: u64) -> Self {
        Self { shared: env.shared, findings: env.findings, at, client, trace_id }
    }

    pub(super) fn at(&self, side: HttpSide) -> Sending {
        let direction = match side {
            HttpSide::Request => self.client,
            HttpSide::Response => self.client.reverse(),
        };
        Sending { direction, ..self.at }
    }

    /// The buffer for what this side sends next.
    pub(super) fn bytes(&mut self, side: HttpSide) -> &mut Vec<u8> {
        let at = self.at(side);
        self.shared.out.begin(at)
    }

    pub(super) fn body(&mut self, side: HttpSide, chunk: BodyChunk<'_>, missing: Missing) {
        let at = self.at(side);
        self.shared.out.body(at, chunk, missing);
    }

    /// A large body in frames: see [`super::out::Out::frames`].
    pub(super) fn frames(
        &mut self,
        side: HttpSide,
        chunk: BodyChunk<'_>,
        span: Span,
        size: usize,
        head: fn(&mut Vec<u8>, usize, bool),
        ends_early: bool,
    ) {
        let at = self.at(side);
        self.shared.out.frames(at, chunk, span, size, head, ends_early);
    }

    /// The buffer for `len` bytes that a packet should not part.
    pub(super) fn bytes_together(&mut self, side: HttpSide, len: usize) -> &mut Vec<u8> {
        self.shared.out.together(len);
        self.bytes(side)
    }

    /// Bytes of which nothing is there, not even a part.
    pub(super) fn gap(&mut self, side: HttpSide, bytes: u64) {
        let at = self.at(side);
        self.shared.out.flush();
        self.shared.out.push(at, MadeKind::Gap { direction: at.direction, bytes });
    }

    /// Says what was made up, escaped or left out: where the connection opens, or, if that is long ago, here.
    pub(super) fn note(&mut self, note: &str) {
        match self.shared.out.opening(self.at.stream).and_then(|opening| opening.http.as_mut()) {
            Some(http) => add_note(&mut http.notes, note),
            None => self.shared.out.note(note),
        }
    }

    pub(super) fn report(&mut self, fact: ExchangeFact) {
        let fact = Fact::Exchange { trace_id: self.trace_id, fact };
        self.findings.push(Finding::new(self.at.origin, fact));
    }
}
