//! Which inputs are taken for traces, whatever their names and their neighbours are, and how they are read by
//! protobuf's rules.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message as _;
use tap2pcap::proto::{DESCRIPTORS, tap::TraceWrapper};

use crate::{
    batch::{Running, fifo, paths, small_batch, streams},
    fixture::{Dress, TIME, downstream, read, streamed},
    tshark,
    util::{Dir, PROGRAM, PROTOC, ROOT, convert, tap2pcap},
    wire,
};

fn testdata(name: &str) -> PathBuf {
    Path::new(ROOT).join("testdata").join(name)
}

#[test]
fn protobuf_that_is_no_trace_is_refused_and_never_invented() {
    let dir = Dir::new("other-protobuf");
    // A name with a number, and the same in a list.
    let other = b"\x0a\x0b\x0a\x07x.proto\x10\x07";
    for (name, bytes) in [("one.bin", other.to_vec()), ("list.bin", [&[0x0a, 13][..], other].concat())] {
        let input = dir.create(name, bytes);
        let output = dir.join("out.pcapng");
        let run = convert(&[], &input, &output).run().expect_status(2).expect_stderr("not an Envoy tap trace");
        run.expect_stderr("it may be a protobuf message");
        assert!(!output.exists());
        for command in ["validate", "info"] {
            let run = tap2pcap().arg(command).arg(&input).run().expect_status(2);
            assert!(format!("{}{}", run.stderr, run.stdout_text()).contains("not an Envoy tap trace"), "{run:?}");
        }
        // A user who says that it is one gets what can be read of it.
        convert(&["--from", "binary"], &input, &dir.join("forced.pcapng")).run().expect_no_panic();
    }
}

/// The decoders agree with protoc on pieces and on the members of a oneof.
#[test]
fn pieces_mean_what_protoc_reads() {
    let dir = Dir::new("pieces");
    let schema = dir.create("schema.bin", DESCRIPTORS.encode_to_vec());
    let schema = format!("--descriptor_set_in={}", schema.display());
    let protoc = |option: &str, stdin: &[u8]| {
        let option = format!("{option}=envoy.data.tap.v3.TraceWrapper");
        PROTOC.run([option.as_str(), &schema], stdin).stdout
    };
    for name in ["oneof.pb", "merge.pb", "merge2.pb"] {
        let bytes = fs::read(testdata("faults").join(name)).unwrap();
        // Each segment is read alone, because protoc would merge the whole file.
        let plain = |segment: &[u8]| protoc("--encode", &protoc("--decode", segment));
        let messages: Vec<_> = wire::split_binary(&bytes)
            .into_iter()
            .map(|segment| TraceWrapper::decode(plain(segment).as_slice()).unwrap())
            .collect();
        let (output, expected) = (dir.join("out.pcap"), dir.join("expected.pcap"));
        convert(&["--tcp", "bare"], &testdata("faults").join(name), &output).run().expect_clean();
        let plain = dir.create(name, Dress::Binary.file(&messages));
        convert(&["--tcp", "bare"], &plain, &expected).run().expect_clean();
        assert!(fs::read(&output).unwrap() == fs::read(&expected).unwrap(), "{name}");
    }
    // The same event in binary and JSON: an empty write.
    for name in ["oneof.pb", "oneof.json"] {
        let run = tap2pcap().args(&["info"]).arg(testdata("faults").join(name)).run().expect_status(0);
        assert!(run.stdout_text().contains("read 0 bytes in 0 events; wrote 0 bytes in 1 event\n"), "{run:?}");
    }
}

#[test]
fn every_unreadable_time_of_a_message_is_counted() {
    let run = tap2pcap().arg("validate").arg(testdata("faults/neg.pb")).run().expect_status(1);
    let told = "a time of -5 seconds since 1970 does not fit a capture; 3 more times of this message cannot be read";
    assert!(run.stdout_text().contains(told), "{run:?}");
    let mut event = read(TIME, b"x");
    event.timestamp = Some(prost_types::Timestamp { seconds: -5, nanos: 0 });
    let trace = crate::fixture::buffered(1, downstream(), vec![event; 4]);
    let dir = Dir::new("bad-times");
    for dress in Dress::ALL {
        let input = dir.create(&format!("trace.{}", dress.suffix()), dress.file(std::slice::from_ref(&trace)));
        let run = tap2pcap().arg("validate").arg(&input).run().expect_status(1);
        assert!(run.stdout_text().contains("3 more times of this message cannot be read"), "{dress:?}{run:?}");
    }
}

#[test]
fn limits_have_a_range() {
    let input = testdata("envoy/1.40.0/h1_str_PROTO_BINARY_133.pb");
    for option in ["--max-message", "--max-connections", "--max-events", "--max-headers"] {
        for wrong in ["0", "99999999999999999999", "many"] {
            let run = convert(&[option, wrong], &input, Path::new("-")).run().expect_status(2);
            let run = run.expect_stderr("expected a number from");
            assert!(run.stdout.is_empty());
            tap2pcap().args(&["info", option, wrong]).arg(&input).run().expect_status(2);
        }
    }
    convert(&["--max-message", "64"], &input, Path::new("-")).run().expect_no_panic();
}

/// A message over the limit is left out, whether the trace is read alone or in small pieces among many others.
#[test]
fn a_merge_passes_over_what_a_conversion_does() {
    let dir = Dir::new("max-message-merge");
    let events = (0..40).map(|index| read(TIME + index, &vec![b'a' + index as u8 % 26; 500 + index as usize * 50]));
    let messages = streamed(1, downstream(), events);
    let traces = small_batch(&dir, 40);
    for dress in [Dress::Binary, Dress::Delimited, Dress::Text, Dress::Json] {
        let input = dir.create(&format!("large.{}", dress.suffix()), dress.file(&messages));
        let options = ["--tcp", "bare", "--max-message", "2000"];
        let (alone, merged) = (dir.join("alone.pcapng"), dir.join("merged.pcapng"));
        let run = convert(&options, &input, &alone).run().expect_status(1);
        assert!(!run.stderr.contains("rest of the source"), "{run:?}");
        tap2pcap().args(&options).arg(&traces).arg(&input).arg(&merged).run().expect_status(1);
        let payloads = |path: &Path| -> Vec<Vec<u8>> {
            let frames = tshark::read(path).into_iter().map(|frame| frame.payload);
            frames.filter(|payload| payload.len() >= 500).collect()
        };
        let left = payloads(&alone);
        assert!((5..35).contains(&left.len()), "{dress:?}: {}", left.len());
        assert_eq!(payloads(&merged), left, "{dress:?}");
    }
}

#[test]
fn a_live_stream_is_recognised_by_its_first_message() {
    let trace = fs::read(testdata("envoy/1.40.0/h1_str_PROTO_BINARY_133.pb")).unwrap();
    let first = wire::split_binary(&trace)[0].to_vec();
    let run = tap2pcap().args(&["validate", "-"]).stdin(first).run();
    assert!(run.stdout_text().contains("missing-close"), "{run:?}");
    // Text that ends like the beginning of a trace's name is no trace.
    for text in ["{\"level\":\"status", "{\"http", "status: h"] {
        tap2pcap().args(&["-", "-"]).stdin(text).run().expect_status(2).expect_stderr("not an Envoy tap trace");
    }
}

#[test]
fn content_decides_in_a_directory_whatever_the_name() {
    let dir = Dir::new("names");
    let traces = dir.join("traces");
    fs::create_dir(&traces).unwrap();
    for name in ["18a_ndjson.ndjson", "a.json", "connection_5.log", "tap_1"] {
        fs::copy(testdata("inputs/names").join(name), traces.join(name)).unwrap();
    }
    let out = dir.join("out");
    let run = convert(&[], &traces, &PathBuf::from(format!("{}/", out.display()))).run().expect_status(0);
    assert!(!run.stderr.contains("passed over"), "{run:?}");
    let expected = ["18a_ndjson.ndjson.pcapng", "a.json.pcapng", "connection_5.log.pcapng", "tap_1.pcapng"];
    assert_eq!(paths(&out), expected.map(str::to_owned).into());
    // Files that are no traces are counted in one line.
    fs::write(traces.join("notes.txt"), "not a trace").unwrap();
    fs::write(traces.join("empty"), "").unwrap();
    fs::write(traces.join("package.json"), "{\"name\": \"x\"}").unwrap();
    fs::write(traces.join(".tap2pcap-x.tmp"), "half a capture").unwrap();
    fs::copy(out.join("a.json.pcapng"), traces.join("a.json.pcapng")).unwrap();
    fs::write(traces.join("tap_request"), b"\x0a\x0b\x0a\x07x.proto\x10\x07").unwrap();
    // The program must not wait for a pipe or socket, nor read a file of any size.
    fifo(&traces.join("pipe"));
    let _socket = UnixListener::bind(traces.join("socket")).unwrap();
    symlink("itself", traces.join("itself")).unwrap();
    let huge = fs::File::create(traces.join("huge")).unwrap();
    huge.set_len(1 << 40).unwrap();
    let all = dir.join("all.pcapng");
    let run = convert(&[], &traces, &all).run().expect_status(0);
    let run = run.expect_stderr("note: 7 files that are not traces were passed over; -v lists them");
    assert!(run.stderr.contains("note: 4 of 4 traces converted"), "{run:?}");
    let run = convert(&["-v"], &traces, &all).run().expect_status(0);
    for part in
        ["notes.txt: passed over, ", "empty: passed over, it is empty", "a.json.pcapng: passed over, it is a pcap"]
    {
        assert!(run.stderr.contains(part), "{part}{run:?}");
    }
    let run = convert(&["-q"], &traces, &all).run().expect_status(0);
    assert_eq!(run.stderr, "");
    for command in ["validate", "info"] {
        let run = tap2pcap().arg(command).arg(&traces).run().expect_status(0);
        run.expect_stderr("note: 7 files that are not traces were passed over; -v lists them");
    }
    // A file that has the name of a trace counts as one.
    fs::copy(traces.join("tap_request"), traces.join("tap_request.pb")).unwrap();
    let run = convert(&[], &traces, &all).run().expect_status(1);
    run.expect_stderr("tap_request.pb: byte 0, message 0: not an Envoy tap trace");
}

#[test]
fn a_file_without_a_traces_name_that_may_not_be_read_is_passed_over() {
    let dir = Dir::new("forbidden");
    let traces = small_batch(&dir, 1);
    let secret = traces.join("secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    let run = convert(&["-v"], &traces, &dir.join("all.pcapng")).run().expect_status(0);
    run.expect_stderr("secret: passed over, ");
}

/// The files are in the working directory, where `-` alone means standard input.
#[test]
fn a_file_named_dash_is_a_file() {
    let dir = Dir::new("dash");
    let traces = small_batch(&dir, 3);
    let trace = fs::read(traces.join("tap_0.pb")).unwrap();
    let run_in = |args: &[&str], stdin: &[u8]| {
        let mut command = Command::new(PROGRAM);
        command.current_dir(&traces).args(args);
        let mut running = Running::of(command);
        running.send(stdin);
        running.finish()
    };
    fs::write(traces.join("-"), &trace).unwrap();
    let all = dir.join("all.pcapng");
    let run = run_in(&[".", all.to_str().unwrap()], b"");
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    assert_eq!(streams(&tshark::read(&all)), 4);
    // As an output, `-` is standard output, even if there is a file of that name.
    let run = run_in(&[".", "-"], b"");
    assert_eq!((run.status.code(), &run.stdout[..4]), (Some(0), &b"\x0a\x0d\x0d\x0a"[..]), "{run:?}");
    assert!(fs::read(traces.join("-")).unwrap() == trace, "the file was overwritten");
    // `-` stays standard input among more inputs than the program keeps open.
    let many: Vec<String> = (0..40).map(|number| format!("copy_{number}.pb")).collect();
    for name in &many {
        fs::copy(traces.join("tap_1.pb"), traces.join(name)).unwrap();
    }
    let piped = Dress::Binary.file(&streamed(99, downstream(), [read(TIME, b"from standard input")]));
    let mut args: Vec<&str> = many.iter().map(String::as_str).collect();
    args.extend(["-", all.to_str().unwrap()]);
    let run = run_in(&args, &piped);
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let frames = tshark::read(&all);
    assert_eq!(frames.iter().filter(|frame| frame.payload == b"from standard input").count(), 1);
    assert_eq!(streams(&frames), 41);
    // The output `./-` is not the same as the input `-`.
    let run = run_in(&["-", "./-"], &piped);
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    assert!(fs::read(traces.join("-")).unwrap().starts_with(b"\x0a\x0d\x0d\x0a"));
}

/// A file that a conversion refuses is an error for the other commands as well.
#[test]
fn all_commands_agree_on_what_holds_nothing_readable() {
    let dir = Dir::new("nothing");
    let object = dir.create("object.json", "{\"http_buffered_trace\": null, \"traces\": [1]}");
    let comment = dir.create("comment.pb_text", "configured_sample_rate { }\n# socket_buffered_trace { }\n");
    let empty = dir.create("empty.json", "{} {\"socket_buffered_trace\": null}");
    for input in [object, comment, empty] {
        let run = convert(&[], &input, &dir.join("out.pcapng")).run().expect_status(2);
        let run = run.expect_stderr("holds no trace that can be read");
        assert!(!run.stderr.contains("newer Envoy"), "{run:?}");
        for command in [&["validate"][..], &["validate", "--json"], &["info"]] {
            let run = tap2pcap().args(command).arg(&input).run().expect_status(2);
            let text = format!("{}{}", run.stderr, run.stdout_text());
            assert!(text.contains("holds no trace that can be read") && !text.contains("0 errors"), "{run:?}");
            assert!(!text.contains("unknown-field"), "{run:?}");
        }
    }
    // Beside a trace, such an object is text around it, as a line of a log is.
    let mut bytes = Dress::Json.file(&streamed(1, downstream(), [read(TIME, b"x")]));
    bytes.extend_from_slice(b"{\"level\": \"info\"}\n");
    bytes.extend(Dress::Json.file(&streamed(1, downstream(), [read(TIME + 1, b"y")])));
    let input = dir.create("mixed.json", bytes);
    let run = convert(&[], &input, &dir.join("out.pcapng")).run().expect_status(0);
    run.expect_stderr("18 bytes of text around the messages skipped; its first line is \"{\"level\": \"info\"}\"");
}
