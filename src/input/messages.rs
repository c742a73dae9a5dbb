//! A source as its users go through it: message by message.

use super::{Advance, Source};
use crate::trace::{Findings, MessageView};

impl Source {
    /// The next message, or `None` at the end. It reads on where it must, and may block then.
    ///
    /// The message lies in the source's window until the next call: whoever needs it for longer copies what is needed of
    /// it. Events that follow each other on one connection may come as one message. What is wrong with the source is
    /// added to `findings`.
    ///
    /// ```
    /// use tap2pcap::{
    ///     input::{Options, Source},
    ///     trace::Findings,
    /// };
    ///
    /// let mut source = Source::open("testdata/envoy/1.40.0/h1_str_PROTO_BINARY_133.pb".as_ref(), Options::default())?;
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
