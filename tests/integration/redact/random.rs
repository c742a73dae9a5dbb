//! Random exchanges with random secrets, divided and cut at random.

use proptest::{collection::vec as vec_of, prelude::*, sample::select};

use super::{
    corpus::{Builder, Conversation, Events, Grade},
    finder::Finder,
    http2::H2,
    names,
    outputs::{self, REDACT, in_capture},
};
use crate::{fixture::Dress, util::Dir};

const FIELDS: [&str; 12] = [
    "Authorization: Bearer ‹authorization›",
    "authorization: Basic ‹basic:basic›",
    "Cookie: a=‹cookie›; b=‹cookie›",
    "Set-Cookie: a=‹set-cookie›; Path=/",
    "X-Api-Key:‹x-api-key›",
    "x-auth-token: ‹x-auth-token›",
    "Referer: http://a.example/?q=1&token=‹referer›",
    "X-Customer: ‹added›",
    "X-Forwarded-Client-Cert: By=a;Hash=‹xfcc›",
    "Accept: */*",
    "X-Request-Id: 0123456789abcdef",
    "Proxy-Authorization: Digest ‹proxy-authorization›",
];

const BODIES: [(&str, &str); 7] = [
    ("application/json", "{\"user\": \"anna\", \"password\": \"‹json›\", \"list\": [{\"token\": \"‹json›\"}]}"),
    ("application/json", "[1, {\"api_key\":\"‹escaped:json›\"}, {\"secret\": [\"‹json›\", {\"a\": \"‹json›\"}]}]"),
    ("application/x-www-form-urlencoded", "a=b&password=‹form›&c=d&tok%65n=‹percent:form›"),
    (
        "multipart/form-data; boundary=b0",
        "--b0\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\n‹part›\r\n--b0--\r\n",
    ),
    ("text/plain", "nothing to hide"),
    ("application/octet-stream", "\u{0}\u{1}\u{2}nothing\r\n\r\nto hide"),
    ("", ""),
];

const TARGETS: [&str; 5] = [
    "/",
    "/a?b=c&token=‹query›",
    "/a?p%61ssword=‹lower:query›",
    "http://‹user›:‹password›@a.example/x",
    "/a;b?x=‹percent:unused›",
];

const CODINGS: [&str; 4] = ["", "gzip", "deflate", "zstd"];

#[derive(Clone, Debug)]
struct Message {
    target: &'static str,
    fields: Vec<&'static str>,
    body: (&'static str, &'static str),
    coding: &'static str,
    chunked: bool,
    /// How HTTP/2 encodes each field.
    forms: Vec<u8>,
}

fn message() -> impl Strategy<Value = Message> {
    let targets = select(&TARGETS[..4]);
    let fields = vec_of(select(&FIELDS[..]), 0..5);
    let forms = vec_of(select(&[0, 2, 4, 6, 8, 10][..]), 5);
    (targets, fields, select(&BODIES[..]), select(&CODINGS[..]), any::<bool>(), forms).prop_map(
        |(target, fields, body, coding, chunked, forms)| Message { target, fields, body, coding, chunked, forms },
    )
}

#[derive(Clone, Debug)]
struct Talk {
    http2: bool,
    exchanges: Vec<(Message, Message)>,
    events: Events,
    /// Where the trace begins and ends, in thousandths of it.
    from: usize,
    to: usize,
}

fn talk() -> impl Strategy<Value = Talk> {
    let events = prop_oneof![
        2 => Just(Events::Whole),
        2 => (1..60_usize).prop_map(Events::Of),
        3 => any::<u16>().prop_map(|seed| Events::Random(seed.into())),
        2 => (1..300_usize).prop_map(Events::Cut),
    ];
    let from = prop_oneof![3 => Just(0_usize), 1 => 0..1000_usize];
    let to = prop_oneof![2 => Just(1000_usize), 1 => 0..1000_usize];
    (any::<bool>(), vec_of((message(), message()), 1..4), events, from, to)
        .prop_map(|(http2, exchanges, events, from, to)| Talk { http2, exchanges, events, from, to })
}

impl Message {
    /// Of HTTP/1, without its first line.
    fn template(&self, start: &str) -> String {
        let mut out = format!("{start}\n");
        self.fields.iter().for_each(|field| out.push_str(&format!("{field}\n")));
        let (kind, body) = self.body;
        if !kind.is_empty() {
            out.push_str(&format!("Content-Type: {kind}\n"));
        }
        if !self.coding.is_empty() && !body.is_empty() {
            out.push_str(&format!("Content-Encoding: {}\n", self.coding));
        }
        out.push_str(if self.chunked { "Transfer-Encoding: chunked\n" } else { "Content-Length: LEN\n" });
        format!("{out}\n{body}")
    }

    fn http2(&self, builder: &mut Builder, h2: &mut H2, by_client: bool, stream: u32) {
        let target = builder.planter.expand(if self.target.starts_with('/') { self.target } else { "/" });
        let mut fields: Vec<(String, String, u8)> = Vec::new();
        if by_client {
            for (name, value) in [(":method", "POST"), (":scheme", "http"), (":path", &target), (":authority", "a")] {
                fields.push((name.to_owned(), value.to_owned(), self.forms[0]));
            }
        } else {
            fields.push((":status".to_owned(), "200".to_owned(), 0));
        }
        for (field, form) in self.fields.iter().zip(&self.forms) {
            let (name, value) = field.split_once(':').unwrap();
            fields.push((name.to_ascii_lowercase(), builder.planter.expand(value.trim()), *form));
        }
        let (kind, body) = self.body;
        if !kind.is_empty() {
            fields.push(("content-type".to_owned(), kind.to_owned(), 4));
        }
        let mut body = builder.planter.expand(body).into_bytes();
        if !self.coding.is_empty() && !body.is_empty() {
            fields.push(("content-encoding".to_owned(), self.coding.to_owned(), 4));
            body = super::http1::pack(self.coding, &body);
        }
        let fields: Vec<_> = fields.iter().map(|(name, value, form)| (name.as_str(), value.as_str(), *form)).collect();
        h2.headers(by_client, stream, &fields, false);
        let size = if self.chunked { 13 } else { 1 << 14 };
        body.chunks(size).for_each(|part| h2.data(by_client, stream, part, false));
        h2.data(by_client, stream, &[], true);
    }
}

impl Talk {
    fn conversation(&self, builder: &mut Builder) -> Conversation {
        if self.http2 {
            let mut h2 = H2::new();
            for ((request, response), stream) in self.exchanges.iter().zip((1..).step_by(2)) {
                request.http2(builder, &mut h2, true, stream);
                response.http2(builder, &mut h2, false, stream);
            }
            builder.add("random", Grade::Plain, h2.pieces);
        } else {
            let mut templates = Vec::new();
            for (request, response) in &self.exchanges {
                templates.push(request.template(&format!("> POST {} HTTP/1.1\nHost: a.example", request.target)));
                templates.push(response.template("< HTTP/1.1 200 OK"));
            }
            let templates: Vec<_> = templates.iter().map(String::as_str).collect();
            builder.http1("random", Grade::Plain, &templates);
        }
        let whole = builder.conversations.last().unwrap();
        let places: Vec<_> = whole
            .pieces
            .iter()
            .enumerate()
            .flat_map(|(piece, bytes)| (0..bytes.bytes.len()).map(move |byte| (piece, byte)))
            .collect();
        let (end, begin) = (places.len() * self.to / 1000, places.len() * self.from / 1000);
        let mut part = whole.clone();
        if let Some((piece, byte)) = places.get(end) {
            part = part.before(*piece, *byte);
        }
        if let Some((piece, byte)) = places.get(begin).filter(|_| begin < end) {
            part = part.after(*piece, *byte);
        }
        part
    }
}

fn config() -> ProptestConfig {
    // Each run of the program takes a while, and a long example is better than none.
    ProptestConfig { cases: 48, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Several connections a case, because starting the program takes longer than its work.
    #[test]
    fn no_random_secret_leaks(talks in vec_of(talk(), 1..12)) {
        let dir = Dir::new("redact-random");
        let mut builder = Builder::new(99);
        let mut trace = Vec::new();
        let mut text = String::new();
        for (index, talk) in talks.iter().enumerate() {
            let conversation = talk.conversation(&mut builder);
            trace.extend(conversation.trace(index, talk.events));
            for piece in &conversation.pieces {
                let side = if piece.client { '>' } else { '<' };
                text.push_str(&format!("\n{side} {}", piece.bytes.escape_ascii()));
            }
        }
        let secrets = builder.planter.secrets;
        let finder = Finder::new(&secrets);
        let found = in_capture(&finder, &outputs::redacted(&dir, &REDACT, &Dress::Delimited.file(&trace)));
        prop_assert!(found.is_empty(), "leaks:{}\nin:{text}", names(&secrets, found));
    }
}
