//! Takes the secrets out of the exchanges of one input, and reports for each connection what they were.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use crate::{
    http::{Exchange, HttpConnectionEnd, Pairing},
    redact::{self, Counts, Redaction},
};

/// The exchanges of one input without secrets.
#[derive(Debug)]
pub(in crate::commands) struct Redactor {
    pub(in crate::commands) redaction: Arc<Redaction>,
    /// The path of the trace, and what is shown of it.
    path: String,
    pub(in crate::commands) file: String,
    /// The `trace_id` of each open connection with exchanges that were redacted, and what was taken out of them.
    redacted: BTreeMap<u64, (u64, Counts)>,
}

impl Redactor {
    /// `path` is that of the trace.
    pub(in crate::commands) fn new(redaction: &Arc<Redaction>, path: &Path) -> Self {
        let path = path.display().to_string();
        let file = redaction.file(&path).into_owned();
        Self { redaction: Arc::clone(redaction), path, file, redacted: BTreeMap::new() }
    }

    /// Takes the secrets out of an exchange.
    pub(in crate::commands) fn exchange(&mut self, exchange: &mut Exchange) {
        let connection = &exchange.connection;
        let (_, counts) = self.redacted.entry(connection.number).or_insert((connection.trace_id, Counts::default()));
        redact::exchange(&self.redaction, exchange, counts);
    }

    /// Replaces the address and the id that pairing tells. They were counted where they were found.
    pub(in crate::commands) fn pairing(&self, pairing: &mut Pairing) {
        let mut repeated = Counts::default();
        if let Some(address) = &mut pairing.upstream_address {
            self.redaction.address(Arc::make_mut(address), &mut repeated);
        }
        pairing.upstream_connection = pairing.upstream_connection.map(|id| self.redaction.trace_id(id));
    }

    /// Reports what was taken out of a connection that is over.
    pub(in crate::commands) fn end(&mut self, end: &HttpConnectionEnd) {
        if let Some((trace_id, counts)) = self.redacted.remove(&end.connection.number) {
            self.redaction.report_connection(&self.path, trace_id, &counts);
        }
    }

    /// Reports the connections whose ends have not come, because the input could not be read to its end.
    pub(in crate::commands) fn end_all(&mut self) {
        for (trace_id, counts) in std::mem::take(&mut self.redacted).into_values() {
            self.redaction.report_connection(&self.path, trace_id, &counts);
        }
    }
}
