//! Secrets beyond what a reader of HTTP holds: where it gives up, nothing may get through.

use std::collections::BTreeSet;

use super::{
    corpus::{Builder, Conversation, Events, Grade, client, interleaved, server, traces},
    expect_all, expect_none,
    finder::Finder,
    http2::{H2, frame},
    outputs::{Found, REDACT, in_capture, redacted},
    secrets::Secret,
};
use crate::{fixture::Dress, util::Dir};

fn plant() -> (Vec<Secret>, Vec<Conversation>) {
    let mut builder = Builder::new(31);
    let long = "x".repeat(300_000);
    let ok = "< HTTP/1.1 204 No Content\n\n";
    let request = "GET / HTTP/1.1\nHost: shop.example";
    let mut http1 = |name, templates: &[&str]| builder.http1(name, Grade::Opaque, templates);
    http1(
        "long head",
        &[
            &format!(
                "> {request}\nX-Api-Key: ‹before a long value›\nX-Pad: {long}\nAuthorization: Bearer ‹after a \
                 long value›\n\n"
            ),
            ok,
            &format!("> {request}\nCookie: a=‹request after a long head›\n\n"),
            ok,
        ],
    );
    let many: String = (0..3000).map(|index| format!("X-Field-{index}: 1\n")).collect();
    http1("many fields", &[&format!("> {request}\n{many}X-Api-Key: ‹after many fields›\n\n"), ok]);
    http1(
        "long secret",
        &[&format!("> {request}\nAuthorization: ‹long value's begin›{long}‹long value's end›\n\n"), ok],
    );
    http1("long target", &[&format!("> GET /?a={long}&token=‹end of a long target› HTTP/1.1\nHost: a\n\n"), ok]);
    let post = "POST / HTTP/1.1\nHost: shop.example\nContent-Length: LEN\nContent-Type: ";
    http1(
        "long json",
        &[
            &format!(
                "> {post}application/json\n\n{{\"pad\": \"{long}\", \"password\": \"‹json after a long \
                 string›\", \"token\": \
                 \"‹long json string's begin›{long}‹long json string's end›\", \"{long}_token\": \"‹json after \
                 a long name›\"}}"
            ),
            ok,
        ],
    );
    let deep = format!("{}{{\"password\": \"‹deep json›\"}}", "[{\"a\":".repeat(20_000));
    let deep_secret = format!("{{\"secret\": {}\"‹json deep in a secret›\"", "[".repeat(20_000));
    http1(
        "deep json",
        &[
            &format!("> {post}application/json\n\n{deep}"),
            ok,
            &format!("> {post}application/json\n\n{deep_secret}"),
            ok,
        ],
    );
    let form = format!(
        "a={long}&password=‹form after a long value›&token=‹long form's begin›{long}‹long form's \
         end›&{long}secret=‹form \
                        after a long name›"
    );
    http1("long form", &[&format!("> {post}application/x-www-form-urlencoded\n\n{form}"), ok]);
    let boundary = "b".repeat(3000);
    let part = |name: &str, value: &str| {
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let parts = [
        part("pad", &long),
        part("password", "‹part after a long one›"),
        part(&format!("{long}secret"), "‹part after a long name›"),
    ];
    http1(
        "long parts",
        &[&format!("> {post}multipart/form-data; boundary={boundary}\n\n{}--{boundary}--\r\n", parts.concat()), ok],
    );
    http1(
        "long packed",
        &[
            &format!(
                "> {post}application/json\nContent-Encoding: gzip\n\n{{\"pad\": \"{long}\", \"password\": \
                 \"‹json after a bomb›\"}}"
            ),
            ok,
            &format!("> {request}\nX-Api-Key: ‹header after a bomb›\n\n"),
            ok,
        ],
    );
    let mut chunks = builder
        .planter
        .expand("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;token=‹long chunk line's begin›");
    chunks += &builder.planter.expand(&format!(
        "{long}‹long chunk line's end›\r\nx\r\n0\r\nX-Pad: {long}\r\nX-Auth-Token: ‹after a long trailer›\r\n\r\n"
    ));
    builder.add("long chunk line", Grade::Opaque, vec![client(chunks), server("HTTP/1.1 204 No Content\r\n\r\n")]);

    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    let pad = "x".repeat(60_000);
    let fields = [
        ("x-api-key", of("‹h2 before a long field›"), 4),
        ("x-pad", pad.clone(), 0),
        ("x-pad", pad.clone(), 0),
        ("authorization", of("Bearer ‹h2 after a long field›"), 4),
        ("x-pad", pad.clone(), 0),
        ("x-pad", pad.clone(), 0),
        ("x-pad", pad, 0),
        ("cookie", of("a=‹h2 at the end of a long block›"), 4),
    ];
    let fields: Vec<_> = fields.iter().map(|(name, value, form)| (*name, value.as_str(), *form)).collect();
    let start = [(":method", "GET", 0), (":scheme", "http", 0), (":path", "/", 0)];
    let block = h2.block(true, &[&start[..], &fields].concat());
    let count = block.chunks(16_000).count();
    for (index, part) in block.chunks(16_000).enumerate() {
        let end = if index + 1 == count { 4 } else { 0 };
        h2.push(true, if index == 0 { frame(1, end | 1, 1, part) } else { frame(9, end, 1, part) });
    }
    h2.respond(1, &[], true);
    h2.get(3, "/2", &[("x-api-key", &of("‹h2 after a long block›"), 4), ("authorization", fields[3].1, 4)]);
    h2.respond(3, &[], true);
    builder.add("http2 long block", Grade::Opaque, h2.pieces);

    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    // More streams than are followed, and bodies of each.
    let json = [("content-type", "application/json", 4)];
    for stream in (1..40_001).step_by(2) {
        h2.post(stream, "/", &json);
    }
    let requests = h2.pieces.drain(3..).flat_map(|piece| piece.bytes).collect::<Vec<_>>();
    h2.push(true, requests);
    for stream in [1, 20_001, 39_999] {
        let (first, second) = (of("{\"pass"), of("word\": \"‹h2 one of many streams›\"}"));
        h2.data(true, stream, first.as_bytes(), false);
        h2.data(true, stream, second.as_bytes(), true);
        h2.respond(stream, &[("set-cookie", &of("a=‹h2 one of many streams›"), 4)], true);
    }
    builder.add("http2 many streams", Grade::Opaque, h2.pieces);
    (builder.planter.secrets, builder.conversations)
}

#[test]
fn nothing_gets_through_beyond_a_limit() {
    let dir = Dir::new("redact-limits");
    let (secrets, conversations) = plant();
    let finder = Finder::new(&secrets);
    let trace = |events| Dress::Delimited.file(&interleaved(traces(&conversations, events)));
    let off = in_capture(&finder, &redacted(&dir, &[], &trace(Events::Whole)));
    expect_all("pcapng", &secrets, 0..secrets.len(), &off);
    let input = dir.create("trace_1.pb_length_delimited", trace(Events::Whole));
    // tshark would take a minute.
    let found = Found::without_dissection(&dir, &finder, &REDACT, &input);
    for (output, found) in found.each() {
        expect_none(output, &secrets, found);
    }
    for events in [Events::Of(997), Events::Cut(70_000)] {
        let found: BTreeSet<usize> = in_capture(&finder, &redacted(&dir, &REDACT, &trace(events)));
        expect_none(&format!("{events:?}"), &secrets, &found);
    }
}
