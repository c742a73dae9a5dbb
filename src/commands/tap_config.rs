//! `tap2pcap tap-config` prints the configuration of a tap, to be added to Envoy's or Istio's.
//!
//! The text is YAML from templates, in which only strings and numbers vary: comments say where each part goes, and a
//! library that writes YAML has no place for them.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use super::{Status, error::Error};
use crate::{
    cli::{TapConfigArgs, Target},
    interrupt::Watched,
    untrusted::is_harmful,
};

pub(super) fn run(args: &TapConfigArgs) -> Result<Status, Error> {
    if args.tls && args.target == Target::Istio {
        return Err(Error::Arguments(
            "--tls: an EnvoyFilter cannot put a tap around Istio's TLS, because Istio replaces a transport socket that \
             has another name, and its TLS with it; without --tls, sockets in plain text are tapped, and --http sees \
             what comes through mutual TLS as well"
                .to_owned(),
        ));
    }
    let mut out = Watched(io::stdout().lock());
    out.write_all(text(args).as_bytes())?;
    out.flush()?;
    Ok(Status::Done)
}

/// All that is printed.
fn text(args: &TapConfigArgs) -> String {
    match (args.target, args.socket) {
        (Target::Envoy, false) => format!(
            "# A tap of HTTP. Add it to http_filters of an HTTP connection manager, before envoy.filters.http.router.\n{}- {}",
            notes(args),
            indented(&http_filter(args), 2).trim_start()
        ),
        (Target::Envoy, true) => format!(
            "# A tap of the connections with clients. Add it to a filter chain of a listener{}.\n{}{}---\n\
             # A tap of the connections with servers. Add it to a cluster{}.\n{}",
            where_tls_is(args),
            notes(args),
            transport_socket(args, Side::Listener),
            where_tls_is(args),
            transport_socket(args, Side::Cluster),
        ),
        (Target::Istio, _) => istio(args),
    }
}

fn where_tls_is(args: &TapConfigArgs) -> &'static str {
    if args.tls { ", around its transport_socket" } else { " that has no transport_socket" }
}

/// What one has to know before the configuration is used.
fn notes(args: &TapConfigArgs) -> String {
    let mut notes = String::new();
    match (&args.file, args.target) {
        (None, Target::Envoy) => {
            notes.push_str(
                "# Envoy's bootstrap needs an admin endpoint:\n\
                 #   admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}\n",
            );
        }
        (None, Target::Istio) => {
            notes.push_str("# The admin endpoint is at port 15000 inside the pod: kubectl port-forward POD 15000\n");
        }
        (Some(_), Target::Envoy) => {
            notes.push_str(
                "# Envoy makes no folder: that of path_prefix must exist, and Envoy must be able to write there.\n",
            );
        }
        (Some(_), Target::Istio) => {
            notes.push_str(
                "# The container istio-proxy must be able to write to the folder of path_prefix, and does not make it.\n\
                 # Its root file system is read-only; /etc/istio/proxy is not.\n",
            );
        }
    }
    notes.push_str(if args.file.is_none() {
        "# Warning: whoever reaches the admin endpoint can read all that passes here. Let only trusted people reach it.\n"
    } else {
        "# Warning: the traces hold all that passes here in plain text. Let only trusted people read them.\n"
    });
    notes
}

/// The HTTP filter.
fn http_filter(args: &TapConfigArgs) -> String {
    format!(
        "name: envoy.filters.http.tap\n\
         typed_config:\n  \
           \"@type\": type.googleapis.com/envoy.extensions.filters.http.tap.v3.Tap\n  \
           # Times and addresses. Remove what an Envoy before 1.36 does not know.\n  \
           record_headers_received_time: true\n  \
           record_downstream_connection: true\n  \
           record_upstream_connection: true\n\
         {}",
        indented(&common_config(args), 2)
    )
}

/// What a transport socket belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Listener,
    Cluster,
}

/// A transport socket with the tap, around another one.
fn transport_socket(args: &TapConfigArgs, side: Side) -> String {
    let inner = match (args.tls, side) {
        (false, _) => ("raw_buffer", "raw_buffer.v3.RawBuffer"),
        (true, Side::Listener) => ("tls", "tls.v3.DownstreamTlsContext"),
        (true, Side::Cluster) => ("tls", "tls.v3.UpstreamTlsContext"),
    };
    let place = if args.tls { "    # Put the transport socket that is there now in place of this one.\n" } else { "" };
    // A listener's connections have both addresses from their beginning on.
    let per_event = if side == Side::Cluster {
        "    # Envoy's own address, which it does not know before it is connected. Remove this if Envoy rejects it\n    # \
         (1.36 knows it).\n    socket_tap_config:\n      set_connection_per_event: true\n"
    } else {
        ""
    };
    let (name, message) = inner;
    format!(
        "transport_socket:\n  \
           name: envoy.transport_sockets.tap\n  \
           typed_config:\n    \
             \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tap.v3.Tap\n\
         {per_event}{common}    \
             transport_socket:\n{place}      \
               name: envoy.transport_sockets.{name}\n      \
               typed_config:\n        \
                 \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.{message}\n",
        common = indented(&common_config(args), 4),
        place = place.replace("    #", "      #"),
    )
}

/// The configuration that both kinds of taps have.
fn common_config(args: &TapConfigArgs) -> String {
    let Some(prefix) = &args.file else {
        return format!("common_config:\n  admin_config:\n    config_id: {}\n", quoted(&args.config_id));
    };
    // A limit counts for each event of a streamed socket, and for all of a buffered one, which is not recorded further.
    // A streamed HTTP trace has neither times nor connections.
    let streaming = args.socket;
    format!(
        "common_config:\n  \
           static_config:\n    \
             match:\n      \
               any_match: true\n    \
             output_config:\n      \
               sinks:\n      \
               - format: PROTO_BINARY_LENGTH_DELIMITED\n        \
                 file_per_tap:\n          \
                   path_prefix: {prefix}\n      \
               streaming: {streaming}\n      \
               # Longer bodies and events are cut to so many bytes, which Envoy holds in memory.\n      \
               max_buffered_rx_bytes: {rx}\n      \
               max_buffered_tx_bytes: {tx}\n",
        prefix = quoted(prefix),
        rx = args.max_rx,
        tx = args.max_tx,
    )
}

/// An EnvoyFilter.
fn istio(args: &TapConfigArgs) -> String {
    let (what, patches) = if args.socket {
        let patches = format!(
            "  # What comes in as plain text. What comes in with mutual TLS has a transport socket, which a patch would replace,\n  \
               # so it is left alone here. The bytes in it are those on the way to the application, tapped below.\n  \
             - applyTo: FILTER_CHAIN\n    \
                 match:\n      \
                   context: SIDECAR_INBOUND\n      \
                   listener:\n        \
                     filterChain:\n          \
                       transportProtocol: raw_buffer\n    \
                 patch:\n      \
                   operation: MERGE\n      \
                   value:\n{listener}  \
             # What the sidecar and the application say to each other. These clusters of Istio have no transport socket;\n  \
               # those towards other workloads (SIDECAR_OUTBOUND) have TLS, which this patch would remove.\n  \
             - applyTo: CLUSTER\n    \
                 match:\n      \
                   context: SIDECAR_INBOUND\n    \
                 patch:\n      \
                   operation: MERGE\n      \
                   value:\n{cluster}",
            listener = indented(&transport_socket(args, Side::Listener), 8),
            cluster = indented(&transport_socket(args, Side::Cluster), 8),
        );
        ("connections", patches)
    } else {
        let patch = format!(
            "  # Requests to the workload. Those that it sends: SIDECAR_OUTBOUND. Those through a gateway: GATEWAY.\n  \
             - applyTo: HTTP_FILTER\n    \
                 match:\n      \
                   context: SIDECAR_INBOUND\n      \
                   listener:\n        \
                     filterChain:\n          \
                       filter:\n            \
                         name: envoy.filters.network.http_connection_manager\n            \
                         subFilter:\n              \
                           name: envoy.filters.http.router\n    \
                 patch:\n      \
                   operation: INSERT_BEFORE\n      \
                   value:\n{}",
            indented(&http_filter(args), 8)
        );
        ("HTTP", patch)
    };
    format!(
        "# A tap of {what}, for the workloads with the label below, in the namespace that it is applied to.\n{}\
         apiVersion: networking.istio.io/v1alpha3\n\
         kind: EnvoyFilter\n\
         metadata:\n  \
           name: tap\n\
         spec:\n  \
           # Without this, all workloads of the namespace are tapped.\n  \
           workloadSelector:\n    \
             labels:\n      \
               app: CHANGE-ME\n  \
           configPatches:\n{patches}",
        notes(args)
    )
}

/// Puts spaces before every line.
fn indented(text: &str, spaces: usize) -> String {
    text.lines().map(|line| format!("{:spaces$}{line}\n", "")).collect()
}

/// A string in YAML, in double quotes: whatever is in it, it stays one string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for char in text.chars() {
        // Writing to a String cannot fail.
        let _ = match char {
            '"' | '\\' => write!(quoted, "\\{char}"),
            // YAML does not allow the last two, either. Unlike JSON, it has no surrogates.
            _ if is_harmful(char) || matches!(char, '\u{fffe}' | '\u{ffff}') => match u32::from(char) {
                code @ ..=0xffff => write!(quoted, "\\u{code:04x}"),
                code => write!(quoted, "\\U{code:08x}"),
            },
            _ => write!(quoted, "{char}"),
        };
    }
    quoted.push('"');
    quoted
}
