//! The page of `tap2pcap report`: one HTML file that needs nothing else. It is made from plain data, [`Page`], and
//! knows nothing of inputs.
//!
//! Everything in a trace may have been written by an attacker. It reaches the page as text alone: the templates escape
//! all that they are given, the script makes text nodes, and a policy in the page allows no script and no style but its
//! own, and no request. Without scripts, everything can still be read.

mod charts;
mod data;
mod escape;
mod messages;
mod model;
mod rows;
#[cfg(test)]
mod tests;
mod timeline;
mod units;
mod view;

use std::io;

use askama::Template as _;
use sha2::{Digest as _, Sha256};

pub(crate) use self::model::*;
use self::view::{SCRIPT, STYLE, View};

/// Writes the page. The same data give the same bytes.
///
/// # Errors
/// What `out` says.
pub(crate) fn write(page: &Page, out: &mut impl io::Write) -> io::Result<()> {
    View::new(page).write_into(out)
}

/// The page's content security policy.
fn policy() -> String {
    let hash = |text: &str| base64_simd::STANDARD.encode_to_string(Sha256::digest(text));
    let (script, style) = (hash(SCRIPT), hash(STYLE));
    format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; base-uri 'none'; \
         form-action 'none'"
    )
}
