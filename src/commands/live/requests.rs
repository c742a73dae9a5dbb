//! Reads the HTTP of the connections that are captured: which requests are under way on sockets, and what matches.

use crate::{
    http::{HttpItem, HttpStage, HttpStageOptions},
    timeline::{OpenRequest, OpenRequests, Role},
    trace::{Connection, Findings},
};

use super::super::trace::Trace;

/// Tells the timelines of a trace which requests are under way on its sockets.
pub(super) struct Requests {
    stage: HttpStage,
    open: OpenRequests,
}

impl Requests {
    pub(super) fn of(trace: &Trace) -> Self {
        let options = HttpStageOptions { max_body: 0, requests: true, ..HttpStageOptions::default() };
        Self { stage: HttpStage::new(options), open: trace.timelines().requests() }
    }

    /// Reads the trace's current entry.
    pub(super) fn entry(&mut self, trace: &Trace) {
        // The conversion reports what is wrong.
        let mut findings = Findings::default();
        self.stage.begin_entry();
        while let Some(item) = self.stage.next_item(trace.timelines(), &mut findings) {
            match item {
                HttpItem::Request(request)
                    if !request.connection.http_tap && request.connection.role == Role::Downstream =>
                {
                    let (local, remote) = (request.connection.destination.clone(), request.connection.source.clone());
                    self.open.begin(OpenRequest {
                        key: (request.connection.number, request.place.offset),
                        ends: Connection { local, remote, ..Connection::default() },
                        method: request.method,
                        host: request.host,
                        path: request.path,
                        fields: request.fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
                    });
                }
                HttpItem::Exchange(exchange) => self.open.end((exchange.connection.number, exchange.place.offset)),
                HttpItem::Request(_) | HttpItem::ConnectionEnd(_) => {}
            }
            drop(findings.take());
        }
    }
}
