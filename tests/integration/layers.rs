//! What stands around a trace changes nothing of its packets.

use std::{fs, path::Path};

use crate::{
    archives::{memory_of, tar_of, zip_of, zstandard},
    batch::conversation,
    fixture::{Dress, TIME, buffered, closed, downstream, read, write},
    packed::gzip,
    util::{Dir, convert, on_all_cores, tap2pcap},
};

type Wrap = fn(&[u8]) -> Vec<u8>;

/// Something that stands around a trace, and the layer that it is read through. Archives are no layers.
struct Wrapper {
    name: &'static str,
    layer: Option<&'static str>,
    /// Whether it can hold text alone.
    of_text: bool,
    /// Whether it is text if what it holds is.
    is_text: bool,
    wrap: Wrap,
}

fn response(body: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n", body].concat()
}

fn session(body: &[u8]) -> Vec<u8> {
    [b"me@host:~$ curl -si localhost:9901/tap\nHTTP/2 200 \r\nserver: envoy\r\n\r\n", body].concat()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let chunks = body.chunks(100).map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    [chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat()
}

fn utf_16(mark: bool, text: &[u8]) -> Vec<u8> {
    let text = str::from_utf8(text).unwrap();
    mark.then_some(0xfeff).into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

fn wrappers() -> Vec<Wrapper> {
    let wrapper = |name, layer, of_text, is_text, wrap| Wrapper { name, layer, of_text, is_text, wrap };
    vec![
        wrapper("gzip", Some("gzip"), false, false, gzip),
        wrapper("Zstandard", Some("zstandard"), false, false, zstandard),
        wrapper("response", Some("http-response"), false, true, response),
        wrapper("session", Some("http-response"), false, true, session),
        wrapper("chunked", Some("chunked"), false, true, chunked),
        wrapper("UTF-16", Some("utf-16"), true, false, |text| utf_16(true, text)),
        wrapper("UTF-16 without mark", Some("utf-16"), true, false, |text| utf_16(false, text)),
        wrapper("tar", None, false, false, |bytes| tar_of(&[("path_0", bytes)])),
        wrapper("ZIP", None, false, false, |bytes| zip_of(&[("path_0", bytes)])),
    ]
}

fn trace(dress: Dress) -> Vec<u8> {
    dress.file(&conversation(1, 3, TIME, TIME + 1000))
}

#[test]
fn a_trace_gives_the_same_packets_through_every_layer_and_every_two() {
    let dir = Dir::new("layers");
    let wrappers = wrappers();
    for (dress, is_text) in
        [(Dress::Json, true), (Dress::Text, true), (Dress::Binary, false), (Dress::Delimited, false)]
    {
        let plain = trace(dress);
        let expected = tap2pcap().args(&["-F", "pcap"]).arg(dir.create("path_0", &plain)).arg("-").run().expect_clean();
        let mut cases = Vec::new();
        for inner in wrappers.iter().filter(|inner| is_text || !inner.of_text) {
            let wrapped = (inner.wrap)(&plain);
            for outer in wrappers.iter().filter(|outer| is_text && inner.is_text || !outer.of_text) {
                cases.push((format!("{} in {}", inner.name, outer.name), (outer.wrap)(&wrapped), vec![outer, inner]));
            }
            cases.push((inner.name.to_owned(), wrapped, vec![inner]));
        }
        on_all_cores(&cases, |(name, bytes, around)| {
            let own = dir.fresh();
            let input = own.join("path_0");
            fs::write(&input, bytes).unwrap();
            let run = tap2pcap().args(&["-F", "pcap"]).arg(&input).arg("-").run().expect_status(0);
            assert!(run.stdout == expected.stdout, "{name} of {dress:?}: other packets{run:?}");
            let piped = tap2pcap().args(&["-F", "pcap", "-", "-"]).stdin(bytes.clone()).run().expect_status(0);
            // Without a name, the made-up values are others. The packets are as many.
            assert_eq!(piped.stdout.len(), expected.stdout.len(), "{name} of {dress:?} on standard input");
            let run = tap2pcap().args(&["info", "--json"]).arg(&input).run().expect_clean();
            let object: serde_json::Value = serde_json::from_str(run.stdout_text().trim()).unwrap();
            let mut layers: Vec<_> = around.iter().map(|wrapper| wrapper.layer).collect();
            // What is around an archive is not around a trace in it.
            if let Some(archive) = layers.iter().position(Option::is_none) {
                layers.drain(..=archive);
            }
            let layers: Vec<_> = layers.into_iter().flatten().collect();
            assert_eq!(object["layers"], serde_json::json!(layers), "{name} of {dress:?}");
        });
    }
}

#[test]
fn verbose_and_info_say_what_stood_around_a_trace() {
    let dir = Dir::new("around");
    let input = dir.create("path_0", gzip(&response(&chunked(&trace(Dress::Text)))));
    let run = convert(&["-v"], &input, &dir.join("out.pcapng")).run().expect_status(0);
    run.expect_stderr("path_0: text in gzip, http-response, chunked, 1 connection, ");
    let run = tap2pcap().arg("info").arg(&input).run().expect_clean();
    assert!(run.stdout_text().contains("path_0: text in gzip, http-response, chunked, streamed, "), "{run:?}");
    // A proxy may pass on a whole response in chunks. The size of the first is no text before the response.
    for size in [22, 100, 5000] {
        let whole = response(&gzip(&trace(Dress::Delimited)));
        let chunks =
            whole.chunks(size).map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        let input = dir.create("path_1", [chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat());
        let run = tap2pcap().arg("info").arg(&input).run().expect_clean();
        assert!(run.stdout_text().contains("path_1: delimited in chunked, http-response, gzip, streamed, "), "{run:?}");
    }
}

#[test]
fn layers_can_be_named_and_must_fit_then() {
    let dir = Dir::new("named-layers");
    let input = dir.create("path_0", gzip(&response(&chunked(&trace(Dress::Json)))));
    let output = dir.join("out.pcap");
    let plain = dir.join("plain.pcap");
    convert(&[], &input, &plain).run().expect_clean();
    for options in [
        &["--from", "json"][..],
        &["--from", "gzip"],
        &["--from", "gzip,json"],
        &["--from", "gzip", "--from", "http-response", "--from=chunked,json"],
        &["--from", "gzip,auto"],
    ] {
        convert(options, &input, &output).run().expect_clean();
        assert!(fs::read(&output).unwrap() == fs::read(&plain).unwrap(), "{options:?}");
        tap2pcap().args(&["validate"]).args(options).arg(&input).run().expect_status(0);
        tap2pcap().args(&["info"]).args(options).arg(&input).run().expect_status(0);
    }
    fs::remove_file(&output).unwrap();
    for (from, why) in [
        ("zstd", "path_0: byte 0: not zstandard"),
        ("gzip,chunked", "path_0: byte 0: not chunked within gzip"),
        ("gzip,http-response,gzip", "path_0: byte 0: not gzip within gzip, http-response"),
        ("json,gzip", "json is the trace itself, so nothing can follow it"),
        ("gzip,gzip,gzip,gzip,gzip,gzip,gzip", "more than 6 layers"),
        ("no-layer", "invalid value 'no-layer'"),
    ] {
        convert(&["--from", from], &input, &output).run().expect_status(2).expect_stderr(why);
        for command in ["validate", "info"] {
            let run = tap2pcap().args(&[command, "--from", from]).arg(&input).run().expect_status(2);
            assert!(run.stderr.contains(why) || run.stdout_text().contains(why), "{run:?}");
        }
        assert!(!output.exists());
    }
    // They are those of the archive, too, and the encoding that of its members.
    let archive = dir.create("a.tgz", gzip(&tar_of(&[("path_0", trace(Dress::Json))])));
    convert(&["--from", "gzip,json"], &archive, &output).run().expect_status(0);
    convert(&["--from", "chunked"], &archive, &output)
        .run()
        .expect_status(2)
        .expect_stderr("a.tgz: byte 0: not chunked");
}

/// Every layer, cut everywhere and with any byte changed: what came before is kept, and nothing panics.
#[test]
fn a_cut_or_damaged_layer_ends_in_an_orderly_way() {
    let dir = Dir::new("damaged-layers");
    let events = [read(TIME, &[b'?'; 200]), write(TIME + 1, &[b'!'; 300]), closed(TIME + 2)];
    let plain = Dress::Json.file(&[buffered(1, downstream(), events)]);
    let expected = tap2pcap().arg(dir.create("path_0", &plain)).arg("-").run().expect_clean().stdout;
    let mut cases = Vec::new();
    for wrapper in wrappers() {
        let whole = (wrapper.wrap)(&plain);
        for part in 1..12 {
            let at = whole.len() * part / 12;
            cases.push((format!("{} cut at {at}", wrapper.name), whole[..at].to_vec()));
            let mut damaged = whole.clone();
            damaged[at] ^= 0x15;
            cases.push((format!("{} damaged at {at}", wrapper.name), damaged));
        }
    }
    on_all_cores(&cases, |(name, bytes)| {
        let own = dir.fresh();
        let (input, output) = (own.join("path_0"), own.join("out.pcapng"));
        fs::write(&input, bytes).unwrap();
        let run = convert(&[], &input, &output).run_within(256).expect_no_panic();
        let validate = tap2pcap().arg("validate").arg(&input).run_within(256).expect_no_panic();
        // What is said to be sound is whole, unless the damage is in the trace itself.
        if name.contains("cut") && run.status.code() == Some(0) {
            assert!(fs::read(&output).unwrap() == expected, "{name}{run:?}");
        }
        assert_eq!(run.status.code() == Some(2), !output.exists(), "{name}{run:?}");
        assert_eq!(run.status.code() == Some(2), validate.status.code() == Some(2), "{name}{run:?}{validate:?}");
    });
}

/// A million lines, each in a chunk of its own, and what else is long.
#[test]
fn long_inputs_take_little_memory_through_every_layer() {
    const LINES: usize = 1_000_000;
    let dir = Dir::new("long-layers");
    // In the midst of the first message, and after the last one.
    let text = String::from_utf8(trace(Dress::Json)).unwrap();
    let plain = [text.replacen(',', &format!(",{}", "\n".repeat(LINES)), 1).into_bytes(), b"\n".repeat(LINES)].concat();
    let mut cases: Vec<_> = wrappers().iter().map(|wrapper| (wrapper.name, (wrapper.wrap)(&plain), 0)).collect();
    let lines = [trace(Dress::Json), b" \n".repeat(LINES)].concat();
    let one_each = lines.split_inclusive(|byte| *byte == b'\n').map(chunk);
    cases.push(("a chunk each", [one_each.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat(), 0));
    cases.push(("a head without end", [&b"HTTP/1.1 200 OK\r\n"[..], &b"a: b\r\n".repeat(LINES)].concat(), 2));
    cases.push(("a line without end", vec![b'a'; 16 << 20], 2));
    cases.push(("lines without end", b"a line of text\n".repeat(LINES), 2));
    cases.push((
        "responses",
        [response(&chunked(&trace(Dress::Json))), response(&chunked(b"\n")).repeat(50_000)].concat(),
        0,
    ));
    for (name, bytes, status) in cases {
        let (input, output) = (dir.create("path_0", &bytes), dir.join("out.pcapng"));
        let (peak, run) = memory_of(&[&input, &output], b"");
        println!("{name}: {peak} KiB");
        assert_eq!(run.status.code(), Some(status), "{name}{run:?}");
        assert!(peak < 64 << 10, "{name}: {peak} KiB");
        let (peak, run) = memory_of(&[Path::new("-"), &output], &bytes);
        assert_eq!(run.status.code(), Some(status), "{name} on standard input{run:?}");
        assert!(peak < 64 << 10, "{name} on standard input: {peak} KiB");
    }
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A live trace flows through the layers: its messages are written while the stream is still open.
#[test]
fn a_live_stream_flows_through_layers() {
    use std::{
        io::{Read, Write},
        process::{Command, Stdio},
    };
    let messages = conversation(1, 3, TIME, TIME + 1000);
    let first = Dress::Json.file(&messages[..2]);
    let rest = Dress::Json.file(&messages[2..]);
    let wrap: [Wrap; 3] = [<[u8]>::to_vec, chunk, |bytes| utf_16(false, bytes)];
    for (wrap, start) in wrap.into_iter().zip([response(b""), session(b""), utf_16(true, b"")]) {
        let mut child = Command::new(crate::util::PROGRAM)
            .args(["-", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        stdin.write_all(&start).unwrap();
        stdin.write_all(&wrap(&first)).unwrap();
        // More than the blocks at the start of a capture: this waits for packets.
        let mut packets = [0; 600];
        stdout.read_exact(&mut packets).unwrap();
        stdin.write_all(&wrap(&rest)).unwrap();
        drop(stdin);
        std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}
