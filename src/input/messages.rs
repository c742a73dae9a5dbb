//! Reads a source message by message.

use super::{Advance, Source};
use crate::trace::{Findings, MessageView};

impl Source {
    /// The next message, or `None` at the end. Reads more of the source if it has to, which may block.
    ///
    /// The message borrows from the source until the next call; copy what you need for longer. Consecutive events
    /// may come as one message, even those of several connections: [`Message::trace_id_of`] tells whose they are.
    /// Anything wrong with the source is added to `findings`.
    ///
    /// [`Message::trace_id_of`]: crate::trace::Message::trace_id_of
    ///
    /// ```
    /// use tap2pcap::{
    ///     input::{Source, SourceOptions},
    ///     trace::Findings,
    /// };
    ///
    /// let path = "testdata/envoy/1.40.0/h1_str_PROTO_BINARY_133.pb";
    /// let mut source = Source::open(path.as_ref(), SourceOptions::default())?;
    /// let (mut bytes, mut findings) = (0, Findings::default());
    /// while let Some(message) = source.next_message(&mut findings) {
    ///     for event in &message.message().events {
    ///         bytes += message.bytes(event.body.payload).len();
    ///     }
    /// }
    /// assert!(bytes > 0 && findings.is_empty());
    /// # Ok::<(), tap2pcap::input::InputError>(())
    /// ```
    pub fn next_message(&mut self, findings: &mut Findings) -> Option<MessageView<'_>> {
        loop {
            match self.advance(findings) {
                Advance::Message => return Some(self.message()),
                Advance::NeedInput => self.fill(findings),
                Advance::End => return None,
            }
        }
    }
}
