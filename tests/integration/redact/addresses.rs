//! IP addresses and names, which stay without their options.

use std::{collections::BTreeSet, fs, path::Path};

use tap2pcap::proto::tap::Connection;

use super::{
    corpus::{Builder, Conversation, Events, Grade},
    expect_all, expect_none,
    finder::Finder,
    http2::H2,
    outputs::{Found, capture},
    secrets::Secret,
};
use crate::{
    fixture::{Dress, internal, pipe, socket, streamed},
    tshark,
    util::Dir,
};

const KEY: &str = "2b7e151628aed2a6abf7158809cf4f3ca9f5ba40db214c3798f2e1c23456789a";
const OTHER_KEY: &str = "0123456789abcdef0123456789abcdeffedcba9876543210fedcba9876543211";

/// Addresses of clients, in text.
const TEXTS: [&str; 8] = [
    "203.0.113.77",
    "203.0.113.78",
    "198.51.100.23",
    "192.0.2.201",
    "2001:db8:5ec::77",
    "2001:db8:5ec::78",
    "2001:0db8:05ec:0000:0000:0000:0000:0077",
    "cb00714d",
];

fn conversations() -> (Vec<Secret>, Vec<Conversation>) {
    let mut builder = Builder::new(5);
    builder.http1(
        "http1 addresses",
        Grade::Plain,
        &[
            "> GET /1?ip=203.0.113.77 HTTP/1.1\nHost: ‹name:host name›.example\nX-Forwarded-For: 203.0.113.77, \
             2001:db8:5ec::77\nForwarded: for=203.0.113.77;by=\"[2001:db8:5ec::77]:80\";host=‹name:forwarded \
             host›.example\nVia: 1.1 ‹name:via›.example (x)\nX-Envoy-External-Address: 203.0.113.77\nX-Real-IP: \
             203.0.113.78\nReferer: http://‹name:referer host›.example/a\n\n",
            "< HTTP/1.1 302 Found\nLocation: http://‹name:location host›.example/b\nContent-Length: 0\n\n",
            "> GET http://‹name:target host›.example/2 HTTP/1.1\nHost: 203.0.113.77:8080\nOrigin: \
             https://‹name:origin host›.example\n\n",
            "< HTTP/1.1 204 No Content\nServer: x\n\n",
        ],
    );
    builder.http1(
        "PROXY addresses",
        Grade::Plain,
        &[
            "> PROXY TCP4 203.0.113.77 198.51.100.23 50000 443\nGET /1 HTTP/1.1\nHost: a\n\n",
            "< HTTP/1.1 204 No Content\n\n",
        ],
    );
    let header = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(),
        &[203, 0, 113, 77, 198, 51, 100, 23, 0xc3, 0x50, 1, 0xbb],
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let pieces = vec![super::corpus::client(header.concat()), super::corpus::server("HTTP/1.1 204 No Content\r\n\r\n")];
    builder.add("PROXY 2 addresses", Grade::Plain, pieces);
    let mut h2 = H2::new();
    let authority = builder.planter.expand("‹name:h2 authority›.example");
    let start = [(":method", "GET", 0), (":scheme", "http", 0), (":path", "/1", 0), (":authority", &authority, 4)];
    let forwarded = [("x-forwarded-for", "203.0.113.77, 192.0.2.201", 6)];
    for stream in [1, 3] {
        h2.headers(true, stream, &[&start[..], &forwarded].concat(), true);
        h2.respond(stream, &[("via", "1.1 203.0.113.78", 4)], true);
    }
    builder.add("http2 addresses", Grade::Plain, h2.pieces);
    (builder.planter.secrets, builder.conversations)
}

/// The trace, with secret names of sockets.
fn trace(secrets: &[Secret], conversations: &[Conversation]) -> Vec<u8> {
    let [.., path, listener] = secrets else { unreachable!("they were planted") };
    let ends = [
        (socket("198.51.100.23", 8080), socket("203.0.113.77", 50_001)),
        (socket("2001:db8:5ec::78", 8080), socket("2001:db8:5ec::77", 50_002)),
        (pipe(&format!("/run/{}.sock", path.text)), socket("203.0.113.78", 50_003)),
        (internal(&listener.text, "1"), socket("192.0.2.201", 50_004)),
    ];
    let mut out = Vec::new();
    for ((index, conversation), (local_address, remote_address)) in conversations.iter().enumerate().zip(ends) {
        let conversation = Conversation { upstream: false, ..conversation.clone() };
        let events = conversation.events(index, Events::Whole);
        out.extend(streamed(index as u64 + 1, Connection { local_address, remote_address }, events));
    }
    Dress::Delimited.file(&out)
}

#[test]
fn no_address_and_no_name_is_in_any_output() {
    let dir = Dir::new("redact-addresses");
    let key = dir.create("key", format!("{KEY}\n"));
    let (mut secrets, conversations) = conversations();
    for kind in ["file name", "socket path", "listener"] {
        let mut planter = super::secrets::Planter::new(secrets.len() as u64 + 77);
        planter.expand(&format!("‹name:{kind}›"));
        planter.place("sockets");
        secrets.extend(planter.secrets);
    }
    let finder = Finder::new(&secrets);
    let file = &secrets[secrets.len() - 3].text;
    let input = dir.create(&format!("{file}_1.pb_length_delimited"), trace(&secrets, &conversations));
    let off = Found::in_all(&dir, &finder, &[], &input);
    expect_all("pcapng", &secrets, 0..secrets.len(), &off.pcapng);
    let options = ["--redact", "--redact-names", "--redact-addresses", key.to_str().unwrap()];
    let on = Found::in_all(&dir, &finder, &options, &input);
    for (output, found) in on.each() {
        expect_none(output, &secrets, found);
    }
    let outputs = |options: &[&str]| {
        ["pcapng", "pcap", "har"].map(|suffix| {
            let output = dir.fresh().join(format!("out.{suffix}"));
            capture(options, std::slice::from_ref(&input), &output);
            output
        })
    };
    let (before, after) = (outputs(&[]), outputs(&options));
    assert!(addresses(&before[0]).len() >= TEXTS.len() - 2, "{:?}", addresses(&before[0]));
    for output in &after {
        assert_eq!(addresses(output), BTreeSet::new(), "{}", output.display());
    }
    assert_eq!(fs::read(&after[0]).unwrap(), fs::read(&outputs(&options)[0]).unwrap());
    let other = dir.create("other", OTHER_KEY);
    let options = ["--redact", "--redact-names", "--redact-addresses", other.to_str().unwrap()];
    assert_ne!(fs::read(&after[1]).unwrap(), fs::read(&outputs(&options)[1]).unwrap());

    // Equal prefixes stay equal, and an address is the same one everywhere.
    let frames = tshark::read(&after[0]);
    let shown = tshark::lines(
        &after[0],
        &["-d", "tcp.port==8080,http", "-Y", "http", "-T", "fields", "-e", "http.x_forwarded_for"],
    );
    let clients: Vec<_> = [50_001, 50_003]
        .map(|port| frames.iter().filter_map(|frame| frame.src).find(|end| end.port() == port).unwrap().ip())
        .into();
    let [std::net::IpAddr::V4(one), std::net::IpAddr::V4(two)] = clients[..] else { panic!("{clients:?}") };
    assert!(one != two && one.octets()[..3] == two.octets()[..3], "{one} {two}");
    assert!(shown[0].starts_with(&format!("{one}, ")), "{shown:?}, {one}");
}

/// Those of [`TEXTS`], and their bytes, that are in a file.
fn addresses(path: &Path) -> BTreeSet<String> {
    let bytes = fs::read(path).unwrap();
    let mut found: BTreeSet<String> = BTreeSet::new();
    for text in TEXTS {
        let packed = match text.parse() {
            Ok(std::net::IpAddr::V4(ip)) => ip.octets().to_vec(),
            Ok(std::net::IpAddr::V6(ip)) => ip.octets().to_vec(),
            Err(_) => text.as_bytes().to_vec(),
        };
        for needle in [text.as_bytes(), &packed] {
            // 203.0.113.7 is in 203.0.113.77, but not the other way round.
            if bytes.windows(needle.len()).any(|window| window == needle) {
                found.insert(text.to_owned());
            }
        }
    }
    found
}
