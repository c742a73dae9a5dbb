//! Takes secrets out of what is meant for sharing. What is not understood does not leave.

mod addresses;
mod body;
mod coding;
mod connection;
mod exchange;
mod fields;
mod finding;
mod head;
mod header_block;
mod key;
mod limits;
mod message;
mod names;
mod out;
mod proxy;
mod pseudonyms;
mod report;
mod scan;
mod stage;
mod url;
mod web_socket;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

pub use self::{addresses::Addresses, report::Report, stage::RedactStage};
pub(crate) use self::{
    body::Body,
    coding::ContentDecoder,
    exchange::{TapSide, exchange, tap_side, web_socket_message},
};

/// What is taken out. A run has one, which its threads share.
#[derive(Debug, Default)]
pub struct Redaction {
    /// Names of header fields, in lower case, whose values are secret besides the usual ones.
    pub secret_fields: HashSet<Vec<u8>>,
    /// Names of header fields, in lower case, whose values are kept, whatever their names say.
    pub kept_fields: HashSet<Vec<u8>>,
    /// Whether all bodies are taken out.
    pub bodies: bool,
    /// Whether bytes stay that are not understood.
    pub keep_unknown: bool,
    /// Replaces addresses.
    pub addresses: Option<Addresses>,
    /// Whether names of hosts, sockets and files are replaced as well. It needs the key of `addresses`.
    pub names: bool,
    /// What is told of each connection.
    pub report: Option<Report>,
}

/// The kinds of what is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The value of a header or trailer field.
    Field,
    /// A value in a URL, or its user and password.
    Url,
    /// A value of a form.
    Form,
    /// A member of JSON.
    Json,
    /// A part of a multipart body.
    Part,
    /// A value in any other text.
    Text,
    /// A whole body, or a part of one that could not be read.
    Body,
    /// A whole header block of HTTP/2.
    HeaderBlock,
    /// A byte that is not understood.
    UnknownByte,
    /// An IP address.
    Address,
    /// A name of a host, a socket or a file.
    Name,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 11] = [
        Self::Field,
        Self::Url,
        Self::Form,
        Self::Json,
        Self::Part,
        Self::Text,
        Self::Body,
        Self::HeaderBlock,
        Self::UnknownByte,
        Self::Address,
        Self::Name,
    ];

    /// Its name in a report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Field => "header_values",
            Self::Url => "url_values",
            Self::Form => "form_values",
            Self::Json => "json_values",
            Self::Part => "multipart_values",
            Self::Text => "text_values",
            Self::Body => "bodies",
            Self::HeaderBlock => "header_blocks",
            Self::UnknownByte => "unknown_bytes",
            Self::Address => "addresses",
            Self::Name => "names",
        }
    }
}

/// How many values of which kinds were taken out of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts([u64; Kind::ALL.len()]);

impl Counts {
    pub(crate) fn add(&mut self, kind: Kind, number: u64) {
        let count = &mut self.0[kind as usize];
        *count = count.saturating_add(number);
    }

    pub(crate) fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for kind in Kind::ALL {
            self.add(kind, other.of(kind));
        }
    }
}

impl Counts {
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.0.iter().all(|count| *count == 0)
    }
}

/// Puts an asterisk in the place of each byte.
pub(crate) fn mask(bytes: &mut [u8]) {
    bytes.fill(b'*');
}
