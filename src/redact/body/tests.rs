use proptest::prelude::*;

use super::*;

/// The body in pieces of these lengths, over and over.
fn in_pieces(content_type: Option<&str>, body: &[u8], lengths: &[usize]) -> (Vec<u8>, Counts) {
    let mut counts = Counts::default();
    let mut out = body.to_vec();
    let mut redacted = Body::new(&Redaction::default(), content_type.map(str::as_bytes));
    let mut rest = out.as_mut_slice();
    for length in lengths.iter().cycle() {
        let (piece, after) = rest.split_at_mut((*length).min(rest.len()));
        redacted.data(piece, &mut counts);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    (out, counts)
}

fn whole(content_type: &str, body: &str) -> String {
    let content_type = (!content_type.is_empty()).then_some(content_type);
    let (out, _) = in_pieces(content_type, body.as_bytes(), &[body.len().max(1)]);
    String::from_utf8(out).unwrap()
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

#[track_caller]
fn check(content_type: &str, cases: &[(&str, &str)]) {
    for (body, expected) in cases {
        assert_eq!(whole(content_type, body), *expected);
        assert_eq!(body.len(), expected.len());
    }
}

#[test]
fn json() {
    check(
        JSON,
        &[
            (r#"{"password":"abc","a":"abc"}"#, r#"{"password":"***","a":"abc"}"#),
            (r#"{"p\u0061ssword" : "a\"\u0041b" , "a":1}"#, r#"{"p\u0061ssword" : "*********" , "a":1}"#),
            (
                r#"{"pin":1234,"cvv":12,"otp":1,"token":null,"auth":true,"x":5}"#,
                r#"{"pin":"**","cvv":"","otp":0,"token":null,"auth":"**","x":5}"#,
            ),
            (
                r#"{"secrets":{"a":"b","c":[1000,"d",null]},"e":"f"}"#,
                r#"{"secrets":{"a":"*","c":["**","*",null]},"e":"f"}"#,
            ),
            (
                r#"{"a":{"b":[{"token":"x"},{"token":""}]},"c":["token","d"]}"#,
                r#"{"a":{"b":[{"token":"*"},{"token":""}]},"c":["token","d"]}"#,
            ),
            (r#"{"body":"{\"password\":\"x\\\"y\",\"a\":1}"}"#, r#"{"body":"{\"password\":\"*\/\/*\",\"a\":1}"}"#),
            (r#"{"body":"{\"pin\":12,\"a\":[1]}"}"#, r#"{"body":"{\"pin\":**,\"a\":[1]}"}"#),
            (
                r#"[{"name":"password","value":"x"},{"name":"user","value":"y"}]"#,
                r#"[{"name":"password","value":"*"},{"name":"user","value":"y"}]"#,
            ),
            (
                r#"{"key":"api_key","o":{"name":"n"},"value":[1,22]}"#,
                r#"{"key":"api_key","o":{"name":"n"},"value":[0,""]}"#,
            ),
            (r#"{"u":"https://u:p@h/?sig=abc&x=1"}"#, r#"{"u":"https://***@h/?sig=***&x=1"}"#),
            (r#"{"u":"https:\/\/u:p@h\/"}"#, r#"{"u":"https:\/\/***@h\/"}"#),
            (
                r#"{"h":"Bearer abc","i":"Basic plan","j":"Basic dXNlcjpw"}"#,
                r#"{"h":"Bearer ***","i":"Basic plan","j":"Basic *********"}"#,
            ),
            (r#"{"j":"eyJhbGc.eyJzdWI.abc"}"#, r#"{"j":"eyJhbGc.***********"}"#),
            (
                "{\"token\":\"a\"}\n{\"token\":\"b\"}\n[\"c\"]\n\"d\"\n5\n",
                "{\"token\":\"*\"}\n{\"token\":\"*\"}\n[\"c\"]\n\"d\"\n5\n",
            ),
            ("\u{feff}{\"token\":\"a\"}", "\u{feff}{\"token\":\"*\"}"),
            (
                "{\"token\": // c\n \"a\" /* d */, b: 'c', pwd: 'e'}",
                "{\"token\": //**\n \"*\" /****/, b: 'c', pwd: '*'}",
            ),
            (
                "{\"max_tokens\":10,\"token_type\":\"bearer\",\"expires_in\":3600}",
                "{\"max_tokens\":10,\"token_type\":\"bearer\",\"expires_in\":3600}",
            ),
            (
                r#"{"pem":"-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n"}"#,
                r#"{"pem":"-----BEGIN PRIVATE KEY-----\n***\n-----END PRIVATE KEY-----\n"}"#,
            ),
            ("token=abc&x=1", "token********"),
            ("<password>abc</password>", "<password>***</password>"),
            (")]}',\n{\"token\":\"abc\"}", ")]}',\n{\"token\":\"***\"}"),
            ("{\"a\":\"b, \"password\":\"x\"}", "{\"a\":\"b, \"***************"),
            ("{\"a\":\"b\n\"password\":\"x\"}", "{\"a\":\"b****************"),
            ("", ""),
            (" ", " "),
        ],
    );
}

#[test]
fn json_of_other_types() {
    check(
        "text/plain",
        &[
            (r#"{"password":"abc"}"#, r#"{"password":"***"}"#),
            ("[info] a token=abc b\n", "[info] a token=*** b\n"),
            ("{ user(password: \"abc\") { name } }", "{ user(password: \"***\") { name } }"),
        ],
    );
    check("application/vnd.api+json; charset=utf-8", &[(r#"{"password":"abc"}"#, r#"{"password":"***"}"#)]);
    check("", &[(r#" {"password":"abc"}"#, r#" {"password":"***"}"#), ("a=1&token=abc&b=c", "a=1&token=***&b=c")]);
    check(FORM, &[(r#"{"password":"abc"}"#, r#"{"password":"***"}"#)]);
    let body = b"\x00\x00\x00\x00\x0f{\"token\":\"abc\"}\x00\x00\x00\x00\x02{}\x01\x00\x00\x00\x01x";
    for length in [1, body.len()] {
        let (out, _) = in_pieces(Some("application/grpc+json"), body, &[length]);
        assert_eq!(out, b"\x00\x00\x00\x00\x0f{\"token\":\"***\"}\x00\x00\x00\x00\x02{}\x01\x00\x00\x00\x01*");
    }
}

#[test]
fn forms() {
    check(
        FORM,
        &[
            ("user=a&password=b%20c&x=y", "user=a&password=*****&x=y"),
            ("user%5Bpassword%5D=b;c d'e\"&x=y", "user%5Bpassword%5D=********&x=y"),
            ("p%61ss=b&code=c&key=d&author=e", "p%61ss=*&code=*&key=*&author=e"),
            ("my+api+key=b", "my+api+key=*"),
            ("my (odd) password!=b", "my (odd) password!=*"),
            ("next=%2Fa%3Ftoken%3Db%26c%3Dd&x=y", "next=%2Fa%3Ftoken%3D*%26c%3Dd&x=y"),
            ("data=%7B%22pin%22%3A12%7D&x=y", "data=%7B%22pin%22%3A**%7D&x=y"),
        ],
    );
}

#[test]
fn texts() {
    check(
        "text/plain",
        &[
            ("Password: a b, c\r\nuser: d\n", "Password: ******\r\nuser: d\n"),
            ("Client Secret = abc d\n", "Client Secret = *** d\n"),
            ("see https://h/?token=abc&x=1 and https://u:p@h/", "see https://h/?token=***&x=1 and https://***@h/"),
            ("Authorization: Basic YTpi\r\n\r\n", "Authorization: **********\r\n\r\n"),
            ("curl -H 'Authorization: Bearer abc' x", "curl -H 'Authorization: *************"),
        ],
    );
    check("text/event-stream", &[("data: {\"token\":\"abc\",\"n\":1}\n\n", "data: {\"token\":\"***\",\"n\":1}\n\n")]);
    check("text/csv", &[("a,b\n1,2\n", "a,b\n1,2\n")]);
    check("text/yaml", &[("secret: |\n  abc\n  def\nx: y\n", "secret: *\n*****\n*****\nx: y\n")]);
    check(
        "application/javascript",
        &[
            ("f({token:\"abc\",b:token,c:1})", "f({token:\"***\",b:token,c:1})"),
            ("var a={password:e.f,g:h};", "var a={password:***,g:h};"),
        ],
    );
    check(
        "application/xml",
        &[
            ("<a><password>abc</password><b>c</b></a>", "<a><password>***</password><b>c</b></a>"),
            (
                "<s:password x=\"y\">a<b>c</b></s:password><b>c</b>",
                "<s:password x=\"y\">*<***</b*</s:password><b>c</b>",
            ),
            ("<password><![CDATA[abc]]></password>", "<password><**************</password>"),
        ],
    );
    check(
        "text/html",
        &[
            ("<meta name=\"csrf-token\" content=\"abc\">x: y", "<meta name=\"csrf-token\" content=\"***\">x: y"),
            ("<input type=hidden name='_csrf' value='abc'>", "<input type=hidden name='_csrf' value='***'>"),
            ("<input name=token value=abc>d", "<input name=token value=***>d"),
            (
                "<property name=\"password\">abc</property><b>c</b>",
                "<property name=\"password\">***</property><b>c</b>",
            ),
            (
                "<name>password</name><value>abc</value><name>a</name><value>b</value>",
                "<name>password</name><value>***</value><name>a</name><value>b</value>",
            ),
            (
                "<a href=\"/x?a=b&amp;token=abc&amp;c=d\">token</a>",
                "<a href=\"/x?a=b&amp;token=***&amp;c=d\">token</a>",
            ),
            ("<p class=\"a\">Hello: world</p>", "<p class=\"a\">Hello: world</p>"),
        ],
    );
}

#[test]
fn other_bodies() {
    for content_type in
        ["image/png", "application/octet-stream", "application/grpc", "application/grpc+proto", "application/pdf"]
    {
        check(content_type, &[("token=abc", "token=abc")]);
    }
    check("application/json; charset=utf-16", &[("{\"a\":1}", "*******")]);
    check("image/svg+xml", &[("<a token=\"abc\"/>", "<a token=\"***\"/>")]);
    let mut counts = Counts::default();
    let mut all = Body::new(&Redaction { bodies: true, ..Redaction::default() }, Some(b"image/png"));
    let mut bytes = *b"abc";
    all.data(&mut bytes, &mut counts);
    all.data(&mut bytes, &mut counts);
    assert_eq!((&bytes, counts.of(Kind::Body)), (b"***", 1));
}

#[test]
fn lost_bytes() {
    let mut counts = Counts::default();
    let mut body = Body::new(&Redaction::default(), Some(b"application/json"));
    let mut bytes = *b"{\"a\":";
    body.data(&mut bytes, &mut counts);
    body.lose();
    let mut rest = *b"\"b\"}";
    body.data(&mut rest, &mut counts);
    assert_eq!((&bytes, &rest, counts.of(Kind::Body)), (b"{\"a\":", b"****", 1));
}

#[test]
fn multipart() {
    let body = "--x-y\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\na\r\n--x\r\nb\r\n--x-y\r\n\
        content-disposition: form-data; name=\"j\"\r\ncontent-type: application/json\r\n\r\n{\"token\":\"abc\",\"a\":1}\r\n--x-y\r\n\
        content-disposition: form-data; name=user\r\n\r\nbob\r\n--x-y\r\nAuthorization: abc\r\n\r\nx\r\n--x-y--\r\n";
    let expected = "--x-y\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n*\r\n--x\r\n*\r\n--x-y\r\n\
        content-disposition: form-data; name=\"j\"\r\ncontent-type: application/json\r\n\r\n{\"token\":\"***\",\"a\":1}\r\n--x-y\r\n\
        content-disposition: form-data; name=user\r\n\r\nbob\r\n--x-y\r\nAuthorization: ***\r\n\r\nx\r\n--x-y--\r\n";
    for length in [1, 2, 3, 7, body.len()] {
        let (out, _) = in_pieces(Some("multipart/form-data; boundary=\"x-y\""), body.as_bytes(), &[length]);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "pieces of {length}");
    }
    check("multipart/form-data", &[("--x", "***")]);
}
