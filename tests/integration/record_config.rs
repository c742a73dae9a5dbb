//! What `record --config` accepts, and its messages about everything else.

use std::{fs, path::Path, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tap2pcap::tap::{Config, Endpoint, ManualClock, Syntax, Tap, TapSettings, TraceFormat};

const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const TAP: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tap.v3.Tap";
const RAW: &str = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
const SERVER_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const CLIENT_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

/// The parts of a configuration that the tests compare.
struct Read {
    config: Config,
    taps: Vec<(TapSettings, String)>,
}

fn read(text: &str, syntax: Syntax) -> Result<Read, String> {
    let taps = std::cell::RefCell::new(Vec::new());
    let config = Config::parse(text, syntax, |settings, sink| {
        taps.borrow_mut().push((settings.clone(), sink.path(7).display().to_string()));
        Tap::new(settings, Arc::new(sink), Arc::new(ManualClock::default()))
    });
    match config {
        Ok(config) => Ok(Read { config, taps: taps.into_inner() }),
        Err(error) => Err(error.to_string()),
    }
}

fn tap_around(inner: &Value) -> Value {
    json!({
        "name": "envoy.transport_sockets.tap",
        "typed_config": {
            "@type": TAP,
            "common_config": {
                "static_config": {
                    "match": { "any_match": true },
                    "output_config": {
                        "sinks": [{ "format": "PROTO_TEXT", "file_per_tap": { "path_prefix": "/tmp/tap/path" } }],
                    },
                },
            },
            "transport_socket": inner,
        },
    })
}

fn raw() -> Value {
    json!({ "name": "envoy.transport_sockets.raw_buffer", "typed_config": { "@type": RAW } })
}

fn server_tls() -> Value {
    let made = rcgen::generate_simple_self_signed(["tap.example".to_owned()]).expect("a certificate");
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": SERVER_TLS,
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{
                    "certificate_chain": { "inline_string": made.cert.pem() },
                    "private_key": { "inline_string": made.signing_key.serialize_pem() },
                }],
            },
        },
    })
}

fn client_tls() -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": { "@type": CLIENT_TLS, "sni": "tap.example", "common_tls_context": {} },
    })
}

fn bootstrap() -> Value {
    json!({
        "static_resources": {
            "listeners": [{
                "name": "in",
                "address": { "socket_address": { "address": "127.0.0.1", "port_value": 10000 } },
                "filter_chains": [{
                    "filters": [{
                        "name": "envoy.filters.network.tcp_proxy",
                        "typed_config": { "@type": TCP_PROXY, "stat_prefix": "tcp", "cluster": "out" },
                    }],
                    "transport_socket": tap_around(&server_tls()),
                }],
            }],
            "clusters": [{
                "name": "out",
                "type": "STATIC",
                "connect_timeout": "0.25s",
                "load_assignment": {
                    "cluster_name": "out",
                    "endpoints": [{ "lb_endpoints": [{ "endpoint": {
                        "address": { "socket_address": { "address": "::1", "port_value": 8080 } },
                    } }] }],
                },
                "transport_socket": tap_around(&client_tls()),
            }],
        },
    })
}

fn parse(bootstrap: &Value) -> Result<Read, String> {
    read(&bootstrap.to_string(), Syntax::Json)
}

#[test]
fn takes_what_a_tap_needs() {
    let Read { config, taps } = parse(&bootstrap()).unwrap_or_else(|error| panic!("{error}"));
    assert!(!config.has_admin);
    let [route] = config.routes.as_slice() else { panic!("one route") };
    assert_eq!(route.listen, Endpoint::Tcp(([127, 0, 0, 1], 10000).into()));
    assert_eq!(route.upstream, "[::1]:8080".parse().expect("an address"));
    assert_eq!(route.connect_timeout, Duration::from_millis(250));
    assert!(route.downstream_tls.is_some() && route.upstream_tls.is_some());
    assert_eq!((route.downstream_taps.len(), route.upstream_taps.len()), (1, 1));
    assert!(
        taps.iter().all(|(settings, path)| *settings == TapSettings::default() && path == "/tmp/tap/path_7.pb_text")
    );
}

#[test]
fn takes_all_settings_of_a_tap() {
    for format in TraceFormat::ALL {
        let mut bootstrap = bootstrap();
        let socket = "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config";
        let output = format!("{socket}/common_config/static_config/output_config");
        set(&mut bootstrap, &format!("{output}/sinks/0/format"), json!(format.name()));
        set(&mut bootstrap, &format!("{output}/max_buffered_rx_bytes"), json!(0));
        set(&mut bootstrap, &format!("{output}/max_buffered_tx_bytes"), json!(4_294_967_295_u32));
        set(&mut bootstrap, &format!("{output}/min_streamed_sent_bytes"), json!("12"));
        set(&mut bootstrap, &format!("{output}/streaming"), json!(true));
        set(&mut bootstrap, &format!("{socket}/socket_tap_config"), json!({ "set_connection_per_event": true }));
        let Read { taps, .. } = parse(&bootstrap).unwrap_or_else(|error| panic!("{error}"));
        let expected = TapSettings {
            streaming: true,
            max_buffered_rx_bytes: 0,
            max_buffered_tx_bytes: u32::MAX,
            min_streamed_sent_bytes: Some(12),
            set_connection_per_event: true,
            record_bare_half_close: false,
        };
        let path = format!("/tmp/tap/path_7.{}", format.suffix());
        assert!(taps.contains(&(expected, path)), "{taps:?}");
    }
}

/// The example of Envoy's documentation for a plain text socket, and the one for TLS with a TLS context filled in,
/// inside a listener.
#[test]
fn takes_the_documents_of_envoys_documentation() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made = rcgen::generate_simple_self_signed(["tap.example".to_owned()]).expect("a certificate");
    fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("writable");
    fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).expect("writable");
    let raw = "name: envoy.transport_sockets.raw_buffer".to_owned();
    let tls = format!(
        "name: envoy.transport_sockets.tls
            typed_config:
              \"@type\": {SERVER_TLS}
              common_tls_context:
                tls_certificates:
                - certificate_chain: {{ filename: {folder}/cert.pem }}
                  private_key: {{ filename: {folder}/key.pem }}",
        folder = folder.path().display()
    );
    for inner in [raw, tls] {
        let text = format!(
            "
admin:
  address: {{ socket_address: {{ address: 127.0.0.1, port_value: 9901 }} }}
static_resources:
  listeners:
  - address:
      socket_address:
        address: 0.0.0.0
        port_value: 10000
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          \"@type\": {TCP_PROXY}
          stat_prefix: tcp
          cluster: out
      transport_socket:
        name: envoy.transport_sockets.tap
        typed_config:
          \"@type\": {TAP}
          common_config:
            static_config:
              match_config:
                any_match: true
              output_config:
                sinks:
                - format: PROTO_BINARY
                  file_per_tap:
                    path_prefix: /some/tap/path
          transport_socket:
            {inner}
  clusters:
  - name: out
    load_assignment:
      cluster_name: out
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              pipe:
                path: /run/upstream.sock
"
        );
        let Read { config, taps } = read(&text, Syntax::Yaml).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert!(config.has_admin);
        assert_eq!(config.routes[0].upstream, Endpoint::Unix("/run/upstream.sock".to_owned()));
        assert_eq!(taps, [(TapSettings::default(), "/some/tap/path_7.pb".to_owned())]);
    }
}

#[test]
fn takes_names_in_camel_case() {
    let text =
        bootstrap().to_string().replace("static_resources", "staticResources").replace("file_per_tap", "filePerTap");
    assert!(read(&text, Syntax::Json).is_ok());
}

#[test]
fn json_is_told_by_the_suffix() {
    assert_eq!(Syntax::of(Path::new("a/bootstrap.json")), Syntax::Json);
    assert_eq!(Syntax::of(Path::new("a/bootstrap.yaml")), Syntax::Yaml);
    assert_eq!(Syntax::of(Path::new("bootstrap")), Syntax::Yaml);
}

fn set(value: &mut Value, pointer: &str, new: Value) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    match value.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")) {
        Value::Object(object) => drop(object.insert(name.to_owned(), new)),
        Value::Array(items) if name == "-" => items.push(new),
        Value::Array(items) => items[name.parse::<usize>().expect("an index")] = new,
        other => panic!("{parent} is {other}"),
    }
}

/// Changes the bootstrap in one place and compares the error.
#[track_caller]
fn refused(pointer: &str, new: Value, message: &str) {
    let mut bootstrap = bootstrap();
    set(&mut bootstrap, pointer, new);
    match parse(&bootstrap) {
        Ok(_) => panic!("{pointer} was taken"),
        Err(error) => assert_eq!(error, message),
    }
}

const LISTENER: &str = "/static_resources/listeners/0";
const CHAIN: &str = "/static_resources/listeners/0/filter_chains/0";
const SOCKET: &str = "/static_resources/listeners/0/filter_chains/0/transport_socket";
const TAP_CONFIG: &str =
    "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config/common_config/static_config";
const CLUSTER: &str = "/static_resources/clusters/0";

#[test]
fn refuses_what_is_no_configuration() {
    let say = |text, syntax| read(text, syntax).err();
    assert_eq!(say("{", Syntax::Json), Some("not JSON".to_owned()));
    assert_eq!(say("a: [", Syntax::Yaml), Some("not YAML".to_owned()));
    assert_eq!(say("[]", Syntax::Json), Some("the configuration: an object is needed".to_owned()));
    assert_eq!(say("{}", Syntax::Json), Some("static_resources: missing".to_owned()));
    assert_eq!(
        say("static_resources: {}", Syntax::Yaml),
        Some("static_resources.listeners: at least one is needed".to_owned())
    );
}

#[test]
fn refuses_fields_that_it_does_not_know() {
    let nothing = json!({});
    for (pointer, path) in [
        ("/dynamic_resources".to_owned(), "dynamic_resources"),
        ("/static_resources/secrets".to_owned(), "static_resources.secrets"),
        (format!("{LISTENER}/listener_filters"), "static_resources.listeners[0].listener_filters"),
        (format!("{CHAIN}/filter_chain_match"), "static_resources.listeners[0].filter_chains[0].filter_chain_match"),
        (
            format!("{CHAIN}/filters/0/typed_config/idle_timeout"),
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.idle_timeout",
        ),
        (
            format!("{TAP_CONFIG}/tap_enabled"),
            "static_resources.listeners[0].filter_chains[0].transport_socket.typed_config.common_config.static_config\
             .tap_enabled",
        ),
        (
            format!("{TAP_CONFIG}/output_config/sinks/0/streaming_admin"),
            "static_resources.listeners[0].filter_chains[0].transport_socket.typed_config.common_config.static_config\
             .output_config.sinks[0].streaming_admin",
        ),
        (
            format!("{TAP_CONFIG}/match/or_match"),
            "static_resources.listeners[0].filter_chains[0].transport_socket.typed_config.common_config.static_config\
             .match.or_match",
        ),
        (format!("{CLUSTER}/health_checks"), "static_resources.clusters[0].health_checks"),
        (
            format!("{CLUSTER}/load_assignment/endpoints/0/lb_endpoints/0/endpoint/health_check_config"),
            "static_resources.clusters[0].load_assignment.endpoints[0].lb_endpoints[0].endpoint.health_check_config",
        ),
        (
            format!("{CLUSTER}/transport_socket/typed_config/transport_socket/typed_config/max_session_keys"),
            "static_resources.clusters[0].transport_socket.typed_config.transport_socket.typed_config.max_session_keys",
        ),
    ] {
        refused(&pointer, nothing.clone(), &format!("{path}: not supported by record"));
    }
}

#[test]
fn refuses_values_of_the_wrong_type() {
    refused(
        &format!("{LISTENER}/filter_chains"),
        json!("one"),
        "static_resources.listeners[0].filter_chains: invalid type: string \"one\", expected a list",
    );
    refused(
        &format!("{LISTENER}/address/socket_address/port_value"),
        json!("http"),
        "static_resources.listeners[0].address.socket_address.port_value: invalid digit found in string",
    );
    refused(
        &format!("{CLUSTER}/connect_timeout"),
        json!("soon"),
        "static_resources.clusters[0].connect_timeout: failed to parse duration",
    );
    refused(&format!("{LISTENER}/address"), json!(7), "static_resources.listeners[0].address: an object is needed");
}

#[test]
fn refuses_addresses_that_it_cannot_use() {
    let at = format!("{LISTENER}/address/socket_address");
    let path = "static_resources.listeners[0].address.socket_address";
    refused(
        &format!("{at}/address"),
        json!("localhost"),
        &format!("{path}.address: \"localhost\" is not an IP address; record does not resolve names"),
    );
    refused(&format!("{at}/protocol"), json!("UDP"), &format!("{path}.protocol: only TCP is supported by record"));
    refused(
        &format!("{at}/port_value"),
        json!(65536),
        &format!("{path}.port_value: 65536 is not a port: the highest is 65535"),
    );
    refused(&format!("{at}/ipv4_compat"), json!(true), &format!("{path}.ipv4_compat: not supported by record"));
    refused(&format!("{at}/resolver_name"), json!("r"), &format!("{path}.resolver_name: not supported by record"));
    refused(
        &format!("{at}/network_namespace_filepath"),
        json!("/run/netns/x"),
        &format!("{path}.network_namespace_filepath: not supported by record"),
    );
    refused(&at, json!({ "address": "::1" }), &format!("{path}.port_value: missing"));
    refused(
        &at,
        json!({ "address": "::1", "named_port": "http" }),
        &format!("{path}.named_port: not supported by record"),
    );
    let at = format!("{LISTENER}/address");
    let path = "static_resources.listeners[0].address";
    refused(&at, json!({}), &format!("{path}: missing"));
    refused(&at, json!({ "pipe": {} }), &format!("{path}.pipe.path: missing"));
    refused(
        &at,
        json!({ "pipe": { "path": "/x", "mode": 384 } }),
        &format!("{path}.pipe.mode: not supported by record"),
    );
    refused(
        &at,
        json!({ "envoy_internal_address": { "server_listener_name": "x" } }),
        &format!("{path}.envoy_internal_address: not supported by record: it exists only inside Envoy"),
    );
}

#[test]
fn refuses_more_or_less_than_one() {
    refused(
        &format!("{LISTENER}/filter_chains"),
        json!([]),
        "static_resources.listeners[0].filter_chains: record needs exactly one, not 0",
    );
    refused(
        &format!("{LISTENER}/filter_chains/-"),
        json!({}),
        "static_resources.listeners[0].filter_chains: record needs exactly one, not 2",
    );
    refused(
        &format!("{CHAIN}/filters/-"),
        json!({}),
        "static_resources.listeners[0].filter_chains[0].filters: record needs exactly one, not 2",
    );
    refused(
        &format!("{CLUSTER}/load_assignment/endpoints"),
        json!([]),
        "static_resources.clusters[0].load_assignment.endpoints: record needs exactly one, not 0",
    );
    refused(
        &format!("{CLUSTER}/load_assignment/endpoints/0/lb_endpoints/-"),
        json!({}),
        "static_resources.clusters[0].load_assignment.endpoints[0].lb_endpoints: record needs exactly one, not 2",
    );
    refused(
        &format!("{TAP_CONFIG}/output_config/sinks/-"),
        json!({}),
        "static_resources.listeners[0].filter_chains[0].transport_socket.typed_config.common_config.static_config\
         .output_config.sinks: record needs exactly one, not 2",
    );
}

#[test]
fn refuses_other_filters() {
    let path = "static_resources.listeners[0].filter_chains[0].filters[0]";
    let manager =
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    refused(
        &format!("{CHAIN}/filters/0/typed_config"),
        json!({ "@type": manager, "stat_prefix": "http" }),
        &format!("{path}: {manager} is not supported by record"),
    );
    refused(
        &format!("{CHAIN}/filters/0/typed_config"),
        json!({ "@type": RAW }),
        &format!("{path}: {RAW} is not a filter; record knows envoy.filters.network.tcp_proxy"),
    );
    refused(&format!("{CHAIN}/filters/0"), json!({ "name": "x" }), &format!("{path}.typed_config: missing"));
    refused(
        &format!("{CHAIN}/filters/0/typed_config"),
        json!({ "stat_prefix": "x" }),
        &format!("{path}.typed_config: \"@type\" is missing"),
    );
    refused(
        &format!("{CHAIN}/filters/0/typed_config/cluster"),
        json!("elsewhere"),
        &format!("{path}.typed_config.cluster: there is no cluster \"elsewhere\" in static_resources.clusters"),
    );
    refused(
        &format!("{CHAIN}/filters/0/typed_config"),
        json!({ "@type": TCP_PROXY }),
        &format!("{path}.typed_config.cluster: missing"),
    );
}

#[test]
fn refuses_clusters_that_are_not_static() {
    for kind in ["STRICT_DNS", "LOGICAL_DNS", "EDS", "ORIGINAL_DST"] {
        refused(
            &format!("{CLUSTER}/type"),
            json!(kind),
            &format!("static_resources.clusters[0].type: {kind} is not supported by record, only STATIC"),
        );
    }
    refused(
        &format!("{CLUSTER}/connect_timeout"),
        json!("0s"),
        "static_resources.clusters[0].connect_timeout: must be more than 0s",
    );
    refused(
        &format!("{CLUSTER}/load_assignment"),
        json!(null),
        "static_resources.clusters[0].load_assignment: missing",
    );
    refused(
        &format!("{CLUSTER}/load_assignment/endpoints/0/lb_endpoints/0"),
        json!({}),
        "static_resources.clusters[0].load_assignment.endpoints[0].lb_endpoints[0].endpoint: missing",
    );
    let mut twice = bootstrap();
    let cluster = twice.pointer(CLUSTER).cloned().expect("a cluster");
    set(&mut twice, "/static_resources/clusters/-", cluster);
    assert_eq!(
        parse(&twice).err(),
        Some("static_resources.clusters[1].name: there are two clusters \"out\"".to_owned())
    );
}

#[test]
fn refuses_other_transport_sockets() {
    let path = "static_resources.listeners[0].filter_chains[0].transport_socket";
    let starttls = "type.googleapis.com/envoy.extensions.transport_sockets.starttls.v3.StartTlsConfig";
    refused(
        SOCKET,
        json!({ "name": "x", "typed_config": { "@type": starttls } }),
        &format!("{path}: {starttls} is not supported by record"),
    );
    refused(SOCKET, json!({ "name": "envoy.transport_sockets.tls" }), &format!("{path}.typed_config: missing"));
    refused(
        SOCKET,
        tap_around(&tap_around(&raw())),
        &format!("{path}.typed_config.transport_socket: a tap around a tap"),
    );
    refused(
        SOCKET,
        client_tls(),
        &format!("{path}: envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext has no place here"),
    );
    refused(
        &format!("{CLUSTER}/transport_socket"),
        server_tls(),
        "static_resources.clusters[0].transport_socket: \
         envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext has no place here",
    );
    refused(
        &format!("{SOCKET}/typed_config/transport_socket"),
        json!(null),
        &format!("{path}.typed_config.transport_socket: missing"),
    );
}

#[test]
fn refuses_taps_that_it_cannot_be() {
    let path = "static_resources.listeners[0].filter_chains[0].transport_socket.typed_config.common_config";
    refused(
        &format!("{SOCKET}/typed_config/common_config"),
        json!({ "admin_config": { "config_id": "x" } }),
        &format!("{path}.admin_config: not supported by record"),
    );
    refused(&format!("{SOCKET}/typed_config/common_config"), json!({}), &format!("{path}.static_config: missing"));
    let path = format!("{path}.static_config");
    refused(
        &format!("{TAP_CONFIG}/match"),
        json!(null),
        &format!("{path}.match: missing; record knows any_match: true"),
    );
    refused(
        &format!("{TAP_CONFIG}/match/any_match"),
        json!(false),
        &format!("{path}.match: record knows only any_match: true"),
    );
    refused(
        &format!("{TAP_CONFIG}/match_config"),
        json!({ "any_match": true }),
        &format!("{path}: both match and match_config"),
    );
    let mut older = bootstrap();
    set(&mut older, &format!("{TAP_CONFIG}/match"), json!(null));
    set(&mut older, &format!("{TAP_CONFIG}/match_config"), json!({}));
    assert_eq!(parse(&older).err(), Some(format!("{path}.match_config: record knows only any_match: true")));
    let path = format!("{path}.output_config");
    refused(&format!("{TAP_CONFIG}/output_config"), json!(null), &format!("{path}: missing"));
    refused(
        &format!("{TAP_CONFIG}/output_config/sinks/0"),
        json!({ "format": "PROTO_TEXT" }),
        &format!("{path}.sinks[0].file_per_tap: missing"),
    );
    refused(
        &format!("{TAP_CONFIG}/output_config/sinks/0/file_per_tap/path_prefix"),
        json!(""),
        &format!("{path}.sinks[0].file_per_tap.path_prefix: missing"),
    );
    refused(
        &format!("{TAP_CONFIG}/output_config/sinks/0/format"),
        json!(9),
        &format!("{path}.sinks[0].format: there is no format 9"),
    );
}

#[test]
fn refuses_certificates_that_it_cannot_use() {
    let context = format!("{SOCKET}/typed_config/transport_socket/typed_config/common_tls_context");
    let path = "static_resources.listeners[0].filter_chains[0].transport_socket.typed_config.transport_socket.typed_config\
                .common_tls_context";
    refused(
        &format!("{context}/tls_certificates"),
        json!([]),
        &format!("{path}.tls_certificates: record needs exactly one, not 0"),
    );
    refused(
        &format!("{context}/validation_context"),
        json!({}),
        &format!("{path}.validation_context: record asks no client for a certificate"),
    );
    let path = format!("{path}.tls_certificates[0]");
    let chain = format!("{context}/tls_certificates/0/certificate_chain");
    refused(&chain, json!(null), &format!("{path}.certificate_chain: missing"));
    refused(&chain, json!({}), &format!("{path}.certificate_chain: needs filename, inline_string or inline_bytes"));
    refused(
        &chain,
        json!({ "filename": "/does/not/exist" }),
        &format!("{path}.certificate_chain.filename: /does/not/exist: No such file or directory (os error 2)"),
    );
    refused(
        &chain,
        json!({ "environment_variable": "X" }),
        &format!("{path}.certificate_chain.environment_variable: not supported by record"),
    );
    refused(
        &chain,
        json!({ "inline_string": "none" }),
        &format!("{path}.certificate_chain: the certificate chain cannot be read: no items found"),
    );
    refused(
        &format!("{context}/tls_certificates/0/private_key"),
        json!({ "inline_string": "none" }),
        &format!("{path}.private_key: the private key cannot be read: no items found"),
    );
    let other = rcgen::generate_simple_self_signed(["other.example".to_owned()]).expect("a certificate");
    refused(
        &format!("{context}/tls_certificates/0/private_key/inline_string"),
        json!(other.signing_key.serialize_pem()),
        "static_resources.listeners[0].filter_chains[0].transport_socket.typed_config.transport_socket.typed_config\
         .common_tls_context: certificate and key cannot be used: keys may not be consistent: KeyMismatch",
    );
    let context = format!("{CLUSTER}/transport_socket/typed_config/transport_socket/typed_config");
    let path = "static_resources.clusters[0].transport_socket.typed_config.transport_socket.typed_config";
    refused(
        &format!("{context}/sni"),
        json!("no name"),
        &format!("{path}.sni: \"no name\" is not a server name: invalid dns name"),
    );
    refused(
        &format!("{context}/common_tls_context/validation_context"),
        json!({ "trusted_ca": { "inline_string": "none" } }),
        &format!(
            "{path}.common_tls_context.validation_context.trusted_ca: the trusted certificates cannot be read: \
             no items found"
        ),
    );
}
