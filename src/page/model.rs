//! What the page shows, as plain data. Text is as it is in the trace: the page escapes it.

use crate::trace::{Nanos, Severity};

/// Everything that one page shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Page {
    /// The heading, such as the name of the trace.
    pub(crate) title: String,
    /// The program and its version.
    pub(crate) version: String,
    /// The expression of `--where`.
    pub(crate) filter: Option<String>,
    /// What was taken out.
    pub(crate) redacted: Option<String>,
    /// The figures of all requests, shown or not.
    pub(crate) summary: Summary,
    /// The names of the inputs. Requests, connections and findings have an index into them.
    pub(crate) files: Vec<String>,
    /// In order of time. The failed and the slowest are always among them.
    pub(crate) requests: Vec<Request>,
    /// How many requests there were.
    pub(crate) requests_total: u64,
    /// In order of time.
    pub(crate) connections: Vec<Connection>,
    /// How many connections there were.
    pub(crate) connections_total: u64,
    /// In order of importance.
    pub(crate) routes: Vec<Route>,
    /// How many routes there were.
    pub(crate) routes_total: u64,
    /// The edges between the bins of [`Route::histogram`], ascending.
    pub(crate) duration_edges: Vec<Nanos>,
    /// How many requests began when.
    pub(crate) activity: Activity,
    /// How large the bodies were.
    pub(crate) sizes: Sizes,
    /// The slowest and the failed requests, in order of importance.
    pub(crate) details: Vec<Detail>,
    /// In order of importance.
    pub(crate) findings: Vec<Finding>,
    /// How many findings there were.
    pub(crate) findings_total: u64,
    /// The shell line that lists all requests.
    pub(crate) list_command: String,
}

/// Figures over all requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    /// How many inputs there were.
    pub(crate) inputs: u64,
    /// How many of them were damaged.
    pub(crate) damaged_inputs: u64,
    /// How many requests there were.
    pub(crate) requests: u64,
    /// How many of them failed.
    pub(crate) failed: u64,
    /// How many connections there were.
    pub(crate) connections: u64,
    /// When the first request began.
    pub(crate) first: Option<Nanos>,
    /// When the last thing happened.
    pub(crate) last: Option<Nanos>,
    /// Bytes of request bodies.
    pub(crate) bytes_sent: u64,
    /// Bytes of response bodies.
    pub(crate) bytes_received: u64,
    /// The median of the durations.
    pub(crate) p50: Option<Nanos>,
    /// Nineteen of 20 durations are not above it.
    pub(crate) p95: Option<Nanos>,
    /// Ninety-nine of 100 durations are not above it.
    pub(crate) p99: Option<Nanos>,
    /// The longest duration.
    pub(crate) max: Option<Nanos>,
    /// How well the two sides were paired, if they were.
    pub(crate) paired: Option<PairCounts>,
    /// How many failures came from where.
    pub(crate) origins: Vec<(Origin, u64)>,
}

/// How many downstream requests were paired, and how well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PairCounts {
    /// By an identifier that both sides have.
    pub(crate) certain: u64,
    /// By method, path, body and times.
    pub(crate) likely: u64,
    /// Not at all.
    pub(crate) none: u64,
}

/// How sure it is that an upstream exchange belongs to a downstream one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairing {
    Certain,
    Likely,
    None,
}

/// Where a failure came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Client,
    Envoy,
    Upstream,
    Unknown,
}

/// The side of Envoy on which a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Downstream,
    Upstream,
}

/// One request and its response.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Request {
    /// When its first byte came.
    pub(crate) time: Option<Nanos>,
    /// From the request's first byte to the response's last.
    pub(crate) duration: Option<Nanos>,
    pub(crate) method: String,
    pub(crate) host: String,
    /// With the query.
    pub(crate) path: String,
    /// As in `connection.protocol`.
    pub(crate) protocol: String,
    /// The status of the response.
    pub(crate) code: Option<u16>,
    /// The status of a gRPC call.
    pub(crate) grpc: Option<u32>,
    pub(crate) failed: bool,
    /// Where the failure came from.
    pub(crate) origin: Option<Origin>,
    /// Why `origin` is said; empty without one.
    pub(crate) origin_reason: String,
    /// Whether request and response are whole in the trace.
    pub(crate) complete: bool,
    /// Bytes of the request's body.
    pub(crate) sent: Option<u64>,
    /// Bytes of the response's body.
    pub(crate) received: Option<u64>,
    pub(crate) side: Option<Side>,
    /// An index into [`Page::connections`].
    pub(crate) connection: Option<usize>,
    /// An index into [`Page::files`].
    pub(crate) file: usize,
    /// Where it stands in the file.
    pub(crate) offset: u64,
    /// The trace_id.
    pub(crate) connection_id: u64,
    /// What happened when, for its bar in the timeline.
    pub(crate) parts: Parts,
    /// Envoy's own share: first byte of the request in to first byte out.
    pub(crate) request_latency: Option<Nanos>,
    /// Envoy's own share: first byte of the response in to first byte out.
    pub(crate) response_latency: Option<Nanos>,
    /// Absent if nobody asked for pairs.
    pub(crate) pairing: Option<Pairing>,
    /// The upstream exchanges of it, in order of time.
    pub(crate) attempts: Vec<Attempt>,
    /// An index into [`Page::details`].
    pub(crate) detail: Option<usize>,
    /// An index into [`Page::routes`].
    pub(crate) route: Option<usize>,
}

/// Moments of a request, counted from its first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The request's last byte came: `%REQUEST_DURATION%`.
    pub(crate) request_end: Option<Nanos>,
    /// The first byte was sent to the upstream.
    pub(crate) upstream_begin: Option<Nanos>,
    /// The first byte was read from the upstream: `%RESPONSE_DURATION%`.
    pub(crate) upstream_first_byte: Option<Nanos>,
    /// The response's first byte was sent.
    pub(crate) response_begin: Option<Nanos>,
    /// The response's last byte was sent: `%DURATION%`.
    pub(crate) response_end: Option<Nanos>,
}

/// One upstream exchange of a downstream request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Attempt {
    /// Counted from the downstream request's first byte. It is negative where the clocks or the pairs are wrong.
    pub(crate) begin: Option<i64>,
    pub(crate) duration: Option<Nanos>,
    pub(crate) code: Option<u16>,
    /// The upstream's address.
    pub(crate) address: String,
    /// The trace_id of the upstream's connection.
    pub(crate) connection_id: u64,
    /// An index into [`Page::files`].
    pub(crate) file: usize,
    /// Whether request and response are whole in the trace.
    pub(crate) complete: bool,
}

/// A request with what it said, and how to open it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Detail {
    /// An index into [`Page::requests`].
    pub(crate) request: usize,
    /// It is among the slowest.
    pub(crate) slow: bool,
    /// It is among the failed.
    pub(crate) failed: bool,
    pub(crate) exchange: Exchange,
    /// The upstream exchanges, in the order of [`Request::attempts`]. There may be fewer.
    pub(crate) attempts: Vec<Exchange>,
    /// Shell lines that open it in Wireshark.
    pub(crate) commands: Vec<Command>,
}

/// The two messages of an exchange.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Exchange {
    pub(crate) request: Option<Message>,
    pub(crate) response: Option<Message>,
}

/// A request or a response.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Message {
    /// Such as `GET /path HTTP/1.1` or `HTTP/2 503`.
    pub(crate) line: Vec<u8>,
    pub(crate) fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) trailers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) body: Body,
}

/// The beginning of a body.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Body {
    /// What is shown of it, decoded if possible: as text if it is text, otherwise as a hex dump.
    pub(crate) shown: Vec<u8>,
    /// How many bytes there were.
    pub(crate) size: Option<u64>,
    /// What is missing and why, or how it was decoded; else empty.
    pub(crate) note: String,
}

/// A shell line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Command {
    /// What it does, such as `Open the request's connection in Wireshark`.
    pub(crate) label: String,
    pub(crate) text: String,
}

/// One connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Connection {
    /// An index into [`Page::files`].
    pub(crate) file: usize,
    /// The trace_id.
    pub(crate) id: u64,
    pub(crate) side: Option<Side>,
    /// Who opened it: an address and a port, or a name.
    pub(crate) source: String,
    /// The other side.
    pub(crate) destination: String,
    /// As in `connection.protocol`.
    pub(crate) protocol: String,
    pub(crate) begin: Option<Nanos>,
    pub(crate) end: Option<Nanos>,
    /// Bytes from the source, their true lengths.
    pub(crate) sent: u64,
    /// Bytes to the source, their true lengths.
    pub(crate) received: u64,
    /// How many requests there were on it.
    pub(crate) requests: u64,
    /// What else there is to say; else empty.
    pub(crate) note: String,
}

/// The requests with one method, host and shape of path.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Route {
    pub(crate) method: String,
    pub(crate) host: String,
    /// The shape of the path.
    pub(crate) route: String,
    pub(crate) count: u64,
    pub(crate) failed: u64,
    pub(crate) p50: Option<Nanos>,
    pub(crate) p95: Option<Nanos>,
    pub(crate) p99: Option<Nanos>,
    pub(crate) max: Option<Nanos>,
    /// Bytes of request bodies.
    pub(crate) sent: u64,
    /// Bytes of response bodies.
    pub(crate) received: u64,
    /// One more than [`Page::duration_edges`]: below the first edge, between each two (the lower one counts as
    /// inside), and from the last one on.
    pub(crate) histogram: Vec<u64>,
}

/// Requests over time, in bins of one width.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Activity {
    /// Where the first bin begins.
    pub(crate) start: Nanos,
    /// The width of a bin.
    pub(crate) width: Nanos,
    pub(crate) bins: Vec<ActivityBin>,
}

/// The requests that began within one bin. Each is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ActivityBin {
    pub(crate) ok: u64,
    /// A status of 400 to 499 that is not counted as failed.
    pub(crate) client_error: u64,
    pub(crate) failed: u64,
}

/// Sizes of bodies. Bin 0 counts empty bodies, bin n those from 2^(n - 1) to 2^n - 1 bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sizes {
    pub(crate) request: Vec<u64>,
    pub(crate) response: Vec<u64>,
}

/// Something wrong or remarkable in the inputs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// Such as `cut-off`.
    pub(crate) code: String,
    /// The name of the input.
    pub(crate) file: String,
    /// Where in it, such as `offset 1234, message 5`; else empty.
    pub(crate) place: String,
    pub(crate) text: String,
    /// How often.
    pub(crate) count: u64,
}
