//! The arguments that take secrets out of outputs.

use std::path::PathBuf;

use clap::Args;

/// What is taken out before anything is written.
#[derive(Clone, Debug, Default, Args)]
pub struct RedactArgs {
    /// Take out secrets: values of authorization, cookies and the like, of URLs, forms and JSON whose names say secret,
    /// and all bytes that are not understood. Each --redact-... does so as well
    #[arg(long)]
    pub redact: bool,

    /// Take out the values of this header field as well (repeatable)
    #[arg(long, value_name = "NAME", value_parser = field_name)]
    pub redact_header: Vec<String>,

    /// Keep the values of this header field (repeatable)
    #[arg(long, value_name = "NAME", value_parser = field_name)]
    pub keep_header: Vec<String>,

    /// Take out all bodies
    #[arg(long)]
    pub redact_bodies: bool,

    /// Keep bytes that are not understood
    #[arg(long)]
    pub redact_keep_unknown: bool,

    /// Replace IP addresses, those in header fields and URLs included, so that equal prefixes stay equal. KEYFILE has 64
    /// hexadecimal digits, such as `openssl rand -hex 32` prints; with the same key, addresses become the same ones
    #[arg(long, value_name = "KEYFILE")]
    pub redact_addresses: Option<PathBuf>,

    /// Replace names of hosts, sockets and trace files, and trace_ids as well, by hashes that need the key of
    /// --redact-addresses
    #[arg(long)]
    pub redact_names: bool,

    /// Write how many values of which kinds were taken out, one JSON object for each connection, without the values
    #[arg(long, value_name = "FILE", value_parser = report)]
    pub redact_report: Option<PathBuf>,
}

impl RedactArgs {
    /// Whether anything is taken out.
    pub(crate) fn is_on(&self) -> bool {
        self.redact
            || !self.redact_header.is_empty()
            || self.redact_bodies
            || self.redact_keep_unknown
            || self.redact_addresses.is_some()
            || self.redact_names
            || self.redact_report.is_some()
    }
}

/// A name of a field, which is a token (RFC 9110 sections 5.1 and 5.6.2), in lower case.
fn field_name(text: &str) -> Result<String, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_token) {
        return Err("expected the name of a header field, such as x-api-key".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

fn report(text: &str) -> Result<PathBuf, String> {
    if text == "-" { Err("expected the name of a file".to_owned()) } else { Ok(PathBuf::from(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_are_tokens() {
        assert_eq!(field_name("X-Api_Key"), Ok("x-api_key".to_owned()));
        assert!(["", "x y", "x:", ":path", "ü"].iter().all(|name| field_name(name).is_err()));
    }
}
