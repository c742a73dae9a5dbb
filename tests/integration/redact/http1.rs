//! Secrets in HTTP/1, and in WebSocket.

use std::io::Write as _;

use super::corpus::{Builder, Grade, Piece, client, server};

/// The bytes of a message. After the head comes the body, and after a line of `~~` the trailers. `LEN` is the body's
/// length; the head says how the body is coded and whether it is chunked.
pub fn message(text: &str) -> Vec<u8> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let (body, trailers) = body.split_once("\n~~\n").unwrap_or((body, ""));
    let lower = head.to_ascii_lowercase();
    let body = match lower.split_once("content-encoding: ").map(|(_, value)| value.lines().next().unwrap()) {
        Some(coding) => pack(coding, body.as_bytes()),
        None => body.as_bytes().to_vec(),
    };
    let head = head.replace("LEN", &body.len().to_string()).replace('\n', "\r\n");
    let mut out = [head.as_bytes(), b"\r\n\r\n"].concat();
    if !lower.contains("transfer-encoding: chunked") {
        return [out, body].concat();
    }
    // Shorter than a secret, so that chunks cut through each.
    for (index, chunk) in body.chunks(13).enumerate() {
        let extension = if index == 0 { ";part=1" } else { "" };
        write!(out, "{:x}{extension}\r\n", chunk.len()).unwrap();
        out.extend(chunk);
        out.extend(b"\r\n");
    }
    out.extend(b"0\r\n");
    trailers.lines().for_each(|line| write!(out, "{line}\r\n").unwrap());
    out.extend(b"\r\n");
    out
}

/// A body in its content coding.
pub fn pack(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => zstd::encode_all(bytes, 3).unwrap(),
        "br" => brotli(bytes),
        other => panic!("no content coding: {other}"),
    }
}

/// Brotli that stores (RFC 7932 section 9.2): no encoder is at hand.
fn brotli(bytes: &[u8]) -> Vec<u8> {
    assert!((1..=1 << 16).contains(&bytes.len()), "the number of nibbles is 4");
    let len = u32::try_from(bytes.len() - 1).unwrap();
    // WBITS 16: one bit 0. ISLAST 0, MNIBBLES 0 for 4, MLEN - 1, ISUNCOMPRESSED 1.
    let head = len << 4 | 1 << 20;
    let mut out = head.to_le_bytes()[..3].to_vec();
    out.extend(bytes);
    // ISLAST and ISLASTEMPTY.
    out.push(3);
    out
}

pub fn plant(builder: &mut Builder) {
    credentials(builder);
    urls(builder);
    bodies(builder);
    framing(builder);
    packed(builder);
    web_sockets(builder);
}

const NO_CONTENT: &str = "< HTTP/1.1 204 No Content\n\n";

fn credentials(builder: &mut Builder) {
    let plain = Grade::Plain;
    builder.http1(
        "http1 authorization",
        plain,
        &[
            "> GET /1 HTTP/1.1\nHost: shop.example\nAUTHORIZATION: Bearer ‹bearer›\n\n",
            NO_CONTENT,
            "> GET /2 HTTP/1.1\nHost: shop.example\naUtHoRiZaTiOn:   bearer ‹bearer›  \nAccept: */*\n\n",
            NO_CONTENT,
            "> GET /3 HTTP/1.1\nHost: shop.example\nAuthorization: Basic ‹basic:basic›\n\n",
            NO_CONTENT,
            "> GET /4 HTTP/1.1\nHost: shop.example\nauthorization:‹authorization without a scheme›\n\n",
            NO_CONTENT,
        ],
    );
    builder.http1(
        "http1 other schemes",
        plain,
        &[
            "> GET /1 HTTP/1.1\nHost: shop.example\nAuthorization: Digest username=\"‹digest user›\", realm=\"r\", \
             response=\"‹digest response›\"\n\n",
            NO_CONTENT,
            "> GET /2 HTTP/1.1\nHost: shop.example\nAuthorization: AWS4-HMAC-SHA256 Credential=‹aws credential›/x, \
             Signature=‹aws signature›\n\n",
            NO_CONTENT,
            "> GET /3 HTTP/1.1\nHost: shop.example\nProxy-Authorization: Basic ‹basic:proxy \
             basic›\nPROXY-authorization: \
             Bearer ‹proxy bearer›\n\n",
            NO_CONTENT,
        ],
    );
    builder.http1(
        "http1 cookies",
        plain,
        &[
            "> GET /1 HTTP/1.1\nHost: shop.example\nCookie: session=‹cookie›; theme=‹cookie›\nCOOKIE: sid=‹cookie›\n\n",
            "< HTTP/1.1 200 OK\nSet-Cookie: session=‹set-cookie›; Path=/; HttpOnly\nset-cookie: \
             refresh=‹set-cookie›\nSET-COOKIE: ‹set-cookie name›=‹set-cookie›\nContent-Length: LEN\n\nwelcome\n",
            "> GET /2 HTTP/1.1\nHost: shop.example\nCookie: ‹cookie name›=1; \"‹quoted cookie›\"; ‹cookie \
             without value›\n\n",
            NO_CONTENT,
        ],
    );
    builder.http1(
        "http1 keys",
        plain,
        &[
            "> GET /1 HTTP/1.1\nHost: shop.example\nX-Api-Key: ‹x-api-key›\nX-Forwarded-Client-Cert: \
             By=spiffe://a.example/‹xfcc By›;Hash=‹xfcc Hash›;Subject=\"CN=‹xfcc Subject›,O=x\";URI=spiffe://b.example/\
             ‹xfcc URI›,By=x;Hash=‹xfcc second Hash›\n\n",
            NO_CONTENT,
            "> GET /2 HTTP/1.1\nHost: shop.example\nX-Auth-Token: ‹x-auth-token›\nx-amz-security-token: \
             ‹x-amz-security-token›\nX-Client-Secret: ‹x-client-secret›\nX-Csrf-Token: ‹x-csrf-token›\nX-Password: \
             ‹x-password›\n\n",
            "< HTTP/1.1 200 OK\nX-Vault-Token: ‹x-vault-token›\nX-Customer: ‹added header›\nX-API-KEY: \
             ‹x-api-key›\nContent-Length: 0\n\n",
            "> GET /3 HTTP/1.1\nhost: shop.example\nx-customer: ‹added header›\nX-CUSTOMER: ‹added header›\napikey: \
             ‹apikey header›\nX-Access-Token: ‹x-access-token›\n\n",
            NO_CONTENT,
        ],
    );
}

fn urls(builder: &mut Builder) {
    let plain = Grade::Plain;
    builder.http1(
        "http1 query",
        plain,
        &[
            "> GET /1?a=b&token=‹query token›&api_key=‹query api_key›&c=d HTTP/1.1\nHost: shop.example\n\n",
            NO_CONTENT,
            "> GET /2?tok%65n=‹query escaped name›&Password=‹query Password›&%70%61%73%73%77%64=‹query escaped passwd› \
             HTTP/1.1\nHost: shop.example\n\n",
            NO_CONTENT,
            "> GET /3?client_secret=‹percent:query percent›&access_token=‹lower:query percent lower›;\
             secret=‹query after semicolon› HTTP/1.1\nHost: shop.example\n\n",
            NO_CONTENT,
            "> GET /4?sig=1&user[password]=‹query brackets›&refresh_token=‹query refresh_token›&id_token=‹query \
             id_token›\
             &apikey=‹query apikey› HTTP/1.1\nHost: shop.example\n\n",
            NO_CONTENT,
            "> GET /5?X-Amz-Credential=a&X-Amz-Signature=‹query X-Amz-Signature›&X-Amz-Security-Token=‹query \
             X-Amz-Security-Token›\
             &next=https%3A%2F%2Fb.example%2F%3Ftoken%3D‹query url in a value› HTTP/1.1\nHost: shop.example\n\n",
            NO_CONTENT,
        ],
    );
    builder.http1(
        "http1 absolute targets",
        plain,
        &[
            "> GET http://‹url user›:‹url password›@shop.example/1?x=1 HTTP/1.1\nHost: shop.example\n\n",
            NO_CONTENT,
            "> GET http://‹url user alone›@shop.example/2?auth_token=‹query auth_token› HTTP/1.1\nHost: \
             shop.example\n\n",
            NO_CONTENT,
        ],
    );
    builder.http1(
        "http1 urls in headers",
        plain,
        &[
            "> GET /1 HTTP/1.1\nHost: shop.example\nReferer: https://‹referer user›:‹referer \
             password›@a.example/p?q=1&token=‹referer query›#access_token=‹referer fragment›\n\n",
            "< HTTP/1.1 302 Found\nLocation: https://b.example/cb?code=1&access_token=‹location \
             query›#id_token=‹location fragment›\nContent-Length: 0\n\n",
            "> GET /2 HTTP/1.1\nHost: shop.example\nX-Envoy-Original-Path: \
             /p?password=‹x-envoy-original-path›\nreferer: \
             /relative?api_key=‹relative referer›\n\n",
            "< HTTP/1.1 201 Created\nlocation: /new?secret=‹relative location›\nContent-Location: \
             /new?token=‹content-location›\nRefresh: 5; url=https://b.example/?token=‹refresh›\nContent-Length: 0\n\n",
        ],
    );
}

fn bodies(builder: &mut Builder) {
    let plain = Grade::Plain;
    const JSON: &str = "Content-Type: application/json";
    const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
    builder.http1(
        "http1 forms",
        plain,
        &[
            &format!(
                "> POST /1 HTTP/1.1\nHost: shop.example\n{FORM}\nContent-Length: LEN\n\nuser=anna&password=‹form \
                 password›&passenger=x&t%6Fken=‹form escaped name›"
            ),
            NO_CONTENT,
            &format!(
                "> POST /2 HTTP/1.1\nHost: shop.example\n{FORM}; charset=utf-8\nContent-Length: LEN\n\n\
                 password=‹percent:form percent›&client+secret=‹form plus name›&secret=two+‹form plus value›+words&a=b"
            ),
            &format!("< HTTP/1.1 200 OK\n{FORM}\nContent-Length: LEN\n\naccess_token=‹form response›&expires=60\n"),
        ],
    );
    builder.http1(
        "http1 json",
        plain,
        &[
            &format!(
                "> POST /1 HTTP/1.1\nHost: shop.example\n{JSON}\nContent-Length: LEN\n\n{{\"user\": \"anna\", \
                 \"password\": \
                 \"‹json password›\", \"token\":\"‹json token›\",\n  \"secret\" : \"‹json secret›\", \
                 \"api_key\": \"‹json \
                 api_key›\", \"clientSecret\": \"‹json clientSecret›\", \"n\": 1}}"
            ),
            &format!(
                "< HTTP/1.1 200 OK\n{JSON}; charset=utf-8\nContent-Length: LEN\n\n{{\"ok\": true, \"data\": \
                 {{\"access_token\": \
                 \"‹json nested›\", \"list\": [{{\"password\": \"‹json in an array›\"}}, 1, null]}}}}"
            ),
            &format!(
                "> POST /2 HTTP/1.1\nHost: shop.example\n{JSON}\nContent-Length: LEN\n\n[{{\"tokens\": [\"‹json \
                 array of \
                 secrets›\", \"‹json array of secrets›\"], \"password\": ‹digits:json number›, \"secret\": \
                 {{\"value\": \
                 \"‹json object in a secret›\"}}}}]"
            ),
            &format!(
                "< HTTP/1.1 200 OK\n{JSON}\nContent-Length: LEN\n\n{{\"p\\u0061ssword\": \"‹json escaped name›\", \
                 \"api-key\": \"a\\\"‹json escaped quote›\\\\\", \"token\": \"‹escaped:json escaped value›\", \
                 \"PRIVATE_KEY\": \"‹json upper case›\"}}"
            ),
        ],
    );
    builder.http1(
        "http1 kinds of json",
        plain,
        &[
            "> POST /1 HTTP/1.1\nHost: shop.example\nContent-Type: application/vnd.api+json\nContent-Length: \
             LEN\n\n{\"refreshToken\":\"‹json suffix›\"}",
            "< HTTP/1.1 200 OK\nContent-Type: application/x-ndjson\nContent-Length: \
             LEN\n\n{\"token\":\"‹ndjson›\"}\n{\"token\":\"‹ndjson›\"}\n",
            "> POST /2 HTTP/1.1\nHost: shop.example\nContent-Type: text/plain\nContent-Length: \
             LEN\n\n{\"password\":\"‹json as text/plain›\"}",
            "< HTTP/1.1 200 OK\nContent-Length: LEN\n\n  {\"password\" : \"‹json without a type›\"}",
            "> POST /3 HTTP/1.1\nHost: shop.example\nContent-Length: LEN\n\nuser=anna&password=‹form without a type›",
            NO_CONTENT,
        ],
    );
    builder.http1(
        "http1 multipart",
        plain,
        &[
            "> POST /1 HTTP/1.1\nHost: shop.example\nContent-Type: multipart/form-data; \
             boundary=cut0here\nContent-Length: LEN\n\n--cut0here\r\nContent-Disposition: form-data; \
             name=\"user\"\r\n\r\nanna\r\n--cut0here\r\nContent-Disposition: form-data; \
             name=\"password\"\r\n\r\n‹multipart \
             password›\r\n--cut0here\r\nContent-Type: application/json\r\nContent-Disposition: form-data; \
             name=\"profile\"\r\n\r\n{\"a\": 1, \"token\": \"‹multipart json›\"}\r\n--cut0here--\r\n",
            NO_CONTENT,
            "> POST /2 HTTP/1.1\nHost: shop.example\nContent-Type: multipart/form-data; boundary=\"two \
             words\"\nContent-Length: LEN\n\n--two words\r\ncontent-disposition: form-data; name=api_key; \
             filename=\"k.pem\"\r\ncontent-type: text/plain\r\n\r\n‹multipart file›\r\n--two \
             words\r\nContent-Disposition: \
             form-data; name=form\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\nsecret=‹multipart \
             form›&a=b\r\n--two words--\r\n",
            NO_CONTENT,
        ],
    );
}

fn framing(builder: &mut Builder) {
    let plain = Grade::Plain;
    builder.http1(
        "http1 chunks",
        plain,
        &[
            "> POST /1 HTTP/1.1\nHost: shop.example\nTransfer-Encoding: chunked\nTrailer: x-auth-token\nContent-Type: \
             application/json\n\n{\"password\": \"‹chunked json›\", \"rest\": \"0123456789\"}\n~~\nX-Auth-Token: \
             ‹trailer›\nAuthorization: Bearer ‹authorization trailer›\nx-checksum: 1\n",
            "< HTTP/1.1 200 OK\ntransfer-encoding: chunked\ncontent-type: application/x-www-form-urlencoded\n\n\
             a=b&token=‹chunked form›&c=d",
        ],
    );
    let chunk = builder.planter.expand(
        "POST /2 HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n5;token=‹chunk \
         extension›\r\nhello\r\n0;password=\"‹last chunk extension›\"\r\n\r\n",
    );
    builder.add("http1 chunk extensions", plain, vec![client(chunk), server("HTTP/1.1 204 No Content\r\n\r\n")]);
    builder.http1(
        "http1 interim responses",
        plain,
        &[
            "> POST /1 HTTP/1.1\nHost: shop.example\nExpect: 100-continue\nContent-Length: 2\n\n",
            "< HTTP/1.1 100 Continue\nX-Auth-Token: ‹100 header›\n\n",
            "> \n\n",
            "< HTTP/1.1 103 Early Hints\nLink: </s.css?token=‹103 link›>; rel=preload\nSet-Cookie: a=‹103 \
             set-cookie›\n\n",
            "< HTTP/1.1 200 OK\nX-Api-Key: ‹header after 1xx›\nContent-Length: LEN\n\nok",
        ],
    );
    // The body that was expected.
    let expected = &mut builder.conversations.last_mut().unwrap().pieces[2];
    expected.bytes = b"ok".to_vec();
    let pipelined = builder.planter.expand(
        "GET /1?token=‹pipelined query› HTTP/1.1\r\nHost: shop.example\r\n\r\nPOST /2 HTTP/1.1\r\nHost: \
         shop.example\r\nContent-Length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\nHost: shop.example\r\nAuthorization: ‹pipelined \
         header›\r\n\r\nHEAD /4 HTTP/1.1\r\nHost: shop.example\r\nCookie: a=‹head request›\r\n\r\n",
    );
    let responses = builder.planter.expand(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nSet-Cookie: a=‹pipelined \
         set-cookie›\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: \
         99\r\n\r\nHTTP/1.1 200 OK\r\nX-Api-Key: ‹head response›\r\nContent-Length: 99\r\n\r\n",
    );
    builder.add("http1 pipelined", plain, vec![client(pipelined), server(responses)]);
    builder.http1(
        "http1.0 until the end",
        plain,
        &[
            "> GET /?password=‹http1.0 query› HTTP/1.0\nAuthorization: Basic ‹basic:http1.0 basic›\n\n",
            "< HTTP/1.0 200 OK\nContent-Type: application/json\n\n{\"token\": \"‹body until the end›\", \"a\": 1}",
        ],
    );
    builder.http1(
        "http1 odd heads",
        plain,
        &[
            "> GET /1 HTTP/1.1\nHost: shop.example\nX-Api-Key:\t‹after a tab›\nCookie: \n\n",
            NO_CONTENT,
            "> OPTIONS * HTTP/1.1\nHost: shop.example\nX-Empty:\nAuthorization: Bearer a,b ‹many words› c\n\n",
            "< HTTP/1.1 200\nX-Api-Key: ‹no reason phrase›\nContent-Length: 0\n\n",
        ],
    );
}

fn packed(builder: &mut Builder) {
    let packed = Grade::Packed;
    builder.http1(
        "http1 gzip",
        packed,
        &[
            "> POST /1 HTTP/1.1\nHost: shop.example\nContent-Encoding: gzip\nContent-Type: \
             application/json\nContent-Length: LEN\n\n{\"password\": \"‹gzip json request›\", \"user\": \"anna\"}",
            "< HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Type: application/json\nContent-Length: \
             LEN\n\n{\"token\": \"‹gzip json›\", \"user\": \"anna\"}",
            "> GET /2 HTTP/1.1\nHost: shop.example\n\n",
            "< HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Type: \
             application/x-www-form-urlencoded\nTransfer-Encoding: chunked\n\nsecret=‹gzip in chunks›&user=anna",
            "> GET /3?token=‹query before gzip› HTTP/1.1\nHost: shop.example\n\n",
            "< HTTP/1.1 204 No Content\nX-Api-Key: ‹header after gzip›\n\n",
        ],
    );
    builder.http1(
        "http1 other codings",
        packed,
        &[
            "> POST /1 HTTP/1.1\nHost: shop.example\nContent-Encoding: deflate\nContent-Type: \
             application/x-www-form-urlencoded\nContent-Length: LEN\n\npassword=‹deflate form›&user=anna",
            "< HTTP/1.1 200 OK\nContent-Encoding: br\nContent-Type: application/json\nContent-Length: \
             LEN\n\n{\"token\": \
             \"‹brotli json›\", \"user\": \"anna\"}",
            "> GET /2 HTTP/1.1\nHost: shop.example\n\n",
            "< HTTP/1.0 200 OK\nContent-Encoding: gzip\nContent-Type: application/json\n\n{\"token\": \"‹gzip \
             until the \
             end›\", \"user\": \"anna\"}",
        ],
    );
    builder.http1(
        "http1 zstd",
        packed,
        &[
            "> POST /2 HTTP/1.1\nHost: shop.example\nContent-Encoding: zstd\nContent-Type: \
             application/json\nContent-Length: LEN\n\n{\"api_key\": \"‹zstd json›\", \"user\": \"anna anna anna \
             anna\"}",
            NO_CONTENT,
        ],
    );
}

const UPGRADE: &str = "> GET /chat?token=‹websocket query› HTTP/1.1\nHost: shop.example\nConnection: Upgrade\nUpgrade: \
                       websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n";
const UPGRADED: &str = "< HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: \
                        Upgrade\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n";

/// A WebSocket frame (RFC 6455 section 5.2) of fewer than 64 KiB. `first` has FIN, the reserved bits and the opcode.
pub fn ws_frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut out = vec![first];
    match u8::try_from(payload.len()) {
        Ok(len @ 0..126) => out.push(masked | len),
        _ => {
            out.push(masked | 126);
            out.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    let key = mask.unwrap_or_default();
    out.extend(mask.iter().flatten());
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// A message as permessage-deflate has it (RFC 7692 section 7.2.1).
fn ws_deflate(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.flush().unwrap();
    let mut bytes = encoder.get_ref().clone();
    assert!(bytes.ends_with(&[0, 0, 0xff, 0xff]));
    bytes.truncate(bytes.len() - 4);
    bytes
}

fn web_sockets(builder: &mut Builder) {
    let mask = Some([0x37, 0xfa, 0x21, 0x3d]);
    let mut pieces: Vec<Piece> = [UPGRADE, UPGRADED].map(|template| builder.piece(&format!("{template}\n"))).into();
    let mut text = |template: &str| builder.planter.expand(template).into_bytes();
    pieces.push(client(ws_frame(0x81, mask, &text("{\"type\":\"login\",\"password\":\"‹websocket client›\"}"))));
    pieces.push(server(ws_frame(0x81, None, &text("{\"type\":\"ok\",\"token\":\"‹websocket server›\"}"))));
    let long = text(&format!("{{\"pad\":\"{}\",\"secret\":\"‹long websocket message›\"}}", "x".repeat(150)));
    pieces.push(client(ws_frame(0x81, Some([0, 0xff, 1, 0x80]), &long)));
    // Fragments that cut through the secret, with a ping between them.
    let whole = text("{\"type\":\"frag\",\"token\":\"‹websocket fragments›\",\"n\":1}");
    let (first, rest) = whole.split_at(35);
    let (second, third) = rest.split_at(3);
    let fragments = [
        ws_frame(0x01, mask, first),
        ws_frame(0x89, mask, b"ping"),
        ws_frame(0x00, Some([1, 2, 3, 4]), second),
        ws_frame(0x80, mask, third),
    ];
    pieces.push(client(fragments.concat()));
    pieces.push(server(ws_frame(0x82, None, &text("{\"api_key\":\"‹binary websocket message›\"}"))));
    pieces.push(client(ws_frame(
        0x88,
        mask,
        &[&[0x03, 0xe8], text("token=‹websocket close reason›").as_slice()].concat(),
    )));
    pieces.push(server(ws_frame(0x88, None, &[0x03, 0xe8])));
    builder.add("websocket", Grade::Plain, pieces);

    let extension =
        "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\n\n";
    let mut pieces: Vec<Piece> =
        [UPGRADE, UPGRADED].map(|template| builder.piece(&format!("{template}{extension}"))).into();
    let mut text = |template: &str| ws_deflate(&builder.planter.expand(template));
    pieces.push(client(ws_frame(
        0xc1,
        mask,
        &text("{\"type\":\"login\",\"password\":\"‹deflated websocket client›\"}"),
    )));
    pieces.push(server(ws_frame(0xc1, None, &text("{\"type\":\"ok\",\"token\":\"‹deflated websocket server›\"}"))));
    builder.add("websocket deflate", Grade::Packed, pieces);
}
