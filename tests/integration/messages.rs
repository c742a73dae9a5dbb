//! What a conversion prints: which input was damaged, what Envoy's limit cut, and which pod a trace comes from.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{
    batch::{cut, numbered},
    fixture::{Dress, TIME, buffered, closed, downstream, read, streamed, write},
    manifest::sample,
    tshark,
    util::{CAPINFOS, Dir, ROOT, Run, convert, tap2pcap},
};

fn lines<'a>(run: &'a Run, kind: &str) -> Vec<&'a str> {
    run.stderr.lines().filter(|line| line.starts_with(kind)).collect()
}

#[test]
fn quiet_still_says_which_input_is_damaged() {
    let dir = Dir::new("quiet-damage");
    let traces = dir.fresh();
    let whole = Dress::Binary.file(&streamed(1, downstream(), numbered(vec![read(TIME, b"question"), closed(TIME)])));
    fs::write(traces.join("whole.pb"), &whole).unwrap();
    fs::write(traces.join("cut.pb"), &whole[..whole.len() - 3]).unwrap();
    for output in [dir.join("all.pcapng"), dir.fresh()] {
        let run = convert(&["-q"], &traces, &output).run().expect_status(1);
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        assert!(run.stderr.starts_with("error: ") && run.stderr.contains("cut.pb: byte "), "{run:?}");
    }
    let run = tap2pcap().args(&["info", "-q"]).arg(traces.join("cut.pb")).run().expect_status(1);
    assert!(run.stderr.contains("cut.pb: byte "), "{run:?}");
}

/// Each direction is counted alone, because each has a setting of its own.
#[test]
fn what_envoys_limit_cut_is_said_in_one_line() {
    let dir = Dir::new("cut-bodies");
    let mut events =
        numbered(vec![read(TIME, &[b'r'; 100]), write(TIME, &[b'w'; 50]), write(TIME, &[b'w'; 50]), closed(TIME)]);
    for event in &mut events[..3] {
        *event = cut(event.clone(), 20);
    }
    let streamed = dir.create("streamed.pb", Dress::Binary.file(&streamed(1, downstream(), events)));
    let output = dir.join("out.pcapng");
    let run = convert(&[], &streamed, &output).run().expect_status(0);
    assert_eq!(
        run.stderr,
        "warning: Envoy's limit cut 3 bodies in 1 connection: 1 that it received (raise max_buffered_rx_bytes) and 2 \
         that it sent (raise max_buffered_tx_bytes); 140 bytes are missing\n"
    );
    assert_eq!(convert(&["-q"], &streamed, &output).run().expect_status(0).stderr, "");

    let events = [write(TIME, b"request"), cut(read(TIME, &[b'x'; 100]), 1)];
    let stopped = dir.create("stopped.pb", Dress::Binary.file(&[buffered(1, downstream(), events)]));
    let run = convert(&[], &stopped, &output).run().expect_status(0);
    assert_eq!(
        run.stderr,
        "warning: Envoy's limit cut 1 body in 1 connection: 1 that it received (raise max_buffered_rx_bytes); how many \
         bytes are missing is not known. A buffered tap stops recording a direction at its limit: everything that came \
         later in 1 direction, whole requests and responses too, is not in the trace\n"
    );
    for output in [dir.join("both.pcapng"), dir.fresh()] {
        let run = tap2pcap().arg(&stopped).arg(&streamed).arg(&output).run().expect_status(0);
        assert_eq!(lines(&run, "warning: ").len(), 1, "{run:?}");
        assert!(lines(&run, "warning: ")[0].contains("cut 4 bodies in 2 connections: 2 that"), "{run:?}");
    }
    // A trace that Envoy really wrote.
    let real = sample("1.40.0/h1trunc_str_PROTO_BINARY_137");
    let run = convert(&[], &real.path, &output).run().expect_status(0);
    assert!(run.stderr.contains("cut 3 bodies in 1 connection: 1 that it received"), "{run:?}");
    assert!(
        run.stderr.contains(" and 2 that it sent (raise max_buffered_tx_bytes); 8095 bytes are missing"),
        "{run:?}"
    );
}

#[test]
fn traces_of_two_pods_are_told_apart() {
    let dir = Dir::new("two-pods");
    let pods = Path::new(ROOT).join("testdata/inputs/two_pods");
    let below = ["podA/tap_4.json".to_owned(), "podB/tap_4.json".to_owned()];
    let named = [pods.join("podA/tap_4.json"), pods.join("podB/tap_4.json")].map(|path| path.display().to_string());
    let expect = |inputs: &[&Path], names: &[String; 2]| {
        let output = dir.join("out.pcapng");
        let command = inputs.iter().fold(tap2pcap(), |command, input| command.arg(input));
        command.arg(&output).run().expect_status(0);
        let comments = tshark::lines(
            &output,
            &["-Y", "tcp.flags.syn == 1 && tcp.flags.ack == 0", "-T", "fields", "-e", "frame.comment"],
        );
        let interfaces = CAPINFOS.run(["-I", output.to_str().unwrap()], &[]);
        for name in names {
            assert_eq!(
                comments.iter().filter(|comment| comment.starts_with(&format!("trace {name}, "))).count(),
                1,
                "{comments:?}"
            );
            assert!(interfaces.stdout_text().contains(&format!("Name = {name}\n")), "{interfaces:?}");
        }
    };
    expect(&[&pods], &below);
    expect(&[Path::new(&named[0]), Path::new(&named[1])], &named);
    expect(&[&pods.join("podA"), &pods.join("podB")], &named);
    // A capture of a single trace is the same whatever else is converted. Its path tells which pod it comes from.
    let mirrored = dir.fresh();
    convert(&[], &pods, &mirrored).run().expect_status(0);
    let interfaces = CAPINFOS.run(["-I", mirrored.join("podB/tap_4.json.pcapng").to_str().unwrap()], &[]);
    assert!(interfaces.stdout_text().contains("Name = tap_4.json\n"), "{interfaces:?}");
}

/// Connections without addresses get a client each, even if the files of two pods have the same name and trace_id.
#[test]
fn two_pods_have_made_up_clients_of_their_own() {
    let dir = Dir::new("two-clients");
    let traces = dir.fresh();
    let file = Dress::Binary.file(&[buffered(4, tap2pcap::proto::tap::Connection::default(), [read(TIME, b"q")])]);
    for pod in ["a", "b"] {
        fs::create_dir(traces.join(pod)).unwrap();
        fs::write(traces.join(pod).join("tap_4.pb"), &file).unwrap();
    }
    let output = dir.join("out.pcapng");
    convert(&[], &traces, &output).run().expect_status(0);
    let frames = tshark::read(&output);
    let clients: BTreeSet<_> = frames.iter().filter(|frame| frame.flags & 0x12 == 2).map(|frame| frame.src).collect();
    assert_eq!(clients.len(), 2, "{clients:?}");
    let comments = tshark::lines(&output, &["-T", "fields", "-e", "frame.comment"]).join("");
    assert!(!comments.contains("open at the same time"), "{comments}");
}

#[test]
fn numbers_agree_with_their_nouns() {
    let dir = Dir::new("plural");
    let events = numbered(vec![read(TIME, b"q"), cut(write(TIME, b"whole"), 2)]);
    let input = dir.create("trace.pb", Dress::Binary.file(&streamed(1, downstream(), events)));
    let run = tap2pcap().arg("info").arg(&input).run().expect_status(0);
    let text = run.stdout_text();
    assert!(
        text.contains("read 1 byte in 1 event; wrote 2 bytes in 1 event, how many are lost is not known\n"),
        "{text}"
    );
    let run = tap2pcap().arg("validate").arg(&input).run().expect_status(0);
    assert!(run.stdout_text().contains("1 body is truncated, how many bytes are missing is not known"), "{run:?}");
    assert!(run.stderr.contains("1 trace: 0 errors, 2 warnings, 0 notes"), "{run:?}");
    let run = convert(&["-v"], &input, &dir.join("out.pcapng")).run().expect_status(0);
    assert!(run.stderr.contains(", 1 connection, "), "{run:?}");
}

/// The status depends on a warning that is not shown without --strict, so --strict shows it.
#[test]
fn strict_shows_the_warning_that_it_fails_for() {
    let dir = Dir::new("strict");
    let input = dir.create("path_0.pb", Dress::Binary.file(&streamed(1, downstream(), [read(TIME, b"never closed")])));
    let run = convert(&["--strict"], &input, &dir.join("out.pcapng")).run().expect_status(1);
    run.expect_stderr("ends without its closed event");
    convert(&[], &input, &dir.join("out.pcapng")).run().expect_status(0).expect_clean();
}
