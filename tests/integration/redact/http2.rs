//! Secrets in HTTP/2 and gRPC.

use httlib_hpack::Encoder;

use super::{
    corpus::{Builder, Grade, Piece, client, server},
    http1,
};

pub const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY_FRAME: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// How a field is encoded: [`Encoder`]'s flags.
const INDEXED: u8 = Encoder::WITH_INDEXING;
const NEVER: u8 = Encoder::NEVER_INDEXED;
const HUFFMAN: u8 = Encoder::HUFFMAN_VALUE;
const PLAIN: u8 = 0;

pub type Field<'a> = (&'a str, &'a str, u8);

/// A frame (RFC 9113 section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection that is being written.
pub struct H2 {
    /// The client's and the server's compressor.
    encoders: [Encoder<'static>; 2],
    pub pieces: Vec<Piece>,
}

impl H2 {
    /// The preface and the settings of both sides.
    pub fn new() -> Self {
        let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
        let ack = frame(SETTINGS, 1, 0, &[]);
        let pieces = vec![
            client([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings].concat()),
            server([settings.as_slice(), &ack].concat()),
            client(ack),
        ];
        Self { encoders: [Encoder::default(), Encoder::default()], pieces }
    }

    pub fn push(&mut self, by_client: bool, bytes: Vec<u8>) {
        self.pieces.push(if by_client { client(bytes) } else { server(bytes) });
    }

    pub fn block(&mut self, by_client: bool, fields: &[Field<'_>]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value, flags) in fields {
            let field = (name.as_bytes().to_vec(), value.as_bytes().to_vec(), flags | Encoder::BEST_FORMAT);
            self.encoders[usize::from(!by_client)].encode(field, &mut block).unwrap();
        }
        block
    }

    /// The size of the table changes at the next block.
    fn resize(&mut self, by_client: bool, size: u32) -> Vec<u8> {
        let mut block = Vec::new();
        self.encoders[usize::from(!by_client)].update_max_dynamic_size(size, &mut block).unwrap();
        block
    }

    pub fn headers(&mut self, by_client: bool, stream: u32, fields: &[Field<'_>], end: bool) {
        let block = self.block(by_client, fields);
        self.push(by_client, frame(HEADERS, END_HEADERS | u8::from(end), stream, &block));
    }

    /// A block of which each frame has at most so many bytes.
    fn split_headers(&mut self, by_client: bool, stream: u32, fields: &[Field<'_>], len: usize, end: bool) {
        let block = self.block(by_client, fields);
        let count = block.chunks(len).count();
        let mut bytes = Vec::new();
        for (index, part) in block.chunks(len).enumerate() {
            let last = if index + 1 == count { END_HEADERS } else { 0 };
            bytes.extend(match index {
                0 => frame(HEADERS, last | u8::from(end), stream, part),
                _ => frame(CONTINUATION, last, stream, part),
            });
        }
        self.push(by_client, bytes);
    }

    /// A request without a body.
    pub fn get(&mut self, stream: u32, path: &str, fields: &[Field<'_>]) {
        let all = [
            [(":method", "GET", PLAIN), (":scheme", "http", PLAIN), (":path", path, PLAIN)].as_slice(),
            &[(":authority", "shop.example", INDEXED)],
            fields,
        ]
        .concat();
        self.headers(true, stream, &all, true);
    }

    pub fn post(&mut self, stream: u32, path: &str, fields: &[Field<'_>]) {
        let all = [
            [(":method", "POST", PLAIN), (":scheme", "http", PLAIN), (":path", path, PLAIN)].as_slice(),
            &[(":authority", "shop.example", INDEXED)],
            fields,
        ]
        .concat();
        self.headers(true, stream, &all, false);
    }

    pub fn respond(&mut self, stream: u32, fields: &[Field<'_>], end: bool) {
        self.headers(false, stream, &[&[(":status", "200", PLAIN)], fields].concat(), end);
    }

    pub fn data(&mut self, by_client: bool, stream: u32, bytes: &[u8], end: bool) {
        self.push(by_client, frame(DATA, u8::from(end), stream, bytes));
    }
}

pub fn plant(builder: &mut Builder) {
    fields(builder);
    tables(builder);
    blocks(builder);
    bodies(builder);
    grpc(builder);
    other_frames(builder);
    not_decoded(builder);
}

fn fields(builder: &mut Builder) {
    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    h2.get(1, "/1", &[("authorization", &of("Bearer ‹h2 literal›"), PLAIN)]);
    h2.respond(
        1,
        &[("set-cookie", &of("a=‹h2 literal›; Path=/"), PLAIN), ("x-api-key", &of("‹h2 literal›"), PLAIN)],
        true,
    );
    h2.get(3, "/2", &[("authorization", &of("Bearer ‹h2 Huffman›"), HUFFMAN)]);
    h2.respond(
        3,
        &[("set-cookie", &of("a=‹h2 Huffman›; Path=/"), HUFFMAN), ("x-api-key", &of("‹h2 Huffman›"), HUFFMAN)],
        true,
    );
    h2.get(5, "/3", &[("authorization", &of("Basic ‹basic:h2 basic›"), NEVER)]);
    h2.respond(5, &[("x-vault-token", &of("‹h2 never indexed›"), NEVER | HUFFMAN | Encoder::HUFFMAN_NAME)], true);
    builder.add("http2 literals", Grade::Plain, h2.pieces);

    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    h2.get(
        1,
        "/1",
        &[
            ("cookie", &of("session=‹h2 cookie crumb›"), INDEXED | HUFFMAN),
            ("cookie", &of("theme=‹h2 cookie crumb›"), INDEXED),
            ("cookie", &of("a=‹h2 cookie crumb›; b=‹h2 cookie crumb›"), NEVER),
        ],
    );
    h2.respond(
        1,
        &[("set-cookie", &of("a=‹h2 set-cookie›"), INDEXED), ("set-cookie", &of("b=‹h2 set-cookie›"), HUFFMAN)],
        true,
    );
    let xfcc = of("By=a;Hash=‹h2 xfcc›;URI=spiffe://a/‹h2 xfcc›");
    h2.get(
        3,
        "/2",
        &[
            ("proxy-authorization", &of("Basic ‹basic:h2 proxy basic›"), INDEXED | HUFFMAN),
            ("x-forwarded-client-cert", &xfcc, HUFFMAN),
            ("x-auth-token", &of("‹h2 x-auth-token›"), INDEXED),
            ("x-customer", &of("‹h2 added header›"), INDEXED | HUFFMAN),
        ],
    );
    h2.respond(3, &[], true);
    builder.add("http2 credentials", Grade::Plain, h2.pieces);

    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    h2.get(1, &of("/1?a=b&token=‹h2 query›"), &[]);
    h2.respond(1, &[("location", &of("https://b.example/?access_token=‹h2 location›"), INDEXED)], true);
    h2.get(
        3,
        &of("/2?p%61ssword=‹h2 query›"),
        &[("referer", &of("http://‹h2 referer user›:‹h2 referer password›@a/?api_key=‹h2 referer›"), HUFFMAN)],
    );
    h2.headers(
        false,
        3,
        &[
            (":status", "103", PLAIN),
            ("link", &of("</a?token=‹h2 103 link›>; rel=preload"), PLAIN),
            ("set-cookie", &of("a=‹h2 103 set-cookie›"), INDEXED),
        ],
        false,
    );
    h2.respond(3, &[], true);
    let path = of("/3?secret=‹h2 indexed path›");
    let fields = [
        (":method", "GET", PLAIN),
        (":scheme", "http", PLAIN),
        (":path", path.as_str(), INDEXED | HUFFMAN),
        (":authority", "shop.example", INDEXED),
    ];
    h2.headers(true, 5, &fields, true);
    h2.respond(5, &[], true);
    h2.headers(true, 7, &fields, true);
    h2.respond(7, &[("x-envoy-original-path", &of("/p?password=‹h2 x-envoy-original-path›"), HUFFMAN)], true);
    builder.add("http2 urls", Grade::Plain, h2.pieces);
}

fn tables(builder: &mut Builder) {
    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    let bearer = of("Bearer ‹h2 in the dynamic table›");
    let key = of("‹h2 in the dynamic table›");
    let cookie = of("a=‹h2 in the dynamic table›");
    let indexed = [
        ("authorization", bearer.as_str(), INDEXED),
        ("x-api-key", &key, INDEXED | HUFFMAN),
        ("accept", "*/*", INDEXED),
    ];
    for stream in [1, 3, 5] {
        h2.get(stream, "/1", &indexed);
        h2.respond(stream, &[("set-cookie", &cookie, INDEXED | HUFFMAN), ("server", "x", INDEXED)], true);
    }
    // The same value under another name, a name out of the table, and what else refers to the entries.
    h2.get(
        7,
        "/2",
        &[
            ("x-api-key", &of("‹h2 indexed name›"), NEVER),
            ("accept", "*/*", INDEXED),
            ("authorization", &bearer, INDEXED),
        ],
    );
    h2.respond(7, &[("server", "x", INDEXED), ("set-cookie", &cookie, INDEXED)], true);
    builder.add("http2 dynamic table", Grade::Plain, h2.pieces);

    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    let bearer = of("Bearer ‹h2 before a table size update›");
    h2.get(1, "/1", &[("authorization", &bearer, INDEXED), ("accept", "*/*", INDEXED)]);
    h2.respond(1, &[], true);
    // Empty, and as large as it was: what follows refers to entries that come anew.
    for (stream, sizes) in [(3, [0, 4096]), (5, [128, 256])] {
        let updates = sizes.map(|size| h2.resize(true, size)).concat();
        let key = of("‹h2 after a table size update›");
        let fields = [
            (":method", "GET", PLAIN),
            (":scheme", "http", PLAIN),
            (":path", "/2", PLAIN),
            ("authorization", bearer.as_str(), INDEXED),
            ("x-api-key", &key, INDEXED | HUFFMAN),
            ("accept", "*/*", INDEXED),
        ];
        let block = [updates, h2.block(true, &fields)].concat();
        h2.push(true, frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
        h2.respond(stream, &[], true);
    }
    // Entries that push others out of the small table.
    for stream in [7, 9, 11] {
        h2.get(
            stream,
            "/3",
            &[
                ("x-auth-token", &of("‹h2 evicted›"), INDEXED),
                ("authorization", &bearer, INDEXED),
                ("accept", "*/*", INDEXED),
            ],
        );
        h2.respond(stream, &[], true);
    }
    builder.add("http2 table sizes", Grade::Plain, h2.pieces);
}

fn blocks(builder: &mut Builder) {
    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    let start = [(":method", "GET", PLAIN), (":scheme", "http", PLAIN), (":path", "/1", PLAIN)];
    let (bearer, cookie) = (of("Bearer ‹h2 split over CONTINUATION›"), of("a=‹h2 split over CONTINUATION›"));
    let fields =
        [&start[..], &[("authorization", &bearer, PLAIN), ("cookie", &cookie, HUFFMAN), ("accept", "*/*", INDEXED)]]
            .concat();
    h2.split_headers(true, 1, &fields, 25, true);
    let set_cookie = of("a=‹h2 split over CONTINUATION›");
    h2.split_headers(false, 1, &[(":status", "200", PLAIN), ("set-cookie", &set_cookie, INDEXED)], 17, true);
    // PADDED and PRIORITY.
    let bearer = of("Bearer ‹h2 padded HEADERS›");
    let block = h2.block(true, &[&start[..], &[("authorization", &bearer, INDEXED)]].concat());
    let padded = [&[7, 0, 0, 0, 0, 15], block.as_slice(), &[0; 7]].concat();
    h2.push(true, frame(HEADERS, END_HEADERS | END_STREAM | PADDED | PRIORITY, 3, &padded));
    let bearer = of("Bearer ‹h2 padded and continued›");
    h2.respond(3, &[], true);
    let block = h2.block(true, &[&start[..], &[("authorization", &bearer, INDEXED)]].concat());
    let (first, rest) = block.split_at(block.len() - 12);
    let padded = [&[3], first, &[0; 3]].concat();
    let frames = [
        frame(HEADERS, END_STREAM | PADDED, 5, &padded),
        frame(CONTINUATION, 0, 5, &[]),
        frame(CONTINUATION, END_HEADERS, 5, rest),
    ];
    h2.push(true, frames.concat());
    h2.respond(5, &[], true);
    builder.add("http2 blocks in pieces", Grade::Plain, h2.pieces);

    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    h2.get(1, "/1", &[]);
    let promised = [(":method", "GET", PLAIN), (":scheme", "http", PLAIN), (":authority", "shop.example", INDEXED)];
    let path = of("/pushed?token=‹h2 promised path›");
    let key = of("‹h2 promised header›");
    let block = h2.block(false, &[&promised[..], &[(":path", &path, PLAIN), ("x-api-key", &key, INDEXED)]].concat());
    h2.push(false, frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], block.as_slice()].concat()));
    h2.respond(1, &[], true);
    h2.respond(2, &[("x-api-key", &key, INDEXED), ("set-cookie", &of("a=‹h2 pushed set-cookie›"), PLAIN)], true);
    // Trailers of both sides.
    h2.post(3, "/2", &[("content-type", "text/plain", INDEXED)]);
    h2.data(true, 3, b"hi", false);
    h2.headers(true, 3, &[("x-auth-token", &of("‹h2 request trailer›"), PLAIN)], true);
    h2.respond(3, &[("content-type", "text/plain", INDEXED)], false);
    h2.data(false, 3, b"ho", false);
    h2.headers(
        false,
        3,
        &[
            ("x-auth-token", &of("‹h2 trailer›"), HUFFMAN),
            ("authorization", &of("‹h2 authorization trailer›"), INDEXED),
        ],
        true,
    );
    builder.add("http2 promises and trailers", Grade::Plain, h2.pieces);
}

fn bodies(builder: &mut Builder) {
    const JSON: Field<'_> = ("content-type", "application/json", INDEXED);
    const FORM: Field<'_> = ("content-type", "application/x-www-form-urlencoded", INDEXED);
    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    h2.post(1, "/1", &[JSON]);
    h2.data(true, 1, &of("{\"user\": \"anna\", \"password\": \"‹h2 json›\"}"), true);
    h2.respond(1, &[FORM], false);
    h2.data(false, 1, &of("a=b&token=‹h2 form›&c=d"), true);
    // Split over frames, padded, and with another stream between them.
    h2.post(3, "/2", &[JSON]);
    h2.post(5, "/3", &[FORM]);
    let (json, form) =
        (of("{\"client_secret\": \"‹h2 json in frames›\", \"a\": 1}"), of("x=y&password=‹h2 form in frames›"));
    let (json, form): (Vec<_>, Vec<_>) = (json.chunks(13).collect(), form.chunks(13).collect());
    for index in 0..json.len().max(form.len()) {
        if let Some(part) = json.get(index) {
            let padded = [&[4], *part, &[0; 4]].concat();
            h2.push(true, frame(DATA, PADDED | u8::from(index + 1 == json.len()), 3, &padded));
        }
        if let Some(part) = form.get(index) {
            h2.data(true, 5, part, index + 1 == form.len());
        }
    }
    h2.respond(5, &[], true);
    h2.respond(3, &[JSON], false);
    h2.data(false, 3, &of("{\"token\": \"‹h2 json before an empty frame›\"}"), false);
    h2.data(false, 3, &[], true);
    h2.post(7, "/4", &[("content-type", "multipart/form-data; boundary=cut", PLAIN)]);
    h2.data(
        true,
        7,
        &of("--cut\r\nContent-Disposition: form-data; name=\"secret\"\r\n\r\n‹h2 multipart›\r\n--cut--\r\n"),
        true,
    );
    h2.respond(7, &[], true);
    builder.add("http2 bodies", Grade::Plain, h2.pieces);

    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    h2.post(1, "/1", &[JSON, ("content-encoding", "gzip", INDEXED)]);
    h2.data(
        true,
        1,
        &http1::pack("gzip", of("{\"password\": \"‹h2 gzip json›\", \"user\": \"anna\"}").as_bytes()),
        true,
    );
    h2.respond(1, &[FORM, ("content-encoding", "gzip", INDEXED)], false);
    let body = http1::pack("gzip", of("token=‹h2 gzip in frames›&user=anna").as_bytes());
    for part in body.chunks(9) {
        h2.data(false, 1, part, false);
    }
    h2.data(false, 1, &[], true);
    let key = of("‹h2 header after gzip›");
    h2.post(3, "/2", &[JSON, ("content-encoding", "deflate", INDEXED), ("x-api-key", &key, INDEXED)]);
    let body = http1::pack("deflate", of("{\"secret\": \"‹h2 deflate json›\"}").as_bytes());
    h2.push(true, frame(DATA, PADDED | END_STREAM, 3, &[&[3], body.as_slice(), &[0; 3]].concat()));
    h2.respond(
        3,
        &[JSON, ("content-encoding", "gzip", INDEXED), ("x-api-key", &of("‹h2 header after gzip›"), INDEXED)],
        false,
    );
    h2.data(false, 3, &http1::pack("gzip", of("{\"token\": \"‹h2 gzip json›\"}").as_bytes()), true);
    builder.add("http2 gzip", Grade::Packed, h2.pieces);
}

fn grpc(builder: &mut Builder) {
    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    let message = [&[0, 0, 0, 0, 4], b"\x0a\x02hi".as_slice()].concat();
    const GRPC: [Field<'_>; 2] = [("content-type", "application/grpc", INDEXED), ("te", "trailers", INDEXED)];
    let bearer = of("Bearer ‹grpc authorization›");
    for (stream, form) in [(1, PLAIN), (3, HUFFMAN)] {
        let metadata = [
            ("authorization", bearer.as_str(), INDEXED),
            ("x-auth-token", &of("‹grpc metadata›"), INDEXED | form),
            ("x-api-key-bin", &of("‹base64:grpc binary metadata›"), form),
        ];
        h2.post(stream, "/shop.Shop/Buy", &[&GRPC[..], &metadata].concat());
        h2.data(true, stream, &message, true);
        h2.respond(stream, &[GRPC[0], ("x-access-token", &of("‹grpc initial metadata›"), form)], false);
        h2.data(false, stream, &message, false);
        h2.headers(
            false,
            stream,
            &[
                ("grpc-status", "16", INDEXED),
                ("grpc-message", &of("bad%20token%3D‹grpc-message›"), form),
                ("x-session-token", &of("‹grpc trailing metadata›"), INDEXED | form),
            ],
            true,
        );
    }
    // Trailers only.
    h2.post(5, "/shop.Shop/Buy", &GRPC);
    h2.data(true, 5, &message, true);
    h2.respond(
        5,
        &[
            GRPC[0],
            ("grpc-status", "7", INDEXED),
            ("grpc-message", &of("password=‹grpc-message›"), HUFFMAN),
            ("authorization", &of("‹grpc trailers only›"), NEVER),
        ],
        true,
    );
    builder.add("grpc", Grade::Plain, h2.pieces);
}

fn other_frames(builder: &mut Builder) {
    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    h2.get(1, "/1", &[]);
    h2.respond(1, &[], true);
    h2.push(true, frame(PING, 0, 0, &of("‹h2 PING›")[..8]));
    // An unknown type, and one with an unknown flag.
    h2.push(true, frame(0xbe, 0xff, 1, &of("‹h2 unknown frame›")));
    h2.push(false, frame(0x0c, 0, 1, &of("\0\0https://a.example/?token=‹h2 ALTSVC›")));
    let padded = [&[20], b"x".as_slice(), &of("‹h2 padding›")].concat();
    h2.post(3, "/2", &[]);
    h2.push(true, frame(DATA, PADDED | END_STREAM, 3, &padded));
    h2.respond(3, &[], true);
    // Frames that are longer than their types have it.
    for kind in [SETTINGS, PING, RST_STREAM, PRIORITY_FRAME, WINDOW_UPDATE] {
        let stream = if matches!(kind, SETTINGS | PING) { 0 } else { 3 };
        h2.push(true, frame(kind, 0, stream, &of("01234‹h2 long frame›")));
    }
    h2.push(true, frame(DATA, END_STREAM, 99, &of("{\"password\": \"‹h2 stray DATA›\"}")));
    h2.push(false, frame(GOAWAY, 0, 0, &[&[0, 0, 0, 1, 0, 0, 0, 0], of("token=‹h2 GOAWAY›").as_slice()].concat()));
    builder.add("http2 other frames", Grade::Opaque, h2.pieces);

    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    let mut pieces = vec![
        builder_piece(&of("> GET /?token=‹h2c query› HTTP/1.1\nHost: shop.example\nConnection: Upgrade, \
             HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\nX-Api-Key: ‹h2c request›\n\n")),
        builder_piece(&of(
            "< HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: h2c\nSet-Cookie: a=‹h2c switch›\n\n",
        )),
    ];
    h2.respond(1, &[("x-api-key", &of("‹h2c response›"), INDEXED)], true);
    h2.get(3, "/2", &[("authorization", &of("Bearer ‹h2c second request›"), INDEXED | HUFFMAN)]);
    h2.respond(3, &[], true);
    pieces.append(&mut h2.pieces);
    builder.add("http2 by upgrade", Grade::Plain, pieces);
}

fn builder_piece(template: &str) -> Piece {
    let (direction, text) = template.split_at(2);
    Piece { client: direction == "> ", bytes: http1::message(text) }
}

/// Blocks that no reader can decode, and the connection after them.
fn not_decoded(builder: &mut Builder) {
    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    h2.get(1, "/1", &[("authorization", &of("Bearer ‹h2 before a damaged block›"), INDEXED)]);
    h2.respond(1, &[], true);
    // An index far behind the table's end, then a literal.
    let secret = of("‹h2 in a damaged block›");
    let block = [&[0x82, 0xff, 0xff, 0x7f, 0x10, 9], b"x-api-key".as_slice(), &[20], secret.as_bytes()].concat();
    h2.push(true, frame(HEADERS, END_HEADERS | END_STREAM, 3, &block));
    h2.respond(3, &[("set-cookie", &of("a=‹h2 answer to a damaged block›"), INDEXED)], true);
    h2.get(5, "/2", &[("x-api-key", &of("‹h2 after a damaged block›"), INDEXED)]);
    h2.respond(5, &[], true);
    builder.add("http2 damaged block", Grade::Opaque, h2.pieces);

    // A string that is longer than its block, and a Huffman code that ends in nothing.
    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    let secret = of("‹h2 string beyond its block›");
    let block = [&[0x82, 0x10, 9], b"x-api-key".as_slice(), &[60], secret.as_bytes()].concat();
    h2.push(true, frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
    h2.respond(1, &[], true);
    let secret = of("‹h2 bad Huffman›");
    let block = [&[0x82, 0x10, 9], b"x-api-key".as_slice(), &[0x80 | 24], secret.as_bytes(), &[0xff; 4]].concat();
    h2.push(true, frame(HEADERS, END_HEADERS | END_STREAM, 3, &block));
    h2.respond(3, &[], true);
    // CONTINUATION without HEADERS.
    h2.push(true, frame(CONTINUATION, END_HEADERS, 5, of("\u{10}\u{1}a\u{14}‹h2 stray CONTINUATION›").as_bytes()));
    builder.add("http2 broken blocks", Grade::Opaque, h2.pieces);

    // A frame whose length is beyond all limits, and the secret after it.
    let mut h2 = H2::new();
    let mut of = |template: &str| builder.planter.expand(template);
    h2.get(1, "/1", &[]);
    h2.respond(1, &[], true);
    let junk = of("\u{0}\u{0}\u{5}hello‹h2 lost frames›, password=‹h2 lost frames›");
    h2.push(true, [&[0x7f; 9], junk.as_bytes()].concat());
    h2.push(true, of("Authorization: ‹h2 lost frames›\r\n\r\n").into_bytes());
    builder.add("http2 out of step", Grade::Opaque, h2.pieces);
}
