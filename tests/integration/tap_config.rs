//! `tap-config` prints YAML that means what it should, whatever the user's strings are. `scripts/interop-config` holds it
//! against the real Envoy.

use serde_json::{Value, json};

use crate::util::{PROGRAM, Run, run_command, tap2pcap};

/// What would end a string, begin another value or hide what follows, if it was not quoted.
const NASTY: &str = "a \"b\" 'c' \\ #d: {e}\t- [f]\n\r\x1b\x7f\u{85} é 日本 \u{2028}\u{feff}\u{e0041}\u{ffff}😀 %h";

/// The documents that are printed, and nothing but them.
fn documents(args: &[&str]) -> Vec<Value> {
    let run = tap2pcap().arg("tap-config").args(args).run().expect_status(0);
    assert_eq!(run.stderr, "");
    let text = run.stdout_text();
    // A terminal shows it as it is.
    assert!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text}");
    assert!(
        text.lines().all(|line| line.len() <= 120 || line.contains("config_id") || line.contains("path_prefix")),
        "{text}"
    );
    text.split("---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

/// The value after these keys, each the name of a field or the index in a list.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

fn refused(args: &[&str]) -> Run {
    let run = tap2pcap().arg("tap-config").args(args).run().expect_status(2);
    assert_eq!(run.stdout_text(), "", "{run:?}");
    run
}

#[test]
fn without_options_it_is_an_http_tap_for_the_admin_endpoint() {
    let [filter] = documents(&[]).try_into().unwrap();
    assert_eq!(filter, documents(&["--http", "--admin", "--config-id", "tap", "--for", "envoy"])[0]);
    let expected = json!([{
        "name": "envoy.filters.http.tap",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.tap.v3.Tap",
            "record_headers_received_time": true,
            "record_downstream_connection": true,
            "record_upstream_connection": true,
            "common_config": { "admin_config": { "config_id": "tap" } },
        },
    }]);
    assert_eq!(filter, expected);
}

#[test]
fn files_get_whole_events_of_sockets_and_whole_messages_of_http() {
    let output = "/typed_config/common_config/static_config/output_config";
    for (args, pointer, streaming) in [
        (&["--http"][..], "/0", false),
        (&["--socket"], "/transport_socket", true),
        (&["--socket", "--tls"], "/transport_socket", true),
    ] {
        for document in documents(&[args, &["--file", "dir/path", "--max-rx", "7"]].concat()) {
            let expected = json!({
                "sinks": [{ "format": "PROTO_BINARY_LENGTH_DELIMITED", "file_per_tap": { "path_prefix": "dir/path" } }],
                "streaming": streaming,
                "max_buffered_rx_bytes": 7,
                "max_buffered_tx_bytes": 1 << 20,
            });
            assert_eq!(*at(&document, &format!("{pointer}{output}")), expected);
        }
    }
}

#[test]
fn a_tap_of_sockets_goes_around_what_the_listener_and_the_cluster_have() {
    for (args, inner) in [
        (&["--socket"][..], ["raw_buffer.v3.RawBuffer"; 2]),
        (&["--socket", "--tls"], ["tls.v3.DownstreamTlsContext", "tls.v3.UpstreamTlsContext"]),
    ] {
        let documents = documents(args);
        assert_eq!(documents.len(), 2);
        for (document, message) in documents.iter().zip(inner) {
            let pointer = "/transport_socket/typed_config/transport_socket/typed_config/@type";
            let expected = format!("type.googleapis.com/envoy.extensions.transport_sockets.{message}");
            assert_eq!(*at(document, pointer), expected);
        }
        // Envoy knows its own address on a connection to a server only later.
        let per_event = "/transport_socket/typed_config/socket_tap_config";
        assert_eq!(
            (documents[0].pointer(per_event), at(&documents[1], per_event)),
            (None, &json!({ "set_connection_per_event": true }))
        );
    }
}

#[test]
fn a_string_stays_one_string_whatever_is_in_it() {
    let config = "/0/typed_config/common_config";
    for string in [NASTY, "yes", "0x10", "~", " ", "!!int 1", "*a", "\"", "\\", "😀"] {
        let admin = documents(&["--config-id", string]);
        assert_eq!(*at(&admin[0], &format!("{config}/admin_config/config_id")), string);
        let file = documents(&["--file", string]);
        let pointer = format!("{config}/static_config/output_config/sinks/0/file_per_tap/path_prefix");
        assert_eq!(*at(&file[0], &pointer), string);
        let [istio] = documents(&["--config-id", string, "--for", "istio"]).try_into().unwrap();
        let pointer = "/spec/configPatches/0/patch/value/typed_config/common_config/admin_config/config_id";
        assert_eq!(*at(&istio, pointer), string);
    }
}

/// A merge of a transport socket into one with TLS would remove the TLS.
#[test]
fn an_envoy_filter_replaces_no_tls() {
    let [http] = documents(&["--for", "istio"]).try_into().unwrap();
    let [sockets] = documents(&["--socket", "--for", "istio"]).try_into().unwrap();
    for resource in [&http, &sockets] {
        assert_eq!(
            (at(resource, "/kind"), at(resource, "/apiVersion")),
            (&json!("EnvoyFilter"), &json!("networking.istio.io/v1alpha3"))
        );
        // Not a whole namespace by mistake.
        assert!(at(resource, "/spec/workloadSelector/labels").as_object().is_some_and(|labels| !labels.is_empty()));
    }
    let [filter] = at(&http, "/spec/configPatches").as_array().unwrap().as_slice() else { panic!("{http}") };
    assert_eq!(
        (at(filter, "/applyTo"), at(filter, "/patch/operation")),
        (&json!("HTTP_FILTER"), &json!("INSERT_BEFORE"))
    );
    let [chain, cluster] = at(&sockets, "/spec/configPatches").as_array().unwrap().as_slice() else {
        panic!("{sockets}")
    };
    let inbound = json!({ "context": "SIDECAR_INBOUND" });
    let plain =
        json!({ "context": "SIDECAR_INBOUND", "listener": { "filterChain": { "transportProtocol": "raw_buffer" } } });
    assert_eq!((at(chain, "/applyTo"), at(chain, "/match")), (&json!("FILTER_CHAIN"), &plain));
    assert_eq!((at(cluster, "/applyTo"), at(cluster, "/match")), (&json!("CLUSTER"), &inbound));
    refused(&["--socket", "--tls", "--for", "istio"])
        .expect_stderr("--tls: an EnvoyFilter cannot put a tap around Istio's TLS");
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for args in [
        &["--http", "--socket"][..],
        &["--http", "--tls"],
        &["--admin", "--file", "x"],
        &["--config-id", "x", "--file", "x"],
        &["--max-rx", "1"],
        &["--max-tx", "1", "--admin"],
        &["--file", "x", "--max-rx", "4294967296"],
        &["--file", ""],
        &["--config-id", ""],
        &["--for", "nginx"],
        &["x"],
    ] {
        refused(args);
    }
}

#[test]
fn a_reader_that_stops_is_no_error() {
    let mut command = std::process::Command::new("bash");
    command.args(["-o", "pipefail", "-c", "\"$0\" tap-config --socket | true", PROGRAM]);
    let run = run_command(command).expect_status(0);
    assert_eq!(run.stderr, "");
}
