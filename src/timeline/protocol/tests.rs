use super::{
    Direction::{self, Inbound, Outbound},
    *,
};

fn tell(payloads: &[(Direction, &[u8])]) -> Speech {
    let mut room = Room::default();
    let mut sniffer = Sniffer::default();
    payloads.iter().for_each(|(direction, payload)| sniffer.look(*direction, payload, &mut room));
    let speech = sniffer.finish(&mut room);
    assert_eq!(room.0, ROOM, "room was not given back");
    speech
}

fn sniff(inbound: &[&[u8]], outbound: &[&[u8]]) -> Protocol {
    let inbound = inbound.iter().map(|payload| (Inbound, *payload));
    let outbound = outbound.iter().map(|payload| (Outbound, *payload));
    tell(&inbound.chain(outbound).collect::<Vec<_>>()).protocol
}

#[test]
fn http_and_tls_are_told_by_their_first_bytes() {
    assert_eq!(sniff(&[b"GET / HTTP/1.1\r\n"], &[]), Protocol::Http1);
    assert_eq!(sniff(&[], &[b"HTTP/1.1 200 OK\r\n"]), Protocol::Http1);
    // Others have some of its methods.
    assert_eq!(sniff(&[b"OPTIONS rtsp://x/ RTSP/1.0\r\n"], &[b"RTSP/1.0 200 OK\r\n"]), Protocol::Unknown);
    assert_eq!(sniff(&[b"OPTIONS icap://x/ ICAP/1.0\r\n"], &[b"ICAP/1.0 200 OK\r\n"]), Protocol::Unknown);
    assert_eq!(sniff(&[b"CONNECT {\"verbose\":false}\r\n"], &[b"INFO {}\r\n"]), Protocol::Unknown);
    assert_eq!(sniff(&[b"PRI * HT", b"TP/2.0\r\n\r\nSM\r\n\r\n"], &[]), Protocol::Http2);
    assert_eq!(sniff(&[b"\x16\x03\x01\x02\x00\x01"], &[]), Protocol::Tls);
    assert_eq!(sniff(&[], &[]), Protocol::Unknown);
}

#[test]
fn grpc_is_told_by_its_content_type() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert_eq!(sniff(&[preface, &[&[0x5f, 0x8b], GRPC_HUFFMAN].concat()], &[]), Protocol::Grpc);
    assert_eq!(sniff(&[preface], &[b"application/grpc+proto"]), Protocol::Grpc);
    assert_eq!(sniff(&[b"application/grpc"], &[]), Protocol::Unknown);
    // The server said much before the preface came.
    let payloads =
        [(Outbound, &[0_u8; 500][..]), (Inbound, preface), (Outbound, b"xx"), (Outbound, b"application/grpc")];
    assert_eq!(tell(&payloads).protocol, Protocol::Grpc);
}

#[test]
fn a_preface_is_described() {
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let whole = [PREFACE, settings].concat();
    let preface = |payloads: &[(Direction, &[u8])]| tell(payloads).preface;
    assert_eq!(preface(&[(Inbound, &whole)]), Preface::default());
    assert!(preface(&[(Outbound, settings), (Inbound, &whole)]).server_first);
    assert!(preface(&[(Inbound, &whole[..10]), (Inbound, &whole[10..])]).in_pieces);
    assert!(preface(&[(Inbound, &whole[..30])]).ends_inside);
    // Neither a proxy's header nor a long payload changes that.
    let line = b"PROXY TCP4 192.0.2.7 10.0.0.1 5555 443\r\n".as_slice();
    let frames = [PREFACE, &settings.repeat(50), &settings[..5]].concat();
    let behind = [line, &frames].concat();
    for payloads in [&[(Inbound, frames.as_slice())][..], &[(Inbound, line), (Inbound, &frames)], &[(Inbound, &behind)]]
    {
        let preface = preface(payloads);
        assert_eq!(preface, Preface { ends_inside: true, ..Preface::default() }, "{payloads:?}");
    }
}

#[test]
fn web_socket_is_told_by_the_response_that_accepts_it() {
    let request = b"GET /chat HTTP/1.1\r\nupgrade: websocket\r\n\r\n".as_slice();
    let answer = |head: &str| sniff(&[request], &[head.as_bytes()]);
    let padding = "x-padding: 0123456789\r\n".repeat(20);
    assert_eq!(answer(&format!("HTTP/1.1 101 Yes\r\n{padding}Upgrade: WebSocket\r\n\r\n")), Protocol::WebSocket);
    assert_eq!(answer("HTTP/1.1 101 Yes\r\nupgrade: h2c\r\nx: websocket\r\n\r\n"), Protocol::Http1);
    assert_eq!(answer("HTTP/1.1 400 No\r\nupgrade: websocket\r\n\r\n"), Protocol::Http1);
    assert_eq!(
        answer(&format!("HTTP/1.1 101 Yes\r\n{}upgrade: websocket\r\n\r\n", padding.repeat(9))),
        Protocol::Http1
    );
}

/// What a client and a server of each protocol say first, where one of the two is enough.
fn openings() -> Vec<(Protocol, Vec<u8>, Vec<u8>)> {
    let mysql_login = [b"\x40\0\0\x01\x8d\xa6\x0f\0\0\0\0\x01\xff".as_slice(), &[0; 23], b"app\0\x14"].concat();
    let zookeeper =
        [b"\0\0\0\x2d\0\0\0\0".as_slice(), &[0; 8], b"\0\0\x75\x30", &[0; 8], b"\0\0\0\x10", &[0; 17]].concat();
    let answer = [b"\0\0\0\x25\0\0\0\0\0\0\x75\x30".as_slice(), &[1; 8], b"\0\0\0\x10", &[7; 17]].concat();
    let document = b"\x1e\0\0\0\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0".as_slice();
    let ping =
        |id: &[u8], to: &[u8]| [b"\x33\0\0\0".as_slice(), id, to, b"\xdd\x07\0\0", b"\0\0\0\0\0", document].concat();
    let memcached = |start: &[u8]| [start, &[0; 24 - 8], b"key"].concat();
    let of = |protocol, client: &[u8], server: &[u8]| (protocol, client.to_vec(), server.to_vec());
    vec![
        of(Protocol::Redis, b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"),
        of(Protocol::Postgres, b"\0\0\0\x12\0\x03\0\0user\0app\0\0", b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"),
        of(Protocol::MySql, &mysql_login, b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0abcdefgh\0\xff\xff"),
        of(Protocol::MongoDb, &ping(b"\x01\0\0\0", &[0; 4]), &ping(b"\x02\0\0\0", b"\x01\0\0\0")),
        of(Protocol::Kafka, b"\0\0\0\x11\0\x12\0\0\0\0\0\x01\0\x07rdkafka", b""),
        of(Protocol::Memcached, b"set key 0 0 5\r\nvalue\r\n", b"VALUE key 0 5\r\nvalue\r\nEND\r\n"),
        of(
            Protocol::Memcached,
            &memcached(b"\x80\0\0\x03\0\0\0\0\0\0\0\x03"),
            &memcached(b"\x81\0\0\0\0\0\0\0\0\0\0\0"),
        ),
        of(Protocol::Mqtt, b"\x10\x11\0\x04MQTT\x04\x02\0\x3c\0\x05tap-1", b""),
        of(Protocol::Amqp, b"AMQP\0\0\x09\x01", b"\x01\0\0\0\0\0\x2b\0\x0a\0\x0a\0\x09"),
        of(Protocol::Thrift, b"\0\0\0\x11\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x01\0", b"\x82\x41\x01\x04ping\0"),
        of(
            Protocol::Dubbo,
            b"\xda\xbb\xc2\0\0\0\0\0\0\0\0\x01\0\0\0\x06",
            b"\xda\xbb\x02\x14\0\0\0\0\0\0\0\x01\0\0\0\x01",
        ),
        of(Protocol::ZooKeeper, &zookeeper, &answer),
        of(Protocol::Ssh, b"SSH-2.0-OpenSSH_9.7\r\n", b"SSH-2.0-OpenSSH_9.6\r\n"),
        of(Protocol::Smtp, b"EHLO client.example\r\n", b"220 mail.example ESMTP\r\n"),
    ]
}

#[test]
fn one_side_is_enough_and_so_are_its_bytes_one_by_one() {
    for (protocol, client, server) in openings() {
        for (direction, side) in [(Inbound, &client), (Outbound, &client), (Inbound, &server), (Outbound, &server)] {
            if !side.is_empty() {
                assert_eq!(tell(&[(direction, side)]).protocol, protocol, "{}", side.escape_ascii());
                let bytes: Vec<_> = side.chunks(1).map(|byte| (direction, byte)).collect();
                assert_eq!(tell(&bytes).protocol, protocol, "{}", side.escape_ascii());
            }
        }
    }
}

#[test]
fn the_side_that_speaks_is_told() {
    for (protocol, client, server) in openings() {
        if matches!(protocol, Protocol::Ssh) {
            assert_eq!(Speaker::of(&client), None);
            continue;
        }
        assert_eq!(Speaker::of(&client), Some(Speaker::Client), "{}", client.escape_ascii());
        let expected = Some(Speaker::Server).filter(|_| !server.is_empty());
        assert_eq!(Speaker::of(&server), expected, "{}", server.escape_ascii());
    }
}

#[test]
fn a_side_that_does_not_fit_makes_a_protocol_unknown() {
    let noise: [&[u8]; 3] = [b"\x8a\x17\x93\xfe\x11\x02", b"hello, who is there?\n", b"\0\0\0\x05\xff\xff\xff\xff"];
    for (protocol, client, _) in openings() {
        for noise in noise {
            assert_eq!(sniff(&[&client], &[noise]), Protocol::Unknown, "{protocol:?} {}", noise.escape_ascii());
        }
    }
    // Answers to something else.
    let kafka = b"\0\0\0\x11\0\x12\0\0\0\0\0\x01\0\x07rdkafka";
    assert_eq!(sniff(&[kafka], &[b"\0\0\0\x0a\0\0\0\x01\0\0\0\0\0\0"]), Protocol::Kafka);
    assert_eq!(sniff(&[kafka], &[b"\0\0\0\x0a\0\0\0\x02\0\0\0\0\0\0"]), Protocol::Unknown);
    let thrift =
        |name: &[u8; 4], kind| [b"\x80\x01\0".as_slice(), &[kind], b"\0\0\0\x04", name, b"\0\0\0\x01\0"].concat();
    assert_eq!(sniff(&[&thrift(b"ping", 1)], &[&thrift(b"ping", 2)]), Protocol::Thrift);
    assert_eq!(sniff(&[&thrift(b"ping", 1)], &[&thrift(b"pong", 2)]), Protocol::Unknown);
}

#[test]
fn two_signs_that_are_weak_alone_tell_a_protocol_together() {
    let cases: [(Protocol, &[u8], &[u8]); 5] = [
        (Protocol::Memcached, b"get key\r\n", b"END\r\n"),
        (Protocol::ZooKeeper, b"ruok", b"imok"),
        (Protocol::Smtp, b"HELO client.example\r\n", b"220 mail.example ready\r\n"),
        // Redis takes a command as a line, too.
        (Protocol::Redis, b"get key\r\n", b"-NOAUTH Authentication required.\r\n"),
        (Protocol::MySql, b"", b"\x17\0\0\0\xff\x10\x04Too many connections"),
    ];
    for (protocol, client, server) in cases {
        assert_eq!(sniff(&[client], &[server]), protocol, "{}", server.escape_ascii());
        if !client.is_empty() {
            assert_eq!(sniff(&[client], &[]), Protocol::Unknown, "{}", client.escape_ascii());
        }
    }
    // FTP greets like SMTP.
    assert_eq!(sniff(&[b"USER anonymous\r\n"], &[b"220 ftp.example ready\r\n"]), Protocol::Unknown);
}

#[test]
fn near_misses_are_unknown() {
    let misses: [&[u8]; 30] = [
        b"SSH is a protocol\r\n",
        b"AMQP\x07\x07\x07\x07",
        b"\x10\x11\0\x04MQTX\x04\x02\0\x3c",
        b"\x10\x11\0\x04MQTT\x09\x02\0\x3c",
        b"\0\0\0\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x11",
        b"\x80\x01\0\x07\0\0\0\x04ping\0\0\0\x01\0",
        b"\x80\x01\0\x01\0\0\0\x04\x01\x02\x03\x04\0\0\0\x01\0",
        b"\x82\x21\x01\x04\x01\x02\x03\x04",
        b"\xda\xbb\0\0",
        b"\xda\xbb\xc0\0\0\0\0\0\0\0\0\x01\0\0\0\x06",
        b"\0\0\0\x08\x04\xd2\x16\x2e",
        b"\0\0\0\x12\0\x02\0\0user\0app\0\0",
        b"\0\0\0\x12\0\x03\0\0\x01\x02\x03\x04\0app\0\0",
        b"\0\0\0\x12\0\x03\0\0user\0appapp",
        b"R\0\0\0\x08\0\0\0\x44",
        b"Every so often, somebody begins with an E.",
        b"\x4a\0\0\0\x0anot a version\0",
        b"\x4a\0\0\0\x098.0.36\0\x08\0\0\0abcdefgh\0\xff\xff",
        b"\x20\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x33\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\xff\xff\xff\xff\0\x1e\0\0\0\x10hello\0",
        b"\x33\0\0\0\x01\0\0\0\0\0\0\0\xde\x07\0\0\0\0\0\0\0\x1e\0\0\0\x10hello\0",
        b"\0\0\0\x11\x01\x12\0\0\0\0\0\x01\0\x07rdkafka",
        b"\0\0\0\x11\0\x12\0\0\0\0\0\x01\0\x07\x01\x02\x03\x04\x05\x06\x07",
        b"\0\0\0\x11\0\x12\0\0\0\0\0\x01\x01\x07rdkafka",
        b"*1\r\n$4\r\n\x01\x02\x03\x04\r\n",
        b"*x\r\n$4\r\nPING\r\n",
        b"set the table for five\r\n",
        b"\x80\0\0\x03\x40\x09\0\0\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0key",
        b"220 is a number\r\n",
        b"\x16\x03\x01\xff\xff\x01\0\0",
    ];
    for miss in misses {
        for payloads in [[(Inbound, miss), (Outbound, b"")], [(Inbound, b""), (Outbound, miss)]] {
            assert_eq!(tell(&payloads).protocol, Protocol::Unknown, "{}", miss.escape_ascii());
        }
    }
}

/// Random bytes, and random letters and digits in lines.
#[test]
fn random_bytes_and_text_are_unknown() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    let mut told = Vec::new();
    for round in 0..100_000 {
        let mut bytes: [u8; 80] = std::array::from_fn(|_| next());
        if round % 2 == 0 {
            let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .:/\r\n";
            bytes = bytes.map(|byte| letters[usize::from(byte) % letters.len()]);
        }
        let speech = tell(&[(Inbound, &bytes[..40]), (Outbound, &bytes[40..])]);
        told.extend((speech.protocol != Protocol::Unknown).then_some((speech.protocol, bytes)));
    }
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn a_client_hello_is_read_in_pieces_and_after_another_protocol() {
    let hello = tls::tests::hello(b"db.example");
    let pieces = |bytes: &'static [u8]| bytes;
    let postgres = pieces(b"\0\0\0\x08\x04\xd2\x16\x2f");
    let gss = pieces(b"\0\0\0\x08\x04\xd2\x16\x30\0\0\0\x08\x04\xd2\x16\x2f");
    let mysql = [b"\x20\0\0\x01\x8d\xae\x0f\0\0\0\0\x01\xff".as_slice(), &[0; 23]].concat();
    let smtp = [b"EHLO client.example\r\n".as_slice(), &b"NOOP\r\n".repeat(20), b"starttls\r\n"].concat();
    let line = b"PROXY TCP4 192.0.2.7 10.0.0.1 5555 443\r\n".as_slice();
    for (protocol, before) in [
        (Protocol::Tls, &b""[..]),
        (Protocol::Postgres, postgres),
        (Protocol::Postgres, gss),
        (Protocol::MySql, &mysql),
        (Protocol::Smtp, &smtp),
    ] {
        for proxy in [&b""[..], line] {
            let bytes = [proxy, before, &hello, b"\x14\x03\x03\0\x01\x01"].concat();
            for size in [1, 7, 100, bytes.len()] {
                let payloads: Vec<_> = bytes.chunks(size).map(|piece| (Outbound, piece)).collect();
                let speech = tell(&payloads);
                let what = format!("{protocol:?} in pieces of {size}");
                assert_eq!((speech.protocol, speech.goes_on_in_tls), (protocol, protocol != Protocol::Tls), "{what}");
                assert_eq!(speech.hello.unwrap().server_name.as_deref(), Some("db.example"), "{what}");
                assert_eq!(speech.proxy.is_some(), !proxy.is_empty(), "{what}");
            }
        }
    }
    // The server refused, and the client went on in plain text.
    let refused = [postgres, b"\0\0\0\x12\0\x03\0\0user\0app\0\0"].concat();
    let speech = tell(&[(Inbound, &refused), (Outbound, b"NR\0\0\0\x08\0\0\0\0")]);
    assert_eq!((speech.protocol, speech.goes_on_in_tls, speech.hello), (Protocol::Postgres, false, None));
    // Only the server's side is in the trace.
    let speech = tell(&[(Inbound, postgres), (Outbound, b"S\x16\x03\x03\0\x05\x02\0\0\x01\0")]);
    assert_eq!((speech.protocol, speech.goes_on_in_tls), (Protocol::Postgres, true));
}

#[test]
fn a_proxy_header_is_passed_over_however_long_it_is() {
    let redis = b"*1\r\n$4\r\nPING\r\n".as_slice();
    let signature = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".as_slice();
    let ends = b"\xc0\0\x02\x07\x0a\0\0\x01\x15\xb3\x01\xbb".as_slice();
    let short = [signature, b"\0\x0c", ends].concat();
    let long = [signature, b"\x40\x0c", ends, &[3; 0x4000]].concat();
    let longest = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 91], b"\r\n"].concat();
    for header in [b"PROXY TCP4 192.0.2.7 10.0.0.1 5555 443\r\n".as_slice(), &short, &long, &longest] {
        let bytes = [header, redis].concat();
        for size in [1, 10, 50, bytes.len()] {
            let payloads: Vec<_> = bytes.chunks(size).map(|piece| (Inbound, piece)).collect();
            let speech = tell(&payloads);
            assert_eq!(speech.protocol, Protocol::Redis, "{} in pieces of {size}", header.escape_ascii());
            let source = speech.proxy.unwrap().source;
            assert_eq!(source, "192.0.2.7:5555".parse().ok().filter(|_| header != longest), "{size}");
        }
    }
}

#[test]
fn connections_share_a_bounded_room() {
    let hello = tls::tests::hello(b"db.example");
    let endless = [b"\x16\x03\x01\x3f\x00\x01\0\x3e\xfc".as_slice(), &[0; 15_000]].concat();
    let mut room = Room::default();
    let mut sniffers = vec![Sniffer::default(); 1000];
    for sniffer in &mut sniffers {
        sniffer.look(Inbound, &endless, &mut room);
    }
    let kept: usize = sniffers.iter().map(|sniffer| sniffer.heads().concat().len()).sum();
    assert!(kept <= ROOM + 1000 * HEAD, "{kept}");
    // There is no room for another one, until one of them ends.
    let look = |room: &mut Room| {
        let mut sniffer = Sniffer::default();
        sniffer.look(Inbound, &hello, room);
        sniffer.finish(room)
    };
    room.0 = room.0.min(100);
    assert_eq!((look(&mut room).protocol, look(&mut room).hello), (Protocol::Tls, None));
    sniffers.swap_remove(0).finish(&mut room);
    assert!(look(&mut room).hello.is_some());
}

/// Envoy keeps the first bytes of what it reads at once, 1 KiB by default, and a ClientHello may be longer.
#[test]
fn bytes_after_missing_ones_are_not_read_as_if_they_followed() {
    let hello = tls::tests::hello(b"db.example");
    let mut room = Room::default();
    let mut sniffer = Sniffer::default();
    let cut = hello.len() - 10;
    sniffer.look(Inbound, &hello[..cut], &mut room);
    sniffer.lose(Inbound);
    sniffer.look(Inbound, &[0x41; 100], &mut room);
    let read = sniffer.finish(&mut room).hello.unwrap();
    assert_eq!((read.server_name.as_deref(), read.alpn.len(), read.is_cut), (Some("db.example"), 0, true));
    // If nothing came before, what comes after is the first there is.
    let mut sniffer = Sniffer::default();
    sniffer.lose(Inbound);
    sniffer.look(Inbound, b"*1\r\n$4\r\nPING\r\n", &mut room);
    assert_eq!(sniffer.finish(&mut room).protocol, Protocol::Redis);
}
