//! The page of `tap2pcap report`: one HTML file that needs nothing else. It is made from plain data, [`Page`], and
//! knows nothing of inputs.
//!
//! Everything in a trace may have been written by an attacker. It reaches the page as text alone, and a policy in the
//! page allows no script and no style but its own.

mod model;

use std::io;

#[allow(unused_imports, reason = "the command that makes pages will use them")]
pub(crate) use self::model::*;

/// Writes the page.
///
/// # Errors
/// What `out` says.
#[allow(dead_code, reason = "the command that makes pages will use it")]
pub(crate) fn write(page: &Page, out: &mut impl io::Write) -> io::Result<()> {
    writeln!(out, "<!doctype html><title>{}</title>", page.requests.len())
}
