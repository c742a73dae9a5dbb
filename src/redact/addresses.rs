//! Addresses and names, replaced by others that are the same in every run with the same key.

use super::Counts;

/// Replaces IP addresses, prefix-preservingly, and names.
#[derive(Debug)]
pub(crate) struct Addresses {}

impl Addresses {
    /// Replaces the addresses and, if `names`, the host names in the value of a field.
    pub(crate) fn field(&self, _name: &[u8], _value: &mut Vec<u8>, _names: bool, _counts: &mut Counts) {}

    /// Replaces the address or the host name of an absolute URL or of an authority in a request target.
    pub(crate) fn target(&self, _target: &mut Vec<u8>, _names: bool, _counts: &mut Counts) {}

    /// Replaces the addresses in a header of the PROXY protocol.
    pub(crate) fn proxy_header(&self, _header: &mut Vec<u8>, _counts: &mut Counts) {}
}
