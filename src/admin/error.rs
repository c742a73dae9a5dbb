//! Why the admin endpoint did not do what it was asked to.

use std::io;

use thiserror::Error;

use crate::{untrusted, words};

/// Bytes of an answer that are repeated to people.
const QUOTED: usize = 300;

/// Each says what happened, where, and what to do next. A cause is part of the sentence, and so is no `source`, which would
/// be said once more after it. Text that came from the other side is escaped in it.
#[derive(Debug, Error)]
pub(crate) enum AdminError {
    #[error("cannot connect to {endpoint}: {why}. Is Envoy running there, and has its bootstrap an `admin` address?")]
    Connect { endpoint: String, why: io::Error },
    #[error("the connection to {endpoint} broke off: {why}")]
    Broken { endpoint: String, why: io::Error },
    #[error("{endpoint} does not answer in time ({what}). Is it Envoy's admin endpoint, and not a listener?")]
    Timeout { endpoint: String, what: String },
    #[error("{endpoint} is not Envoy's admin endpoint: {why}. Its address is in Envoy's bootstrap, under `admin`")]
    NotEnvoy { endpoint: String, why: String },
    #[error("the answer of {endpoint} to {path} is not to be understood: {why}")]
    NotUnderstood { endpoint: String, path: String, why: String },
    #[error("the answer of {endpoint} is too large: {what}")]
    TooLarge { endpoint: String, what: String },
    #[error("{endpoint} redirects to {location} (status {status}). Give the admin endpoint itself")]
    Redirect { endpoint: String, status: u16, location: String },
    #[error(
        "the Envoy at {endpoint} has no tap to control: no tap with an `admin_config` is configured. `tap2pcap tap-config` \
         prints what to add"
    )]
    NoTap { endpoint: String },
    #[error("the Envoy at {endpoint} has no tap with the config_id {}; {}", quote(.asked), known_ids(.known))]
    UnknownConfigId { endpoint: String, asked: String, known: Vec<String> },
    #[error("another tap is active: the Envoy at {endpoint} says {}. It serves one at a time", quote(.said))]
    Busy {
        endpoint: String,
        said: String,
        /// It may be our own last one, whose end Envoy has not noticed yet.
        after_own: bool,
    },
    #[error("the Envoy at {endpoint} answers with status {status}: {}", quote(.said))]
    Status { endpoint: String, status: u16, said: String },
    #[error("no such tap is possible: {0}")]
    Refused(String),
    #[error("interrupted")]
    Interrupted,
}

impl AdminError {
    /// Whether the same may work later, as when Envoy restarts.
    #[must_use]
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Connect { why, .. } => matches!(
                why.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::NetworkDown
                    // A unix socket that a restarting Envoy has removed and not made yet, or whose queue is full.
                    | io::ErrorKind::NotFound
                    | io::ErrorKind::WouldBlock
            ),
            Self::Broken { .. } | Self::Timeout { .. } => true,
            Self::Busy { after_own, .. } => *after_own,
            Self::Status { status, .. } => matches!(status, 429 | 502..=504),
            Self::NotEnvoy { .. }
            | Self::NotUnderstood { .. }
            | Self::TooLarge { .. }
            | Self::Redirect { .. }
            | Self::NoTap { .. }
            | Self::UnknownConfigId { .. }
            | Self::Refused(_)
            | Self::Interrupted => false,
        }
    }
}

/// Text from the other side, for people: in quotation marks, in one line, escaped, and cut.
pub(crate) fn quote(text: &str) -> String {
    format!("`{}`", untrusted::escape(&untrusted::cap(text.trim(), QUOTED)))
}

fn known_ids(ids: &[String]) -> String {
    const NAMED: usize = 20;
    let mut named: Vec<String> = ids.iter().take(NAMED).map(|id| quote(id)).collect();
    if ids.len() > NAMED {
        named.push(format!("{} more", ids.len() - NAMED));
    }
    if named.is_empty() { "it says of no other".into() } else { format!("it has {}", words::list(&named)) }
}
