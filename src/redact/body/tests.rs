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
    let wrong: Vec<_> = cases
        .iter()
        .map(|(body, expected)| (whole(content_type, body), *expected))
        .filter(|(redacted, expected)| redacted != expected)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn json() {
    check(
        JSON,
        &[
            (r#"{"password":"abc","a":"abc"}"#, r#"{"password":"***","a":"abc"}"#),
            (r#"{"p\u0061ssword" : "a\"\u0041b" , "a":1}"#, r#"{"p\u0061ssword" : "**********" , "a":1}"#),
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
                r#"{"h":"Bearer ***","i":"Basic plan","j":"Basic ********"}"#,
            ),
            (r#"{"j":"eyJhbGc.eyJzdWI.abc"}"#, r#"{"j":"eyJhbGc.***********"}"#),
            (
                "{\"token\":\"a\"}\n{\"token\":\"b\"}\n[\"c\"]\n\"d\"\n5\n",
                "{\"token\":\"*\"}\n{\"token\":\"*\"}\n[\"c\"]\n\"d\"\n5\n",
            ),
            ("\u{feff}{\"token\":\"a\"}", "\u{feff}{\"token\":\"*\"}"),
            (
                "{\"token\": // c\n \"a\" /* d */, b: 'c', pwd: 'e'}",
                "{\"token\": //**\n \"*\" /*****/, b: 'c', pwd: '*'}",
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
            ("{\"a\":\"b, \"password\":\"x\"}", "{\"a\":\"b, \"**************"),
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
                "<s:password x=\"y\">*<***</**</s:password><b>c</b>",
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
fn texts_that_begin_like_json() {
    let cases = [
        (
            "[default]\naws_secret_access_key = abc\nregion = d\n",
            "[default]\naws_secret_access_key = ***\nregion = d\n",
        ),
        ("[db]\npassword = \"abc\"\n", "[db]\npassword = \"***\"\n"),
        ("\"password\" = \"abc\"\n", "\"password\" = \"***\"\n"),
        ("{\"a\":1}\npassword = abc\n", "{\"a\":1}\npassword = ***\n"),
        ("[INFO] Bearer abcdefgh\n", "[INFO] Bearer ********\n"),
        ("[1] [x] export password=abc\n", "[1] [x] export password=***\n"),
        // These are texts in JSON that follow each other.
        ("1 2\ntrue {\"a\":null}\n", "1 2\ntrue {\"a\":null}\n"),
    ];
    check("text/plain", &cases);
    check("", &cases);
    for (body, expected) in cases {
        for length in [1, 2, 3, 7] {
            let (redacted, _) = in_pieces(None, body.as_bytes(), &[length]);
            assert!(!String::from_utf8_lossy(&redacted).contains("abc"), "{body:?} in {length}: {expected:?}");
        }
    }
}

#[test]
fn json_web_tokens() {
    for head in ["eyJhbGci", "eyAiYWxn", "eyAgImFs", "ewogICJh", "ewoiYWxn", "ew0KICJh", "ewoJImFs", "ewkiYWxn"] {
        for before in ["", "[", "]", "@", "$", "\u{e9}", "-", "session_", "a.", "x ", "a-e", "a e-"] {
            let text = format!("{before}{head}.abc-d.e_f");
            let expected = format!("{before}{head}.*********");
            for (content_type, around) in
                [("text/plain", "TEXT"), (JSON, "{\"x\":\"TEXT\"}"), (JSON, "[\"\\n\\u00e9TEXT\"]")]
            {
                let (body, expected) = (around.replace("TEXT", &text), around.replace("TEXT", &expected));
                // After another letter or digit, it is the inside of a word.
                let expected = if before == "a-e" { body.clone() } else { expected };
                for length in 1..=body.len() {
                    let (out, _) = in_pieces(Some(content_type), body.as_bytes(), &[length]);
                    assert_eq!(String::from_utf8(out).unwrap(), expected, "{length}");
                }
            }
            let mut field = text.clone().into_bytes();
            crate::redact::Redaction::default().field(b"x-any", &mut field, &mut Counts::default());
            assert_eq!(field == text.as_bytes(), before == "a-e", "{text}");
        }
    }
    check("text/plain", &[("a new.b view.c ewe.d key.e they.f eye.g", "a new.b view.c ewe.d key.e they.f eye.g")]);
}

#[test]
fn entities() {
    check(
        "application/xml",
        &[
            (
                "<a>&lt;password&gt;S&lt;/password&gt;&lt;b&gt;c&lt;/b&gt;</a>",
                "<a>&lt;password&gt;*&lt;/password&gt;&lt;b&gt;c&lt;/b&gt;</a>",
            ),
            ("<a>&#60;pin x='y'&#x3E;S&#60;/pin&#x3e;d</a>", "<a>&#60;pin x='y'&#x3E;*&#60;/pin&#x3e;d</a>"),
            ("<a>&amp;lt;password&amp;gt;S</a><b>c</b>", "<a>&amp;lt;password&amp;gt;*</a><b>c</b>"),
            ("<a>&lt;token&gt; <i>b</i> c</a>", "<a>&lt;token&gt;*<***</i> c</a>"),
            ("<password>a&lt;/password&gt;S</password><b>c</b>", "<password>*******************</password><b>c</b>"),
            (
                "<input title=\"a&gt;b&lt;c\" name=\"pin\" value=\"S\"/>",
                "<input title=\"a&gt;b&lt;c\" name=\"pin\" value=\"*\"/>",
            ),
            (
                "<p>a &lt; b &amp;&amp; c &gt; d&nbsp;&eacute; &token=S</p>",
                "<p>a &lt; b &amp;&amp; c &gt; d&nbsp;&eacute; &token=*</p>",
            ),
        ],
    );
    check(
        "text/html",
        &[
            (
                "<p data=\"{&quot;password&quot;:&quot;a\\&quot; S&quot;,&quot;b&quot;:&#34;c&#34;}\">d",
                "<p data=\"{&quot;password&quot;:&quot;**********&quot;,&quot;b&quot;:&#34;c&#34;}\">d",
            ),
            ("<p data=\"{&quot;pin&quot;:12,&quot;b&quot;:3}\">", "<p data=\"{&quot;pin&quot;:**,&quot;b&quot;:3}\">"),
        ],
    );
}

#[test]
fn values_on_the_next_line() {
    check(
        "text/yaml",
        &[
            ("password:\n  S\nuser: b\n", "password:\n  *\nuser: b\n"),
            ("a:\n  password: \r\n\r\n    S T\r\nuser: b\n", "a:\n  password: \r\n\r\n    ***\r\nuser: b\n"),
            ("password:\n  'S'\nuser: b\n", "password:\n  '*'\nuser: b\n"),
            ("password:\nuser: b\n", "password:\nuser: b\n"),
        ],
    );
    check("application/javascript", &[("a={password:\n  \"S\", b:c}", "a={password:\n  \"*\", b:c}")]);
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
fn bodies_that_are_no_text_although_their_type_says_so() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let secret = b"QzX7SeCrEtVaLue9";
    for opening in [
        b"\x1f\x8b".to_vec(),
        b"\x28\xb5\x2f\xfd".to_vec(),
        b"x\x9c".to_vec(),
        b"x\xda".to_vec(),
        b"PK\x03\x04".to_vec(),
        b"BZh".to_vec(),
        b"\xff\xfe".to_vec(),
        b"\xfe\xff".to_vec(),
        b"\0<".to_vec(),
        utf16("<"),
    ] {
        let body = [&opening[..], secret, b" and more"].concat();
        let part = [b"--b\r\ncontent-type: text/xml\r\n\r\n", &body[..], b"\r\n--b--\r\n"].concat();
        for (content_type, body) in [
            (Some(JSON), &body),
            (Some("text/plain"), &body),
            (Some("application/xml"), &body),
            (Some("application/vnd.unknown"), &body),
            (Some("multipart/form-data; boundary=b"), &body),
            (Some("multipart/form-data; boundary=b"), &part),
            (None, &body),
        ] {
            let (at_once, counts) = in_pieces(content_type, body, &[body.len()]);
            assert!(memchr::memmem::find(&at_once, b"and more").is_none(), "{content_type:?} {opening:?}");
            assert!(memchr::memmem::find(&at_once, secret).is_none() && !counts.is_empty());
            for length in 1..6 {
                assert_eq!((at_once.clone(), counts), in_pieces(content_type, body, &[length]), "{length}");
            }
        }
        for kept in ["image/png", "application/octet-stream", "application/zip"] {
            assert_eq!(in_pieces(Some(kept), &body, &[3]).0, body);
        }
    }
    check("text/plain", &[("xylophone", "xylophone"), ("PKI", "PKI"), ("BZ", "BZ"), ("(a)", "(a)"), ("x", "x")]);
    check("application/grpc-web-text", &[("AAAAAAA=", "********")]);
    check("application/grpc-web-text+proto", &[("AAAAAAA=", "********")]);
    check("application/grpc-web+proto", &[("\0\0\0\0\x01a", "\0\0\0\0\x01a")]);
}

#[test]
fn of_several_types_the_strictest_counts() {
    let read = |types: &[&str]| {
        let types = types.iter().map(|it| it.as_bytes().to_vec());
        let kind = types.reduce(|before, it| strictest(before, &it)).unwrap_or_default();
        let body = "{\"password\":\"abc\",\"a\":1}";
        String::from_utf8(in_pieces(std::str::from_utf8(&kind).ok(), body.as_bytes(), &[7]).0).unwrap()
    };
    let redacted = "{\"password\":\"***\",\"a\":1}";
    for types in [
        &["image/png", JSON][..],
        &[JSON, "image/png"],
        &["image/png", "image/gif"],
        &["image/png", "image/gif", "image/png"],
        &["image/png, application/json"],
        &["", "image/png"],
    ] {
        assert_eq!(read(types), redacted, "{types:?}");
    }
    assert_eq!(read(&["multipart/form-data; boundary=b", "image/png"]), "*".repeat(redacted.len()));
    assert_eq!(read(&["image/png", "image/PNG "]), redacted.replace("***", "abc"));
}

#[test]
fn names_of_parts() {
    for head in [
        "Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=password",
        "Content-Disposition: form-data; name=a; name=password",
        "Content-Disposition: form-data; name=\"=?utf-8?B?cGFzc3dvcmQ=?=\"",
        "Content-Disposition: form-data; name*=utf-8''p%61ssword",
        "Content-Disposition: form-data; name*=utf-8'en'%6Bey",
        "Content-Disposition: form-data; name*0=pass; name*1=word",
        "Content-Type: image/png\r\nContent-Type: text/plain\r\nContent-Disposition: form-data; name=pin",
    ] {
        let body = format!("--b\r\n{head}\r\n\r\nabc\r\n--b--\r\n");
        assert!(whole("multipart/form-data; boundary=b", &body).ends_with("\r\n\r\n***\r\n--b--\r\n"), "{head}");
    }
    let body = "--b\r\nContent-Disposition: form-data; name=a; filename=password\r\n\r\nabc\r\n--b--\r\n";
    check("multipart/form-data; boundary=b", &[(body, body)]);
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

/// Values of members, parameters and so on, which are kept.
const HARMLESS: &str =
    "[a-z]{0,12}|[A-Z][a-z]{1,8} [a-z]{1,9}|[0-9]{1,5}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z";

fn secret_name() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "password",
        "Passwd",
        "client_secret",
        "accessToken",
        "api-key",
        "user[password]",
        "creds.api_key",
        "PIN",
        "otp",
        "sig",
        "sid",
        "csrf_token",
        "SAMLResponse",
        "client_assertion",
        "X-Amz-Signature",
        "card_number",
        "cvv",
        "iban",
        "auth",
        "jwt",
        "session",
        "private_key",
        "passphrase",
        "credentials",
    ])
    .prop_map(String::from)
}

fn other_name() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "user",
        "id",
        "page",
        "author",
        "max_tokens",
        "token_type",
        "items",
        "spin",
        "a",
        "design",
    ])
    .prop_map(String::from)
}

const SECRET: &str = "QzX7SeCrEtVaLue9";

/// A form of a secret in a text of a type, with `NAME` and `SECRET` in it.
const FORMS: &[(&str, &str)] = &[
    (JSON, r#"{"x":[1,{"NAME":"SECRET"}],"y":"z"}"#),
    (JSON, r#"{"x":"y","NAME":{"a":["b","SECRET"],"SECRET":1}}"#),
    (JSON, r#"{"x":"{\"NAME\":\"SECRET\"}"}"#),
    (JSON, r#"{"x":"{\"NAME\":{\"a\":[\"SECRET\"]}}"}"#),
    (JSON, r#"{"x":"{\n \"NAME\" : \"SECRET\"\n}"}"#),
    (JSON, r#"{"name":"NAME","value":"SECRET"}"#),
    (JSON, r#"{"u":"https://h/?NAME=SECRET&x=1"}"#),
    (JSON, r#"{"u":"https:\/\/h\/?NAME=SECRET\u0026x=1"}"#),
    (JSON, r#"{"u":"https://user:SECRET@h/"}"#),
    (JSON, r#"{"u":"https://SECRET@h/"}"#),
    (JSON, r#"{"u":"eyJhbGciOiJI.SECRET.x"}"#),
    (JSON, r#"{"u":"x Bearer SECRET"}"#),
    (JSON, r#"{"u":"Basic SECRET"}"#),
    (JSON, r#"{"u":"a=b, NAME=SECRET"}"#),
    (JSON, "{'NAME':'SECRET'}"),
    (JSON, "{NAME : SECRET}"),
    (JSON, "{\"x\":\"y, \"NAME\":\"SECRET\"}"),
    (JSON, "{\"x\":\"y\n \"NAME\":\"SECRET\"}"),
    (JSON, "{\"x\":y\" , \"NAME\":\"SECRET\"}"),
    (JSON, "x\"y\":{\"NAME\":\"SECRET\"}"),
    (JSON, "// x\n{\"NAME\": /* y */ \"SECRET\"}"),
    (JSON, "{\"x\":1}\n{\"NAME\":\"SECRET\"}\n"),
    (JSON, "NAME=SECRET"),
    (JSON, "<p>\nNAME: SECRET\n</p>"),
    ("application/x-ndjson", "{\"x\":1}\n{\"NAME\":\"SECRET\"}\n"),
    ("text/plain", "{\"NAME\":\"SECRET\"}"),
    ("", "{\"NAME\":\"SECRET\"}"),
    ("", "x=y&NAME=SECRET&a=b"),
    ("", "NAME=SECRET"),
    (FORM, "NAME=SECRET"),
    (FORM, "x=y&NAME=SECRET&a=b"),
    (FORM, "x=y&NAME=a+b;c,d%26SECRET&a=b"),
    (FORM, "u=https%3A%2F%2Fh%2F%3FNAME%3DSECRET%26x%3Dy&a=b"),
    (FORM, "u=https%253A%252F%252Fh%252F%253FNAME%253DSECRET%2526x%253Dy&a=b"),
    (FORM, "u=https%3A%2F%2Fu%3ASECRET%40h%2F&a=b"),
    (FORM, "j=%7B%22NAME%22%3A%22SECRET%22%7D&a=b"),
    (FORM, "{\"NAME\":\"SECRET\"}"),
    (FORM, "a=Bearer+SECRET"),
    ("text/plain", "x NAME: SECRET\n"),
    ("text/plain", "x NAME = SECRET\n"),
    ("text/plain", "x NAME=SECRET y"),
    ("text/plain", "NAME='x SECRET'"),
    ("text/plain", "\"NAME\" : \"x \\\" SECRET\""),
    ("text/plain", "see http://h/?x=y&NAME=SECRET#z"),
    ("text/plain", "Authorization: Basic SECRET"),
    ("text/plain", "https://user:SECRET@h/"),
    ("text/yaml", "x:\n  NAME: |\n    a\n    SECRET\n"),
    ("text/event-stream", "data: {\"NAME\":\"SECRET\"}\n\n"),
    ("text/event-stream", "data: NAME=SECRET\n\n"),
    ("text/html", "<input name=\"NAME\" value=\"SECRET\">"),
    ("text/html", "<a href='/x?a=b&amp;NAME=SECRET'>"),
    ("application/xml", "<a NAME=\"SECRET\"/>"),
    ("application/xml", "<a><key>NAME</key><string>SECRET</string></a>"),
    ("application/xml", "<p name=\"NAME\">SECRET</p>"),
    ("application/xml", "<a>&lt;NAME&gt;SECRET&lt;/NAME&gt;</a>"),
    ("application/xml", "<a>&amp;lt;NAME&amp;gt;SECRET&amp;lt;/NAME&amp;gt;</a>"),
    ("application/xml", "<a>&lt;b NAME=&quot;SECRET&quot;/&gt;</a>"),
    ("text/html", "<p data=\"{&quot;NAME&quot;: &quot;SECRET&quot;}\"/>"),
    ("text/html", "<a href=\"?x=y&amp;NAME=SECRET&amp;z=1\"/>"),
    ("text/yaml", "x:\n  NAME:\n    SECRET\n"),
    ("text/yaml", "NAME: \r\n  SECRET\r\n"),
    ("application/javascript", "f({NAME:\"SECRET\"})"),
    ("application/javascript", "x({\"NAME\":[\"a\",{\"b\":\"SECRET\"}]})"),
    ("application/javascript", "a&&{NAME:\"SECRET\"}"),
    ("application/javascript", "a?{NAME:\"SECRET\"}:b"),
    ("application/javascript", "a?b(NAME='SECRET')"),
    ("", "f({NAME:\"SECRET\"})"),
    ("text/plain", "a&NAME: SECRET\n"),
    ("text/plain", "{\"a\":1} \"b\" \"NAME\":\"SECRET\""),
    (JSON, "\"b\"\n\"NAME\":\"SECRET\""),
    (JSON, "{\"a\":[\"b\" \"NAME\":\"SECRET\"]}"),
    ("application/graphql", "{ user(NAME: \"SECRET\") { x } }"),
    (
        "multipart/form-data; boundary=b",
        "--b\r\nContent-Disposition: form-data; name=\"NAME\"\r\n\r\nSECRET\r\n--b--\r\n",
    ),
    ("multipart/form-data; boundary=b", "--b\ncontent-disposition: form-data; name=NAME\n\na\n--\nSECRET\n--b--\n"),
    (
        "multipart/mixed; boundary=b",
        "--b\r\ncontent-type: application/json\r\n\r\n{\"x\":1,\"NAME\":\"SECRET\"}\r\n--b--\r\n",
    ),
    (
        "multipart/mixed; boundary=b",
        "--b\r\ncontent-type: application/http\r\n\r\nGET /?NAME=SECRET HTTP/1.1\r\nAuthorization: x\r\n",
    ),
];

fn percent_encoded(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn no_form_of_a_secret_survives() {
    for (content_type, form) in FORMS {
        let content_type = (!content_type.is_empty()).then_some(*content_type);
        for name in ["password", "clientSecret", "PIN", "x-api-key", "sig"] {
            let body = form.replace("NAME", name).replace("SECRET", SECRET);
            for length in 1..=body.len() {
                let (out, counts) = in_pieces(content_type, body.as_bytes(), &[length]);
                assert_eq!(out.len(), body.len());
                let keys = body.matches(&format!("\"{SECRET}\":")).count();
                let left = memchr::memmem::find_iter(&out, SECRET.as_bytes()).count();
                assert!(left <= keys, "{body} in pieces of {length}: {}", String::from_utf8_lossy(&out));
                assert!(!counts.is_empty(), "{body}");
                let (out, _) = in_pieces(content_type, &body.as_bytes()[..length], &[length]);
                let left = memchr::memmem::find_iter(&out, SECRET.as_bytes()).count();
                assert!(left <= keys, "{body} cut after {length}: {}", String::from_utf8_lossy(&out));
            }
        }
    }
}

#[test]
fn what_only_looks_like_a_secret_is_kept() {
    for (content_type, body) in [
        (
            JSON,
            r#"{"author":"token","design":{"x":"pass"},"user":"a:b=c","t":"2024-01-02T03:04:05Z","u":"https://h:80/a?b=c"}"#,
        ),
        (JSON, r#"{"name":"password_hint_shown","value":true,"x":"Basic plan","y":"\u00e9\n\"","z":"a@b.c"}"#),
        (FORM, "author=b&status_code=5&keyboard=c&u=https%3A%2F%2Fh%2F%3Fa%3Db%26c%3Dd"),
        ("text/plain", "The author: a\nspin = 5, see https://h/x?page=2#top or ask a@b.c\nBasic training: yes\n"),
        (
            "text/html",
            "<form name=\"x\"><input name=\"user\" value=\"y\"><a href='https://h/?a=b&amp;c=d'>z</a></form>\n",
        ),
        ("application/javascript", "x=a?b:c;f({user:d,key:\"e\",code:5});if(a&&key==b){g()}\n"),
        (
            "application/xml",
            "<?xml version=\"1.0\"?><a><name>user</name><value>b</value><author x=\"y\">c</author></a>\n",
        ),
        ("text/event-stream", "event: x\nid: 5\ndata: {\"user\":\"y\"}\n\n"),
        ("text/csv", "user,page\nbob,5\n"),
    ] {
        let expected = body.replace("\"value\":true", "\"value\":\"**\"");
        assert_eq!(whole(content_type, body), expected);
    }
}

fn json_value(names: BoxedStrategy<String>) -> BoxedStrategy<serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        HARMLESS.prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((names.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
    .boxed()
}

/// Whether no scalar under a secret name is left.
fn is_redacted(value: &serde_json::Value, secret: bool) -> bool {
    use serde_json::Value;
    match value {
        Value::Null => true,
        Value::Bool(_) => !secret,
        Value::Number(number) => !secret || number.as_i64() == Some(0),
        Value::String(string) => !secret || string.bytes().all(|byte| byte == b'*'),
        Value::Array(values) => values.iter().all(|value| is_redacted(value, secret)),
        Value::Object(members) => members
            .iter()
            .all(|(name, value)| is_redacted(value, secret || crate::redact::names::is_secret(name.as_bytes()))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn json_stays_json(
        value in json_value(prop_oneof![secret_name(), other_name()].boxed()),
        pretty in any::<bool>(),
    ) {
        let body = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
        let (out, _) = in_pieces(Some(JSON), &body, &[body.len()]);
        prop_assert_eq!(out.len(), body.len());
        let redacted: serde_json::Value = serde_json::from_slice(&out).unwrap();
        prop_assert!(is_redacted(&redacted, false), "{}", String::from_utf8_lossy(&out));
    }

    #[test]
    fn pieces_of_json_do_not_matter(
        value in json_value(prop_oneof![secret_name(), other_name()].boxed()),
        lengths in proptest::collection::vec(1..20_usize, 1..10),
    ) {
        // What is known late, and numbers, are told apart by pieces.
        let body = serde_json::to_string(&value).unwrap();
        prop_assume!(!body.contains("//") && !body.contains('%'));
        let (at_once, counts) = in_pieces(Some(JSON), body.as_bytes(), &[body.len()]);
        let (out, piecewise) = in_pieces(Some(JSON), body.as_bytes(), &lengths);
        let plain = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\"*", "**").replace("*\"", "**");
        let differs = at_once.iter().zip(&out).filter(|(one, other)| one != other);
        prop_assert!(
            differs.clone().all(|(one, other)| *other == b'*' && matches!(*one, b'"' | b'0')),
            "{}\n{}", plain(&at_once), plain(&out)
        );
        prop_assert_eq!(counts, piecewise);
    }

    #[test]
    fn json_without_secrets_is_kept(value in json_value(other_name().boxed())) {
        let body = serde_json::to_string(&value).unwrap();
        prop_assume!(!body.contains("//") && !body.contains('='));
        let (out, counts) = in_pieces(Some(JSON), body.as_bytes(), &[body.len()]);
        if counts.is_empty() {
            prop_assert_eq!(String::from_utf8(out).unwrap(), body);
        } else {
            prop_assert!(body.contains(':'));
        }
    }

    #[test]
    fn any_text(
        content_type in proptest::sample::select(vec![
            "", JSON, FORM, "text/plain", "text/html", "text/javascript", "multipart/mixed; boundary=b", "application/grpc+json",
        ]),
        body in proptest::collection::vec(
            prop_oneof![
                proptest::sample::select(b"{}[]\"':,=&;%25<>/\\\n\r -.#@?*eyJ".to_vec()),
                proptest::sample::select(b"{}[]\"':,=&".to_vec()),
                any::<u8>(),
            ],
            0..200,
        ),
        words in proptest::collection::vec((any::<proptest::sample::Index>(), proptest::sample::select(vec![
            "password", "name", "value", "token=", "--b\r\n", "\r\n\r\n", "://", "Bearer ", "eyJ", "\\u00", "%25", "<password>", "|\n ", "&lt;", "&gt;", "&quot;", "&amp;",
        ])), 0..10),
        lengths in proptest::collection::vec(1..40_usize, 1..10),
    ) {
        let mut body = body;
        for (index, word) in words {
            let at = index.index(body.len() + 1);
            body.splice(at..at, word.bytes());
        }
        let content_type = (!content_type.is_empty()).then_some(content_type);
        let (out, _) = in_pieces(content_type, &body, &lengths);
        prop_assert_eq!(out.len(), body.len());
        in_pieces(content_type, &body, &[body.len().max(1)]);
        for mode in [Mode::Field, Mode::Target] {
            let mut value = body.clone();
            Text::new(mode, Kind::Field).whole(&mut value, &mut Counts::default());
        }
    }

    #[test]
    fn forms_in_pieces(
        members in proptest::collection::vec((secret_name(), "[A-Za-z0-9+;,]{1,20}", other_name(), "[a-z0-9]{0,9}"), 1..5),
        encode in any::<bool>(),
        lengths in proptest::collection::vec(1..20_usize, 1..10),
    ) {
        let mut body = String::new();
        let mut expected = String::new();
        for (name, secret, other, harmless) in members {
            let name = if encode { percent_encoded(&name) } else { name };
            body += &format!("{name}={secret}&{other}={harmless}&");
            expected += &format!("{name}={}&{other}={harmless}&", "*".repeat(secret.len()));
        }
        let (out, _) = in_pieces(Some(FORM), body.as_bytes(), &lengths);
        prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn an_idle_body_is_small() {
    assert!(size_of::<Body>() + size_of::<Json>() < 768 && size_of::<Multipart>() + size_of::<Text>() < 768);
}

#[test]
fn hostile_bodies_take_linear_time() {
    let bodies: [(&str, Vec<u8>); 16] = [
        ("text/plain", b"xJ".repeat(1 << 19)),
        ("text/plain", b"eyJ".repeat(1 << 18)),
        ("text/plain", [b"https://".as_slice(), &b"a@[".repeat(1 << 18)].concat()),
        (JSON, b"[".repeat(1_000_000)),
        (JSON, b"{\"password\":".repeat(100_000)),
        ("text/plain", b"{\"a\":".repeat(100_000)),
        (JSON, [b"{\"".as_slice(), &b"x".repeat(1 << 20), b"\":\"s\"}"].concat()),
        (JSON, [b"{\"a\":\"".as_slice(), &b"=:".repeat(1 << 19)].concat()),
        (JSON, [b"{\"a\":\"".as_slice(), &b"\\u0025".repeat(1 << 17)].concat()),
        (FORM, b"x".repeat(1 << 20)),
        (FORM, b"%25".repeat(1 << 18)),
        ("text/html", b"<a ".repeat(1 << 18)),
        ("text/plain", b"://".repeat(1 << 18)),
        ("text/html", b"&amp;".repeat(1 << 18)),
        ("text/plain", b"a b=Basic ".repeat(100_000)),
        ("multipart/mixed; boundary=b", b"\r\n--b\r\n\r\n".repeat(100_000)),
    ];
    for (content_type, body) in bodies {
        for length in [1, 16 << 10] {
            let start = std::time::Instant::now();
            in_pieces(Some(content_type), &body, &[length]);
            let elapsed = start.elapsed();
            assert!(elapsed.as_secs() < 20, "{content_type} {elapsed:?}");
        }
    }
}
