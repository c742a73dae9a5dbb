//! Directories as inputs and as outputs.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use crate::{
    batch::{copy_samples, last_line, paths, small_batch, streams, tree},
    fixture::{Dress, TIME, downstream, read, sound, streamed},
    manifest::{Format, Sample},
    tshark::{self, Frame},
    util::{Dir, convert, on_all_cores, tap2pcap},
};

/// A trace of which one event has no time. That is an error, and yet the whole trace can be read.
fn damaged() -> Vec<u8> {
    let mut messages = crate::batch::conversation(7, 1, TIME, TIME + 1000);
    let mut timeless = read(TIME, b"when?");
    timeless.timestamp = None;
    messages.insert(2, streamed(7, downstream(), [timeless]).remove(1));
    Dress::Binary.file(&messages)
}

/// Whether bytes may be missing: cut to a limit, or destroyed as strings.
fn is_cut(sample: &Sample) -> bool {
    sample.limited || sample.format == Format::JsonString
}

/// Expects no TCP warning except where bytes are missing from the trace.
#[track_caller]
fn expect_sound(frames: &[Frame], cut: &BTreeSet<&str>) {
    for frame in frames {
        assert!(!frame.analysis || cut.contains(&*frame.interface), "Wireshark doubts {frame:?}");
    }
}

#[test]
fn a_directory_of_real_traces_becomes_a_tree_of_captures() {
    let dir = Dir::new("tree");
    let (traces, out) = (dir.join("traces"), dir.join("out"));
    let samples = copy_samples(&traces);
    fs::write(traces.join("README.md"), "not a trace").unwrap();
    let slash = format!("{}/", out.display());
    let run = convert(&[], &traces, Path::new(&slash)).run().expect_status(0);
    assert_eq!(last_line(&run), "note: 182 of 182 traces converted", "{run:?}");
    let names: Vec<_> = samples.iter().map(|sample| format!("{}.pcapng", sample.name)).collect();
    assert_eq!(paths(&out), names.iter().cloned().collect());
    on_all_cores(&samples, |sample| {
        let alone = dir.join(format!("{}.pcapng", sample.name.replace('/', "-")));
        convert(&[], &sample.path, &alone).run().expect_clean();
        let mirrored = fs::read(out.join(format!("{}.pcapng", sample.name))).unwrap();
        assert!(fs::read(&alone).unwrap() == mirrored, "{}: differs from its own conversion", sample.name);
    });
    let captures: Vec<_> = names.iter().map(|name| out.join(name)).collect();
    for (sample, frames) in samples.iter().zip(tshark::read_many(&dir, &captures)) {
        let cut = if is_cut(sample) { BTreeSet::from([sample.file_name()]) } else { BTreeSet::new() };
        expect_sound(&frames, &cut);
    }
    // An existing directory needs no slash.
    let run = convert(&[], &traces.join("1.40.0"), &out).run().expect_status(0);
    let count = samples.iter().filter(|sample| sample.version == "1.40.0").count();
    assert_eq!(last_line(&run), format!("note: {count} of {count} traces converted"));
    let flat = paths(&out).into_iter().filter(|path| !path.contains('/')).count();
    assert_eq!(flat, count);
}

#[test]
fn a_directory_of_real_traces_becomes_one_capture() {
    let dir = Dir::new("one-capture");
    let (traces, all) = (dir.join("traces"), dir.join("all.pcapng"));
    let samples = copy_samples(&traces);
    let run = convert(&[], &traces, &all).run().expect_status(0);
    assert_eq!(last_line(&run), "note: 182 of 182 traces converted", "{run:?}");
    let frames = tshark::read(&all);
    crate::batch::expect_in_order(&frames);
    assert_eq!(streams(&frames), samples.len(), "as many TCP streams as connections");
    let cut: BTreeSet<_> = samples.iter().filter(|sample| is_cut(sample)).map(|sample| sample.file_name()).collect();
    assert!(cut.len() < samples.len() / 2);
    expect_sound(&frames, &cut);
    // If both versions have a file of the same name, its path tells which one is meant.
    let interfaces: BTreeSet<_> = frames.iter().map(|frame| &*frame.interface).collect();
    let shared = |sample: &Sample| samples.iter().filter(|other| other.file_name() == sample.file_name()).count() > 1;
    let name = |sample| if shared(sample) { &*sample.name } else { sample.file_name() };
    assert_eq!(interfaces, samples.iter().map(name).collect());
    // Every packet of every trace is there, and no other.
    let (out, single) = (dir.join("out"), "1.40.0");
    fs::create_dir(&out).unwrap();
    convert(&[], &traces, &out).run().expect_status(0);
    let captures: Vec<_> = paths(&out).iter().map(|path| out.join(path)).collect();
    let separate: usize = tshark::read_many(&dir, &captures).iter().map(Vec::len).sum();
    assert_eq!(frames.len(), separate);
    // The same through standard output.
    let piped = convert(&[], &traces.join(single), Path::new("-")).run().expect_status(0).stdout;
    convert(&[], &traces.join(single), &all).run().expect_status(0);
    assert!(fs::read(&all).unwrap() == piped, "standard output and file differ");
}

#[test]
fn any_number_of_jobs_gives_the_same_bytes() {
    let dir = Dir::new("jobs");
    let traces = dir.join("traces");
    copy_samples(&traces);
    let mirrored: Vec<_> = ["1", "2", "8"]
        .map(|jobs| {
            let out = dir.fresh();
            convert(&["--jobs", jobs], &traces, &out).run().expect_status(0);
            tree(&out)
        })
        .into();
    assert_eq!(mirrored[0].len(), 182);
    assert!(mirrored.iter().all(|tree| *tree == mirrored[0]), "captures depend on --jobs");
    let merged =
        ["1", "2", "8"].map(|jobs| convert(&["-j", jobs], &traces, Path::new("-")).run().expect_status(0).stdout);
    assert!(merged.iter().all(|capture| *capture == merged[0]), "the merged capture depends on --jobs");
    for wrong in ["0", "-1", "many"] {
        convert(&["-j", wrong], &traces, Path::new("-")).run().expect_status(2);
    }
}

#[test]
fn symbolic_links_are_followed_and_loops_named() {
    let dir = Dir::new("links");
    let traces = small_batch(&dir, 2);
    let elsewhere = dir.fresh();
    fs::copy(traces.join("tap_0.pb"), elsewhere.join("far.pb")).unwrap();
    symlink(elsewhere.join("far.pb"), traces.join("near.pb")).unwrap();
    symlink(&elsewhere, traces.join("linked")).unwrap();
    let out = dir.fresh();
    convert(&[], &traces, &out).run().expect_status(0);
    let expected = ["linked/far.pb.pcapng", "near.pb.pcapng", "tap_0.pb.pcapng", "tap_1.pb.pcapng"];
    assert_eq!(paths(&out), expected.map(str::to_owned).into());
    // A link that leads back to its own directory is named, and everything is converted once.
    fs::create_dir(traces.join("deep")).unwrap();
    symlink("..", traces.join("deep/back")).unwrap();
    for output in [dir.fresh(), dir.join("loop.pcapng")] {
        let run = convert(&[], &traces, &output).run().expect_status(1);
        let run = run.expect_stderr("deep/back: cannot read: a symbolic link that leads back to");
        assert!(run.stderr.contains("note: 4 of "), "{run:?}");
        if output.is_dir() {
            assert_eq!(paths(&output), expected.map(str::to_owned).into());
        }
    }
}

#[test]
fn unreadable_files_are_named_and_the_rest_converts() {
    let dir = Dir::new("unreadable");
    let traces = small_batch(&dir, 1);
    symlink("nowhere", traces.join("gone.pb")).unwrap();
    // Reading its first byte always fails.
    symlink("/proc/self/mem", traces.join("memory.pb")).unwrap();
    // Its name is not that of a trace, so it is passed over silently.
    symlink("nowhere", traces.join("notes.txt")).unwrap();
    // A directory may have any name.
    fs::create_dir(traces.join("folder.pb")).unwrap();
    fs::copy(traces.join("tap_0.pb"), traces.join("folder.pb/inner.pb")).unwrap();
    // Opening a pipe without a writer would wait for ever.
    crate::batch::fifo(&traces.join("pipe.pb"));
    let out = dir.fresh();
    let run = convert(&[], &traces, &out).run().expect_status(1);
    let run = run.expect_stderr("gone.pb: cannot read").expect_stderr("memory.pb: cannot read");
    assert!(!run.stderr.contains("notes.txt"), "{run:?}");
    assert_eq!(last_line(&run), "note: 2 of 4 traces converted", "{run:?}");
    assert_eq!(paths(&out), ["folder.pb/inner.pb.pcapng", "tap_0.pb.pcapng"].map(str::to_owned).into());
    let merged = convert(&[], &traces, &dir.join("all.pcapng")).run().expect_status(1);
    assert_eq!(last_line(&merged), "note: 2 of 4 traces converted", "{merged:?}");
    assert_eq!(streams(&tshark::read(&dir.join("all.pcapng"))), 2);
    // Each is an error when it is the only input.
    for name in ["gone.pb", "memory.pb"] {
        let (input, output) = (traces.join(name), dir.join("none.pcapng"));
        convert(&[], &input, &output).run().expect_status(2).expect_stderr(&format!("{name}: cannot read"));
        assert!(!output.exists());
    }
}

#[test]
fn an_empty_directory_gives_nothing() {
    let dir = Dir::new("empty");
    let empty = dir.fresh();
    fs::write(empty.join("README.md"), "no traces here").unwrap();
    let (out, all) = (dir.join("out/"), dir.join("all.pcapng"));
    for output in [&out, &all] {
        let run = convert(&[], &empty, output).run().expect_status(2).expect_stderr("no trace files");
        assert!(run.stderr.contains(empty.to_str().unwrap()), "{run:?}");
        assert!(!output.exists());
    }
    for command in ["validate", "info"] {
        tap2pcap().arg(command).arg(&empty).run().expect_status(2).expect_stderr("no trace files");
    }
    // JSON of another kind is neither a trace nor damage.
    fs::write(empty.join("package.json"), "{\"name\": \"x\"}").unwrap();
    convert(&[], &empty, &all).run().expect_status(2);
    let traces = small_batch(&dir, 2);
    let run = tap2pcap().arg(&empty).arg(&traces).arg(&all).run().expect_status(0);
    let run = run.expect_stderr("note: 2 files that are not traces were passed over; -v lists them");
    assert_eq!(last_line(&run), "note: 2 of 2 traces converted");
}

#[test]
fn inputs_of_one_name_get_captures_of_their_own() {
    let dir = Dir::new("duplicates");
    let traces = small_batch(&dir, 4);
    let folders = ["a", "b", "c"].map(|name| dir.join(name));
    for (index, folder) in folders.iter().enumerate() {
        fs::create_dir(folder).unwrap();
        fs::copy(traces.join(format!("tap_{index}.pb")), folder.join("same.pb")).unwrap();
    }
    fs::copy(traces.join("tap_3.pb"), dir.join("same.pb-2")).unwrap();
    for jobs in ["1", "8"] {
        let out = dir.fresh();
        let inputs = [&folders[0], &folders[1], &folders[2]];
        let mut command = tap2pcap().args(&["-j", jobs]);
        for input in inputs {
            command = command.arg(input);
        }
        let run = command.arg(dir.join("same.pb-2")).arg(&out).run().expect_status(0);
        assert_eq!(last_line(&run), "note: 4 of 4 traces converted");
        let captures = tree(&out);
        assert_eq!(captures.len(), 4);
        let question = |number: usize| format!("question 0 of connection {number}").into_bytes();
        for (name, number) in [("same.pb", 0), ("same.pb-2", 1), ("same.pb-3", 2)] {
            let bytes = &captures[&format!("{name}.pcapng")];
            assert!(crate::batch::contains(bytes, &question(number)), "{name} with {jobs} jobs");
        }
        let last = captures.values().filter(|bytes| crate::batch::contains(bytes, &question(3))).count();
        assert_eq!(last, 1);
    }
}

#[test]
fn captures_among_the_traces_are_no_input() {
    let dir = Dir::new("inside");
    let traces = small_batch(&dir, 3);
    let inside = traces.join("captures");
    let slash = format!("{}/", inside.display());
    for output in [Path::new(&slash), &traces] {
        let mut before = None;
        // The second run finds the captures of the first.
        for _ in 0..2 {
            let run = convert(&[], &traces, output).run().expect_status(0);
            assert_eq!(last_line(&run), "note: 3 of 3 traces converted", "{run:?}");
            let after = tree(&traces);
            assert!(before.replace(after.clone()).is_none_or(|before| before == after), "another outcome");
        }
    }
    let captures = paths(&traces).into_iter().filter(|path| path.ends_with(".pcapng")).count();
    assert_eq!(captures, 6);
    // A trace in the output directory is an input as well.
    fs::copy(traces.join("tap_0.pb"), inside.join("more.pb")).unwrap();
    let run = convert(&[], &traces, &inside).run().expect_status(0);
    assert_eq!(last_line(&run), "note: 4 of 4 traces converted", "{run:?}");
    // The merged capture stands in the input directory.
    let all = traces.join("all.pcapng");
    for _ in 0..2 {
        convert(&[], &traces, &all).run().expect_status(0);
        assert_eq!(streams(&tshark::read(&all)), 4);
    }
}

#[test]
fn an_input_is_never_overwritten() {
    let dir = Dir::new("same-file");
    let traces = small_batch(&dir, 2);
    let input = traces.join("tap_0.pb");
    let bytes = fs::read(&input).unwrap();
    symlink(&input, dir.join("link.pcapng")).unwrap();
    let roundabout = traces.join("../traces/tap_0.pb");
    for output in [&input, &dir.join("link.pcapng"), &roundabout] {
        for inputs in [vec![&input], vec![&traces], vec![&dir.join("link.pcapng"), &traces]] {
            let mut command = tap2pcap();
            for input in inputs {
                command = command.arg(input);
            }
            let run = command.arg(output).run().expect_status(2).expect_stderr("is both input and output");
            assert!(fs::read(&input).unwrap() == bytes, "overwritten{run:?}");
        }
    }
    assert_eq!(paths(&traces).len(), 2);
    // A trace that has the name of a capture.
    let disguised = traces.join("tap_0.pb.pcapng");
    fs::copy(&input, &disguised).unwrap();
    let run = tap2pcap().arg(&input).arg(&disguised).arg(&traces).run();
    assert!(fs::read(&disguised).unwrap() == bytes, "overwritten{run:?}");
    run.expect_status(2).expect_stderr("is both input and output");
}

#[test]
fn a_bad_file_does_not_stop_the_others() {
    let dir = Dir::new("bad-file");
    // More inputs than the program keeps open at once when it merges.
    let traces = small_batch(&dir, 50);
    let bytes = fs::read(traces.join("tap_5.pb")).unwrap();
    fs::write(traces.join("tap_5.pb"), &bytes[..bytes.len() - 3]).unwrap();
    fs::write(traces.join("tap_7.pb"), "what is this?").unwrap();
    fs::write(traces.join("tap_8.pb"), "").unwrap();
    for output in [dir.fresh(), dir.join("all.pcapng")] {
        let run = convert(&[], &traces, &output).run().expect_status(1);
        let lines: Vec<_> = run.stderr.lines().collect();
        assert_eq!(lines.len(), 4, "{run:?}");
        for part in ["tap_5.pb: byte ", "tap_7.pb: byte 0, message 0: not an Envoy tap trace", "tap_8.pb: empty"] {
            let found = lines[..3].iter().filter(|line| line.starts_with("error: ") && line.contains(part)).count();
            assert_eq!(found, 1, "{part}{run:?}");
        }
        assert_eq!(lines[3], "note: 48 of 50 traces converted", "{run:?}");
        if output.is_dir() {
            assert_eq!(paths(&output).len(), 48);
            assert!(output.join("tap_5.pb.pcapng").exists() && !output.join("tap_7.pb.pcapng").exists());
        } else {
            assert_eq!(streams(&tshark::read(&output)), 48);
        }
    }
}

/// A file looks like a trace by its first bytes, and yet holds none. The reason is shown, however many other inputs
/// there are.
#[test]
fn a_bad_file_is_reported_with_its_reason() {
    let dir = Dir::new("reason");
    let traces = small_batch(&dir, 40);
    let wrapper = crate::batch::conversation(1, 1, TIME, TIME + 10).remove(0);
    let bytes = Dress::Delimited.file(&[wrapper]);
    fs::write(traces.join("cut.pb_length_delimited"), &bytes[..4]).unwrap();
    for output in [dir.fresh(), dir.join("all.pcapng")] {
        let run = convert(&[], &traces, &output).run().expect_status(1);
        let about: Vec<_> = run.stderr.lines().filter(|line| line.contains("cut.pb_length_delimited")).collect();
        assert!(about.iter().any(|line| line.contains("byte ")), "{run:?}");
        assert_eq!(last_line(&run), "note: 40 of 41 traces converted", "{run:?}");
    }
}

/// The bad file is named before the traces after it are read.
#[test]
fn a_bad_file_is_named_at_once() {
    let dir = Dir::new("at-once");
    let bad = dir.create("bad.pb", "what is this?");
    for output in [dir.fresh(), dir.join("all.pcapng")] {
        let slow = dir.fresh().join("slow.pb");
        crate::batch::fifo(&slow);
        let errors = dir.join("errors");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "exec \"$0\" -j1 \"$1\" \"$2\" \"$3\" 2>\"$4\"", crate::util::PROGRAM]);
        command.arg(&bad).arg(&slow).arg(&output).arg(&errors);
        let running = crate::batch::Running::of(command);
        let named = || fs::read_to_string(&errors).is_ok_and(|text| text.contains("bad.pb: byte 0"));
        crate::wait::wait_until("the bad file is named", named);
        fs::write(&slow, Dress::Binary.file(&crate::batch::conversation(1, 1, TIME, TIME + 10))).unwrap();
        running.finish().expect_status(1);
        assert!(fs::read_to_string(&errors).unwrap().ends_with("note: 1 of 2 traces converted\n"));
    }
}

#[test]
fn nothing_but_bad_files_leaves_nothing() {
    let dir = Dir::new("all-bad");
    let traces = dir.fresh();
    for name in ["a.pb", "b.json", "c.pb_text.gz"] {
        fs::write(traces.join(name), "neither this nor that").unwrap();
    }
    let (out, all) = (dir.join("out/"), dir.join("all.pcapng"));
    for output in [&out, &all] {
        let run = convert(&[], &traces, output).run().expect_status(2);
        assert_eq!(last_line(&run), "note: 0 of 3 traces converted", "{run:?}");
        assert!(!output.exists());
    }
    // Older captures stay untouched: even their inodes are the same.
    fs::create_dir(&out).unwrap();
    fs::write(out.join("a.pb.pcapng"), "older").unwrap();
    fs::write(&all, "older").unwrap();
    let before = [out.join("a.pb.pcapng"), all.clone()].map(|path| fs::metadata(path).unwrap().ino());
    for output in [&out, &all] {
        convert(&[], &traces, output).run().expect_status(2);
    }
    let after = [out.join("a.pb.pcapng"), all.clone()].map(|path| fs::metadata(path).unwrap().ino());
    assert_eq!(before, after);
    assert_eq!(fs::read_to_string(&all).unwrap(), "older");
    assert_eq!(paths(&out), ["a.pb.pcapng".to_owned()].into());
    let expected = ["all.pcapng", "out"].map(str::to_owned);
    assert_eq!(dir.names().into_iter().filter(|name| name != "0").collect::<Vec<_>>(), expected);
}

#[test]
fn strict_makes_a_warning_count() {
    let dir = Dir::new("strict");
    let traces = small_batch(&dir, 40);
    let clean = convert(&["--strict"], &traces, &dir.fresh()).run().expect_status(0);
    assert_eq!(last_line(&clean), "note: 40 of 40 traces converted");
    // A trace without its closed event.
    let mut messages = crate::batch::conversation(41, 1, TIME, TIME + 10);
    messages.pop();
    fs::write(traces.join("open.pb"), Dress::Binary.file(&messages)).unwrap();
    for output in [dir.fresh(), dir.join("all.pcapng")] {
        convert(&[], &traces, &output).run().expect_status(0);
        let run = convert(&["--strict"], &traces, &output).run().expect_status(1);
        assert_eq!(last_line(&run), "note: 41 of 41 traces converted", "{run:?}");
        let capture = if output.is_dir() { output.join("open.pb.pcapng") } else { output };
        assert!(!tshark::read(&capture).is_empty());
    }
}

#[test]
fn quiet_prints_errors_alone_and_verbose_every_finding() {
    let dir = Dir::new("verbosity");
    let traces = small_batch(&dir, 2);
    fs::write(traces.join("bad.pb"), "what is this?").unwrap();
    fs::write(traces.join("damaged.pb"), damaged()).unwrap();
    let mut messages = crate::batch::conversation(41, 1, TIME, TIME + 10);
    messages.pop();
    fs::write(traces.join("open.pb"), Dress::Binary.file(&messages)).unwrap();
    for output in [dir.fresh(), dir.join("all.pcapng")] {
        let lines = |options: &[&str]| {
            let run = convert(options, &traces, &output).run().expect_status(1);
            run.stderr.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let (quiet, normal, verbose) = (lines(&["-q"]), lines(&[]), lines(&["--verbose"]));
        let is_of = |name: &'static str| move |line: &String| line.starts_with("error: ") && line.contains(name);
        let damaged = [is_of("bad.pb: "), is_of("damaged.pb: byte ")];
        assert!(quiet.len() == 2 && damaged.iter().all(|is_of| quiet.iter().any(is_of)), "{quiet:#?}");
        assert_eq!(normal.len(), 3, "{normal:#?}");
        assert!(normal.iter().any(|line| line.contains("damaged.pb: byte ")), "{normal:#?}");
        assert_eq!(normal[2], "note: 4 of 5 traces converted");
        assert!(normal.iter().all(|line| verbose.contains(line)), "{verbose:#?}");
        let packets = |line: &String| line.contains("tap_0.pb: binary, 1 connection, 10 packets");
        assert!(verbose.iter().any(packets), "{verbose:#?}");
        assert!(verbose.iter().any(|line| line.starts_with("warning: ") && line.contains("open.pb: ")), "{verbose:#?}");
    }
    convert(&["-q", "-v"], &traces, &dir.fresh()).run().expect_status(2);
}

/// There are more inputs than the program keeps open at once.
#[test]
fn among_many_inputs_a_bad_one_is_reported_with_its_reason() {
    let dir = Dir::new("many-bad");
    let traces = dir.fresh();
    for number in 0..40 {
        fs::write(traces.join(format!("{number}.pb")), Dress::Binary.file(&sound())).unwrap();
    }
    // Its first bytes are those of a trace, and nothing in it can be read.
    fs::write(traces.join("bad.json"), br#"{"socket_streamed_trace_segment":[]}"#).unwrap();
    let run = convert(&[], &traces, &dir.join("out.pcapng")).run().expect_status(1);
    run.expect_stderr("bad.json: byte").expect_stderr("40 of 41 traces converted");
}
