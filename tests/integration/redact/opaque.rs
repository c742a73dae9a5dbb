//! Secrets in what no reader of HTTP understands.

use super::{
    corpus::{Builder, Grade, Piece, client, server},
    http2::H2,
};

pub fn plant(builder: &mut Builder) {
    tunnels(builder);
    protocols(builder);
    proxies(builder);
    lost(builder);
}

fn tunnels(builder: &mut Builder) {
    builder.http1(
        "upgrade to an unknown protocol",
        Grade::Opaque,
        &[
            "> GET /?token=‹query of an upgrade› HTTP/1.1\nHost: shop.example\nConnection: Upgrade\nUpgrade: \
             acme/7\nCookie: a=‹cookie of an upgrade›\n\n",
            "< HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: acme/7\nX-Api-Key: ‹header of a \
             switch›\n\n",
            "> LOGIN anna ‹client of an unknown upgrade›\n\n",
            "< WELCOME ‹server of an unknown upgrade›\n\n",
        ],
    );
    builder.http1(
        "CONNECT",
        Grade::Opaque,
        &[
            "> CONNECT db.example:5432 HTTP/1.1\nHost: db.example:5432\nProxy-Authorization: Basic ‹basic:CONNECT›\n\n",
            "< HTTP/1.1 200 OK\n\n",
            "> user=anna password=‹client in a tunnel›\n\n",
            "< session ‹server in a tunnel›\n\n",
        ],
    );
    let mut pieces = ["> CONNECT shop.example:443 HTTP/1.1\nHost: shop.example:443\n\n", "< HTTP/1.1 200 OK\n\n"]
        .map(|template| builder.piece(template))
        .to_vec();
    pieces.extend(tls(builder, "TLS in a tunnel"));
    builder.add("CONNECT with TLS", Grade::Opaque, pieces);

    let mut h2 = H2::new();
    let target = [(":method", "CONNECT", 0), (":authority", "db.example:5432", 0)];
    h2.headers(true, 1, &target, false);
    h2.respond(1, &[], false);
    h2.data(true, 1, builder.planter.expand("user=anna password=‹client in an http2 tunnel›").as_bytes(), false);
    h2.data(false, 1, builder.planter.expand("session ‹server in an http2 tunnel›").as_bytes(), false);
    builder.add("http2 CONNECT", Grade::Opaque, h2.pieces);
}

/// Records of TLS 1.2 (RFC 5246): a hello with a session identifier and a ticket, and application data.
fn tls(builder: &mut Builder, kind: &str) -> Vec<Piece> {
    let mut of = |part: &str| builder.planter.expand(&format!("‹{kind} {part}›")).into_bytes();
    let u16_of = |len: usize| u16::try_from(len).unwrap().to_be_bytes();
    let record = |kind: u8, payload: &[u8]| [&[kind, 3, 3], &u16_of(payload.len())[..], payload].concat();
    let (session, ticket) = ([of("session").as_slice(), &[0; 12]].concat(), of("ticket"));
    let extensions = [&[0, 35], &u16_of(ticket.len())[..], &ticket].concat();
    let hello =
        [&[3, 3], [7; 32].as_slice(), &[32], &session, &[0, 2, 0x13, 1, 1, 0], &u16_of(extensions.len()), &extensions]
            .concat();
    let handshake = [&[1, 0], &u16_of(hello.len())[..], &hello].concat();
    vec![client(record(22, &handshake)), server(record(23, &of("server data"))), client(record(23, &of("client data")))]
}

fn protocols(builder: &mut Builder) {
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    let pieces = vec![
        client(of("\u{1}\u{2}ACME hello ‹unknown protocol client›\u{0}")),
        server(of("\u{1}\u{3}ACME token=‹unknown protocol server›\u{0}")),
    ];
    builder.add("unknown protocol", Grade::Opaque, pieces);
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    let pieces = vec![
        client(of("*3\r\n$4\r\nAUTH\r\n$20\r\n‹redis user›\r\n$20\r\n‹redis password›\r\n")),
        server("+OK\r\n"),
        client(of("*2\r\n$3\r\nGET\r\n$20\r\n‹redis key›\r\n")),
        server(of("$20\r\n‹redis value›\r\n")),
    ];
    builder.add("redis", Grade::Opaque, pieces);
    let pieces = tls(builder, "TLS");
    builder.add("TLS", Grade::Opaque, pieces);
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    let pieces = vec![
        server(of("220 mail.example ESMTP ‹smtp greeting›\r\n")),
        client(of("AUTH PLAIN ‹base64:smtp password›\r\n")),
        server("235 ok\r\n"),
    ];
    builder.add("smtp", Grade::Opaque, pieces);
    // A server that speaks HTTP to a client that does not.
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    let pieces = vec![
        client(of("\u{3}\u{0}\u{0}\u{13}‹not http, answered by http›")),
        server(of("HTTP/1.1 400 Bad Request\r\nX-Api-Key: ‹answer to what is not http›\r\nContent-Length: 0\r\n\r\n")),
    ];
    builder.add("http for another protocol", Grade::Opaque, pieces);
}

fn proxies(builder: &mut Builder) {
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    let request = of("PROXY TCP4 198.51.100.7 203.0.113.9 50000 443\r\nGET /?token=‹query after PROXY› \
                      HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer ‹header after PROXY›\r\n\r\n");
    builder.add("PROXY 1", Grade::Opaque, vec![client(request), server("HTTP/1.1 204 No Content\r\n\r\n")]);
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    let ends = [198, 51, 100, 7, 203, 0, 113, 9, 0xc3, 0x50, 1, 0xbb];
    // PP2_TYPE_UNIQUE_ID and one of those for custom use.
    let tlvs = [&[5, 0, 20], of("‹PROXY unique id›").as_slice(), &[0xe5, 0, 20], &of("‹PROXY custom value›")].concat();
    let len = u16::try_from(ends.len() + tlvs.len()).unwrap().to_be_bytes();
    let header = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11".as_slice(), &len, &ends, &tlvs].concat();
    let request = of("GET /?token=‹query after PROXY› HTTP/1.1\r\nHost: shop.example\r\nCookie: a=‹header after \
                      PROXY›\r\n\r\n");
    let pieces = vec![client([header, request].concat()), server("HTTP/1.1 204 No Content\r\n\r\n")];
    builder.add("PROXY 2", Grade::Opaque, pieces);
}

/// Connections on which a reader of HTTP loses its place.
fn lost(builder: &mut Builder) {
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    let ok = || server("HTTP/1.1 204 No Content\r\n\r\n");
    let pieces = vec![
        client("GET /1 HTTP/1.1\r\nHost: shop.example\r\n\r\n"),
        ok(),
        client(of("\u{0}\u{1}garbage ‹garbage after a request›\r\n\r\n")),
        client(of("GET /2?token=‹query after garbage› HTTP/1.1\r\nHost: shop.example\r\nX-Api-Key: ‹header after \
                   garbage›\r\n\r\n")),
        ok(),
    ];
    builder.add("garbage after http1", Grade::Opaque, pieces);
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    let pieces = vec![
        client(of(
            "POST /1 HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\nzz ‹bad chunk size›\r\n\
                   {\"password\":\"‹after a bad chunk size›\"}\r\n0\r\n\r\n",
        )),
        ok(),
        client(of("GET /2 HTTP/1.1\r\nAuthorization: Bearer ‹request after a bad chunk size›\r\n\r\n")),
        ok(),
    ];
    builder.add("bad chunks", Grade::Opaque, pieces);
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    let pieces = vec![
        client(of(
            "GET /1 HTTP/1.1\r\nHost: shop.example\r\nno colon here ‹bad header line›\r\nX Api Key: ‹space in a \
                   name›\r\nAuthorization: Bearer ‹after a bad header line›\r\n\r\n",
        )),
        server("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    ];
    builder.add("bad header line", Grade::Opaque, pieces);
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    let pieces = vec![
        client(of(
            "GET /1 HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer ‹folded header›\r\n ‹folded header›\r\n\
                   \t‹folded header›\r\n\r\n",
        )),
        ok(),
        client(of("\r\nGET /2?token=‹after an empty line› HTTP/1.1\nHost: shop.example\nAuthorization: Bearer ‹bare \
             line feeds›\n\n")),
        ok(),
        client(of("GET /3 HTTP/1.1\r\nHost: shop.example\r\nAuthorization : Bearer ‹space before the colon›\r\n\r\n")),
        ok(),
    ];
    builder.add("lenient heads", Grade::Opaque, pieces);
    // The lengths say less than is sent, or two different things.
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    let pieces = vec![
        client(of("POST /1 HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 2\r\n\r\nhi, token=‹beyond the length›")),
        ok(),
        client(of("POST /2 HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\n\
                   {\"password\":\"‹two lengths›\"}")),
        ok(),
    ];
    let mut pieces = pieces;
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    pieces.push(client(of("POST /3 HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\nTransfer-Encoding: \
                           chunked\r\n\r\n17\r\ntoken=‹length and chunks›\r\n0\r\n\r\nGET /4 \
                           HTTP/1.1\r\nCookie: a=‹after length \
                           and chunks›\r\n\r\n")));
    pieces.push(ok());
    builder.add("wrong lengths", Grade::Opaque, pieces);
    // A body whose coding is not what the head says.
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    let body = of("{\"password\":\"‹not gzip›\"}");
    let head = format!(
        "POST /1 HTTP/1.1\r\nHost: shop.example\r\nContent-Type: application/json\r\nContent-Encoding: \
         gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut packed = super::http1::pack("gzip", &of("{\"password\":\"‹damaged gzip›\",\"pad\":\"0123456789\"}"));
    let last = packed.len() - 9;
    packed[last] ^= 0x55;
    let damaged = head.replace(&format!("Length: {}", body.len()), &format!("Length: {}", packed.len()));
    let unknown = of("{\"password\":\"‹unknown coding›\"}");
    let other =
        head.replace("gzip", "acme").replace(&format!("Length: {}", body.len()), &format!("Length: {}", unknown.len()));
    let pieces = vec![
        client([head.as_bytes(), &body].concat()),
        ok(),
        client([damaged.as_bytes(), &packed].concat()),
        ok(),
        client([other.as_bytes(), &unknown].concat()),
        ok(),
    ];
    builder.add("wrong codings", Grade::Opaque, pieces);
    // Truncated JSON, and JSON that is none.
    builder.http1(
        "damaged bodies",
        Grade::Opaque,
        &[
            "> POST /1 HTTP/1.1\nHost: shop.example\nContent-Type: application/json\nContent-Length: \
             LEN\n\n{\"password\": \
             \"‹unterminated json string›",
            "< HTTP/1.1 204 No Content\n\n",
            "> POST /2 HTTP/1.1\nHost: shop.example\nContent-Type: application/json\nContent-Length: \
             LEN\n\n{'password': \
             '‹json in single quotes›', password: \"‹json bare name›\"}",
            "< HTTP/1.1 204 No Content\n\n",
            "> POST /3 HTTP/1.1\nHost: shop.example\nContent-Type: multipart/form-data\nContent-Length: \
             LEN\n\n--x\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n‹multipart without \
             boundary›\r\n--x--\r\n",
            "< HTTP/1.1 204 No Content\n\n",
        ],
    );
}
