//! Turns the messages of a configuration into routes: it decides what the fields mean together.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path, time::Duration};

use prost::Message;
use prost_types::Any;

use super::{ConfigError, ConfigPath, message::type_name};
use crate::{
    proto::envoy::{
        config::{
            bootstrap::v3::Bootstrap,
            cluster::v3::{Cluster, cluster},
            common::matcher,
            core::v3::{
                Address, DataSource, SocketAddress, TransportSocket,
                address::Address as Kind,
                data_source::Specifier,
                socket_address::{PortSpecifier, Protocol},
                transport_socket,
            },
            endpoint::v3::lb_endpoint::HostIdentifier,
            listener::v3::{Filter, Listener, filter},
            tap::v3::{self as tap_config, OutputConfig, output_sink::OutputSinkType},
        },
        extensions::{
            common::tap::v3::common_extension_config,
            filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
            transport_sockets::{
                tap::v3::Tap as TapSocket,
                tls::v3::{
                    CommonTlsContext, DownstreamTlsContext, TlsCertificate, UpstreamTlsContext,
                    common_tls_context::ValidationContextType,
                },
            },
        },
    },
    tap::{Endpoint, FilePerTap, Route, Tap, TapSettings, TlsClient, TlsError, TlsIdentity, TlsServer, TraceFormat},
};

type MakeTap<'a> = &'a dyn Fn(TapSettings, FilePerTap) -> Tap;

pub(super) fn routes(bootstrap: &Bootstrap, make_tap: MakeTap<'_>) -> Result<Vec<Route>, ConfigError> {
    let at = ConfigPath::default().field("static_resources");
    let resources = bootstrap.static_resources.as_ref().ok_or_else(|| at.refuse("missing"))?;
    let at_clusters = at.field("clusters");
    let mut clusters = BTreeMap::new();
    for (index, cluster) in resources.clusters.iter().enumerate() {
        let at = at_clusters.item(index);
        let upstream = Upstream::resolve(&at, cluster, make_tap)?;
        if clusters.insert(cluster.name.as_str(), upstream).is_some() {
            return Err(at.field("name").refuse(format!("there are two clusters {:?}", cluster.name)));
        }
    }
    let at_listeners = at.field("listeners");
    if resources.listeners.is_empty() {
        return Err(at_listeners.refuse("at least one is needed"));
    }
    let listeners = resources.listeners.iter().enumerate();
    listeners.map(|(index, listener)| route(&at_listeners.item(index), listener, &clusters, make_tap)).collect()
}

fn route(
    at: &ConfigPath,
    listener: &Listener,
    clusters: &BTreeMap<&str, Upstream>,
    make_tap: MakeTap<'_>,
) -> Result<Route, ConfigError> {
    let listen = endpoint(&at.field("address"), listener.address.as_ref())?;
    let at_chains = at.field("filter_chains");
    let chain = only(&at_chains, &listener.filter_chains)?;
    let at_chain = at_chains.item(0);
    let at_filters = at_chain.field("filters");
    let filter = only(&at_filters, &chain.filters)?;
    let (at_cluster, cluster) = tcp_proxy_cluster(&at_filters.item(0), filter)?;
    let upstream = clusters
        .get(cluster.as_str())
        .ok_or_else(|| at_cluster.refuse(format!("there is no cluster {cluster:?} in static_resources.clusters")))?;
    let at_socket = at_chain.field("transport_socket");
    let socket = socket(&at_socket, chain.transport_socket.as_ref(), make_tap, downstream_tls)?;
    Ok(Route {
        downstream_tls: socket.tls,
        downstream_taps: socket.taps,
        upstream_tls: upstream.socket.tls.clone(),
        upstream_taps: upstream.socket.taps.clone(),
        connect_timeout: upstream.connect_timeout,
        ..Route::new(listen, upstream.endpoint.clone())
    })
}

fn tcp_proxy_cluster(at: &ConfigPath, filter: &Filter) -> Result<(ConfigPath, String), ConfigError> {
    let Some(filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
        return Err(at.field("typed_config").refuse("missing"));
    };
    let proxy: TcpProxy =
        unpack(at, any, "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy")?.ok_or_else(|| {
            at.refuse(format!("{} is not a filter; record knows envoy.filters.network.tcp_proxy", any.type_url))
        })?;
    let at = at.field("typed_config").field("cluster");
    match proxy.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => Ok((at, name)),
        None => Err(at.refuse("missing")),
    }
}

/// How connections reach a server.
struct Upstream {
    endpoint: Endpoint,
    socket: TappedSocket<TlsClient>,
    connect_timeout: Duration,
}

impl Upstream {
    fn resolve(at: &ConfigPath, cluster: &Cluster, make_tap: MakeTap<'_>) -> Result<Self, ConfigError> {
        if let Some(cluster::ClusterDiscoveryType::Type(number)) = cluster.cluster_discovery_type
            && number != cluster::DiscoveryType::Static as i32
        {
            let name = cluster::DiscoveryType::try_from(number).map_or("this type", |known| known.as_str_name());
            return Err(at.field("type").refuse(format!("{name} is not supported by record, only STATIC")));
        }
        let at_assignment = at.field("load_assignment");
        let assignment = cluster.load_assignment.as_ref().ok_or_else(|| at_assignment.refuse("missing"))?;
        let at_localities = at_assignment.field("endpoints");
        let locality = only(&at_localities, &assignment.endpoints)?;
        let at_hosts = at_localities.item(0).field("lb_endpoints");
        let host = only(&at_hosts, &locality.lb_endpoints)?;
        let at_endpoint = at_hosts.item(0).field("endpoint");
        let Some(HostIdentifier::Endpoint(host)) = &host.host_identifier else {
            return Err(at_endpoint.refuse("missing"));
        };
        let at_timeout = at.field("connect_timeout");
        let connect_timeout = match cluster.connect_timeout {
            None => Route::DEFAULT_CONNECT_TIMEOUT,
            Some(timeout) => match Duration::try_from(timeout) {
                Ok(timeout) if !timeout.is_zero() => timeout,
                _ => return Err(at_timeout.refuse("must be more than 0s")),
            },
        };
        Ok(Self {
            endpoint: endpoint(&at_endpoint.field("address"), host.address.as_ref())?,
            socket: socket(&at.field("transport_socket"), cluster.transport_socket.as_ref(), make_tap, upstream_tls)?,
            connect_timeout,
        })
    }
}

/// The only item of a list. Envoy allows many here, but `record` needs exactly one.
fn only<'a, T>(at: &ConfigPath, items: &'a [T]) -> Result<&'a T, ConfigError> {
    match items {
        [item] => Ok(item),
        items => Err(at.refuse(format!("record needs exactly one, not {}", items.len()))),
    }
}

fn unpack<M: Message + Default>(at: &ConfigPath, any: &Any, name: &str) -> Result<Option<M>, ConfigError> {
    if type_name(&any.type_url) != Some(name) {
        return Ok(None);
    }
    M::decode(any.value.as_slice()).map(Some).map_err(|error| at.refuse(error.to_string()))
}

fn endpoint(at: &ConfigPath, address: Option<&Address>) -> Result<Endpoint, ConfigError> {
    match address.and_then(|address| address.address.as_ref()) {
        None => Err(at.refuse("missing")),
        Some(Kind::SocketAddress(address)) => tcp_endpoint(&at.field("socket_address"), address),
        Some(Kind::Pipe(pipe)) => {
            let at = at.field("pipe");
            if pipe.path.is_empty() {
                return Err(at.field("path").refuse("missing"));
            }
            if pipe.mode != 0 {
                return Err(at.field("mode").refuse("not supported by record"));
            }
            Ok(Endpoint::Unix(pipe.path.clone()))
        }
        Some(Kind::EnvoyInternalAddress(_)) => {
            Err(at.field("envoy_internal_address").refuse("not supported by record: it exists only inside Envoy"))
        }
    }
}

fn tcp_endpoint(at: &ConfigPath, address: &SocketAddress) -> Result<Endpoint, ConfigError> {
    let unsupported = |field: &str| Err(at.field(field).refuse("not supported by record"));
    if address.protocol != Protocol::Tcp as i32 {
        return Err(at.field("protocol").refuse("only TCP is supported by record"));
    }
    if !address.resolver_name.is_empty() {
        return unsupported("resolver_name");
    }
    if address.ipv4_compat {
        return unsupported("ipv4_compat");
    }
    if !address.network_namespace_filepath.is_empty() {
        return unsupported("network_namespace_filepath");
    }
    let ip: IpAddr = address.address.parse().map_err(|_| {
        at.field("address").refuse(format!("{:?} is not an IP address; record does not resolve names", address.address))
    })?;
    let port = match &address.port_specifier {
        None => return Err(at.field("port_value").refuse("missing")),
        Some(PortSpecifier::NamedPort(_)) => return unsupported("named_port"),
        Some(PortSpecifier::PortValue(port)) => u16::try_from(*port)
            .map_err(|_| at.field("port_value").refuse(format!("{port} is not a port: the highest is 65535")))?,
    };
    Ok(Endpoint::Tcp((ip, port).into()))
}

/// What a `transport_socket` configures.
struct TappedSocket<T> {
    tls: Option<T>,
    taps: Vec<Tap>,
}

/// Reads a TLS context of the right side. `None` if the message is something else.
type ReadTls<T> = fn(&ConfigPath, &Any) -> Result<Option<T>, ConfigError>;

fn socket<T>(
    at: &ConfigPath,
    socket: Option<&TransportSocket>,
    make_tap: MakeTap<'_>,
    read_tls: ReadTls<T>,
) -> Result<TappedSocket<T>, ConfigError> {
    let tap = match socket.and_then(|socket| socket.config_type.as_ref()) {
        Some(transport_socket::ConfigType::TypedConfig(any)) => {
            unpack::<TapSocket>(at, any, "envoy.extensions.transport_sockets.tap.v3.Tap")?
        }
        None => None,
    };
    match tap {
        None => Ok(TappedSocket { tls: bare_socket(at, socket, read_tls)?, taps: Vec::new() }),
        Some(tap) => {
            let at = at.field("typed_config");
            let at_inner = at.field("transport_socket");
            let inner = tap.transport_socket.as_ref().ok_or_else(|| at_inner.refuse("missing"))?;
            let (settings, sink) = tap_settings(&at, &tap)?;
            let tls = bare_socket(&at_inner, Some(inner), read_tls)?;
            Ok(TappedSocket { tls, taps: vec![make_tap(settings, sink)] })
        }
    }
}

/// Reads a socket without a tap around it: raw or TLS.
fn bare_socket<T>(
    at: &ConfigPath,
    socket: Option<&TransportSocket>,
    read_tls: ReadTls<T>,
) -> Result<Option<T>, ConfigError> {
    let Some(socket) = socket else { return Ok(None) };
    match &socket.config_type {
        None if socket.name == "envoy.transport_sockets.raw_buffer" => Ok(None),
        None => Err(at.field("typed_config").refuse("missing")),
        Some(transport_socket::ConfigType::TypedConfig(any)) => {
            let name = type_name(&any.type_url).unwrap_or_default();
            match name {
                "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => Ok(None),
                "envoy.extensions.transport_sockets.tap.v3.Tap" => Err(at.refuse("a tap around a tap")),
                _ => match read_tls(at, any)? {
                    Some(tls) => Ok(Some(tls)),
                    None => Err(at.refuse(format!("{name} has no place here"))),
                },
            }
        }
    }
}

fn tap_settings(at: &ConfigPath, tap: &TapSocket) -> Result<(TapSettings, FilePerTap), ConfigError> {
    let at = at.field("common_config").field("static_config");
    let config = tap.common_config.as_ref().and_then(|config| config.config_type.as_ref());
    let Some(common_extension_config::ConfigType::StaticConfig(config)) = config else {
        return Err(at.refuse("missing"));
    };
    let matches_any = [
        config.r#match.as_ref().map(|rules| rules.rule == Some(matcher::v3::match_predicate::Rule::AnyMatch(true))),
        config.match_config.as_ref().map(|rules| rules.rule == Some(tap_config::match_predicate::Rule::AnyMatch(true))),
    ];
    match matches_any {
        [Some(_), Some(_)] => return Err(at.refuse("both match and match_config")),
        [None, None] => return Err(at.field("match").refuse("missing; record knows any_match: true")),
        [Some(false), _] => return Err(at.field("match").refuse("record knows only any_match: true")),
        [_, Some(false)] => return Err(at.field("match_config").refuse("record knows only any_match: true")),
        [Some(true), None] | [None, Some(true)] => {}
    }
    let at = at.field("output_config");
    let output = config.output_config.as_ref().ok_or_else(|| at.refuse("missing"))?;
    let sink = sink(&at, output)?;
    let socket_config = tap.socket_tap_config.unwrap_or_default();
    let settings = TapSettings {
        streaming: output.streaming,
        max_buffered_rx_bytes: output.max_buffered_rx_bytes.unwrap_or(TapSettings::DEFAULT_MAX_BUFFERED_BYTES),
        max_buffered_tx_bytes: output.max_buffered_tx_bytes.unwrap_or(TapSettings::DEFAULT_MAX_BUFFERED_BYTES),
        min_streamed_sent_bytes: output.min_streamed_sent_bytes,
        set_connection_per_event: socket_config.set_connection_per_event,
        record_bare_half_close: false,
    };
    Ok((settings, sink))
}

fn sink(at: &ConfigPath, output: &OutputConfig) -> Result<FilePerTap, ConfigError> {
    let at_sinks = at.field("sinks");
    let sink = only(&at_sinks, &output.sinks)?;
    let at = at_sinks.item(0);
    let Some(OutputSinkType::FilePerTap(file)) = &sink.output_sink_type else {
        return Err(at.field("file_per_tap").refuse("missing"));
    };
    let at_prefix = at.field("file_per_tap").field("path_prefix");
    if file.path_prefix.is_empty() {
        return Err(at_prefix.refuse("missing"));
    }
    let format = usize::try_from(sink.format).ok().and_then(|number| TraceFormat::ALL.get(number).copied());
    let format = format.ok_or_else(|| at.field("format").refuse(format!("there is no format {}", sink.format)))?;
    Ok(FilePerTap::new(&file.path_prefix, format))
}

fn downstream_tls(at: &ConfigPath, any: &Any) -> Result<Option<TlsServer>, ConfigError> {
    let name = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    let Some(context) = unpack::<DownstreamTlsContext>(at, any, name)? else { return Ok(None) };
    let at = at.field("typed_config").field("common_tls_context");
    let common = context.common_tls_context.unwrap_or_default();
    if common.validation_context_type.is_some() {
        return Err(at.field("validation_context").refuse("record asks no client for a certificate"));
    }
    let at_certificates = at.field("tls_certificates");
    let certificate = only(&at_certificates, &common.tls_certificates)?;
    let identity = identity(&at_certificates.item(0), certificate)?;
    TlsServer::new(identity, &common.alpn_protocols).map(Some).map_err(|error| tls_refusal(&at, &error))
}

fn upstream_tls(at: &ConfigPath, any: &Any) -> Result<Option<TlsClient>, ConfigError> {
    let name = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    let Some(UpstreamTlsContext { common_tls_context, sni }) = unpack(at, any, name)? else { return Ok(None) };
    let at = at.field("typed_config");
    let at_common = at.field("common_tls_context");
    let CommonTlsContext { tls_certificates, validation_context_type, alpn_protocols } =
        common_tls_context.unwrap_or_default();
    let at_certificates = at_common.field("tls_certificates");
    let identity = match tls_certificates.as_slice() {
        [] => None,
        certificates => Some(identity(&at_certificates.item(0), only(&at_certificates, certificates)?)?),
    };
    let at_trusted = at_common.field("validation_context").field("trusted_ca");
    let trusted = match validation_context_type {
        None => None,
        Some(ValidationContextType::ValidationContext(validation)) => {
            validation.trusted_ca.as_ref().map(|trusted| data(&at_trusted, trusted)).transpose()?
        }
    };
    let client = TlsClient::new(&sni, trusted.as_deref(), identity, &alpn_protocols);
    client.map(Some).map_err(|error| match &error {
        TlsError::ServerName(..) => tls_refusal(&at.field("sni"), &error),
        TlsError::Trusted(_) | TlsError::Verifier(_) => tls_refusal(&at_trusted, &error),
        _ => tls_refusal(&at_common, &error),
    })
}

fn identity(at: &ConfigPath, certificate: &TlsCertificate) -> Result<TlsIdentity, ConfigError> {
    let part = |name: &str, source: &Option<DataSource>| {
        let at = at.field(name);
        let source = source.as_ref().ok_or_else(|| at.refuse("missing"))?;
        data(&at, source)
    };
    let chain = part("certificate_chain", &certificate.certificate_chain)?;
    let key = part("private_key", &certificate.private_key)?;
    TlsIdentity::from_pem(&chain, &key).map_err(|error| {
        let name = if matches!(error, TlsError::Key(_)) { "private_key" } else { "certificate_chain" };
        tls_refusal(&at.field(name), &error)
    })
}

fn data(at: &ConfigPath, source: &DataSource) -> Result<Vec<u8>, ConfigError> {
    match &source.specifier {
        None => Err(at.refuse("needs filename, inline_string or inline_bytes")),
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes.clone()),
        Some(Specifier::InlineString(text)) => Ok(text.clone().into_bytes()),
        Some(Specifier::Filename(path)) => {
            fs::read(Path::new(path)).map_err(|error| at.field("filename").refuse(format!("{path}: {error}")))
        }
    }
}

fn tls_refusal(at: &ConfigPath, error: &TlsError) -> ConfigError {
    use std::error::Error;
    match error.source() {
        Some(cause) => at.refuse(format!("{error}: {cause}")),
        None => at.refuse(error.to_string()),
    }
}
