//! Traces that gzip or Zstandard packed.

use std::{fs, io::Write, path::Path};

use flate2::{Compression, write::GzEncoder};

use crate::{
    batch::{conversation, copy_samples, last_line, paths, tree},
    fixture::{Dress, TIME},
    tshark,
    util::{Dir, Run, convert, modified_like, tap2pcap},
};

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

type Pack = fn(&[u8]) -> Vec<u8>;

const PACKINGS: [(&str, Pack); 2] = [("gz", gzip), ("zst", zstandard)];

/// Random-looking payloads, so that packing keeps its size.
fn long_trace() -> Vec<u8> {
    let mut random = 1_u64;
    let mut events = Vec::new();
    for index in 0..40 {
        let payload: Vec<u8> = (0..5000)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random as u8
            })
            .collect();
        events.push(crate::fixture::read(TIME + index, &payload));
    }
    events.push(crate::fixture::closed(TIME + 100));
    Dress::Binary.file(&crate::fixture::streamed(1, crate::fixture::downstream(), crate::batch::numbered(events)))
}

#[test]
fn packed_traces_give_the_same_captures() {
    let dir = Dir::new("packed");
    let plain = dir.join("plain");
    let samples = copy_samples(&plain);
    let expected = dir.join("plain.pcap");
    convert(&[], &plain, &expected).run().expect_status(0);
    let mirrored = dir.fresh();
    convert(&["-F", "pcap"], &plain, &mirrored).run().expect_status(0);
    let mirrored = tree(&mirrored);
    for (suffix, pack) in PACKINGS {
        let root = dir.join(suffix);
        for sample in &samples {
            let to = root.join(format!("{}.{suffix}", sample.name));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(&to, pack(&sample.bytes())).unwrap();
            modified_like(&to, &sample.path);
        }
        // pcap holds no names of files, so the bytes are the same.
        let merged = dir.join(format!("{suffix}.pcap"));
        let run = convert(&[], &root, &merged).run().expect_status(0);
        assert_eq!(last_line(&run), "note: 182 of 182 traces converted");
        assert!(fs::read(&merged).unwrap() == fs::read(&expected).unwrap(), "{suffix}: another capture");
        let out = dir.fresh();
        convert(&["-F", "pcap"], &root, &out).run().expect_status(0);
        let renamed = mirrored
            .iter()
            .map(|(name, bytes)| (format!("{}.{suffix}.pcap", name.strip_suffix(".pcap").unwrap()), bytes.clone()));
        assert!(tree(&out) == renamed.collect(), "{suffix}: other captures");
        for command in ["info", "validate"] {
            let of = |root: &Path| tap2pcap().args(&[command, "--json"]).arg(root).run().stdout;
            let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(lines(&of(&root)), lines(&of(&plain)), "{command} of {suffix}");
        }
    }
}

#[test]
fn content_decides_whether_a_trace_is_packed() {
    let dir = Dir::new("renamed");
    let plain = Dress::Binary.file(&conversation(1, 2, TIME, TIME + 1000));
    let expected = dir.join("expected.pcap");
    convert(&[], &dir.create("renamed.pb", &plain), &expected).run().expect_clean();
    let expected = fs::read(expected).unwrap();
    for (suffix, pack) in PACKINGS {
        for name in ["renamed", "renamed.pb", "renamed.pb.gz", "renamed.pb.zst", "renamed.json"] {
            let output = dir.join("output.pcap");
            convert(&[], &dir.create(name, pack(&plain)), &output).run().expect_clean();
            assert!(fs::read(&output).unwrap() == expected, "{suffix} as {name}");
        }
        let piped = |bytes: &[u8]| tap2pcap().args(&["-", "-"]).stdin(bytes).run().expect_clean().stdout;
        assert!(piped(&pack(&plain)) == piped(&plain), "{suffix} on standard input");
    }
    // Plain traces that have the names of packed ones.
    for name in ["renamed.pb.gz", "renamed.pb.zst"] {
        let output = dir.join("output.pcap");
        convert(&[], &dir.create(name, &plain), &output).run().expect_clean();
        assert!(fs::read(&output).unwrap() == expected, "{name}");
    }
}

#[test]
fn pieces_packed_one_by_one_are_one_trace() {
    let dir = Dir::new("members");
    let plain = long_trace();
    let expected = dir.join("expected.pcap");
    convert(&[], &dir.create("pieces.pb", &plain), &expected).run().expect_clean();
    for (suffix, pack) in PACKINGS {
        // The pieces do not end where messages end.
        let pieces: Vec<u8> = plain.chunks(7_777).flat_map(pack).collect();
        let output = dir.join("output.pcap");
        convert(&[], &dir.create(&format!("pieces.pb.{suffix}"), pieces), &output).run().expect_clean();
        assert!(fs::read(&output).unwrap() == fs::read(&expected).unwrap(), "{suffix}");
    }
}

/// Expects that everything before the damage is kept, that the file is named, and that the status tells.
#[track_caller]
fn expect_part(dir: &Dir, name: &str, packed: &[u8], at_least: usize) -> Run {
    let (input, output) = (dir.create(name, packed), dir.join("part.pcapng"));
    let run = convert(&[], &input, &output).run().expect_status(1).expect_stderr(&format!("{name}: byte "));
    let payload: usize = tshark::read(&output).iter().map(|frame| frame.payload.len()).sum();
    assert!(payload >= at_least, "only {payload} bytes{run:?}");
    // Among other inputs, the file counts as one.
    let other = dir.create("other.pb", Dress::Binary.file(&conversation(2, 1, TIME, TIME + 10)));
    let merged = tap2pcap().arg(&input).arg(other).arg(&output).run().expect_status(1);
    assert_eq!(last_line(&merged), "note: 2 of 2 traces converted");
    // The same holds if the small file was read before its turn.
    let errors = |run: &Run| -> Vec<String> {
        run.stderr.lines().filter(|line| line.starts_with("error: ")).map(str::to_owned).collect()
    };
    assert_eq!(errors(&merged), errors(&run));
    run
}

#[test]
fn what_came_before_the_damage_is_kept() {
    let dir = Dir::new("truncated");
    let plain = long_trace();
    for (suffix, pack) in PACKINGS {
        let packed = pack(&plain);
        // The cuts are in the middle, and before the checksum at the end.
        let cut = &packed[..packed.len() / 2];
        expect_part(&dir, &format!("half.pb.{suffix}"), cut, 40_000).expect_stderr("cannot read on");
        let name = format!("cut.pb.{suffix}");
        expect_part(&dir, &name, &packed[..packed.len() - 3], if suffix == "gz" { 200_000 } else { 100_000 });
    }
    let mut wrong_checksum = gzip(&plain);
    let at = wrong_checksum.len() - 8;
    wrong_checksum[at] ^= 1;
    expect_part(&dir, "checksum.pb.gz", &wrong_checksum, 200_000);
    // Nothing can be read before the damage.
    for (suffix, pack) in PACKINGS {
        let (input, output) = (dir.create(&format!("head.pb.{suffix}"), &pack(&plain)[..12]), dir.join("none.pcapng"));
        convert(&[], &input, &output).run().expect_status(2).expect_stderr(&format!("head.pb.{suffix}: "));
        assert!(!output.exists());
    }
}

#[test]
fn packed_names_are_found_in_directories() {
    let dir = Dir::new("packed-names");
    let traces = dir.fresh();
    let plain = Dress::Json.file(&conversation(1, 1, TIME, TIME + 1000));
    for name in ["a.json", "b.json.gz", "c.json.zst"] {
        fs::write(traces.join(name), &plain).unwrap();
    }
    // Most of these have no names of traces, but all have the content of traces.
    for name in ["d.gz", "e.zst", "f.json.bz2", "g.tar.gz", "h.json.gz.gz"] {
        fs::write(traces.join(name), &plain).unwrap();
    }
    let out = dir.fresh();
    convert(&[], &traces, &out).run().expect_status(0);
    let names = ["a.json", "b.json.gz", "c.json.zst", "d.gz", "e.zst", "f.json.bz2", "g.tar.gz", "h.json.gz.gz"];
    assert_eq!(paths(&out), names.map(|name| format!("{name}.pcapng")).into());
}
