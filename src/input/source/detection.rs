//! The detection of a source's encoding, and of the first message in text.

use std::path::Path;

use super::{
    Source,
    first::{First, FirstSearch},
};
use crate::{
    input::{
        InputError, around,
        detect::{Detected, Encoding, FieldPath, Likeness, recognise},
        layers::is_due,
    },
    trace::Place,
};

/// The most bytes that detection looks at. More are not needed, because the first message shows its encoding early.
const HEAD: usize = 64 * 1024;

/// How far the first message is searched in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Far {
    /// In the bytes that detection looks at.
    InTheHead,
    ToTheEnd,
}

/// What a head has after lines of text.
enum AfterText {
    /// A binary trace, from this byte on.
    Trace(usize, Encoding, Option<FieldPath>),
    /// One that was damaged.
    Damaged(Likeness),
    /// More bytes will tell.
    Unknown,
    Nothing,
}

/// Whether the first bytes are printed, which those of no binary trace are.
fn begins_with_words(head: &[u8]) -> bool {
    head.get(..4).is_some_and(|start| start.iter().all(|byte| matches!(byte, b' '..=b'~')))
}

/// Looks for a binary trace after whole lines of text, as kubectl prints them on standard error. The trace may begin with
/// a byte that is a line feed too, so each line may be the last one.
fn after_text(head: &[u8], more: bool) -> AfterText {
    /// The most lines before the trace.
    const MOST: usize = 64;
    let mut at = 0;
    let mut any = false;
    let mut told = AfterText::Nothing;
    for line in head.split_inclusive(|byte| *byte == b'\n').take(MOST) {
        if !line.ends_with(b"\n") || !around::is_text(line) || str::from_utf8(line).is_err() {
            break;
        }
        at += line.len();
        any |= !line.trim_ascii().is_empty();
        if !any || begins_with_words(&head[at..]) {
            continue;
        }
        match recognise(&head[at..], Path::new(""), more) {
            Some(Detected::Trace(encoding @ (Encoding::Binary | Encoding::Delimited))) => {
                return AfterText::Trace(at, encoding, None);
            }
            Some(Detected::Enveloped { encoding, path }) => return AfterText::Trace(at, encoding, Some(path)),
            Some(Detected::Other(damage @ (Likeness::TerminalDamage | Likeness::Utf8Damage))) => {
                told = AfterText::Damaged(damage);
            }
            Some(_) => {}
            None => return AfterText::Unknown,
        }
    }
    told
}

impl Source {
    /// Looks at the first bytes. On a live stream it waits for no more than it needs. Text before the first message is
    /// consumed, as much as `far` allows.
    pub(super) fn detect(
        &mut self,
        given: Option<Encoding>,
        far: Far,
    ) -> Result<(Encoding, Option<FieldPath>), InputError> {
        let failed = |path: &Path, source| InputError::Read { path: path.to_owned(), source };
        let mut search = Some(FirstSearch::default());
        let (mut searched, mut looked) = (0, 0);
        loop {
            self.window.read().map_err(|source| failed(&self.path, source))?;
            let bytes = self.window.bytes();
            if bytes.is_empty() {
                return Err(InputError::Empty { path: self.path.clone() });
            }
            if let Some(given) = given {
                return Ok((given, None));
            }
            // A layer may give a few bytes at a time. A long head is not looked at again for each of them.
            if !self.window.at_end() && !is_due(bytes.len(), looked) {
                continue;
            }
            looked = bytes.len();
            // The answer must not depend on how many bytes a read returns.
            let head = &bytes[..bytes.len().min(HEAD)];
            let more = !self.window.at_end() && head.len() < HEAD;
            let recognised = recognise(head, &self.path, more);
            let mut is_trace = matches!(recognised, Some(Detected::Trace(_) | Detected::Enveloped { .. }));
            let mut damage = None;
            // Letters of a text may be taken for the lengths of damaged messages.
            let is_text = matches!(recognised, Some(Detected::Trace(Encoding::Json | Encoding::Text)));
            if is_trace && !is_text && begins_with_words(head)
                || recognised.is_some() && !is_trace && !around::is_text(head)
            {
                match after_text(head, more) {
                    AfterText::Trace(at, encoding, path) => {
                        self.skip_text(at);
                        return Ok((encoding, path));
                    }
                    AfterText::Unknown => continue,
                    AfterText::Damaged(found) => (is_trace, damage) = (false, Some(found)),
                    AfterText::Nothing => {}
                }
            }
            // A string in a log may be an example of a trace.
            let is_quoted = self.met.layers().next().is_some();
            let refused = match recognised {
                Some(Detected::Trace(_)) if is_text && is_quoted => (!more).then_some(Likeness::EmptyTrace),
                Some(Detected::Trace(encoding)) if is_trace => return Ok((encoding, None)),
                Some(Detected::Enveloped { encoding, path }) if is_trace => return Ok((encoding, Some(path))),
                Some(Detected::Other(looks_like)) => Some(damage.unwrap_or(looks_like)),
                _ => damage,
            };
            if let Some(search) = search.as_mut().filter(|_| around::is_text(head)) {
                loop {
                    match search.find(&bytes[searched..], self.window.at_end()) {
                        First::Message(encoding, at) => {
                            self.skip_text(searched + at);
                            return Ok((encoding, None));
                        }
                        First::Skip(len) => {
                            searched += len;
                            continue;
                        }
                        First::Nothing(len) => searched += len,
                        First::Unknown | First::Binary => {}
                    }
                    break;
                }
            }
            let Some(looks_like) = refused else { continue };
            let found = match (search.take().filter(|_| around::is_text(head)), far) {
                (Some(search), Far::ToTheEnd) => self.search_on(search, searched)?,
                _ => None,
            };
            let found = found.map(|encoding| (encoding, None));
            return found.ok_or_else(|| InputError::Unrecognised { path: self.path.clone(), looks_like });
        }
    }

    /// Reads on in text until the first message, as `grep` would.
    fn search_on(&mut self, mut search: FirstSearch, searched: usize) -> Result<Option<Encoding>, InputError> {
        self.skip_text(searched);
        let mut wanted = 0;
        loop {
            if self.window.at_end() || self.window.len() >= wanted {
                match search.find(self.window.bytes(), self.window.at_end()) {
                    First::Message(encoding, at) => {
                        self.skip_text(at);
                        return Ok(Some(encoding));
                    }
                    First::Skip(len) => {
                        self.skip_text(len);
                        continue;
                    }
                    First::Binary => return Ok(None),
                    First::Nothing(_) | First::Unknown if self.window.at_end() => return Ok(None),
                    First::Nothing(len) => self.skip_text(len),
                    // The beginning of a message is not looked at again for each few bytes.
                    First::Unknown => wanted = self.window.len() + self.window.len() / 16,
                }
            }
            self.window.read().map_err(|source| InputError::Read { path: self.path.clone(), source })?;
        }
    }

    /// Gives up text at the start of the window.
    fn skip_text(&mut self, len: usize) {
        let text = &self.window.bytes()[..len];
        // White space before the text is not around anything.
        let blank = if self.watch.has_skipped() { 0 } else { len - text.trim_ascii_start().len() };
        if blank < len {
            let place = Place { offset: self.window.offset() + blank as u64, message: self.next_index };
            self.watch.skipped(place, &text[blank..]);
        }
        self.window.consume(len);
    }
}
