//! Outputs: who may read them, what their names mean, where links lead, and what is left after a failure.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use crate::{
    batch::{Running, conversation, paths, small_batch, streams, temporaries},
    fixture::{Dress, TIME, sound},
    tshark,
    util::{CAPINFOS, Dir, PROGRAM, ROOT, Run, STRACE, TCPDUMP, convert, run_command, tap2pcap},
    wait::wait_until,
};

fn trace(dir: &Dir) -> PathBuf {
    dir.create("trace.pb", Dress::Binary.file(&conversation(1, 3, TIME, TIME + 1000)))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn with_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs a line of shell in which `$0` is the program, `$1` and so on `args`.
fn shell(script: &str, args: &[&Path]) -> Run {
    let mut command = Command::new("bash");
    command.arg("-c").arg(script).arg(PROGRAM).args(args);
    run_command(command)
}

/// As for cp, tcpdump and many others.
#[test]
fn options_may_stand_anywhere() {
    let dir = Dir::new("options-anywhere");
    let (a, b) = (trace(&dir), dir.create("b.pb", Dress::Binary.file(&conversation(2, 3, TIME, TIME + 1000))));
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let written = |before: &[&str], name: &str, after: &[&str]| {
        let output = dir.fresh().join(name);
        tap2pcap().args(before).arg(&output).args(after).run().expect_status(0);
        if output.is_dir() { output.join("requests.ndjson.zst") } else { output }
    };
    for (base, options, name) in
        [(&[][..], ["--tcp", "bare"], "x.pcapng"), (&["tables"], ["--zst", "--force"], "tables")]
    {
        let base = |rest: &[&str]| [base, rest].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
        let [first, second] = options;
        let orders = [
            (base(&[first, second, a, b]), &[][..]),
            (base(&[a, b, first, second]), &[]),
            (base(&[a, first, second, b]), &[]),
            (base(&[a, b]), &options),
        ];
        let outputs = orders.map(|(before, after)| {
            let before: Vec<_> = before.iter().map(String::as_str).collect();
            fs::read(written(&before, name, after)).unwrap()
        });
        assert!(outputs.iter().all(|output| *output == outputs[0]), "{name}");
        // One path is too few, wherever the options are.
        let missing = if name == "tables" { "<DIRECTORY>" } else { "<OUTPUT>" };
        for few in [base(&[a]), base(&[first, second, a]), base(&[a, first, second])] {
            let few: Vec<_> = few.iter().map(String::as_str).collect();
            let run = tap2pcap().args(&few).run().expect_status(2);
            let expected =
                format!("error: the following required arguments were not provided:\n  {missing}\n\nUsage: ");
            assert!(run.stderr.starts_with(&expected) && run.stderr.contains("try '--help'"), "{run:?}");
        }
    }
}

#[test]
fn an_output_that_is_replaced_keeps_its_permissions_and_owner() {
    let dir = Dir::new("keeps-mode");
    let trace = trace(&dir);
    let is_root = rustix::process::geteuid().is_root();
    for bits in [0o600, 0o640, 0o644, 0o660, 0o200] {
        for name in ["out.pcapng", "out.har", "out.pcap.gz"] {
            let output = dir.create(name, "older");
            with_mode(&output, bits);
            if is_root {
                chown(&output, Some(12_345), Some(23_456)).unwrap();
            }
            let input = if name.ends_with("har") {
                Path::new(ROOT).join("testdata/http/grpc_unary_buffered.json")
            } else {
                trace.clone()
            };
            convert(&["-q"], &input, &output).run().expect_status(0);
            assert_eq!(mode(&output), bits, "{name}");
            assert_ne!(fs::metadata(&output).unwrap().len(), 5);
            if is_root {
                let metadata = fs::metadata(&output).unwrap();
                assert_eq!((metadata.uid(), metadata.gid()), (12_345, 23_456));
            }
            fs::remove_file(output).unwrap();
        }
    }
    // The same holds in a directory. While the capture is written, nobody else can read it.
    let out = dir.fresh();
    let older = out.join("trace.pb.pcapng");
    fs::write(&older, "older").unwrap();
    with_mode(&older, 0o600);
    convert(&["-q"], &trace, &out).run().expect_status(0);
    assert_eq!(mode(&older), 0o600);
    let mut running = Running::start([Path::new("-"), &older]);
    running.send(b"");
    wait_until("it is at work", || !temporaries(&out).is_empty());
    assert_eq!(mode(&out.join(&temporaries(&out)[0])) & 0o177, 0);
    running.finish();
}

#[test]
fn a_new_output_has_what_the_umask_leaves() {
    let dir = Dir::new("umask");
    let trace = trace(&dir);
    for (umask, bits) in [("022", 0o644), ("077", 0o600), ("002", 0o664)] {
        let output = dir.join(format!("{umask}.pcapng"));
        shell(&format!("umask {umask}; \"$0\" \"$1\" \"$2\""), &[&trace, &output]).expect_status(0);
        assert_eq!(mode(&output), bits);
    }
}

/// The superuser could write to it, so the mode alone decides.
#[test]
fn a_read_only_output_is_replaced_with_force_alone() {
    let dir = Dir::new("read-only");
    let trace = trace(&dir);
    let output = dir.create("out.pcapng", "older");
    with_mode(&output, 0o444);
    let run = convert(&[], &trace, &output).run().expect_status(2);
    let expected =
        format!("error: {}: cannot write the capture: the file is read-only; --force replaces it\n", output.display());
    assert_eq!(run.stderr, expected);
    assert_eq!(fs::read_to_string(&output).unwrap(), "older");
    convert(&["--force"], &trace, &output).run().expect_status(0);
    assert_eq!((mode(&output), streams(&tshark::read(&output))), (0o444, 1));
    // In a directory, the other captures are written.
    let traces = small_batch(&dir, 3);
    let out = dir.fresh();
    let locked = out.join("tap_1.pb.pcapng");
    fs::write(&locked, "older").unwrap();
    with_mode(&locked, 0o444);
    convert(&[], &traces, &out)
        .run()
        .expect_status(1)
        .expect_stderr("tap_1.pb.pcapng: cannot write the capture: the file");
    assert_eq!((fs::read_to_string(&locked).unwrap().as_str(), paths(&out).len()), ("older", 3));
    // So it is if the directory is named through one that is not there yet.
    convert(&[], &traces, &dir.join("new/..").join(out.file_name().unwrap()).join(""))
        .run()
        .expect_status(1)
        .expect_stderr("tap_1.pb.pcapng: cannot write the capture: the file");
    assert_eq!((fs::read_to_string(&locked).unwrap().as_str(), paths(&out).len()), ("older", 3));
}

#[test]
fn links_are_written_through_even_to_what_is_not_there_yet() {
    let dir = Dir::new("links");
    let trace = trace(&dir);
    let (far, near) = (dir.fresh(), dir.fresh());
    let target = far.join("far.pcapng");
    symlink(&target, dir.join("first.pcapng")).unwrap();
    symlink("../first.pcapng", near.join("second.pcapng")).unwrap();
    for _ in 0..2 {
        convert(&[], &trace, &near.join("second.pcapng")).run().expect_clean();
        assert!(fs::symlink_metadata(near.join("second.pcapng")).unwrap().is_symlink());
        assert!(fs::symlink_metadata(dir.join("first.pcapng")).unwrap().is_symlink());
        assert!(fs::symlink_metadata(&target).unwrap().is_file());
        assert_eq!(streams(&tshark::read(&target)), 1);
    }
    assert_eq!((paths(&far).len(), paths(&near).len()), (1, 1));
    // A link to itself, and a link into a directory that does not exist.
    symlink("ring.pcapng", dir.join("ring.pcapng")).unwrap();
    convert(&[], &trace, &dir.join("ring.pcapng")).run().expect_status(2).expect_stderr("ring.pcapng: cannot write");
    symlink("missing/x.pcapng", dir.join("lost.pcapng")).unwrap();
    convert(&[], &trace, &dir.join("lost.pcapng")).run().expect_status(2).expect_stderr("lost.pcapng: cannot write");
}

/// The bytes before the capture stay, and later ones follow it.
#[test]
fn standard_output_by_any_name_is_appended_to() {
    let dir = Dir::new("dev-stdout");
    let trace = trace(&dir);
    let whole = tap2pcap().arg(&trace).arg("-").run().expect_status(0).stdout;
    for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let file = dir.create("all", "before ");
        let script = "{ \"$0\" -q \"$1\" \"$3\"; status=$?; echo -n \" after\"; } >>\"$2\"; exit $status";
        let inode = fs::metadata(&file).unwrap().ino();
        shell(script, &[&trace, &file, Path::new(name)]).expect_clean();
        let expected = [b"before ".as_slice(), &whole, b" after"].concat();
        assert!(fs::read(&file).unwrap() == expected, "{name}");
        assert_eq!(fs::metadata(&file).unwrap().ino(), inode, "{name}");
        let piped = tap2pcap().arg("-q").arg(&trace).arg(name).run().expect_clean();
        assert!(piped.stdout == whole, "{name}");
    }
    // Another descriptor, as a shell's process substitution gives it.
    let out = dir.join("substituted");
    shell("\"$0\" -q \"$1\" >(cat >\"$2\"); wait $!", &[&trace, &out]).expect_clean();
    wait_until("cat is done", || fs::read(&out).is_ok_and(|bytes| bytes == whole));
}

#[test]
fn an_error_names_the_output_that_was_typed() {
    let dir = Dir::new("typed");
    let trace = trace(&dir);
    let output = dir.join("missing/out.pcapng");
    let run = convert(&[], &trace, &output).run().expect_status(2);
    let expected =
        format!("error: {}: cannot write the capture: No such file or directory (os error 2)\n", output.display());
    assert_eq!(run.stderr, expected);
    let name = format!("{}.pcapng", "x".repeat(300));
    let run = convert(&[], &trace, &dir.join(name)).run().expect_status(2);
    assert!(!run.stderr.contains(".tap2pcap-"), "{run:?}");
    let long = format!("{}.pcapng", "x".repeat(245));
    convert(&[], &trace, &dir.join(long)).run().expect_status(0);
}

/// The usual tools read packed outputs. Unpacked, they are the same as plain outputs.
#[test]
fn packed_outputs_are_what_their_names_say() {
    let dir = Dir::new("packed-outputs");
    let traces = small_batch(&dir, 4);
    for format in ["pcap", "pcapng"] {
        let plain = dir.join(format!("plain.{format}"));
        convert(&["-q"], &traces, &plain).run().expect_clean();
        for (suffix, tool) in [("gz", "gzip"), ("zst", "zstd"), ("GZ", "gzip")] {
            let output = dir.join(format!("packed.{format}.{suffix}"));
            convert(&["-q"], &traces, &output).run().expect_clean();
            let unpacked = shell(&format!("{tool} -t <\"$1\" && {tool} -dc <\"$1\""), &[&output]).expect_status(0);
            assert!(unpacked.stdout == fs::read(&plain).unwrap(), "{format}.{suffix}");
            assert_eq!(tshark::read(&output), tshark::read(&plain));
            CAPINFOS.run([&output], &[]);
            let again = dir.join(format!("again.{format}.{suffix}"));
            convert(&["-q", "-j1"], &traces, &again).run().expect_clean();
            assert!(fs::read(&again).unwrap() == fs::read(&output).unwrap(), "the same bytes each time");
        }
    }
    let har = dir.join("out.har.gz");
    let http = Path::new(ROOT).join("testdata/http/grpc_unary_buffered.json");
    convert(&["-q"], &http, &har).run().expect_status(0);
    let text = shell("gzip -dc <\"$1\"", &[&har]).expect_status(0).stdout;
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&text).unwrap()["log"]["version"], "1.2");
}

/// The capture is longer than the buffer, so that a thread packs it.
fn long_trace(dir: &Dir) -> PathBuf {
    let mut bytes = Vec::new();
    for number in 0..3000 {
        let time = TIME + u64::from(number) * 1000;
        bytes.extend(Dress::Delimited.file(&conversation(number, 10, time, time + 900)));
    }
    dir.create("long.pb_length_delimited", bytes)
}

#[test]
fn a_long_packed_output_is_whole_and_a_failed_one_leaves_nothing() {
    let dir = Dir::new("packed-long");
    let trace = long_trace(&dir);
    let plain = dir.join("plain.pcapng");
    convert(&["-q"], &trace, &plain).run().expect_clean();
    assert!(fs::metadata(&plain).unwrap().len() > 4 << 20);
    for (suffix, tool) in [("gz", "gzip"), ("zst", "zstd")] {
        let out = dir.fresh();
        let output = out.join(format!("x.pcapng.{suffix}"));
        convert(&["-q"], &trace, &output).run().expect_clean();
        let unpacked = shell(&format!("{tool} -dc <\"$1\""), &[&output]).expect_status(0);
        assert!(unpacked.stdout == fs::read(&plain).unwrap());
        // A limit on the size of files stands for a full disk.
        let before = fs::read(&output).unwrap();
        let script = "ulimit -f 20; trap '' XFSZ; exec \"$0\" \"$1\" \"$2\"";
        let run = shell(script, &[&trace, &output]).expect_status(2);
        run.expect_stderr(&format!("error: {}: cannot write the capture: File too large", output.display()));
        assert_eq!(paths(&out).len(), 1);
        assert!(fs::read(&output).unwrap() == before);
        // A signal in the middle.
        let slow = out.join("slow.pb");
        crate::batch::fifo(&slow);
        let running = Running::start([&slow, &output]);
        let mut writer = OpenOptions::new().write(true).open(&slow).unwrap();
        writer.write_all(&fs::read(&trace).unwrap()[..1 << 20]).unwrap();
        running.signal(rustix::process::Signal::TERM);
        assert_eq!(running.end().status.code(), Some(143));
        assert!(temporaries(&out).is_empty() && fs::read(&output).unwrap() == before);
        // A packed stream to a pipe has each message at once.
        let pipe = out.join(format!("pipe.pcapng.{suffix}"));
        crate::batch::fifo(&pipe);
        let mut running = Running::start([Path::new("-"), &pipe]);
        let mut reader = File::open(&pipe).unwrap();
        running.send(&Dress::Delimited.file(&conversation(1, 2, TIME, TIME + 1000)));
        let (mut packed, mut piece) = (Vec::new(), [0; 65536]);
        let mut unpacked = Vec::new();
        while !crate::batch::contains(&unpacked, b"answer 1 for connection 1") {
            let count = reader.read(&mut piece).unwrap();
            assert!(count > 0, "it ended early");
            packed.extend_from_slice(&piece[..count]);
            unpacked.clear();
            // The stream has not ended, so unpacking it ends in an error.
            let _ = match suffix {
                "gz" => flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked),
                _ => zstd::Decoder::new(packed.as_slice()).unwrap().read_to_end(&mut unpacked),
            };
        }
        let rest = thread::spawn(move || reader.read_to_end(&mut packed).map(|_| packed));
        running.finish().expect_clean();
        let packed = dir.create("piped", rest.join().unwrap().unwrap());
        shell(&format!("{tool} -t <\"$1\""), &[&packed]).expect_status(0);
    }
}

#[test]
fn a_name_that_says_nothing_needs_a_format() {
    let dir = Dir::new("suffixes");
    let trace = trace(&dir);
    let out = dir.fresh();
    let other = out.join("path_1.pb");
    fs::write(&other, "a trace that a shell's pattern put last").unwrap();
    for name in ["path_1.pb", "out.pcapng.tmp", "out.txt", "out.gz", "out.zst", "out.json"] {
        let run = convert(&[], &trace, &out.join(name)).run().expect_status(2);
        run.expect_stderr(&format!("{name}: what to write is not clear")).expect_stderr("-F");
    }
    assert_eq!(paths(&out), ["path_1.pb".to_owned()].into());
    assert_eq!(fs::read_to_string(other).unwrap(), "a trace that a shell's pattern put last");
    for (name, options, kind) in [
        ("out.txt", &["-F", "pcap"][..], "nanosecond pcap"),
        ("out.pcap", &["-F", "pcapng"], "pcapng"),
        ("out.gz", &["-F", "pcapng"], "pcapng (gzip compressed)"),
        ("out.cap", &[], "nanosecond pcap"),
        ("out.dmp.zst", &[], "nanosecond pcap (zstd compressed)"),
        ("out.ntar", &[], "pcapng"),
        ("capture", &[], "pcapng"),
    ] {
        let output = out.join(name);
        convert(options, &trace, &output).run().expect_clean();
        let run = CAPINFOS.run([Path::new("-t"), &output], &[]);
        assert!(run.stdout_text().trim_end().ends_with(kind), "{name}{run:?}");
    }
    // A pipe may have any name.
    let pipe = out.join("pipe.sock");
    crate::batch::fifo(&pipe);
    let reader = thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    convert(&[], &trace, &pipe).run().expect_clean();
    assert!(reader.join().unwrap().starts_with(b"\n\r\r\n"));
}

#[test]
fn precision_us_gives_a_pcap_with_microseconds() {
    let dir = Dir::new("precision");
    let trace = trace(&dir);
    let (nanos, micros) = (dir.join("ns.pcap"), dir.join("us.pcap"));
    convert(&["--precision", "ns"], &trace, &nanos).run().expect_clean();
    convert(&["--precision", "us"], &trace, &micros).run().expect_clean();
    assert_eq!(fs::read(&micros).unwrap()[..4], 0xa1b2_c3d4_u32.to_le_bytes());
    assert_eq!(fs::read(&nanos).unwrap()[..4], 0xa1b2_3c4d_u32.to_le_bytes());
    let mut expected = tshark::read(&nanos);
    for frame in &mut expected {
        frame.time = frame.time / 1000 * 1000;
    }
    assert_eq!(tshark::read(&micros), expected);
    TCPDUMP.run([Path::new("-n"), Path::new("-r"), &micros], &[]);
    let to_directory = dir.fresh();
    convert(&["-F", "pcap", "--precision", "us"], &trace, &to_directory).run().expect_clean();
    assert!(fs::read(to_directory.join("trace.pb.pcap")).unwrap() == fs::read(&micros).unwrap());
    for name in ["x.pcapng", "x.har", "-"] {
        let output = if name == "-" { PathBuf::from(name) } else { dir.join(name) };
        let run = convert(&["--precision", "us"], &trace, &output).run().expect_status(2);
        run.expect_stderr("--precision us is for pcap alone");
        assert!(!dir.join(name).exists());
    }
}

/// The order of system calls shows the order in which the bytes and the name reach the disk.
#[test]
fn the_bytes_are_on_the_disk_before_the_name() {
    let dir = Dir::new("durable");
    let trace = trace(&dir);
    let (log, output) = (dir.join("log"), dir.join("out.pcapng"));
    let options = ["-f", "-y", "-e", "trace=fsync,rename,renameat,renameat2", "-o"].map(Path::new);
    STRACE.run(options.into_iter().chain([&log, Path::new(PROGRAM), &trace, &output].map(AsRef::as_ref)), &[]);
    let log = fs::read_to_string(log).unwrap();
    let calls: Vec<_> = log.lines().filter(|line| line.contains('(')).collect();
    assert_eq!(calls.len(), 3, "{log}");
    assert!(calls[0].contains("fsync(") && calls[0].contains(".tap2pcap-"), "{log}");
    assert!(calls[1].contains("rename") && calls[1].contains("out.pcapng"), "{log}");
    assert!(calls[2].contains("fsync(") && !calls[2].contains(".tap2pcap-"), "{log}");
}

#[test]
fn a_dash_is_standard_output_beside_a_directory_of_that_name() {
    let dir = Dir::new("dash");
    dir.create("path_0.pb", Dress::Binary.file(&sound()));
    fs::create_dir(dir.join("-")).unwrap();
    let mut command = Command::new(PROGRAM);
    let output = command.args(["path_0.pb", "-"]).current_dir(dir.path()).stdin(Stdio::null()).output().unwrap();
    assert!(output.stdout.starts_with(b"\x0a\x0d\x0d\x0a"), "{output:?}");
}
