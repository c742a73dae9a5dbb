//! Reads the HTTP of the connections that are captured: which requests are under way on sockets, and what `--where` holds
//! for.

use super::super::{
    error::Error,
    select::{Search, Selector},
    trace::Trace,
};
use crate::{
    http::{HttpItem, HttpStage, HttpStageOptions, RequestHead},
    timeline::{OpenRequest, OpenRequests, Role},
    trace::{Connection, Findings},
};

/// Reads the HTTP of a trace.
pub(super) struct Requests<'a> {
    /// `None` if nobody asks what it reads.
    stage: Option<HttpStage>,
    open: OpenRequests,
    search: Option<Search<'a>>,
}

impl<'a> Requests<'a> {
    /// `file` names the trace. `pairs` says whether there may be segments of HTTP taps in it.
    pub(super) fn of(trace: &Trace, selector: Option<&'a Selector>, file: &str, pairs: bool) -> Self {
        let mut options = HttpStageOptions { requests: true, ..HttpStageOptions::default() };
        match selector {
            Some(_) => options.all_connections = true,
            None => options.max_body = 0,
        }
        Self {
            stage: (pairs || selector.is_some()).then(|| HttpStage::new(options)),
            open: trace.timelines().requests(),
            search: selector.map(|Selector { filter, doubts, .. }| Search::new(filter, doubts, file.to_owned())),
        }
    }

    /// Reads the trace's current entry, and returns whether its connection has a match.
    ///
    /// # Errors
    /// What waits for the end of its connection cannot be kept.
    pub(super) fn entry(&mut self, trace: &Trace) -> Result<bool, Error> {
        let Some(stage) = &mut self.stage else { return Ok(false) };
        // The conversion reports what is wrong.
        let mut findings = Findings::default();
        let mut matches = false;
        stage.begin_entry();
        while let Some(item) = stage.next_item(trace.timelines(), &mut findings) {
            match &item {
                HttpItem::Request(request) => begin(&self.open, request, trace),
                HttpItem::Exchange(exchange) => {
                    let key = (exchange.connection.number, exchange.place.offset);
                    if let (Some(method), Some(path)) = (&exchange.method, &exchange.path) {
                        self.open.end(key, method, exchange.host.as_deref(), path);
                    }
                }
                HttpItem::ConnectionEnd(_) => {}
            }
            if let Some(search) = &mut self.search {
                search.item(item, |_, _| matches = true)?;
            }
            drop(findings.take());
        }
        Ok(matches)
    }
}

/// A request is under way. Those that are replayed from HTTP taps are none of a socket.
fn begin(open: &OpenRequests, request: &RequestHead, trace: &Trace) {
    let connection = &request.connection;
    if connection.http_tap || connection.role != Role::Downstream {
        return;
    }
    open.begin(OpenRequest {
        key: (connection.number, request.place.offset),
        ends: Connection { local: connection.destination.clone(), remote: connection.source.clone() },
        method: request.method.clone(),
        host: request.host.clone(),
        path: request.path.clone(),
        arrived: trace.timelines().arrived().unwrap_or_default(),
        fields: request.fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
    });
}
