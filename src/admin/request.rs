//! The body of a request for a tap.
//!
//! Which sinks and formats go together is fixed here: with any other combination, Envoy 1.40 aborts.

use std::time::Duration;

use serde_json::{Value, json};

use super::{AdminError, MatchConfig, dump::MAX_CONFIG_ID};

/// Envoy reserves memory for all of them at once, and ends if it gets none.
pub(crate) const MAX_TRACES: u64 = 100_000;
/// Longer than anyone waits, and far from where Envoy's numbers of milliseconds overflow.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_hours(24 * 30);

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
    /// Everything as it happens, as JSON.
    Streaming,
    /// The first whole traces, at the end, each as a length and a message in protobuf encoding.
    Buffered {
        /// So many.
        max_traces: u64,
        /// What there is after this time, even if it is less.
        timeout: Option<Duration>,
    },
}

impl TapRequest {
    /// # Errors
    /// Envoy would end.
    pub(crate) fn to_json(&self) -> Result<String, AdminError> {
        let refuse = |why: String| Err(AdminError::Refused(why));
        if self.config_id.is_empty() || self.config_id.len() > MAX_CONFIG_ID {
            return refuse(format!(
                "the config_id has {} bytes; it may have 1 to {MAX_CONFIG_ID}",
                self.config_id.len()
            ));
        }
        let (sink, streaming) = match self.sink {
            TapSink::Streaming => (json!({ "format": "JSON_BODY_AS_BYTES", "streaming_admin": {} }), true),
            TapSink::Buffered { max_traces, timeout } => {
                if !(1..=MAX_TRACES).contains(&max_traces) {
                    return refuse(format!(
                        "Envoy can keep 1 to {MAX_TRACES} traces until they are sent, not {max_traces}"
                    ));
                }
                let mut admin = json!({ "max_traces": max_traces });
                if let Some(timeout) = timeout {
                    if timeout > MAX_TIMEOUT || timeout < Duration::from_millis(1) {
                        return refuse("Envoy can wait from 1 ms to 30 days for traces".into());
                    }
                    // Envoy takes the form of protobuf's JSON: seconds with a fraction and an "s".
                    admin["timeout"] = Value::from(format!("{}.{:09}s", timeout.as_secs(), timeout.subsec_nanos()));
                }
                (json!({ "format": "PROTO_BINARY_LENGTH_DELIMITED", "buffered_admin": admin }), false)
            }
        };
        Ok(json!({
            "config_id": self.config_id,
            "tap_config": {
                "match": self.matching.as_json(),
                "output_config": {
                    "sinks": [sink],
                    "max_buffered_rx_bytes": self.max_rx,
                    "max_buffered_tx_bytes": self.max_tx,
                    "streaming": streaming,
                },
            },
        })
        .to_string())
    }
}
