//! One line of a log.

use super::time::Time;
use crate::trace::Nanos;

/// What a line says of one request. Envoy writes `-` for what it does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogEntry {
    /// The number of the line, counted from 1.
    pub line: u64,
    /// `%START_TIME%`.
    pub start: Option<Nanos>,
    /// What the last digit of `start` stands for, such as 1,000,000 for milliseconds.
    pub start_precision: Nanos,
    /// The method.
    pub method: Option<Vec<u8>>,
    /// The path with the query, as the client sent it if the log has both.
    pub path: Option<Vec<u8>>,
    /// `:authority` or `host`.
    pub authority: Option<Vec<u8>>,
    /// `x-request-id`.
    pub request_id: Option<Vec<u8>>,
    /// `traceparent`.
    pub traceparent: Option<Vec<u8>>,
    /// `%RESPONSE_CODE%`, 0 if there was no response.
    pub code: Option<u16>,
    /// `%RESPONSE_FLAGS%`, such as `UF,URX`.
    pub flags: Option<String>,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Option<String>,
    /// `%CONNECTION_ID%`: the `trace_id` of the downstream connection.
    pub connection_id: Option<u64>,
    /// `%UPSTREAM_CONNECTION_ID%`: that of the last attempt.
    pub upstream_connection_id: Option<u64>,
    /// The upstream's address, of the last attempt.
    pub upstream_host: Option<String>,
    /// Envoy's own address on the upstream connection.
    pub upstream_local_address: Option<String>,
    /// The client's address.
    pub downstream_remote_address: Option<String>,
    /// The address that the client has connected to.
    pub downstream_local_address: Option<String>,
    /// From the request's first byte to its last one.
    pub request_duration: Option<Nanos>,
    /// From the request's first byte to the first one from the upstream.
    pub response_duration: Option<Nanos>,
    /// From the request's first byte to the response's last one.
    pub duration: Option<Nanos>,
    /// `%UPSTREAM_REQUEST_ATTEMPT_COUNT%`: 1 without retries.
    pub attempts: Option<u64>,
}

/// A field of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Method,
    Path,
    /// The path that the client sent, if Envoy has rewritten it.
    OriginalPath,
    Authority,
    RequestId,
    Traceparent,
    Code,
    Flags,
    Details,
    ConnectionId,
    UpstreamConnectionId,
    UpstreamHost,
    UpstreamLocalAddress,
    DownstreamRemoteAddress,
    DownstreamLocalAddress,
    RequestDuration,
    ResponseDuration,
    Duration,
    Attempts,
}

impl LogEntry {
    /// Whether it can be joined with anything.
    pub(super) fn is_useful(&self) -> bool {
        self.method.is_some()
            || self.path.is_some()
            || self.request_id.is_some()
            || self.traceparent.is_some()
            || self.connection_id.is_some()
            || self.start.is_some() && self.code.is_some()
    }

    /// How many bytes of text it has.
    pub(super) fn text_len(&self) -> usize {
        let bytes = [&self.method, &self.path, &self.authority, &self.request_id, &self.traceparent];
        let text = [
            &self.flags,
            &self.details,
            &self.upstream_host,
            &self.upstream_local_address,
            &self.downstream_remote_address,
            &self.downstream_local_address,
        ];
        bytes.into_iter().flatten().map(Vec::len).sum::<usize>()
            + text.into_iter().flatten().map(String::len).sum::<usize>()
    }

    /// Sets a field to what the log says of it. A value that the field cannot have is left out, as is one that comes
    /// after another.
    pub(super) fn set(&mut self, field: Field, value: &[u8]) {
        if value == b"-" || value.is_empty() {
            return;
        }
        match field {
            Field::Method => fill(&mut self.method, || Some(value.to_vec())),
            Field::Path => fill(&mut self.path, || Some(value.to_vec())),
            Field::OriginalPath => self.path = Some(value.to_vec()),
            Field::Authority => fill(&mut self.authority, || Some(value.to_vec())),
            Field::RequestId => fill(&mut self.request_id, || Some(value.to_vec())),
            Field::Traceparent => fill(&mut self.traceparent, || Some(value.to_vec())),
            Field::Code => fill(&mut self.code, || number(value)),
            Field::Flags => fill(&mut self.flags, || Some(text(value))),
            Field::Details => fill(&mut self.details, || Some(text(value))),
            Field::ConnectionId => fill(&mut self.connection_id, || number(value)),
            Field::UpstreamConnectionId => fill(&mut self.upstream_connection_id, || number(value)),
            Field::UpstreamHost => fill(&mut self.upstream_host, || Some(text(value))),
            Field::UpstreamLocalAddress => fill(&mut self.upstream_local_address, || Some(text(value))),
            Field::DownstreamRemoteAddress => fill(&mut self.downstream_remote_address, || Some(text(value))),
            Field::DownstreamLocalAddress => fill(&mut self.downstream_local_address, || Some(text(value))),
            Field::RequestDuration => fill(&mut self.request_duration, || milliseconds(value)),
            Field::ResponseDuration => fill(&mut self.response_duration, || milliseconds(value)),
            Field::Duration => fill(&mut self.duration, || milliseconds(value)),
            Field::Attempts => fill(&mut self.attempts, || number(value)),
        }
    }

    /// Sets the time of the first byte, unless it is known.
    pub(super) fn set_start(&mut self, time: Option<Time>) {
        if let (None, Some(time)) = (self.start, time) {
            (self.start, self.start_precision) = (Some(time.nanos), time.precision);
        }
    }
}

fn fill<T>(field: &mut Option<T>, value: impl FnOnce() -> Option<T>) {
    if field.is_none() {
        *field = value();
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Envoy writes whole milliseconds; what reads a log may have made decimal numbers of them.
fn milliseconds(value: &[u8]) -> Option<Nanos> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.bytes().any(|byte| !byte.is_ascii_digit()) {
        return None;
    }
    let below = format!("{:0<6}", fraction.get(..fraction.len().min(6))?).parse::<u64>().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(below)
}
