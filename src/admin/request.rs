//! The body of a request for a tap.
//!
//! The sink is always `streaming_admin`, and the format JSON. With the other formats but one, Envoy 1.40 aborts. And it
//! ends with a segmentation fault if a tap with `buffered_admin` is followed by one with `streaming_admin` while a
//! connection or request of the first is open: the end of that one is handed to the second, which has no buffer. So the
//! first whole traces are counted here, in [`Ending`], and not by Envoy.

use std::time::Duration;

use serde_json::json;

use super::{AdminError, MatchConfig, dump::MAX_CONFIG_ID};

/// What to tap.
#[derive(Clone, Debug)]
pub(crate) struct TapRequest {
    /// Which taps: those whose `admin_config` has it.
    pub(crate) config_id: String,
    /// What of it.
    pub(crate) matching: MatchConfig,
    /// How many received bytes of an event, or of a whole trace if it is buffered.
    pub(crate) max_rx: u32,
    /// The same of sent bytes.
    pub(crate) max_tx: u32,
    /// When it comes.
    pub(crate) sink: TapSink,
}

/// When what is tapped is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TapSink {
    /// Everything as it happens.
    Streaming,
    /// The first whole traces, each at the end of its connection or request.
    Buffered {
        /// After so many, the stream ends.
        max_traces: u64,
        /// After this time, the stream ends with what there was.
        timeout: Option<Duration>,
    },
}

impl TapRequest {
    /// # Errors
    /// There is no such tap.
    pub(crate) fn to_json(&self) -> Result<String, AdminError> {
        let refuse = |why: String| Err(AdminError::Refused(why));
        if self.config_id.is_empty() || self.config_id.len() > MAX_CONFIG_ID {
            return refuse(format!(
                "the config_id has {} bytes; it may have 1 to {MAX_CONFIG_ID}",
                self.config_id.len()
            ));
        }
        if self.config_id.contains('\0') {
            return refuse("the config_id has a NUL byte in it".into());
        }
        if matches!(self.sink, TapSink::Buffered { max_traces: 0, .. }) {
            return refuse("of no traces there is nothing to tap".into());
        }
        let sink = json!({ "format": "JSON_BODY_AS_BYTES", "streaming_admin": {} });
        Ok(json!({
            "config_id": self.config_id,
            "tap_config": {
                "match": self.matching.as_json(),
                "output_config": {
                    "sinks": [sink],
                    "max_buffered_rx_bytes": self.max_rx,
                    "max_buffered_tx_bytes": self.max_tx,
                    "streaming": self.sink == TapSink::Streaming,
                },
            },
        })
        .to_string())
    }
}

/// Counts whole traces on their way.
///
/// Envoy prints each as an object of several lines, and a string has no line break in JSON: a line that is nothing but a
/// closing brace, without a space before it, is the end of a trace.
#[derive(Debug)]
pub(super) struct Ending {
    left: u64,
    line: Line,
}

#[derive(Debug)]
enum Line {
    Start,
    Brace,
    Other,
}

impl Ending {
    /// After how many traces the stream ends, if it does.
    pub(super) fn new(sink: TapSink) -> Option<Self> {
        match sink {
            TapSink::Streaming => None,
            TapSink::Buffered { max_traces, .. } => Some(Self { left: max_traces, line: Line::Start }),
        }
    }

    /// How many of these bytes belong to the traces that are wanted.
    pub(super) fn wanted(&mut self, bytes: &[u8]) -> usize {
        for (index, byte) in bytes.iter().enumerate() {
            if self.left == 0 {
                return index;
            }
            self.line = match (&self.line, byte) {
                (Line::Start, b'}') => Line::Brace,
                (Line::Brace, b'\n') => {
                    self.left -= 1;
                    Line::Start
                }
                (_, b'\n') => Line::Start,
                _ => Line::Other,
            };
        }
        bytes.len()
    }

    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }
}
