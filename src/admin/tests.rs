//! The client against servers that are not Envoy, or no friends of it.

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::{fd::AsFd, unix::net::UnixStream},
    thread,
    time::{Duration, Instant},
};

use super::{
    Admin, AdminError, Endpoint, MatchConfig, Reason, TapKind, TapRequest, TapSink,
    http::{Client, Patience},
};

/// Short, for servers that say nothing. Tests of what is said have more than enough time.
const SHORT: Patience =
    Patience { connect: Duration::from_secs(5), head: Duration::from_millis(300), whole: Duration::from_millis(600) };
const LONG: Duration = Duration::from_secs(20);

/// A server that does the same with each connection, after it has read a request. The thread ends with the test.
fn server(answer: impl Fn(&mut TcpStream) -> io::Result<()> + Send + 'static) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if read_request(&mut stream).is_ok() {
                // The client may not read all of it.
                let _ = answer(&mut stream);
            }
        }
    });
    let mut client = Client::new(&endpoint);
    client.wake = None;
    client.patience = Patience { connect: LONG, head: LONG, whole: LONG };
    client
}

fn read_request(stream: &mut TcpStream) -> io::Result<String> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let head = String::from_utf8(request).unwrap();
    let length = head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok(head + &String::from_utf8(body).unwrap())
}

/// A server that sends these bytes and closes the connection.
fn sending(bytes: impl Into<Vec<u8>>) -> Client {
    let bytes = bytes.into();
    server(move |stream| stream.write_all(&bytes))
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn chunked(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}")
}

fn admin(client: Client) -> Admin {
    Admin::with(client)
}

fn request() -> TapRequest {
    TapRequest {
        config_id: "t".into(),
        matching: MatchConfig::any(),
        max_rx: 1 << 20,
        max_tx: 1 << 20,
        sink: TapSink::Streaming,
    }
}

fn tap_error(client: Client) -> AdminError {
    admin(client).start(&request()).err().unwrap()
}

fn text(error: &AdminError) -> String {
    let text = error.to_string();
    assert!(text.chars().all(|char| !char.is_control()), "{text:?}");
    assert!(text.len() < 2000, "{text}");
    text
}

#[test]
fn endpoints_are_read_and_printed() {
    for text in [
        "http://127.0.0.1:9901",
        "http://[::1]:9901",
        "http://envoy.example:15000",
        "unix:/run/a b.sock",
        "unix:@envoy",
    ] {
        assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
    }
    assert_eq!("http://a:1/".parse::<Endpoint>().unwrap().to_string(), "http://a:1");
    assert_eq!("HTTP://a:1".parse::<Endpoint>().unwrap().to_string(), "http://a:1");
    assert_eq!("unix:///run/x".parse::<Endpoint>().unwrap(), Endpoint::Unix("/run/x".into()));
    for (text, part) in [
        ("https://127.0.0.1:9901", "no TLS"),
        ("http://127.0.0.1", "port is missing"),
        ("http://127.0.0.1:", "from 1 to 65535"),
        ("http://127.0.0.1:0", "from 1 to 65535"),
        ("http://127.0.0.1:70000", "from 1 to 65535"),
        ("http://127.0.0.1:+1", "from 1 to 65535"),
        ("http://::1:9901", "in brackets"),
        ("http://[::1:9901", "not closed"),
        ("http://[x]:9901", "no IPv6 address"),
        ("http://:9901", "no host"),
        ("http://a b:9901", "no host"),
        ("http://a:1/config_dump", "leave out the path /config_dump"),
        ("http://a:1?x", "leave out the path ?x"),
        ("http://me:secret@a:1", "no user names"),
        ("127.0.0.1:9901", "http://HOST:PORT"),
        ("ftp://a:1", "http://HOST:PORT"),
        ("unix:", "path of the socket is missing"),
        ("", "http://HOST:PORT"),
    ] {
        let error = text.parse::<Endpoint>().unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_tap_is_read_as_it_arrives_and_ends_where_envoy_ends_it() {
    let (to_server, from_test) = UnixStream::pair().unwrap();
    let client = server(move |stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nserver: envoy\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for part in ["5\r\nfirst\r\n", "6;ext=1\r\nsecond\r\n", "0\r\n\r\n"] {
            (&from_test).read_exact(&mut [0])?;
            stream.write_all(part.as_bytes())?;
        }
        // The connection stays open: the end of the body is the end of the tap.
        (&from_test).read_exact(&mut [0])
    });
    let admin = admin(client);
    let mut tap = admin.start(&request()).unwrap();
    let mut buffer = [0; 100];
    for part in [&b"first"[..], b"second", b""] {
        (&to_server).write_all(b"x").unwrap();
        let count = tap.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], part);
    }
    assert_eq!(tap.read(&mut buffer).unwrap(), 0);
}

#[test]
fn the_request_has_what_envoy_needs_and_nothing_that_ends_it() {
    let (mut seen, to_test) = UnixStream::pair().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    let server = thread::spawn(move || {
        for _ in 0..2 {
            let mut stream = listener.accept().unwrap().0;
            let head_and_body = read_request(&mut stream).unwrap();
            (&to_test).write_all(head_and_body.as_bytes()).unwrap();
            (&to_test).write_all(b"\n").unwrap();
            stream.write_all(answer("200 OK", "", "").as_bytes()).unwrap();
        }
    });
    let admin = Admin::new(&endpoint);
    admin.start(&request()).unwrap();
    let timeout = Some(Duration::from_millis(2500));
    admin.start(&TapRequest { sink: TapSink::Buffered { max_traces: 7, timeout }, ..request() }).unwrap();
    server.join().unwrap();
    let mut text = String::new();
    seen.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("POST /tap HTTP/1.1\r\n"), "{text}");
    let bodies: Vec<serde_json::Value> =
        text.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
    let outputs: Vec<_> = bodies.iter().map(|body| &body["tap_config"]["output_config"]).collect();
    assert_eq!(outputs[0]["sinks"], serde_json::json!([{ "format": "JSON_BODY_AS_BYTES", "streaming_admin": {} }]));
    assert_eq!(outputs[0]["streaming"], true);
    // Never another sink, which an open connection would take for the first one.
    assert_eq!(outputs[1]["sinks"], outputs[0]["sinks"]);
    assert_eq!(outputs[1]["streaming"], false);
}

#[test]
fn the_first_whole_traces_are_counted_and_their_time_is_kept() {
    let trace = "{\n \"a\": {\n  \"b\": \"}\"\n }\n}\n";
    let body: String = trace.repeat(5).bytes().map(|byte| format!("1\r\n{}\r\n", char::from(byte))).collect();
    for (text, traces) in
        [(chunked(&body), 3), (chunked(&format!("{:x}\r\n{}\r\n", trace.len() * 5, trace.repeat(5))), 1)]
    {
        let sink = TapSink::Buffered { max_traces: traces, timeout: Some(Duration::MAX) };
        let mut all = String::new();
        let admin = admin(sending(text));
        admin.start(&TapRequest { sink, ..request() }).unwrap().read_to_string(&mut all).unwrap();
        assert_eq!(all, trace.repeat(usize::try_from(traces).unwrap()));
    }
    let client = server(|stream| {
        stream.write_all(chunked("3\r\n{\n}\r\n").as_bytes())?;
        stream.read(&mut [0]).map(drop)
    });
    let sink = TapSink::Buffered { max_traces: 2, timeout: Some(Duration::from_millis(200)) };
    let mut all = String::new();
    admin(client).start(&TapRequest { sink, ..request() }).unwrap().read_to_string(&mut all).unwrap();
    assert_eq!(all, "{\n}");
}

#[test]
fn a_request_for_nothing_is_not_sent() {
    let refused = |request: TapRequest| {
        let error = request.to_json().unwrap_err();
        assert!(matches!(error, AdminError::Refused(_)) && !error.is_temporary(), "{error}");
    };
    let buffered = |max_traces, timeout| TapRequest { sink: TapSink::Buffered { max_traces, timeout }, ..request() };
    refused(buffered(0, None));
    refused(TapRequest { config_id: "a\0b".into(), ..request() });
    refused(TapRequest { config_id: String::new(), ..request() });
    refused(TapRequest { config_id: "x".repeat(1 << 20), ..request() });
}

#[test]
fn a_connection_that_breaks_off_is_an_error_and_not_an_end() {
    for body in ["5\r\nfirst\r\n", "5\r\nfir", "5", "5\r\nfirst\r\n0"] {
        let mut tap = admin(sending(chunked(body))).start(&request()).unwrap();
        let mut all = Vec::new();
        let error = tap.read_to_end(&mut all).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{body:?}: {error}");
    }
    let mut tap = admin(sending("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")).start(&request()).unwrap();
    assert_eq!(io::copy(&mut tap, &mut io::sink()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let error = admin(sending("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")).taps().unwrap_err();
    assert!(matches!(error, AdminError::Broken { .. }) && error.is_temporary(), "{error}");
    for head in ["", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\nserver: envoy\r\n"] {
        let error = tap_error(sending(head));
        assert!(matches!(error, AdminError::Broken { .. }) && error.is_temporary(), "{head:?}: {error}");
    }
}

#[test]
fn a_body_without_a_length_ends_with_its_connection() {
    let mut all = String::new();
    admin(sending("HTTP/1.0 200 OK\r\n\r\nall of it")).start(&request()).unwrap().read_to_string(&mut all).unwrap();
    assert_eq!(all, "all of it");
}

#[test]
fn broken_chunks_are_errors() {
    for body in [
        "ffffffffffffffff\r\nabc",
        "7fffffffffffffff\r\nabc",
        "fffffffffffffffffffff\r\nabc",
        "-1\r\nabc",
        "zz\r\nabc",
        "\r\nabc",
        "3\r\nabcdef\r\n",
        "3\nabc\n0\n\n",
        "3\r\nabc\r\n0\r\nbad trailer\r\n\r\n",
    ] {
        let mut tap = admin(sending(chunked(body))).start(&request()).unwrap();
        // Whatever comes, it is no more than what was sent, and neither a hang nor a panic.
        let mut all = Vec::new();
        let result = (&mut tap).take(1 << 20).read_to_end(&mut all);
        assert!(all.len() <= body.len(), "{body:?}");
        if let Err(error) = result {
            assert!(error.to_string().chars().all(|char| !char.is_control()), "{error:?}");
        } else {
            assert!(body.contains("bad trailer") || body.starts_with("3\n"), "{body:?} gave {all:?}");
        }
    }
}

/// A server that sends a beginning, and then the same again and again until nobody reads it.
fn endless(beginning: &'static str, again: &'static str) -> Client {
    server(move |stream| {
        stream.write_all(beginning.as_bytes())?;
        let again = again.repeat(4096 / again.len() + 1);
        loop {
            stream.write_all(again.as_bytes())?;
        }
    })
}

#[test]
fn what_does_not_end_is_too_large() {
    let heads =
        [("HTTP/1.1 200 OK\r\n", "x-more: of the same\r\n"), ("HTTP/1.1 200 OK\r\nx: ", "a"), ("HTTP/1.1 200 ", "O")];
    for (beginning, again) in heads {
        let error = tap_error(endless(beginning, again));
        let too_many_headers = matches!(&error, AdminError::NotEnvoy { .. }) && again.contains(':');
        assert!(matches!(error, AdminError::TooLarge { .. }) || too_many_headers, "{beginning}: {error}");
        assert!(!error.is_temporary());
        text(&error);
    }
    let chunks = [("5;ext=", "a"), ("", "0"), ("5", "0"), ("0\r\n", "x: y\r\n"), ("0\r\nx: ", "y"), ("5;", "a=b;")];
    for (beginning, again) in chunks {
        let whole: &'static str = Box::leak(chunked(beginning).into_boxed_str());
        let mut tap = admin(endless(whole, again)).start(&request()).unwrap();
        let error = tap.read(&mut [0; 100]);
        assert!(matches!(error, Err(_) | Ok(0)), "{beginning} {again}: {error:?}");
        // Nothing comes after that.
        assert_eq!(tap.read(&mut [0; 100]).unwrap(), 0);
    }
    let error = admin(endless("HTTP/1.1 200 OK\r\n\r\n", "{\"configs\":[")).taps().unwrap_err();
    assert!(matches!(error, AdminError::TooLarge { .. }), "{error}");
}

#[test]
fn who_is_too_slow_is_given_up() {
    let cases: [fn(&mut TcpStream) -> io::Result<()>; 4] = [
        // Nothing at all.
        |stream| stream.read(&mut [0]).map(drop),
        // A byte now and then.
        |stream| {
            for byte in b"HTTP/1.1 200 OK\r\n".iter().chain(std::iter::repeat(&b'x')) {
                stream.write_all(&[*byte])?;
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        },
        |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")?;
            loop {
                stream.write_all(b" ")?;
                thread::sleep(Duration::from_millis(20));
            }
        },
        |stream| {
            stream.write_all(b"HTTP/1.1 500 Not well\r\ncontent-length: 1000\r\n\r\n")?;
            stream.read(&mut [0]).map(drop)
        },
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let mut client = server(case);
        client.patience = SHORT;
        let started = Instant::now();
        let error = admin(client).taps().unwrap_err();
        assert!(matches!(error, AdminError::Timeout { .. }) && error.is_temporary(), "{number}: {error}");
        assert!(started.elapsed() < LONG, "{number}");
        assert!(text(&error).contains("more than"), "{error}");
    }
}

#[test]
fn a_signal_ends_every_wait() {
    let (mut signal, wake) = UnixStream::pair().unwrap();
    let wake: &'static UnixStream = Box::leak(Box::new(wake));
    let mut client = server(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")?;
        stream.read(&mut [0]).map(drop)
    });
    client.wake = Some(wake.as_fd());
    let admin = admin(client);
    let mut tap = admin.start(&request()).unwrap();
    let mut buffer = [0; 10];
    assert_eq!(tap.read(&mut buffer).unwrap(), 3);
    let waiting = thread::spawn(move || tap.read(&mut [0; 10]).unwrap());
    signal.write_all(b"x").unwrap();
    assert_eq!(waiting.join().unwrap(), 0);
    assert!(matches!(admin.taps().unwrap_err(), AdminError::Interrupted));
}

#[test]
fn nobody_there_is_worth_another_try() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = Admin::new(&Endpoint::Tcp { host: "127.0.0.1".into(), port }).taps().unwrap_err();
    assert!(matches!(error, AdminError::Connect { .. }) && error.is_temporary(), "{error}");
    assert!(text(&error).contains("has its bootstrap an `admin` address"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let error = Admin::new(&Endpoint::Unix(folder.path().join("no.sock"))).taps().unwrap_err();
    assert!(matches!(error, AdminError::Connect { .. }) && error.is_temporary(), "{error}");
    let error = Admin::new(&Endpoint::Unix("/x".repeat(200).into())).taps().unwrap_err();
    assert!(matches!(error, AdminError::Connect { .. }) && !error.is_temporary(), "{error}");
}

#[test]
fn a_host_that_has_no_address_is_said() {
    let error = Admin::new(&"http://no.such.host.invalid:1".parse().unwrap()).taps().unwrap_err();
    assert!(matches!(error, AdminError::Connect { .. } | AdminError::Timeout { .. }), "{error}");
}

#[test]
fn a_unix_socket_is_an_endpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(answer("200 OK", "", r#"{"configs":[]}"#).as_bytes()).unwrap();
    });
    assert_eq!(Admin::new(&Endpoint::Unix(path)).taps().unwrap(), []);
    server.join().unwrap();
}

#[test]
fn redirects_are_not_followed() {
    for location in ["/tap", "http://127.0.0.1:1/", "\u{202e}\u{9b}2J"] {
        let error = tap_error(sending(answer("302 Found", &format!("location: {location}\r\n"), "")));
        let AdminError::Redirect { status: 302, .. } = error else { panic!("{error}") };
        assert!(!error.is_temporary());
        text(&error);
    }
    let error = admin(sending(answer("301 Moved", "", "x"))).taps().unwrap_err();
    assert!(text(&error).contains("nowhere"), "{error}");
}

#[test]
fn what_envoy_refuses_is_told_apart() {
    let help = "invalid path. admin commands are:\n  /: Admin home page\n";
    assert!(matches!(tap_error(sending(answer("404 Not Found", "", help))), AdminError::NoTap { .. }));
    let error = tap_error(sending(answer("404 Not Found", "", "<html>\u{1b}[31m\r\nnothing here")));
    assert!(matches!(error, AdminError::NotEnvoy { .. }), "{error}");
    assert!(text(&error).contains("status 404") && !text(&error).contains("nothing here"), "{error}");

    let busy = "An attached /tap admin stream already exists. Detach it.";
    let error = tap_error(sending(answer("400 Bad Request", "", busy)));
    assert!(matches!(&error, AdminError::Busy { said, after_own: false, .. } if said == busy), "{error}");
    assert!(text(&error).contains(busy) && !error.is_temporary());

    let error = tap_error(sending(answer("503 Service Unavailable", "", &"no\u{1b}".repeat(5000))));
    assert!(matches!(error, AdminError::Status { status: 503, .. }) && error.is_temporary());
    assert!(text(&error).len() < 1500, "{error}");
    let error = tap_error(sending(answer("500 Internal Server Error", "", "no")));
    assert!(matches!(error, AdminError::Status { status: 500, .. }) && !error.is_temporary());

    for other in ["204 No Content", "403 Forbidden", "418 x", "206 Partial Content"] {
        let error = tap_error(sending(format!("HTTP/1.1 {other}\r\n\r\n")));
        assert!(matches!(error, AdminError::NotEnvoy { .. }), "{other}: {error}");
        text(&error);
    }
}

#[test]
fn an_unknown_config_id_comes_with_those_that_there_are() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    let server = thread::spawn(move || {
        for _ in 0..2 {
            let mut stream = listener.accept().unwrap().0;
            let body = if read_request(&mut stream).unwrap().starts_with("POST") {
                answer("400 Bad Request", "", "Unknown config id 't'. No extension has registered with this id.")
            } else {
                answer("200 OK", "", include_str!("../../testdata/admin/config_dump.json"))
            };
            stream.write_all(body.as_bytes()).unwrap();
        }
    });
    let admin = Admin::new(&endpoint);
    let error = admin.with_known_ids(admin.start(&request()).err().unwrap());
    server.join().unwrap();
    let AdminError::UnknownConfigId { asked, known, .. } = &error else { panic!("{error}") };
    assert_eq!(asked, "t");
    assert!(!known.is_empty());
    assert!(text(&error).contains("`t`") && text(&error).contains(&known[0]), "{error}");
}

#[test]
fn another_tap_right_after_our_own_is_worth_another_try() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let client = server(move |stream| {
        let busy = answer("400 Bad Request", "", "An attached /tap admin stream already exists. Detach it.");
        let first = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        stream.write_all(if first { chunked("") } else { busy }.as_bytes())?;
        stream.shutdown(Shutdown::Write)
    });
    let admin = admin(client);
    drop(admin.start(&request()).unwrap());
    let error = admin.start(&request()).err().unwrap();
    assert!(matches!(error, AdminError::Busy { after_own: true, .. }) && error.is_temporary(), "{error}");
}

#[test]
fn other_protocols_are_not_envoy() {
    for banner in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "220 mail ESMTP\r\n",
        "\x15\x03\x01\x00\x02\x02\x16",
        "\0\0\0\0\0\0\0\0\0",
        "HTTP/2.0 200 OK\r\n\r\n",
    ] {
        let error = tap_error(sending(banner));
        assert!(matches!(error, AdminError::NotEnvoy { .. } | AdminError::Broken { .. }), "{banner:?}: {error}");
        text(&error);
    }
    let error = admin(sending(answer("200 OK", "content-encoding: gzip\r\n", "\u{1f}x"))).taps().unwrap_err();
    assert!(text(&error).contains("compressed (`gzip`)"), "{error}");
    for body in ["", "<html>", "{}", "[]", "null", r#"{"configs":{}"#, r#"{"configs":[]} x"#, "LIVE\n"] {
        let error = admin(sending(answer("200 OK", "", body))).taps().unwrap_err();
        assert!(matches!(error, AdminError::NotUnderstood { .. }) && !error.is_temporary(), "{body}: {error}");
        text(&error);
    }
}

#[test]
fn a_hostile_config_dump_is_an_error_or_nothing() {
    let dump = |json: String| super::dump::taps(json.as_bytes());
    let deep = format!(r#"{{"configs":[{}{}]}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(dump(deep).unwrap_err().contains("recursion limit"));
    let deep = format!(r#"{{"configs":[{}1{}]}}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    assert!(dump(deep).unwrap_err().contains("recursion limit"));
    assert!(super::dump::taps(b"{\"configs\":[\"\xff\"]}").is_err());

    let tap = |config_id: &str| {
        format!(
            r#"{{"@type":"x/envoy.extensions.transport_sockets.tap.v3.Tap","common_config":{{"admin_config":{{"config_id":{config_id}}}}}}}"#
        )
    };
    let listener = |name: &str, inside: &str| {
        format!(
            r#"{{"configs":[{{"static_listeners":[{{"listener":{{"name":{name},"filter_chains":[{inside}]}}}}]}}]}}"#
        )
    };
    // Wrong types are passed over.
    for config_id in ["1", "null", "{}", "[]", "true", "1e999"] {
        match dump(listener("\"l\"", &tap(config_id))) {
            Ok(taps) => assert_eq!(taps, [], "{config_id}"),
            Err(error) => assert!(error.contains("out of range"), "{config_id}: {error}"),
        }
    }
    for name in ["1", "null", "{}", "[\"a\"]"] {
        let taps = dump(listener(name, &tap("\"t\""))).unwrap();
        assert_eq!(taps[0].place, "listener , filter chain 1", "{name}");
    }
    // A name is cut, a config_id that nobody can ask for is none.
    let long = "n".repeat(10 << 20);
    let taps = dump(listener(&format!("\"{long}\""), &tap("\"t\""))).unwrap();
    assert!(taps[0].place.len() < 400);
    assert_eq!(dump(listener("\"l\"", &tap(&format!("\"{long}\"")))).unwrap(), []);
    let many = vec![tap("\"t\""); 20_000].join(",");
    assert!(dump(listener("\"l\"", &many)).unwrap_err().contains("more than 10000 taps"));
}

#[test]
fn every_kind_of_tap_is_found() {
    let taps = super::dump::taps(include_bytes!("../../testdata/admin/config_dump.json")).unwrap();
    let mut found = String::new();
    for tap in &taps {
        writeln!(
            found,
            "{} {:?} {}{}",
            tap.config_id,
            tap.kind,
            tap.place,
            if tap.is_warming { ", warming" } else { "" }
        )
        .unwrap();
    }
    assert_eq!(found, include_str!("../../testdata/admin/taps.txt"));
}

#[test]
fn old_and_untyped_configurations_have_taps_too() {
    let json = br#"{"configs":[{"dynamic_listeners":[
        {"name":"a","active_state":{"listener":{"name":"a","filter_chains":[{"filters":[{"typed_config":{
            "@type":"type.googleapis.com/udpa.type.v1.TypedStruct",
            "type_url":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "value":{"stat_prefix":"p","http_filters":[{"typed_config":{
                "@type":"type.googleapis.com/xds.type.v3.TypedStruct",
                "type_url":"type.googleapis.com/envoy.extensions.filters.http.tap.v3.Tap",
                "value":{"common_config":{"admin_config":{"config_id":"struct"}}}}}]}}}]}]}},
         "draining_state":{"listener":{"name":"a","default_filter_chain":{"transport_socket":{"typed_config":{
            "@type":"type.googleapis.com/envoy.extensions.transport_sockets.tap.v3.Tap",
            "common_config":{"admin_config":{"config_id":"gone"}}}}}}}},
        {"name":"b","warming_state":{"listener":{"name":"b","default_filter_chain":{"transport_socket":{"typed_config":{
            "common_config":{"admin_config":{"config_id":"old"}},
            "@type":"type.googleapis.com/envoy.config.transport_socket.tap.v2alpha.Tap"}}}}}}]}]}"#;
    let taps = super::dump::taps(json).unwrap();
    assert_eq!(taps.len(), 2);
    assert_eq!((taps[0].config_id.as_str(), taps[0].kind), ("struct", TapKind::HttpFilter));
    assert_eq!(taps[0].stat_prefix.as_deref(), Some("p"));
    assert_eq!((taps[1].config_id.as_str(), taps[1].kind), ("old", TapKind::Downstream));
    assert_eq!(taps[1].place, "listener b, default filter chain");
    assert!(taps[1].is_warming);
}

proptest::proptest! {
    /// Whatever is changed in a real configuration, there is no panic, and no more than what was there.
    #[test]
    fn a_changed_config_dump_is_read_or_refused(at in 0usize..40_000, byte: u8, cut in 0usize..40_000) {
        let mut dump = include_bytes!("../../testdata/admin/config_dump.json").to_vec();
        let length = dump.len();
        dump[at % length] = byte;
        if let Ok(taps) = super::dump::taps(&dump) {
            proptest::prop_assert!(taps.len() <= 64);
        }
        dump.truncate(cut % length);
        proptest::prop_assert!(super::dump::taps(&dump).is_err());
    }
}

#[test]
fn matches_are_read_from_json_and_yaml() {
    let parse = |text: &str| MatchConfig::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(parse("any_match: true"), MatchConfig::any());
    assert_eq!(parse(r#"{"any_match": true}"#), MatchConfig::any());
    let header = parse("http_request_headers_match: {headers: [{name: X-A, exact_match: b}]}");
    assert_eq!(header, MatchConfig::header("x-a", "b").unwrap());
    let both = parse(
        "and_match:\n  rules:\n  - http_request_headers_match: {headers: [{name: ':path', string_match: {prefix: /a}}]}\n  - not_match: {any_match: true}\n",
    );
    let not = parse("not_match: {any_match: true}");
    assert_eq!(both, MatchConfig::all(vec![MatchConfig::path_prefix("/a").unwrap(), not.clone()]));
    assert_eq!(MatchConfig::all(vec![not.clone()]), not);
    assert_eq!(MatchConfig::all(vec![]), MatchConfig::any());
    parse(
        r#"{"http_response_generic_body_match":{"bytes_limit":3,"patterns":[{"string_match":"a\nb"},{"binary_match":"aGVs"}]}}"#,
    );
    parse(
        r#"{"http_request_headers_match":{"headers":[{"name":"x","range_match":{"start":"-5","end":7},"invert_match":true}]}}"#,
    );
    parse(
        r#"{"http_request_headers_match":{"headers":[{"name":"x","safe_regex_match":{"google_re2":{},"regex":"a.*[0-9]{2,3}$"}}]}}"#,
    );
    parse(r#"{"http_response_trailers_match":{"headers":[{"name":"x","present_match":false},{"name":"y"}]}}"#);
    // Anchors are resolved before anything is sent.
    let anchored = parse("or_match: {rules: [&a {any_match: true}, *a]}");
    assert_eq!(anchored.as_json().to_string(), r#"{"or_match":{"rules":[{"any_match":true},{"any_match":true}]}}"#);
}

#[test]
fn a_match_that_envoy_could_not_bear_is_refused_with_its_place() {
    let regex = |expression: &str| {
        serde_json::json!({ "http_request_headers_match": { "headers": [
            { "name": "x", "string_match": { "safe_regex": { "regex": expression } } }
        ] } })
        .to_string()
    };
    let not = |times: usize| format!("{}{{\"any_match\":true}}{}", "{\"not_match\":".repeat(times), "}".repeat(times));
    let wide = format!("{{\"or_match\":{{\"rules\":[{}]}}}}", vec!["{\"any_match\":true}"; 1001].join(","));
    let cases = [
        // Envoy 1.40 aborts on these.
        ("null".into(), "must have fields"),
        ("".into(), ""),
        (regex("(("), "not closed"),
        (regex("(a{1,1000}){1,1000}"), "more than 1000 times"),
        (r#"{"http_request_headers_match":{"headers":[{"name":"x","string_match":{"custom":{"name":"y"}}}]}}"#.into(), "unknown field `custom`"),
        (r#"{"http_request_headers_match":{"headers":[{"name":"x","safe_regex_match":{"google_re2":{"max_program_size":1},"regex":"a+b+c"}}]}}"#.into(), "no options of RE2"),
        // It hangs on this.
        (regex(&"a?".repeat(100_000)), "the match has"),
        (regex(&"a?".repeat(1000)), "it may have 1024"),
        // And on the rest, it answers with less than this.
        ("{}".into(), "has no rule"),
        ("any_match: false".into(), "any_match can only be true"),
        ("any_match: 1".into(), "any_match must be true or false"),
        (r#"{"any_match":true,"not_match":{"any_match":true}}"#.into(), "only one is possible"),
        ("or_match: {rules: [{any_match: true}]}".into(), "or_match.rules must be a list of at least 2"),
        ("and_match: {rules: [{any_match: true}, {foo: 1}]}".into(), "and_match.rules[1] has an unknown field `foo`"),
        ("http_request_headers_match: {}".into(), "has no headers"),
        ("http_request_headers_match: {headers: [{}]}".into(), "has no name"),
        ("http_request_headers_match: {headers: [{name: \"a\\r\\nb\"}]}".into(), "headers[0].name"),
        ("http_request_headers_match: {headers: [{name: x, exact_match: 1}]}".into(), "quotation marks"),
        ("http_request_headers_match: {headers: [{name: x, range_match: {start: .nan}}]}".into(), ""),
        ("http_request_generic_body_match: {patterns: []}".into(), "at least 1"),
        ("http_request_generic_body_match: {bytes_limit: 4294967296, patterns: [{string_match: a}]}".into(), "4294967295"),
        ("http_request_generic_body_match: {patterns: [{binary_match: '%%'}]}".into(), "base64"),
        ("{any_match: true, any_match: true}".into(), "uplicate"),
        ("any_match: true\n---\nany_match: true".into(), ""),
        (not(17), "nested too deeply"),
        (not(3000), ""),
        (wide, "there may be 1000"),
        ("a: &a [*a]".into(), ""),
        ("[".repeat(60_000), ""),
        ("x".repeat(1 << 20), "it may have"),
        ("streaming_admin: {}".into(), "unknown field `streaming_admin`"),
    ];
    for (text, part) in cases {
        let short: String = text.chars().take(100).collect();
        let error = MatchConfig::parse(&text).expect_err(&short);
        assert!(error.contains(part), "{short}: {error}");
        assert!(error.chars().all(|char| !char.is_control()), "{short}: {error:?}");
    }
    // A billion laughs.
    let mut bomb = String::from("a0: &a0 [x, x]\n");
    for level in 1..40 {
        writeln!(bomb, "a{level}: &a{level} [*a{0}, *a{0}]", level - 1).unwrap();
    }
    assert!(MatchConfig::parse(&bomb).is_err());
    assert!(MatchConfig::header("a b", "c").is_err());
    assert!(MatchConfig::header("a", "").is_err());
    assert!(MatchConfig::header("a", "c\r\nd").is_err());
    assert!(MatchConfig::path_prefix("").is_err());
}

#[test]
fn only_regular_expressions_that_re2_has_too_are_sent() {
    let parse = |expression: &str| {
        let regex = serde_json::json!({ "http_request_headers_match": { "headers": [
            { "name": "x", "string_match": { "safe_regex": { "regex": expression } } }
        ] } });
        MatchConfig::parse(&regex.to_string())
    };
    for good in [
        "a",
        "^/api/v[0-9]+/.*$",
        "(?:a|b){1,3}?c",
        r"\d+\.\d*",
        "[^a-z_.-]",
        "[-a]",
        r"[\d\]x]",
        "a|",
        "()",
        r"\bfoo\b",
        "x{20}",
    ] {
        parse(good).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for bad in [
        "(",
        ")",
        "a)",
        "[",
        "[]",
        "[^]",
        "[b-a]",
        r"[a-\d]",
        r"[\d-z]",
        "[a&&b]",
        "[[:alpha:]]",
        "[a--b]",
        "a**",
        "a+*",
        "a*??",
        "*a",
        "(*a)",
        "|*",
        "^*",
        "$+",
        r"\b*",
        "a{",
        "a{,2}",
        "a{2,1}",
        "a{1001}",
        "(a{40}){40}",
        "(?i)a",
        "(?=a)",
        "(?P<n>a)",
        "(?<n>a)",
        r"\pL",
        r"\1",
        r"\Qa",
        r"\x41",
        r"\u0041",
        r"\",
        "é",
        "a}",
        "a]",
        "(?x) a",
        r"\<a",
        "((a{10}){10}){11}",
        "a\u{7f}",
        "x{100}",
        r"\W{19}",
        "[^a]{50}",
        "(a|b|c){20}",
    ] {
        parse(bad).expect_err(bad);
    }
    parse(&"(".repeat(50)).unwrap_err();
    // RE2 takes an instruction for each of these, and Envoy allows it 100.
    parse(&"a".repeat(97)).unwrap_err();
    parse(&"a".repeat(90)).unwrap();
}

fn counters(pairs: &[(&str, u64)]) -> super::Counters {
    let stats: Vec<_> = pairs.iter().map(|(name, value)| serde_json::json!({ "name": name, "value": value })).collect();
    super::Counters::parse(serde_json::json!({ "stats": stats }).to_string().as_bytes()).unwrap()
}

#[test]
fn reasons_for_silence_are_told_apart() {
    let taps = super::dump::taps(include_bytes!("../../testdata/admin/config_dump.json")).unwrap();
    let listeners = super::reasons::listeners(include_bytes!("../../testdata/admin/listeners.json")).unwrap();
    let of = |config_id: &str, matching: &MatchConfig, now: &[(&str, u64)]| {
        let request = TapRequest { config_id: config_id.into(), matching: matching.clone(), ..request() };
        super::reasons::reasons(&request, &taps, &listeners, &counters(&[]), &counters(now))
    };
    let any = MatchConfig::any();
    let header = MatchConfig::header("a", "b").unwrap();
    assert_eq!(of("nope", &any, &[]), [Reason::TapGone { config_id: "nope".into() }]);
    let place = || "listener ingress, filter chain 1".to_owned();
    let listener = "listener.127.0.0.1_10000.downstream_cx_total";
    let open = "listener.127.0.0.1_10000.downstream_cx_active";
    assert_eq!(of("sock", &any, &[(listener, 0), (open, 3)]), [Reason::NoConnection { place: place(), open: 3 }]);
    assert_eq!(of("sock", &any, &[(listener, 1)]), []);
    // An Envoy without the counter is no reason.
    assert_eq!(of("sock", &any, &[]), []);
    assert_eq!(of("sock", &header, &[(listener, 1)]), [Reason::MatchNeedsHttp]);
    let requests = "http.ingress_http.downstream_rq_total";
    assert_eq!(of("http", &any, &[(requests, 0)]), [Reason::NoRequest { place: place() }]);
    assert_eq!(of("http", &header, &[(requests, 5)]), [Reason::MatchExcludes { place: place(), requests: 5 }]);
    assert_eq!(of("http", &any, &[(requests, 5)]), []);
    let upstream = of("up", &any, &[("cluster.backend.upstream_cx_total", 0)]);
    assert!(matches!(&upstream[..], [Reason::OnlyUpstream { .. }, Reason::NoConnection { .. }]), "{upstream:?}");
    for reason in upstream {
        assert!(!reason.to_string().is_empty());
    }
    let request =
        TapRequest { config_id: "sock".into(), sink: TapSink::Buffered { max_traces: 1, timeout: None }, ..request() };
    let reasons = super::reasons::reasons(
        &request,
        &taps,
        &listeners,
        &counters(&[(listener, 1)]),
        &counters(&[(listener, 2), (open, 1)]),
    );
    assert_eq!(reasons, [Reason::NotOver { place: place(), open: 1 }]);
    // No listener listens.
    let request = TapRequest { config_id: "sock".into(), ..request };
    let none = super::reasons::listeners(b"{}").unwrap();
    let reasons = super::reasons::reasons(&request, &taps, &none, &counters(&[]), &counters(&[]));
    assert_eq!(reasons, [Reason::NotListening { place: place() }]);
}

#[test]
fn counters_that_began_again_count_from_zero() {
    let (before, now) = (counters(&[("a.b:c", 100)]), counters(&[("a.b_c", 3)]));
    assert_eq!(now.since(&before, "a.b:c"), Some(3));
    assert_eq!(now.since(&before, "other"), None);
    let odd =
        super::Counters::parse(br#"{"stats":[{"histograms":{}},{"name":"x","value":"text"},{"name":"y","value":-1}]}"#);
    assert_eq!(odd.unwrap(), super::Counters::default());
    assert!(super::Counters::parse(b"[]").is_err());
}

#[test]
fn counters_of_envoy_are_read() {
    let counters = super::Counters::parse(include_bytes!("../../testdata/admin/stats.json")).unwrap();
    for name in [
        "listener.127.0.0.1_10000.downstream_cx_total",
        "http.ingress_http.downstream_rq_total",
        "cluster.backend.upstream_cx_total",
    ] {
        assert_eq!(counters.get(name), Some(1), "{name}");
    }
}
