//! Protocols beyond HTTP: named, and dissected with the printed options on a port that Wireshark knows nothing of.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tap2pcap::proto::tap::{Connection, TraceWrapper, socket_streamed_trace_segment::MessagePiece, trace_wrapper};

use crate::{
    batch::{cut, numbered},
    fixture::{Dress, TIME, buffered, closed, read, socket, streamed, write},
    info::{info, shell, text},
    util::{Dir, ROOT, Run, convert, on_all_cores, tap2pcap},
};

/// No dissector of Wireshark has this port.
const PORT: u32 = 7777;

/// A payload of the client or of the server.
#[derive(Clone, Debug)]
enum Says {
    Client(Vec<u8>),
    Server(Vec<u8>),
}

use Says::{Client, Server};

fn client(bytes: impl AsRef<[u8]>) -> Says {
    Client(bytes.as_ref().to_vec())
}

fn server(bytes: impl AsRef<[u8]>) -> Says {
    Server(bytes.as_ref().to_vec())
}

fn trace(trace_id: u64, port: u32, says: &[Says]) -> Vec<TraceWrapper> {
    let connection = Connection {
        local_address: socket("10.0.0.1", port),
        remote_address: socket("192.0.2.7", 40_000 + trace_id as u32),
    };
    let events = says.iter().enumerate().map(|(index, says)| match says {
        Client(bytes) => read(TIME + index as u64, bytes),
        Server(bytes) => write(TIME + index as u64, bytes),
    });
    let end = closed(TIME + says.len() as u64);
    streamed(trace_id, connection, numbered(events.chain([end]).collect()))
}

/// Bytes with their length before them, in `N` bytes, the most significant first.
fn sized<const N: usize>(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&(bytes.len() as u64).to_be_bytes()[8 - N..], bytes].concat()
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A conversation as the protocol's documentation has it, and what tshark must show of it.
struct Talk {
    /// The name that `info` has.
    name: &'static str,
    says: Vec<Says>,
    /// The dissector of the option, if one is needed.
    option: Option<&'static str>,
    /// A display filter of tshark, and how many packets it matches.
    filter: &'static str,
    packets: usize,
    in_tls: bool,
}

fn talk(name: &'static str, option: &'static str, filter: &'static str, packets: usize, says: Vec<Says>) -> Talk {
    let option = Some(option).filter(|option| !option.is_empty());
    Talk { name, says, option, filter, packets, in_tls: false }
}

fn in_tls(talk: Talk) -> Talk {
    Talk { in_tls: true, ..talk }
}

/// A message of PostgreSQL's startup, which has no type, but its own length.
fn postgres(message: &[u8]) -> Vec<u8> {
    joined(&[&(message.len() as u32 + 4).to_be_bytes(), message])
}

fn mysql(number: u8, payload: &[u8]) -> Vec<u8> {
    joined(&[&(payload.len() as u32).to_le_bytes()[..3], &[number], payload])
}

fn mysql_greeting() -> Vec<u8> {
    let payload = [
        b"\x0a8.0.36\0".as_slice(),
        b"\x08\0\0\0abcdefgh\0\xff\xff\xff\x02\0\xff\xdf\x15",
        &[0; 10],
        b"ijklmnopqrst\0mysql_native_password\0",
    ];
    mysql(0, &payload.concat())
}

fn mysql_login() -> Vec<u8> {
    let payload = [
        b"\x8d\xa6\x0f\0\0\0\0\x01\xff".as_slice(),
        &[0; 23],
        b"app\0\x14",
        &[b'x'; 20],
        b"shop\0mysql_native_password\0",
    ];
    mysql(1, &payload.concat())
}

fn mysql_ssl_request() -> Vec<u8> {
    mysql(1, &joined(&[b"\x8d\xae\x0f\0\0\0\0\x01\xff", &[0; 23]]))
}

/// OP_MSG with one document.
fn mongodb(request: u32, answered: u32, elements: &[u8]) -> Vec<u8> {
    let document = joined(&[&(elements.len() as u32 + 5).to_le_bytes(), elements, b"\0"]);
    let numbers = [document.len() as u32 + 21, request, answered, 2013, 0].map(u32::to_le_bytes).concat();
    joined(&[&numbers, b"\0", &document])
}

fn thrift(kind: u8, name: &str) -> Vec<u8> {
    joined(&[&[0x80, 1, 0, kind], &sized::<4>(name), &1_u32.to_be_bytes(), &[0]])
}

fn thrift_compact(kind: u8, name: &str) -> Vec<u8> {
    joined(&[&[0x82, kind << 5 | 1, 1], &sized::<1>(name), &[0]])
}

fn amqp(method: &[u8]) -> Vec<u8> {
    joined(&[b"\x01\0\0", &sized::<4>(method), b"\xce"])
}

fn memcached(magic: u8, key: &str, extras: &[u8], value: &str) -> Vec<u8> {
    let body = joined(&[extras, key.as_bytes(), value.as_bytes()]);
    let key = key.len() as u16;
    let rest = joined(&[&(body.len() as u32).to_be_bytes(), &7_u32.to_be_bytes(), &[0; 8]]);
    joined(&[&[magic, 0], &key.to_be_bytes(), &[extras.len() as u8, 0, 0, 0], &rest, &body])
}

/// What rustls says first, as a client of `db.example` that offers HTTP/2 and HTTP/1.1.
pub fn client_hello() -> Vec<u8> {
    use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring};
    let config =
        ClientConfig::builder_with_provider(ring::default_provider().into()).with_safe_default_protocol_versions();
    let mut config = config.unwrap().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut connection = ClientConnection::new(config.into(), "db.example".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

/// A ServerHello of TLS 1.3: version, random, no session, a cipher suite, no compression, the version as an extension.
fn server_hello() -> Vec<u8> {
    let body = [b"\x03\x03".as_slice(), &[7; 32], b"\0\x13\x01\0", &sized::<2>(b"\0\x2b\0\x02\x03\x04")].concat();
    joined(&[b"\x16\x03\x03", &sized::<2>(joined(&[b"\x02", &sized::<3>(body)]))])
}

fn smtp_greeting() -> [Says; 3] {
    [
        server("220 mail.example ESMTP Postfix\r\n"),
        client("EHLO client.example\r\n"),
        server("250-mail.example\r\n250 STARTTLS\r\n"),
    ]
}

fn talks() -> Vec<Talk> {
    let redis = vec![client("*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n"), server("$5\r\nvalue\r\n")];
    let startup = postgres(b"\0\x03\0\0user\0app\0database\0shop\0\0");
    let ssl_request = postgres(b"\x04\xd2\x16\x2f");
    let ready = b"Z\0\0\0\x05I".as_slice();
    let connect = [b"\0\0\0\0".as_slice(), &[0; 8], &30_000_u32.to_be_bytes(), &[0; 8], &sized::<4>([0; 16]), b"\0"];
    let connected = [b"\0\0\0\0".as_slice(), &30_000_u32.to_be_bytes(), &[1; 8], &sized::<4>([7; 16]), b"\0"];
    let hello = || client(client_hello());
    let answer = || server(server_hello());
    vec![
        talk("redis", "resp", "resp", 2, redis),
        talk(
            "postgres",
            "pgsql",
            "pgsql",
            4,
            vec![
                client(&startup),
                server(joined(&[b"R\0\0\0\x08\0\0\0\0", ready])),
                client(b"Q\0\0\0\x0dSELECT 1\0"),
                server(joined(&[b"C\0\0\0\x0dSELECT 1\0", ready])),
            ],
        ),
        in_tls(talk(
            "postgres",
            "pgsql",
            "pgsql.type == \"SSL request\" or tls.handshake",
            3,
            vec![client(&ssl_request), server("S"), hello(), answer()],
        )),
        talk(
            "mysql",
            "mysql",
            "mysql",
            4,
            vec![
                server(mysql_greeting()),
                client(mysql_login()),
                server(mysql(2, b"\0\0\0\x02\0\0\0")),
                client(mysql(0, b"\x03SELECT 1")),
            ],
        ),
        in_tls(talk(
            "mysql",
            "mysql",
            "mysql or tls.handshake",
            4,
            vec![server(mysql_greeting()), client(mysql_ssl_request()), hello(), answer()],
        )),
        talk(
            "mongodb",
            "mongo",
            "mongo",
            2,
            vec![
                client(mongodb(1, 0, b"\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0")),
                server(mongodb(2, 1, b"\x10ok\0\x01\0\0\0")),
            ],
        ),
        talk(
            "kafka",
            "kafka",
            "kafka",
            3,
            vec![
                client(sized::<4>(b"\0\x12\0\0\0\0\0\x01\0\x07rdkafka")),
                server(sized::<4>(b"\0\0\0\x01\0\0\0\0\0\x01\0\x12\0\0\0\x03")),
                client(sized::<4>(b"\0\x03\0\x01\0\0\0\x02\0\x07rdkafka\0\0\0\0")),
            ],
        ),
        talk(
            "memcached",
            "memcache",
            "memcache",
            2,
            vec![client("get key\r\n"), server("VALUE key 0 5\r\nvalue\r\nEND\r\n")],
        ),
        talk(
            "memcached",
            "memcache",
            "memcache",
            2,
            vec![client(memcached(0x80, "key", b"", "")), server(memcached(0x81, "", &[0; 4], "value"))],
        ),
        talk(
            "mqtt",
            "mqtt",
            "mqtt",
            2,
            vec![client(b"\x10\x11\0\x04MQTT\x04\x02\0\x3c\0\x05tap-1"), server(b"\x20\x02\0\0")],
        ),
        talk(
            "amqp",
            "amqp",
            "amqp",
            2,
            vec![
                client(b"AMQP\0\0\x09\x01"),
                server(amqp(&joined(&[
                    b"\0\x0a\0\x0a\0\x09\0\0\0\0",
                    &sized::<4>("PLAIN AMQPLAIN"),
                    &sized::<4>("en_US"),
                ]))),
                client(amqp(&joined(&[
                    b"\0\x0a\0\x0b\0\0\0\0",
                    &sized::<1>("PLAIN"),
                    &sized::<4>("\0guest\0guest"),
                    &sized::<1>("en_US"),
                ]))),
            ],
        ),
        talk("amqp", "amqp", "amqp", 2, vec![client(b"AMQP\x03\x01\0\0"), server(b"AMQP\x03\x01\0\0")]),
        talk(
            "thrift",
            "",
            "thrift",
            2,
            vec![client(sized::<4>(thrift(1, "ping"))), server(sized::<4>(thrift(2, "ping")))],
        ),
        talk("thrift", "", "thrift", 2, vec![client(thrift(1, "ping")), server(thrift(2, "ping"))]),
        talk(
            "thrift",
            "",
            "thrift",
            2,
            vec![client(sized::<4>(thrift_compact(1, "ping"))), server(sized::<4>(thrift_compact(2, "ping")))],
        ),
        talk("tls", "", "tls.handshake", 2, vec![hello(), answer()]),
        talk(
            "ssh",
            "ssh",
            "ssh.protocol",
            2,
            vec![server("SSH-2.0-OpenSSH_9.6\r\n"), client("SSH-2.0-OpenSSH_9.7\r\n")],
        ),
        talk("smtp", "smtp", "smtp", 3, smtp_greeting().into()),
        in_tls(talk(
            "smtp",
            "smtp",
            "smtp or tls.handshake",
            7,
            [
                smtp_greeting().to_vec(),
                vec![client("STARTTLS\r\n"), server("220 2.0.0 Ready to start TLS\r\n"), hello(), answer()],
            ]
            .concat(),
        )),
        talk(
            "websocket",
            "",
            "http or websocket",
            3,
            vec![
                client(
                    "GET /chat HTTP/1.1\r\nhost: a.example\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
                ),
                server(
                    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                 sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
                ),
                server(b"\x81\x05hello"),
            ],
        ),
        // Wireshark has no dissector of these.
        talk(
            "dubbo",
            "",
            "tcp.len > 0",
            2,
            vec![
                client(joined(&[b"\xda\xbb\xc2\0\0\0\0\0\0\0\0\x01", &sized::<4>("\x052.0.2")])),
                server(joined(&[b"\xda\xbb\x02\x14\0\0\0\0\0\0\0\x01", &sized::<4>("N")])),
            ],
        ),
        talk(
            "zookeeper",
            "",
            "tcp.len > 0",
            2,
            vec![client(sized::<4>(connect.concat())), server(sized::<4>(connected.concat()))],
        ),
    ]
}

/// How many packets match, in the output of a command that has `-Y`.
fn count(run: &Run) -> usize {
    run.stdout_text().lines().count()
}

#[test]
fn protocols_are_named_and_the_printed_command_dissects_them_on_any_port() {
    let dir = Dir::new("protocol-names");
    let work = |(index, talk): &(usize, Talk)| {
        let what = format!("{} ({index})", talk.name);
        let path = dir.create(&format!("{index}.pb"), Dress::Binary.file(&trace(1, PORT, &talk.says)));
        let line = &info(&[&path])[0];
        assert_eq!((&line["protocol"], &line["role"]), (&json!(talk.name), &json!("downstream")), "{what}");
        let is_tls = talk.in_tls || talk.name == "tls";
        let tls = json!({ "server_name": "db.example", "alpn": ["h2", "http/1.1"] });
        assert_eq!(line.get("tls"), Some(&tls).filter(|_| is_tls), "{what}");
        let text = text(&path);
        let then = if talk.in_tls { ", goes on in TLS" } else { "" };
        assert!(text.lines().next().unwrap().contains(&format!(", downstream, {}{then}, closed", talk.name)), "{text}");
        assert_eq!(text.contains("\n  TLS to db.example, ALPN h2, http/1.1\n"), is_tls, "{text}");

        // The option, and only where it is needed.
        let command = line["open"].as_str().unwrap();
        let option = talk.option.map_or(String::new(), |option| format!(" -d tcp.port=={PORT},{option}"));
        assert!(command.ends_with(&format!("tshark -r -{option}")), "{what}: {command}");
        let shown = shell(&format!("{command} -Y '{}'", talk.filter));
        assert_eq!(count(&shown), talk.packets, "{what}: {shown:?}");
        let faults = shell(&format!("{command} -Y '_ws.malformed or _ws.expert.severity == error'"));
        assert_eq!(count(&faults), 0, "{what}: {faults:?}");
        if talk.option.is_some() {
            let bare = command.split(" -d ").next().unwrap();
            let shown = shell(&format!("{bare} -Y '{}'", talk.filter));
            assert!(count(&shown) < talk.packets, "{what} needs no option: {shown:?}");
        }
    };
    let talks: Vec<_> = talks().into_iter().enumerate().collect();
    on_all_cores(&talks, work);
}

/// A conversion prints one command for all of them, and all are dissected at once.
#[test]
fn one_command_dissects_many_protocols_on_ports_of_their_own() {
    let dir = Dir::new("protocol-mix");
    let traces = dir.fresh();
    let talks: Vec<_> = talks().into_iter().filter(|talk| talk.option.is_some() && !talk.in_tls).collect();
    for (index, talk) in talks.iter().enumerate() {
        let messages = trace(index as u64 + 1, 17_000 + index as u32, &talk.says);
        fs::write(traces.join(format!("{index}.pb")), Dress::Binary.file(&messages)).unwrap();
    }
    let capture = dir.join("all.pcapng");
    let run = convert(&[], &traces, &capture).run().expect_status(0);
    let command = run.stderr.lines().last().unwrap().strip_prefix("note: to see it dissected: ").unwrap();
    for (index, talk) in talks.iter().enumerate() {
        let port = 17_000 + index;
        let shown = shell(&format!("{command} -Y 'tcp.port == {port} and ({})'", talk.filter));
        assert_eq!(count(&shown), talk.packets, "{}: {shown:?}", talk.name);
    }
    let table = tap2pcap().arg("info").arg(&traces).run().expect_clean();
    let protocols =
        "protocols: amqp 2, kafka 1, memcached 2, mongodb 1, mqtt 1, mysql 1, postgres 1, redis 1, smtp 1, ssh 1";
    assert!(table.stdout_text().contains(protocols), "{table:?}");
}

/// On its own port, a protocol needs no option; on another protocol's, what Wireshark tells by bytes needs one too.
#[test]
fn an_option_is_given_where_wireshark_needs_it_and_nowhere_else() {
    let dir = Dir::new("protocol-ports");
    let cases = [
        ("resp", 6379, false),
        ("pgsql", 5432, false),
        ("mysql", 3306, false),
        ("kafka", 9092, false),
        ("memcache", 11_211, false),
        ("mqtt", 1883, false),
        ("amqp", 5672, false),
        ("ssh", 22, false),
        ("smtp", 25, false),
        // Wireshark 4.0 takes this for MongoDB over TLS.
        ("mongo", 27_017, true),
        ("kafka", 6379, true),
        ("thrift", 9092, true),
        ("tls", 9092, true),
        ("tls", 443, false),
        ("tls", 27_017, false),
        ("thrift", 9090, false),
    ];
    let work = |(dissector, port, needed): &(&str, u32, bool)| {
        let is_it = |talk: &Talk| !talk.in_tls && talk.option.unwrap_or(talk.name) == *dissector;
        let talk = talks().into_iter().find(is_it).unwrap();
        let messages = trace(1, *port, &talk.says);
        let path = dir.create(&format!("{dissector}-{port}.pb"), Dress::Binary.file(&messages));
        let line = &info(&[&path])[0];
        assert_eq!(line["protocol"], talk.name);
        let command = line["open"].as_str().unwrap();
        let option = format!(" -d tcp.port=={port},{dissector}");
        assert_eq!(command.contains(" -d "), *needed, "{command}");
        assert!(!needed || command.ends_with(&option), "{command}");
        let shown = shell(&format!("{command} -Y '{}'", talk.filter));
        assert_eq!(count(&shown), talk.packets, "{dissector} on {port}: {shown:?}");
        if *needed {
            let shown = shell(&format!("{} -Y '{}'", command.strip_suffix(&option).unwrap(), talk.filter));
            assert!(count(&shown) < talk.packets, "{dissector} on {port} needs no option: {shown:?}");
        }
    };
    on_all_cores(&cases, work);
}

#[test]
fn a_proxy_header_is_passed_over_and_shown() {
    let dir = Dir::new("proxy-header");
    let line = b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 443\r\n".as_slice();
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\x0a\0\0\x01\x15\xb3\x01\xbb".as_slice();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".as_slice();
    let http = || vec![client("GET / HTTP/1.1\r\nhost: a\r\n\r\n"), server("HTTP/1.1 204 No Content\r\n\r\n")];
    let tls = || vec![client(client_hello()), server(server_hello())];
    let redis = || vec![client("*1\r\n$4\r\nPING\r\n"), server("+PONG\r\n")];
    let kafka = || vec![client(sized::<4>(b"\0\x12\0\0\0\0\0\x01\0\x07rdkafka"))];
    // The header, the protocol after it, the option, and what tshark shows then.
    let cases = [
        (line, http(), "http1", "", "proxy", 1),
        (line, http(), "http1", "", "http", 2),
        (binary, tls(), "tls", "", "proxy", 1),
        (binary, tls(), "tls", "", "tls.handshake", 2),
        (local, tls(), "tls", "", "tls.handshake", 2),
        // An option keeps Wireshark from the header, but its dissector shows what comes next.
        (line, redis(), "redis", "resp", "resp.string or resp.bulk_string", 2),
        (line, kafka(), "kafka", "", "proxy", 1),
    ];
    for (header, says, protocol, option, filter, packets) in cases {
        let path = dir.create("trace.pb", Dress::Binary.file(&trace(1, PORT, &[vec![client(header)], says].concat())));
        let info = &info(&[&path])[0];
        assert_eq!(info["protocol"], protocol);
        let version = if header == line { 1 } else { 2 };
        let (source, destination, words) = if header == local {
            (Value::Null, Value::Null, "names no client".to_owned())
        } else {
            let end = |address: &str, port: u16| json!({ "address": address, "port": port });
            (end("203.0.113.9", 5555), end("10.0.0.1", 443), "names the client 203.0.113.9:5555".to_owned())
        };
        let expected = json!({ "version": version, "source": source, "destination": destination });
        assert_eq!(info["proxy"], expected, "{protocol}");
        let text = text(&path);
        assert!(text.contains(&format!("\n  a PROXY header (version {version}) {words}\n")), "{text}");
        let command = info["open"].as_str().unwrap();
        assert_eq!(command.rsplit_once(',').map_or("", |(_, name)| name), option, "{command}");
        let shown = shell(&format!("{command} -Y '{filter}'"));
        assert_eq!(count(&shown), packets, "{protocol}: {shown:?}");
    }
    // Without a header, there is nothing about one.
    let path = dir.create("trace.pb", Dress::Binary.file(&trace(1, PORT, &http())));
    assert_eq!((info(&[&path])[0].get("proxy"), text(&path).contains("PROXY")), (None, false));
}

#[test]
fn what_a_client_hello_says_is_escaped() {
    let dir = Dir::new("hello-escaped");
    let name = b"evil\x1b[31m\n.example";
    let names = sized::<2>(joined(&[b"\0", &sized::<2>(name)]));
    let alpn = sized::<2>(sized::<1>(b"h2\x07"));
    let extensions = joined(&[b"\0\0", &sized::<2>(names), b"\0\x10", &sized::<2>(alpn)]);
    let body = joined(&[b"\x03\x03", &[7; 32], b"\0\0\x02\x13\x01\x01\0", &sized::<2>(extensions)]);
    let hello = joined(&[b"\x16\x03\x01", &sized::<2>(joined(&[b"\x01", &sized::<3>(body)]))]);
    let path = dir.create("trace.pb", Dress::Binary.file(&trace(1, PORT, &[client(&hello)])));
    assert_eq!(info(&[&path])[0]["tls"]["server_name"].as_str().unwrap().as_bytes(), name);
    let text = text(&path);
    assert!(text.contains("\n  TLS to evil\\u{1b}[31m\\u{a}.example, ALPN h2\\u{7}\n"), "{text}");
    dir.create("other.pb", Dress::Binary.file(&trace(2, PORT, &[client(&hello)])));
    let table = tap2pcap().arg("info").arg(dir.path()).run().expect_clean();
    assert!(table.stdout_text().contains(" tls evil\\u{1b}[31m\\u{a}.example "), "{table:?}");
}

/// Envoy keeps the first bytes of what it reads at once. What comes after missing bytes is not read as if it followed.
#[test]
fn a_client_hello_that_was_cut_is_read_as_far_as_it_goes() {
    let dir = Dir::new("hello-cut");
    let names = sized::<2>(joined(&[b"\0", &sized::<2>("db.example")]));
    let extensions = joined(&[b"\0\0", &sized::<2>(names), b"\0\x15", &sized::<2>([0; 900])]);
    let body = joined(&[b"\x03\x03", &[7; 32], b"\0\0\x02\x13\x01\x01\0", &sized::<2>(extensions)]);
    let hello = joined(&[b"\x16\x03\x01", &sized::<2>(joined(&[b"\x01", &sized::<3>(body)]))]);
    let says = [client(&hello), client([0x41; 600])];
    let mut messages = trace(1, PORT, &says);
    let Some(trace_wrapper::Trace::SocketStreamedTraceSegment(segment)) = &mut messages[1].trace else { panic!() };
    let Some(MessagePiece::Event(event)) = &mut segment.message_piece else { panic!() };
    *event = cut(event.clone(), 500);
    let path = dir.create("trace.pb", Dress::Binary.file(&messages));
    let text = text(&path);
    assert!(text.contains("\n  TLS to db.example, ALPN not in the trace\n"), "{text}");
    assert_eq!(info(&[&path])[0]["tls"], json!({ "server_name": "db.example", "alpn": [], "cut": true }));
}

/// Neither ports nor the order of events say who opened these connections, but the first bytes of both directions do. A
/// buffered trace has both at once.
#[test]
fn what_a_protocol_says_first_tells_who_is_the_client() {
    let dir = Dir::new("protocol-roles");
    for (index, talk) in talks().into_iter().enumerate() {
        // Both sides of SSH and of AMQP 1.0 begin alike.
        if talk.name == "ssh" || matches!(talk.says.as_slice(), [Client(a), Server(b)] if a == b) {
            continue;
        }
        for upstream in [false, true] {
            let connection =
                Connection { local_address: socket("10.0.0.1", 8080), remote_address: socket("192.0.2.7", 8081) };
            let mut says = talk.says.clone();
            // The event that comes first is the server's.
            says.sort_by_key(|says| matches!(says, Client(_)));
            let events = says.iter().enumerate().map(|(index, says)| match (says, upstream) {
                (Client(bytes), false) | (Server(bytes), true) => read(TIME + index as u64, bytes),
                (Server(bytes), false) | (Client(bytes), true) => write(TIME + index as u64, bytes),
            });
            let messages = [buffered(1, connection, numbered(events.collect()))];
            let path = dir.create("trace.pb", Dress::Binary.file(&messages));
            let role = if upstream { "upstream" } else { "downstream" };
            let run = tap2pcap().args(&["info", "--json"]).arg(&path).run().expect_status(0);
            let line: Value = serde_json::from_str(run.stdout_text()).unwrap();
            assert_eq!((&line["protocol"], &line["role"]), (&json!(talk.name), &json!(role)), "{index}");
        }
    }
}

/// What tshark would take for something else must not get a name, and no option.
#[test]
fn what_is_not_recognised_is_unknown_and_has_no_option() {
    let dir = Dir::new("protocol-unknown");
    let cases: [(&[u8], &[u8]); 6] = [
        (b"", b""),
        (b"hello\r\n", b"who is there?\r\n"),
        (b"\x93\x11\x8a\xfe\x00\x01\x7f", b"\x00\x00\x00\x09\xff\xff\xff\xff"),
        (b"*2\r\n$3\r\nGET\r\n", b"HELLO\r\n"),
        (b"\0\0\0\x11\0\x12\0\0\0\0\0\x01\0\x07rdkafka", b"\0\0\0\x0a\0\0\0\x02\0\0\0\0\0\0"),
        (b"get key\r\n", b"what?\r\n"),
    ];
    for (question, answer) in cases {
        let path = dir.create("trace.pb", Dress::Binary.file(&trace(1, PORT, &[client(question), server(answer)])));
        let line = &info(&[&path])[0];
        assert_eq!(line["protocol"], "unknown", "{}", question.escape_ascii());
        assert!(!line["open"].as_str().unwrap().contains(" -d "), "{line}");
    }
}

/// The attribute has the same names, and so has the documentation.
#[test]
fn the_attribute_connection_protocol_has_these_names() {
    let dir = Dir::new("protocol-attribute");
    let traces = dir.fresh();
    let mut names = Vec::new();
    for (index, talk) in talks().into_iter().enumerate() {
        let messages = trace(index as u64 + 1, PORT, &talk.says);
        fs::write(traces.join(format!("{index}.pb")), Dress::Binary.file(&messages)).unwrap();
        names.push(talk.name);
    }
    names.dedup();
    let documentation = fs::read_to_string(Path::new(ROOT).join("docs/protocols.md")).unwrap();
    for name in names {
        assert!(documentation.contains(&format!("\n| `{name}` | ")), "{name} is not documented");
        let filter = format!("connection.protocol == '{name}'");
        let run = tap2pcap().args(&["info", "--json", "--where", &filter]).arg(&traces).run().expect_clean();
        let shown: Vec<Value> = run.stdout_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = talks().iter().filter(|talk| talk.name == name).count();
        assert_eq!(shown.len(), expected, "{name}");
        assert!(shown.iter().all(|line| line["protocol"] == name), "{name}: {shown:?}");
    }
}
