//! Drives a source, and is the only place that does: it reads more when a stage needs input, counts progress, checks
//! for signals and passes findings on.

use std::path::Path;
#[cfg(feature = "live")]
use std::sync::Arc;

use super::error::Error;
#[cfg(feature = "live")]
use super::live::Cut;
use crate::{
    http::{HttpItem, HttpStage},
    input::{Advance, Input, InputError, Source, SourceOptions},
    interrupt,
    report::Progress,
    timeline::{HttpTaps, TimelineOptions, Timelines},
    trace::{Code, Finding, Findings},
};

/// Reads the HTTP of an input for itself, before the input is read for its output. The items come in the order and with
/// the numbers that they have then. What is wrong with the input is left to whoever reads it afterwards. A signal ends it
/// early, and so does `each` by returning `false`.
///
/// # Errors
/// The source cannot be opened, or `each` has failed.
pub(super) fn read_http_first<E: From<InputError>>(
    input: &Input,
    options: SourceOptions,
    timeline: TimelineOptions,
    mut stage: HttpStage,
    mut each: impl FnMut(HttpItem) -> Result<bool, E>,
) -> Result<(), E> {
    let timeline = TimelineOptions {
        http_taps: HttpTaps::Unreplayed,
        eager: false,
        join: false,
        reread: input.is_rereadable().then_some(options),
        ..timeline
    };
    let mut timelines = Timelines::new(Source::of(input, options)?, timeline);
    let mut findings = Findings::default();
    loop {
        let advance = timelines.advance(&mut findings);
        match advance {
            Advance::Message => stage.begin_entry(),
            Advance::NeedInput if interrupt::signal().is_some() => return Ok(()),
            Advance::NeedInput => timelines.fill(&mut findings),
            Advance::End => stage.end(&mut findings),
        }
        while let Some(item) = stage.next_item(&timelines, &mut findings) {
            if !each(item)? {
                return Ok(());
            }
        }
        drop(findings.take());
        if advance == Advance::End {
            return Ok(());
        }
    }
}

/// A stage that yields one item after another as long as its source is filled.
pub(super) trait Stage {
    /// Advances to the next item.
    fn advance(&mut self, findings: &mut Findings) -> Advance;
    /// Reads more input.
    fn fill(&mut self, findings: &mut Findings);
    /// The source that it reads from.
    fn source(&self) -> &Source;
}

impl Stage for Source {
    fn advance(&mut self, findings: &mut Findings) -> Advance {
        Source::advance(self, findings)
    }

    fn fill(&mut self, findings: &mut Findings) {
        Source::fill(self, findings);
    }

    fn source(&self) -> &Source {
        self
    }
}

impl Stage for Timelines {
    #[inline(always)]
    fn advance(&mut self, findings: &mut Findings) -> Advance {
        Timelines::advance(self, findings)
    }

    fn fill(&mut self, findings: &mut Findings) {
        Timelines::fill(self, findings);
    }

    #[inline(always)]
    fn source(&self) -> &Source {
        Timelines::source(self)
    }
}

/// The user of a pump.
pub(super) trait Attendant {
    /// Whether it has findings of its own, to be reported with the others.
    fn has_findings(&self) -> bool {
        false
    }

    /// Takes the findings in the source at `path`.
    fn findings(&mut self, path: &Path, findings: &[Finding]);

    /// Is called before a read that may block, of a live source. What came so far should be visible by then.
    fn before_wait(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// Drives a stage.
pub(super) struct Pump<S> {
    stage: S,
    /// Whether a signal ends only the source, and not the whole command.
    live: bool,
    /// Tells whether its reader left the source while it went on.
    #[cfg(feature = "live")]
    cut: Option<Arc<Cut>>,
    /// Findings that have not been passed on.
    findings: Findings,
    /// Bytes that were counted as progress.
    counted: u64,
    /// Keeps findings back, because the source may be opened again.
    pub hold: bool,
}

impl<S: Stage> Pump<S> {
    /// A `live` source is one that the user ends with a signal, and that is converted while it arrives.
    pub(super) fn new(stage: S, live: bool) -> Self {
        Self {
            stage,
            live,
            #[cfg(feature = "live")]
            cut: None,
            findings: Findings::default(),
            counted: 0,
            hold: false,
        }
    }

    /// Changes the stage, whose source `cut` tells of.
    #[cfg(feature = "live")]
    pub(super) fn arriving(&mut self, cut: Arc<Cut>, change: impl FnOnce(&mut S)) {
        self.cut = Some(cut);
        change(&mut self.stage);
    }

    pub(super) fn stage(&self) -> &S {
        &self.stage
    }

    /// The stage, and the list for further findings.
    pub(super) fn parts(&mut self) -> (&S, &mut Findings) {
        (&self.stage, &mut self.findings)
    }

    /// Bytes that were counted as progress.
    pub(super) fn counted(&self) -> u64 {
        self.counted
    }

    /// Whether a signal ended the source, or whoever reads it did.
    pub(super) fn was_interrupted(&self) -> bool {
        #[cfg(feature = "live")]
        if self.cut.as_ref().is_some_and(|cut| cut.went_on()) {
            return true;
        }
        self.live && interrupt::signal().is_some()
    }

    /// Advances to the stage's next item, and returns whether there is one.
    ///
    /// # Errors
    /// A signal came, or the attendant has failed.
    #[inline(always)]
    pub(super) fn next(&mut self, progress: &Progress, attendant: &mut impl Attendant) -> Result<bool, Error> {
        let advance = self.stage.advance(&mut self.findings);
        if advance == Advance::Message && self.findings.is_empty() && !attendant.has_findings() {
            return Ok(true);
        }
        self.go_on(advance, progress, attendant)
    }

    fn go_on(
        &mut self,
        mut advance: Advance,
        progress: &Progress,
        attendant: &mut impl Attendant,
    ) -> Result<bool, Error> {
        loop {
            if !self.hold {
                self.hand_on(attendant);
            }
            match advance {
                Advance::Message => return Ok(true),
                Advance::NeedInput => {
                    if self.live {
                        attendant.before_wait()?;
                    } else if let Some(signal) = interrupt::signal() {
                        return Err(Error::Signal(signal));
                    }
                    self.stage.fill(&mut self.findings);
                    self.count(progress);
                    advance = self.stage.advance(&mut self.findings);
                }
                Advance::End => {
                    // The signal may be what ended a named pipe.
                    if let (false, Some(signal)) = (self.live, interrupt::signal()) {
                        return Err(Error::Signal(signal));
                    }
                    self.count(progress);
                    return Ok(false);
                }
            }
        }
    }

    fn count(&mut self, progress: &Progress) {
        let read = self.stage.source().bytes_read();
        progress.bytes(read - self.counted);
        self.counted = read;
    }

    /// Passes on what was found so far.
    pub(super) fn hand_on(&mut self, attendant: &mut impl Attendant) {
        if self.findings.is_empty() && !attendant.has_findings() {
            return;
        }
        let mut findings = self.findings.take();
        if self.was_interrupted() {
            // The user's signal has cut the stream, inside a message or inside packed data. That is not damage.
            findings.retain(|finding| !matches!(finding.code(), Code::CutOff | Code::ReadFailed));
        }
        attendant.findings(self.stage.source().path(), &findings);
    }
}
