//! Many traces in one capture, in the order of time.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::Path,
    process::Command,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use tap2pcap::proto::tap::Connection;

use crate::{
    batch::{self, Running, conversation, expect_in_order, last_line, numbered, paths, streams, write_overlapping},
    fixture::{Dress, TIME, buffered, closed, downstream, read, sound, streamed, write},
    memory::peak,
    packed::gzip,
    tshark,
    util::{Dir, PROGRAM, TCPDUMP, convert, tap2pcap},
    wait::{PATIENCE, wait_until, wait_until_idle, within},
};

/// The only flag of a connection's first packet.
const SYN: u16 = 2;

/// Runs the program with at most 256 open files, and returns its peak memory in KiB as well.
fn within_256_files(options: &[&str], input: &Path, output: &Path) -> (crate::util::Run, u64) {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 256 && exec \"$0\" \"$@\"", PROGRAM]).args(options).arg(input).arg(output);
    let mut running = Running::of(command);
    let mut highest = 0;
    // The kernel forgets the peak when the program ends, so it is looked at while the program runs.
    let ended = within(5 * PATIENCE, || {
        highest = highest.max(peak(running.id()).unwrap_or(0));
        running.has_ended().then_some(())
    });
    assert!(ended.is_some(), "it does not end");
    (running.finish(), highest)
}

/// Ten thousand traces of the same second.
#[test]
fn ten_thousand_traces_fit_into_256_files_and_little_memory() {
    const COUNT: u32 = 10_000;
    const MOST_KIB: u64 = 256 * 1024;
    let dir = Dir::new("ten-thousand");
    let (traces, out, all) = (dir.join("traces"), dir.join("out"), dir.join("all.pcapng"));
    write_overlapping(&traces, COUNT, 2);
    fs::create_dir(&out).unwrap();

    let (run, highest) = within_256_files(&["-j", "64"], &traces, &out);
    let run = run.expect_status(0);
    assert_eq!(last_line(&run), "note: 10000 of 10000 traces converted");
    assert!(highest > 1024 && highest < MOST_KIB, "{highest} KiB to mirror");
    assert_eq!(paths(&out), (0..COUNT).map(|number| format!("tap_{number}.pb.pcapng")).collect());
    for number in (0..COUNT).step_by(997) {
        let name = format!("tap_{number}.pb");
        let alone = dir.join("alone.pcapng");
        convert(&[], &traces.join(&name), &alone).run().expect_clean();
        assert!(fs::read(&alone).unwrap() == fs::read(out.join(format!("{name}.pcapng"))).unwrap(), "{name}");
    }

    let (run, highest) = within_256_files(&[], &traces, &all);
    let run = run.expect_status(0);
    assert_eq!(last_line(&run), "note: 10000 of 10000 traces converted");
    assert!(highest > 1024 && highest < MOST_KIB, "{highest} KiB to merge");
    println!("{highest} KiB resident while merging");
    let fields = ["frame.time_epoch", "tcp.stream", "tcp.flags", "tcp.analysis.flags"];
    let args: Vec<_> = ["-T", "fields"].into_iter().chain(fields.iter().flat_map(|field| ["-e", field])).collect();
    let mut last = String::new();
    let mut syns: BTreeMap<u32, u32> = BTreeMap::new();
    for line in tshark::lines(&all, &args) {
        let fields: Vec<_> = line.split('\t').collect();
        assert!(*fields[0] >= *last, "time goes back: {line}");
        fields[0].clone_into(&mut last);
        let flags = u16::from_str_radix(fields[2].trim_start_matches("0x"), 16).unwrap();
        *syns.entry(fields[1].parse().unwrap()).or_default() += u32::from(flags == SYN);
        assert_eq!(fields[3], "", "Wireshark doubts {line}");
    }
    assert_eq!(syns.len(), COUNT as usize);
    assert!(syns.values().all(|count| *count == 1), "a stream with two beginnings");

    // Packed, they take no more.
    for (number, name) in paths(&traces).into_iter().enumerate() {
        let plain = traces.join(name);
        let bytes = fs::read(&plain).unwrap();
        let (suffix, packed) = match number % 2 {
            0 => ("gz", gzip(&bytes)),
            _ => ("zst", zstd::encode_all(&*bytes, 1).unwrap()),
        };
        fs::write(plain.with_extension(format!("pb.{suffix}")), packed).unwrap();
        fs::remove_file(plain).unwrap();
    }
    let packed = dir.join("packed.pcap");
    let (run, highest) = within_256_files(&[], &traces, &packed);
    assert_eq!(last_line(&run.expect_status(0)), "note: 10000 of 10000 traces converted");
    assert!(highest > 1024 && highest < MOST_KIB, "{highest} KiB to merge packed ones");
}

/// Traces that are larger than the buffer of a writing thread, so that each job has more files open.
#[test]
fn large_traces_and_many_jobs_fit_into_256_files() {
    let dir = Dir::new("many-jobs");
    let (traces, out) = (dir.join("traces"), dir.join("out"));
    fs::create_dir(&traces).unwrap();
    fs::create_dir(&out).unwrap();
    let payload = vec![7; 700_000];
    for number in 0..150 {
        let events = numbered(vec![read(TIME, &payload), write(TIME + 1, b"done"), closed(TIME + 2)]);
        let trace = Dress::Delimited.file(&streamed(u64::from(number), batch::client(number), events));
        // Packed, to spare the disk.
        let packed = zstd::encode_all(&*trace, 1).unwrap();
        fs::write(traces.join(format!("tap_{number}.pb_length_delimited.zst")), packed).unwrap();
    }
    for output in [&out, &dir.join("all.pcapng")] {
        let (run, highest) = within_256_files(&["-j", "150"], &traces, output);
        assert_eq!(last_line(&run.expect_status(0)), "note: 150 of 150 traces converted");
        assert!(highest < 512 * 1024, "{highest} KiB");
    }
    assert_eq!(paths(&out).len(), 150);
}

/// More traces than the program keeps open at once, each with a different start, end and format.
#[test]
fn packets_of_many_traces_are_in_the_order_of_time() {
    let dir = Dir::new("order");
    let traces = dir.fresh();
    let formats = [Dress::Binary, Dress::Delimited, Dress::DenseText, Dress::Json];
    for number in 0..200_u32 {
        // Some traces follow one another, some lie within others, and the order of the names is another one.
        let start = TIME + u64::from(number * 37 % 200) * 1_000;
        let end = start + 500 + u64::from(number % 7) * 20_000;
        let dress = formats[number as usize % formats.len()];
        let name = format!("{}_{number}.{}", number * 61 % 200, dress.suffix());
        fs::write(traces.join(name), dress.file(&conversation(number, 3, start, end))).unwrap();
    }
    let all = dir.join("all.pcapng");
    convert(&[], &traces, &all).run().expect_status(0);
    let frames = tshark::read(&all);
    expect_in_order(&frames);
    assert_eq!(streams(&frames), 200);
    frames.iter().for_each(|frame| frame.expect_sound(&"merged"));
    TCPDUMP.run(["-n", "-r", all.to_str().unwrap()], &[]);
    // The same inputs named on the command line, in any order, give the same packets as their directory.
    let mut command = tap2pcap();
    for name in paths(&traces) {
        command = command.arg(traces.join(name));
    }
    command.arg(dir.join("named.pcapng")).run().expect_status(0);
    assert!(fs::read(dir.join("named.pcapng")).unwrap() == fs::read(&all).unwrap(), "named inputs differ");
}

/// If two events have the same time, the order of the inputs decides.
#[test]
fn events_of_one_time_come_in_the_order_of_the_inputs() {
    let dir = Dir::new("ties");
    let trace = |number: u32| {
        let events = numbered(vec![read(TIME, format!("from {number}").as_bytes()), closed(TIME + 5)]);
        dir.create(
            &format!("{number}.pb"),
            Dress::Binary.file(&streamed(u64::from(number), batch::client(number), events)),
        )
    };
    let (first, second) = (trace(1), trace(2));
    for inputs in [[&first, &second], [&second, &first]] {
        let all = dir.join("all.pcapng");
        tap2pcap().arg(inputs[0]).arg(inputs[1]).arg(&all).run().expect_status(0);
        let frames = tshark::read(&all);
        let payloads: Vec<_> = frames.iter().filter(|frame| frame.tcp_len > 0).map(|frame| &frame.interface).collect();
        let expected: Vec<_> = inputs.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(payloads, expected);
    }
}

/// Two Envoys tapped the two ends of a connection, and there is a third recording of it. They are three streams, never
/// one.
#[test]
fn connections_with_the_same_addresses_at_the_same_time_stay_apart() {
    let dir = Dir::new("same-addresses");
    let end = downstream();
    let other_end = Connection { local_address: end.remote_address.clone(), remote_address: end.local_address.clone() };
    let inbound = vec![read(TIME, b"question"), write(TIME + 100, b"answer"), closed(TIME + 200)];
    let outbound = vec![write(TIME + 10, b"question"), read(TIME + 90, b"answer"), closed(TIME + 190)];
    let one = streamed(1, end.clone(), numbered(inbound.clone()));
    let two = streamed(2, other_end.clone(), numbered(outbound.clone()));
    let three = vec![buffered(1, end, inbound)];
    // The recordings are in separate files, and in one stream, where trace_id tells them apart.
    let names = [("one", &one), ("two", &two), ("three", &three)];
    let files = names.map(|(name, messages)| dir.create(&format!("{name}.pb"), Dress::Binary.file(messages)));
    let mut together = vec![one[0].clone(), two[0].clone()];
    for index in 1..one.len() {
        together.extend([one[index].clone(), two[index].clone()]);
    }
    let stream = dir.create("stream.pb_length_delimited", Dress::Delimited.file(&together));
    for mode in ["full", "bare"] {
        let (merged, single) = (dir.join("merged.pcapng"), dir.join("single.pcapng"));
        let command = tap2pcap().args(&["--tcp", mode]).arg(&files[0]).arg(&files[1]).arg(&files[2]);
        command.arg(&merged).run().expect_status(0);
        convert(&["--tcp", mode], &stream, &single).run().expect_status(0);
        for (capture, count) in [(&merged, 3), (&single, 2)] {
            let frames = tshark::read(capture);
            assert_eq!(streams(&frames), count, "{mode}: {frames:#?}");
            let comments: String = frames.iter().flat_map(|frame| frame.comments.clone()).collect();
            let told = comments.matches("another connection with these addresses is open at the same time").count();
            assert_eq!(told, count - 1, "{mode}: {comments}");
            for stream in 0..count as u32 {
                let of_it: Vec<_> = frames.iter().filter(|frame| frame.stream == stream).collect();
                let bytes: Vec<u8> = of_it.iter().flat_map(|frame| frame.payload.clone()).collect();
                assert_eq!(bytes, b"questionanswer", "{mode}, stream {stream}");
            }
            if mode == "full" {
                frames.iter().for_each(|frame| frame.expect_sound(&mode));
            }
        }
    }
}

/// Connections that follow each other keep their addresses, and each is a stream of its own.
#[test]
fn connections_with_the_same_addresses_one_after_the_other_keep_them() {
    let dir = Dir::new("reused-addresses");
    let one = |start: u64, id: u64| {
        let events = vec![read(start, b"question"), write(start + 100, b"answer"), closed(start + 200)];
        dir.create(&format!("{id}.pb"), Dress::Binary.file(&streamed(id, downstream(), numbered(events))))
    };
    // The second connection opens at the time at which the first one closes.
    let files = [one(TIME, 1), one(TIME + 200, 2), one(TIME + 1000, 3)];
    let all = dir.join("all.pcapng");
    tap2pcap().arg(&files[0]).arg(&files[1]).arg(&files[2]).arg(&all).run().expect_status(0);
    let frames = tshark::read(&all);
    expect_in_order(&frames);
    assert_eq!(streams(&frames), 3, "{frames:#?}");
    let client = "192.0.2.7:50123".parse().ok();
    assert!(frames.iter().all(|frame| frame.src == client || frame.dst == client), "{frames:#?}");
}

/// A hundred named pipes, which need more files than the program may open if it read all of them at once.
#[test]
fn many_jobs_share_the_files_that_there_are() {
    const COUNT: u32 = 100;
    let dir = Dir::new("many-pipes");
    let (pipes, out) = (dir.fresh(), dir.fresh());
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 256 && exec \"$0\" \"$@\"", PROGRAM, "-j", "100"]);
    let names: Vec<_> = (0..COUNT).map(|number| pipes.join(format!("tap_{number}.pb"))).collect();
    for name in &names {
        batch::fifo(name);
        command.arg(name);
    }
    command.arg(&out);
    let running = Running::of(command);
    // Nobody writes a trace to its end before the program has opened all the pipes that it wants to read at once.
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write().unwrap();
    let begun = Arc::new(AtomicU32::new(0));
    let writers: Vec<_> = (0..COUNT)
        .zip(&names)
        .map(|(number, name)| {
            let (name, gate, begun) = (name.clone(), Arc::clone(&gate), Arc::clone(&begun));
            let bytes = Dress::Binary.file(&conversation(number, 1, TIME, TIME + 1000));
            thread::spawn(move || {
                let mut pipe = fs::OpenOptions::new().write(true).open(name).unwrap();
                pipe.write_all(&bytes[..50]).unwrap();
                begun.fetch_add(1, Ordering::Relaxed);
                drop(gate.read().unwrap());
                pipe.write_all(&bytes[50..]).unwrap();
            })
        })
        .collect();
    wait_until("a trace has begun", || begun.load(Ordering::Relaxed) > 0);
    wait_until_idle(running.id());
    println!("{} traces at once", begun.load(Ordering::Relaxed));
    drop(closed);
    let run = running.finish().expect_status(0);
    assert_eq!(last_line(&run), "note: 100 of 100 traces converted");
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(paths(&out).len(), COUNT as usize);
    // In a merge each pipe is read once only, although there are more than the program keeps open.
    let all = dir.join("all.pcapng");
    let mut command = tap2pcap();
    for name in &names {
        command = command.arg(name);
    }
    let writer = thread::spawn(move || {
        for (number, name) in (0..COUNT).zip(names) {
            fs::write(name, Dress::Binary.file(&conversation(number, 1, TIME, TIME + 1000))).unwrap();
        }
    });
    let run = command.arg(&all).run().expect_status(0);
    writer.join().unwrap();
    assert_eq!(last_line(&run), "note: 100 of 100 traces converted");
    assert_eq!(streams(&tshark::read(&all)), COUNT as usize);
}

/// There are more inputs than the program keeps open at once, and a pipe can be opened and read only once.
#[test]
fn a_pipe_among_many_inputs_is_read() {
    let dir = Dir::new("many-pipe");
    let input = dir.create("path_0.pb", Dress::Binary.file(&sound()));
    let fifo = dir.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut command = tap2pcap();
    for _ in 0..40 {
        command = command.arg(&input);
    }
    let writer = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::write(fifo, Dress::Binary.file(&sound())).unwrap()
    });
    command.arg(&fifo).arg(dir.join("out.pcapng")).run().expect_status(0).expect_stderr("41 of 41 traces converted");
    writer.join().unwrap();
}
