//! Where exchanges are written, in either HTTP version.

use super::{
    HttpOptions,
    out::{BodyChunk, MadeKind, Missing, Out, Sending, add_note},
};
use crate::{
    timeline::{Direction, start_time::Start},
    trace::{ExchangeFact, Fact, Finding, Findings, HttpSide, MadeUpField, Nanos, ReplayNote, Span, UnfitFields},
};

/// What the exchanges of a source share: options, the clock for made-up times, and the output.
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

/// What writing an exchange needs.
pub(super) struct Env<'e> {
    pub(super) shared: &'e mut ReplayShared,
    pub(super) findings: &'e mut Findings,
}

/// Takes the bytes of one exchange from the code that frames them as HTTP/1 or HTTP/2.
pub(super) struct HttpSink<'e> {
    shared: &'e mut ReplayShared,
    findings: &'e mut Findings,
    at: Sending,
    client: Direction,
    trace_id: u64,
}

impl<'e> HttpSink<'e> {
    /// Creates a sink for what an exchange sends at the time and place of `at`. `client` is the client's direction.
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

    /// The buffer for the next bytes of this side.
    pub(super) fn bytes(&mut self, side: HttpSide) -> &mut Vec<u8> {
        let at = self.at(side);
        self.shared.out.begin(at)
    }

    pub(super) fn body(&mut self, side: HttpSide, chunk: BodyChunk<'_>, missing: Missing) {
        let at = self.at(side);
        self.shared.out.body(at, chunk, missing);
    }

    /// Begins a part of a body.
    pub(super) fn begin_part(&mut self) {
        self.shared.out.end_cut();
    }

    /// Writes a large body in frames, as [`super::out::Out::frames`] does.
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

    /// The buffer for the next `len` bytes of this side, which should be in one packet.
    pub(super) fn bytes_together(&mut self, side: HttpSide, len: usize) -> &mut Vec<u8> {
        self.shared.out.together(len);
        self.bytes(side)
    }

    /// Writes a gap of `bytes` missing bytes.
    pub(super) fn gap(&mut self, side: HttpSide, bytes: u64) {
        let at = self.at(side);
        self.shared.out.flush();
        self.shared.out.push(at, MadeKind::Gap { direction: at.direction, bytes });
    }

    /// Notes what was made up, escaped or left out. The note goes to the opening of the connection, or to the current
    /// bytes if the opening was already read.
    pub(super) fn note(&mut self, note: ReplayNote) {
        match self.shared.out.opening(self.at.stream).and_then(|opening| opening.http.as_mut()) {
            Some(http) => add_note(&mut http.notes, note),
            None => self.shared.out.note(note),
        }
    }

    /// Notes and reports what was made up.
    pub(super) fn made_up(&mut self, field: MadeUpField) {
        self.note(ReplayNote::MadeUp(field.clone()));
        self.report(ExchangeFact::MadeUp(field));
    }

    /// Notes and reports fields that could not be written as they are.
    pub(super) fn unfit(&mut self, fields: UnfitFields) {
        self.note(ReplayNote::Unfit(fields.clone()));
        self.report(ExchangeFact::Unfit(fields));
    }

    pub(super) fn report(&mut self, fact: ExchangeFact) {
        let fact = Fact::Exchange { trace_id: self.trace_id, fact };
        self.findings.push(Finding::new(self.at.origin, fact));
    }
}
