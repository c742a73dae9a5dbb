//! tar and ZIP archives as inputs: each trace in them is one.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, UNIX_EPOCH},
};

use rawzip::{CompressionMethod, ZipArchiveWriter, time::UtcDateTime};
use tar::{Builder, EntryType, Header};

use crate::{
    batch::{conversation, copy_samples, last_line, paths, tree},
    fixture::{Dress, TIME},
    packed::gzip,
    util::{Dir, PROGRAM, Run, convert, run_command, tap2pcap},
};

/// When all members were modified, in seconds. ZIP's own times are even.
const MODIFIED: u64 = 1_700_000_000;

fn trace(number: u32) -> Vec<u8> {
    let start = TIME + u64::from(number) * 1000;
    Dress::Json.file(&conversation(number, 2, start, start + 500))
}

/// A header for a member. The name may be one that no tar program would write.
fn header(name: &[u8], size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_size(size);
    header.set_mtime(MODIFIED);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

pub fn tar_of<N: AsRef<[u8]>, B: AsRef<[u8]>>(members: &[(N, B)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes) in members {
        let bytes = bytes.as_ref();
        builder.append(&header(name.as_ref(), bytes.len() as u64), bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn zip_of<N: AsRef<str>, B: AsRef<[u8]>>(members: &[(N, B)]) -> Vec<u8> {
    zip_with(CompressionMethod::DEFLATE, members)
}

fn zip_with<N: AsRef<str>, B: AsRef<[u8]>>(method: CompressionMethod, members: &[(N, B)]) -> Vec<u8> {
    let mut archive = ZipArchiveWriter::new(Vec::new());
    for (name, bytes) in members {
        let bytes = bytes.as_ref();
        let modified = UtcDateTime::from_unix(MODIFIED as i64);
        let builder = archive.new_file(rawzip::path::EntryPath::verbatim(name.as_ref().as_bytes()));
        let (mut entry, config) = builder.compression_method(method).last_modified(modified).start().unwrap();
        let descriptor = if method == CompressionMethod::DEFLATE {
            let encoder = flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::default());
            let mut writer = config.wrap(encoder);
            writer.write_all(bytes).unwrap();
            let (encoder, descriptor) = writer.finish().unwrap();
            encoder.finish().unwrap();
            descriptor
        } else {
            let mut writer = config.wrap(&mut entry);
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap().1
        };
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap()
}

pub fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// All files below a directory as members, and their own time set to that of members.
fn members_of(root: &Path) -> Vec<(String, Vec<u8>)> {
    for name in paths(root) {
        let file = fs::File::options().write(true).open(root.join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(MODIFIED)).unwrap();
    }
    tree(root).into_iter().collect()
}

fn lines_of(command: &str, input: &Path) -> usize {
    let run = tap2pcap().args(&[command, "--json"]).arg(input).run();
    run.stdout.iter().filter(|byte| **byte == b'\n').count()
}

/// Expects that an archive gives the same merged capture, byte for byte, and returns the run.
#[track_caller]
fn expect_same(dir: &Dir, name: &str, archive: &[u8], expected: &[u8]) -> Run {
    let output = dir.join(format!("{name}.pcapng"));
    let run = convert(&[], &dir.create(name, archive), &output).run().expect_status(0);
    assert!(fs::read(&output).unwrap() == expected, "{name}: another capture{run:?}");
    run
}

#[test]
fn an_archive_of_real_traces_gives_what_its_directory_gives() {
    let dir = Dir::new("archives");
    let plain = dir.join("plain");
    copy_samples(&plain);
    fs::write(plain.join("README.md"), "no trace").unwrap();
    let members = members_of(&plain);
    let merged = dir.join("plain.pcapng");
    convert(&[], &plain, &merged).run().expect_status(0);
    let merged = fs::read(merged).unwrap();
    let mirrored = dir.fresh();
    convert(&[], &plain, &mirrored).run().expect_status(0);
    let mirrored = tree(&mirrored);
    let tar = tar_of(&members);
    // The order of the members is that of whoever made the archive.
    let reversed = tar_of(&members.iter().rev().cloned().collect::<Vec<_>>());
    let zip = zip_of(&members);
    for (name, archive) in [
        ("a.tar", tar.clone()),
        ("a.tgz", gzip(&tar)),
        ("a.tar.zst", zstandard(&reversed)),
        ("a.zip", zip.clone()),
        ("no-suffix", zip_with(CompressionMethod::STORE, &members)),
        ("zip.gz", gzip(&zip)),
    ] {
        let run = expect_same(&dir, name, &archive, &merged);
        assert_eq!(last_line(&run), "note: 182 of 182 traces converted");
        assert!(run.stderr.contains("note: 1 file that is not a trace was passed over"), "{run:?}");
        let piped = tap2pcap().args(&["-", "-"]).stdin(archive).run().expect_status(0);
        assert!(piped.stdout == merged, "{name} on standard input");
        let out = dir.fresh();
        let input = dir.join(name);
        convert(&[], &input, &out).run().expect_status(0);
        let below: Vec<_> = tree(&out).into_iter().collect();
        let expected: Vec<_> = mirrored.iter().map(|(path, bytes)| (format!("{name}/{path}"), bytes.clone())).collect();
        assert!(below == expected, "{name}: another tree");
        for command in ["info", "validate"] {
            assert_eq!(lines_of(command, &input), lines_of(command, &plain), "{command} of {name}");
        }
    }
}

/// Python's archives, in all their formats.
#[test]
fn archives_of_other_programs_are_read() {
    const SCRIPT: &str = "
import io, sys, tarfile, zipfile
folder, trace = sys.argv[1], open(sys.argv[2], 'rb').read()
long = 'a' * 120 + '/' + 'b' * 150 + '.json'
for format in ('USTAR', 'GNU', 'PAX'):
    for suffix in ('', ':gz'):
        name = f'{folder}/{format}{suffix[1:]}.tar'
        with tarfile.open(name, 'w' + suffix, format=getattr(tarfile, format + '_FORMAT')) as archive:
            for path in ('x.json', 'y/z.json') + ((long, 'für.json') if format != 'USTAR' else ()):
                info = tarfile.TarInfo(path)
                info.size, info.mtime = len(trace), 1700000000.5
                archive.addfile(info, io.BytesIO(trace))
for name, method in (('stored', zipfile.ZIP_STORED), ('deflated', zipfile.ZIP_DEFLATED)):
    with zipfile.ZipFile(f'{folder}/{name}.zip', 'w', method) as archive:
        for path in ('x.json', 'y/z.json', long, 'für.json'):
            archive.writestr(path, trace)
        with archive.open(zipfile.ZipInfo('zip64.json'), 'w', force_zip64=True) as member:
            member.write(trace)
        archive.comment = b'PK' * 500
";
    let dir = Dir::new("others");
    let folder = dir.fresh();
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).arg(&folder).arg(dir.create("trace", trace(1)));
    run_command(command).expect_status(0);
    for name in paths(&folder) {
        let (archive, out) = (folder.join(&name), dir.fresh());
        let count = if name.starts_with("USTAR") { 2 } else { 4 + usize::from(name.ends_with("zip")) };
        let run = convert(&[], &archive, &out).run().expect_status(0);
        assert_eq!(last_line(&run), format!("note: {count} of {count} traces converted"), "{run:?}");
        assert_eq!(paths(&out).len(), count);
        assert!(out.join(&name).join("y/z.json.pcapng").is_file());
    }
}

#[test]
fn a_member_is_named_by_its_archive_and_can_be_asked_for() {
    let dir = Dir::new("named");
    let members = [("b/x.json", trace(1)), ("b/c/y.json", trace(2)), ("z.json", trace(3))];
    let inner = zip_of(&[("in.json", trace(4))]);
    let tgz = gzip(&tar_of(&members));
    dir.create("a.tgz", &tgz);
    let archive = dir.create("outer.tar", tar_of(&[("a.tgz", tgz.as_slice()), ("i.zip", inner.as_slice())]));
    let run = tap2pcap().args(&["info", "--json"]).arg(&archive).run().expect_clean();
    let named: BTreeSet<_> = run
        .stdout_text()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].as_str().unwrap().to_owned())
        .collect();
    let names = ["a.tgz:b/c/y.json", "a.tgz:b/x.json", "a.tgz:z.json", "i.zip:in.json"];
    assert_eq!(named, names.map(|name| format!("{}:{name}", archive.display())).into());
    for name in &named {
        let out = dir.fresh();
        tap2pcap().arg(name).arg(&out).run().expect_clean();
        assert_eq!(paths(&out).len(), 1, "{name}");
    }
    let folder = format!("{}:a.tgz:b", archive.display());
    let out = dir.fresh();
    let run = tap2pcap().arg(&folder).arg(&out).run().expect_status(0);
    assert_eq!(last_line(&run), "note: 2 of 2 traces converted");
    assert_eq!(paths(&out), ["c/y", "x"].map(|name| format!("outer.tar/a.tgz/b/{name}.json.pcapng")).into());
    tap2pcap().arg(format!("{}:no.json", archive.display())).arg(&out).run().expect_status(2);
    // A file whose name has a colon is a file.
    let odd = dir.create("a.tgz:z.json", trace(9));
    let run = tap2pcap().args(&["info"]).arg(&odd).run().expect_clean();
    assert!(run.stdout_text().contains("trace_id 9"), "{run:?}");
}

#[test]
fn archives_in_directories_are_opened() {
    let dir = Dir::new("in-directories");
    let root = dir.fresh();
    fs::create_dir(root.join("pods")).unwrap();
    fs::write(root.join("pods/a.tar.gz"), gzip(&tar_of(&[("x.json", trace(1)), ("notes", b"text".to_vec())]))).unwrap();
    fs::write(root.join("b.zip"), zip_of(&[("x.json", gzip(&trace(2))), ("package.json", b"{\"a\": 1}".to_vec())]))
        .unwrap();
    fs::write(root.join("other.tar"), tar_of(&[("1", "text"), ("2", "text"), ("3", "text")])).unwrap();
    fs::write(root.join("plain"), trace(3)).unwrap();
    let out = dir.fresh();
    let run = convert(&["-v"], &root, &out).run().expect_status(0);
    assert_eq!(last_line(&run), "note: 3 of 3 traces converted", "{run:?}");
    assert!(run.stderr.contains("other.tar: passed over, it is a tar archive"), "{run:?}");
    assert!(run.stderr.contains("3 files that are not traces were passed over"), "{run:?}");
    assert_eq!(
        paths(&out),
        ["pods/a.tar.gz/x.json", "b.zip/x.json", "plain"].map(|name| format!("{name}.pcapng")).into()
    );
    // Two traces of one name are told apart by their archives.
    let merged = dir.join("all.pcapng");
    convert(&[], &root, &merged).run().expect_status(0);
    assert_eq!(crate::batch::streams(&crate::tshark::read(&merged)), 3);
    let run = convert(&[], &root.join("other.tar"), &merged).run().expect_status(2);
    run.expect_stderr("other.tar: no trace files among 3 files");
}

#[test]
fn no_name_leads_out_of_the_output_directory() {
    let dir = Dir::new("escape");
    let names = [
        &b"../up.json"[..],
        b"../../../../../../tmp/up.json",
        b"/absolute.json",
        b"a/../../over.json",
        b"./././here.json",
        b"..",
        b"line\nbreak\x1b[2J.json",
        b"\xff\xfe.json",
        b"dup.json",
        b"dup.json",
        b"._mac.json",
    ];
    let traces: Vec<_> = names.iter().zip(1..).map(|(name, number)| (name.to_vec(), trace(number))).collect();
    let out = dir.join("out");
    for archive in [tar_of(&traces), gzip(&tar_of(&traces))] {
        let run = convert(&[], &dir.create("evil", archive), &out.join("")).run().expect_status(0);
        assert_eq!(last_line(&run), "note: 11 of 11 traces converted", "{run:?}");
        assert!(!run.stderr.contains('\x1b') && !run.stderr.contains("line\nbreak"), "{run:?}");
        assert_eq!(dir.names(), ["evil", "out"]);
        let below: Vec<_> = walkdir::WalkDir::new(&out).into_iter().map(Result::unwrap).collect();
        assert_eq!(below.iter().filter(|entry| entry.file_type().is_file()).count(), 11);
        assert!(out.join("evil/tmp/up.json.pcapng").exists() && out.join("evil/dup.json-2.pcapng").exists());
        fs::remove_dir_all(&out).unwrap();
    }
    let zip = zip_of(&[("../up.json", trace(1)), ("/absolute.json", trace(2)), ("C:\\windows\\x.json", trace(3))]);
    convert(&[], &dir.create("evil", zip), &out.join("")).run().expect_status(0);
    assert_eq!(
        paths(&out),
        ["up.json", "absolute.json", "C:/windows/x.json"].map(|n| format!("evil/{n}.pcapng")).into()
    );
}

#[test]
fn links_and_devices_in_archives_are_not_followed() {
    let dir = Dir::new("links");
    let secret = dir.create("secret.json", trace(1));
    let mut builder = Builder::new(Vec::new());
    for (name, kind) in [
        ("symlink.json", EntryType::Symlink),
        ("link.json", EntryType::Link),
        ("device.json", EntryType::Char),
        ("block.json", EntryType::Block),
        ("pipe.json", EntryType::Fifo),
        ("directory.json", EntryType::Directory),
    ] {
        let mut header = header(name.as_bytes(), 0);
        header.set_entry_type(kind);
        header.set_link_name(secret.file_name().unwrap()).unwrap();
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
    }
    builder.append(&header(b"real.json", trace(2).len() as u64), trace(2).as_slice()).unwrap();
    let tar = builder.into_inner().unwrap();
    for (name, bytes) in [("a.tar", tar.clone()), ("a.tgz", gzip(&tar))] {
        let out = dir.fresh();
        let run = convert(&["-v"], &dir.create(name, bytes), &out).run().expect_status(0);
        assert_eq!(paths(&out), [format!("{name}/real.json.pcapng")].into());
        assert!(run.stderr.contains("symlink.json: passed over, "), "{run:?}");
        assert!(run.stderr.contains("2 files that are not traces were passed over"), "{run:?}");
    }
}

#[test]
fn what_a_cut_or_damaged_archive_holds_is_kept() {
    let dir = Dir::new("cut");
    let members: Vec<_> = (1..6).map(|number| (format!("{number}.json"), trace(number))).collect();
    let tar = tar_of(&members);
    // Inside the third member.
    let third = 2 * (512 + trace(1).len().next_multiple_of(512)) + 512 + 700;
    let mut header_damaged = tar.clone();
    header_damaged[third - 700 - 200] ^= 1;
    let mut lies = tar.clone();
    lies.splice(third - 700 - 512..third - 700, header(b"3.json", 1 << 40).as_bytes().to_vec());
    let tgz = gzip(&tar);
    let mut flipped = tgz.clone();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 8].fill(0xff);
    for (name, bytes, least, what) in [
        ("cut.tar", &tar[..third], 3, "cut off"),
        ("cut2.tar", &tar[..third - 900], 2, "cut off"),
        ("damaged.tar", &header_damaged[..], 2, "damaged"),
        ("lies.tar", &lies[..], 2, "cut off"),
        ("cut.tgz", &tgz[..tgz.len() * 3 / 4], 1, "cut.tgz:"),
        ("flipped.tgz", &flipped, 1, "flipped.tgz:"),
        ("lies.tgz", &gzip(&lies), 2, "cut off"),
        ("cut2.tgz", &gzip(&tar[..third]), 3, "cut off"),
    ] {
        let out = dir.fresh();
        let run = convert(&[], &dir.create(name, bytes), &out).run_within(256).expect_status(1).expect_stderr(what);
        assert!(paths(&out).len() >= least, "{name}: {:?}{run:?}", paths(&out));
        let piped = tap2pcap().arg("-").arg(dir.join("out.pcapng")).stdin(bytes).run_within(256).expect_status(1);
        assert!(piped.stderr.contains("error: -"), "{piped:?}");
        let validate = tap2pcap().args(&["validate", "--json"]).arg(dir.join(name)).run_within(256).expect_status(1);
        assert!(validate.stdout_text().contains("\"error\""), "{validate:?}");
    }
}

#[test]
fn a_damaged_zip_archive_keeps_its_sound_members() {
    let dir = Dir::new("zip");
    let members: Vec<_> = (1..4).map(|number| (format!("{number}.json"), trace(number))).collect();
    let zip = zip_of(&members);
    // The directory's record of the second member.
    let record = memchr::memmem::rfind(&zip, b"PK\x01\x02").unwrap();
    let record = memchr::memmem::rfind(&zip[..record], b"PK\x01\x02").unwrap();
    let patched = |at: usize, bytes: &[u8]| {
        let mut patched = zip.clone();
        patched[record + at..record + at + bytes.len()].copy_from_slice(bytes);
        patched
    };
    let mut flipped = zip.clone();
    let second = memchr::memmem::find(&zip, b"2.json").unwrap();
    flipped[second + 200] ^= 0x10;
    for (name, bytes, least, what) in [
        ("encrypted.zip", patched(8, &[1, 0]), 2, "2.json: cannot read: it is encrypted"),
        ("bzip2.zip", patched(10, &[12, 0]), 2, "a method that is not read"),
        ("crc.zip", patched(16, &[0, 1, 2, 3]), 3, "its checksum is wrong"),
        ("longer.zip", patched(24, &[0xff, 0xff, 0xff, 0]), 3, "but the archive says 16777215"),
        ("beyond.zip", patched(42, &[0xff, 0xff, 0xff, 0x7f]), 2, "2.json: cannot read"),
        ("overlap.zip", patched(42, &[0, 0, 0, 0]), 2, "those of another member"),
        ("flipped.zip", flipped, 2, "2.json"),
    ] {
        let out = dir.fresh();
        let run = convert(&[], &dir.create(name, bytes), &out).run_within(256).expect_status(1).expect_stderr(what);
        assert!(paths(&out).len() >= least, "{name}: {run:?}");
        tap2pcap().args(&["validate"]).arg(dir.join(name)).run_within(256).expect_status(1);
    }
    // Without its directory, a ZIP archive does not say what it holds.
    for len in [30, zip.len() / 2, zip.len() - 30] {
        let out = dir.join("out.pcapng");
        let run = convert(&[], &dir.create("cut.zip", &zip[..len]), &out).run().expect_status(2);
        run.expect_stderr("cut.zip: cannot read: the ZIP archive is");
        assert!(!out.exists());
    }
}

/// A loop over pods that each print an archive, or `cat`, puts archives one behind the other.
#[test]
fn archives_behind_each_other_are_all_read() {
    let dir = Dir::new("behind");
    let [first, second, third] = [1, 2, 3].map(|number| tar_of(&[(format!("{number}.json"), trace(number))]));
    let padding = vec![0; 3 << 20];
    let plain = [&first[..], &padding, &second, &third].concat();
    let packed = [gzip(&first), gzip(&second), gzip(&third)].concat();
    for (name, bytes) in [("a.tar", &plain), ("a.tgz", &gzip(&plain)), ("b.tgz", &packed)] {
        let out = dir.fresh();
        convert(&[], &dir.create(name, bytes), &out).run_within(256).expect_status(0);
        assert_eq!(paths(&out), [1, 2, 3].map(|number| format!("{name}/{number}.json.pcapng")).into());
        tap2pcap().arg("-").arg(dir.join("out.pcapng")).stdin(bytes.clone()).run_within(256).expect_status(0);
    }
    // What is no archive is told, with its place.
    let at = first.len() + 7;
    let junk = [&first[..], &[0; 7], b"command terminated", &padding].concat();
    for (name, bytes) in [("junk.tar", junk.clone()), ("junk.tgz", gzip(&junk))] {
        let run = convert(&[], &dir.create(name, bytes), &dir.join("out.pcapng")).run().expect_status(1);
        run.expect_stderr(&format!("{name}: cannot read: what follows the end of the tar archive, at byte {at}"));
    }
}

/// Nobody can know that they are no traces.
#[test]
fn members_that_cannot_be_read_are_errors_whatever_their_names() {
    let dir = Dir::new("unreadable");
    let zip = zip_of(&[("tap_1", trace(1)), ("tap_2", trace(2)), ("README", b"no trace".to_vec())]);
    let record = memchr::memmem::find(&zip, b"PK\x01\x02\x2d").or_else(|| memchr::memmem::find(&zip, b"PK\x01\x02"));
    let second = record.unwrap() + 1 + memchr::memmem::find(&zip[record.unwrap() + 1..], b"PK\x01\x02").unwrap();
    for (at, bytes, what) in [
        (8, &[1, 0][..], "tap_2: cannot read: it is encrypted"),
        (10, &[12, 0], "tap_2: cannot read: it is packed with a method that is not read"),
        (16, &[0, 1, 2, 3], "tap_2"),
    ] {
        let mut patched = zip.clone();
        patched[second + at..second + at + bytes.len()].copy_from_slice(bytes);
        let run = convert(&[], &dir.create("a.zip", patched), &dir.join("out.pcapng")).run().expect_status(1);
        run.expect_stderr(what);
    }
    let xz = b"\xfd7zXZ\0\0\x04 and so on";
    let members = [("a.json", trace(1)), ("b.pb.xz", xz.to_vec()), ("c.pcap.xz", xz.to_vec()), ("d", xz.to_vec())];
    let root = dir.fresh();
    for (name, bytes) in &members {
        fs::write(root.join(name), bytes).unwrap();
    }
    for input in [dir.create("a.tar", tar_of(&members)), dir.create("b.zip", zip_of(&members)), root] {
        let run = convert(&[], &input, &dir.join("out.pcapng")).run().expect_status(1);
        assert!(
            run.stderr.contains("b.pb.xz") && run.stderr.contains("it is xz data; unpack it first: xz -d"),
            "{run:?}"
        );
        assert_eq!(run.stderr.matches("error: ").count(), 1, "{run:?}");
    }
}

#[test]
fn sparse_members_are_read_or_refused() {
    const SCRIPT: &str = "
cd \"$0\" && truncate -s 1M hole.json && cat trace >>hole.json && truncate -s 2M hole.json
tar -S --format=gnu -cf gnu.tar hole.json && tar -S --format=posix -cf pax.tar hole.json
";
    let dir = Dir::new("sparse");
    dir.create("trace", trace(1));
    let mut command = Command::new("sh");
    command.args(["-ec", SCRIPT]).arg(dir.path());
    run_command(command).expect_status(0);
    let gnu = fs::read(dir.join("gnu.tar")).unwrap();
    assert!(gnu.len() < 100_000, "the file system has no holes");
    for (name, bytes) in [("a.tar", gnu.clone()), ("a.tgz", gzip(&gnu))] {
        let run = tap2pcap().args(&["info"]).arg(dir.create(name, bytes)).run().expect_no_panic();
        assert!(
            run.stdout_text().contains(&format!("{name}:hole.json: json")) || run.stderr.contains("hole.json"),
            "{run:?}"
        );
    }
    let run = convert(&[], &dir.join("pax.tar"), &dir.join("out.pcapng")).run().expect_status(2);
    run.expect_stderr("a sparse file in a format that is not read; unpack it first");
}

#[test]
fn archives_in_archives_are_opened_to_a_depth() {
    let dir = Dir::new("depth");
    let mut archive = trace(1);
    let mut name = "x.json".to_owned();
    for depth in 1..=7 {
        archive = match depth % 3 {
            0 => tar_of(&[(&name, &archive)]),
            1 => gzip(&tar_of(&[(&name, &archive)])),
            _ => zip_of(&[(&name, &archive)]),
        };
        name = format!("{depth}.archive");
        let output = dir.join("out.pcapng");
        let run = convert(&[], &dir.create(&name, &archive), &output).run_within(256);
        if depth <= 4 {
            run.expect_status(0);
        } else {
            run.expect_status(2).expect_stderr("an archive within 4 archives; unpack it first");
        }
    }
}

/// Peak resident memory of a run, in KiB, and its standard error.
pub fn memory_of(args: &[&Path], stdin: &[u8]) -> (u64, Run) {
    // GNU time is not everywhere, and Python is.
    const SCRIPT: &str = "import resource, subprocess, sys\n\
        status = subprocess.run(sys.argv[1:]).returncode\n\
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\nsys.exit(status)";
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT, PROGRAM]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || drop(pipe.write_all(stdin)));
        child.wait_with_output().unwrap()
    });
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let peak = stdout.lines().last().unwrap().parse().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (peak, Run { command: format!("{args:?}"), status: output.status, stdout: output.stdout, stderr })
}

/// Archives that would take memory or disk, each in 64 MiB.
#[test]
fn archive_bombs_take_little_memory() {
    let dir = Dir::new("bombs");
    let good = ("good.json", trace(1));
    // A name of 8 MiB, in the header that GNU tar has for long ones.
    let mut long_name = Builder::new(Vec::new());
    let mut longer = header(b"././@LongLink", 8 << 20);
    longer.set_entry_type(EntryType::GNULongName);
    longer.set_cksum();
    long_name.append(&header(b"good.json", good.1.len() as u64), good.1.as_slice()).unwrap();
    long_name.append(&longer, &vec![b'a'; 8 << 20][..]).unwrap();
    long_name.append(&header(b"x.json", 0), &b""[..]).unwrap();
    let long_name = long_name.into_inner().unwrap();
    let mut sparse = Header::new_gnu();
    sparse.as_old_mut().name[..6].copy_from_slice(b"s.json");
    sparse.set_entry_type(EntryType::GNUSparse);
    sparse.set_size(0);
    sparse.as_gnu_mut().unwrap().realsize = *b"\x80\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00";
    sparse.as_gnu_mut().unwrap().sparse[0].offset = *b"\x80\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00";
    sparse.as_gnu_mut().unwrap().sparse[0].numbytes = *b"00000000000\0";
    sparse.set_cksum();
    let mut holes = Builder::new(Vec::new());
    holes.append(&header(b"good.json", good.1.len() as u64), good.1.as_slice()).unwrap();
    holes.append(&sparse, &b""[..]).unwrap();
    let holes = holes.into_inner().unwrap();
    let many: Vec<_> = (0..5_000).map(|number| (format!("{number:099}"), b"")).collect();
    let mut many = tar_of(&many);
    many.truncate(many.len() - 1024);
    many.extend(tar_of(&[(good.0, &good.1)]));
    for (name, bytes, status) in [
        ("long-name.tar", long_name.clone(), 1),
        ("long-name.tgz", gzip(&long_name), 1),
        ("many.tar", many.clone(), 0),
        ("many.tgz", gzip(&many), 0),
        ("holes.tar", holes.clone(), 1),
        ("holes.tgz", gzip(&holes), 1),
    ] {
        let (path, out) = (dir.create(name, &bytes), dir.join("out.pcapng"));
        let (peak, run) = memory_of(&[&path, &out], b"");
        println!("{name}: {peak} KiB");
        let run = run.expect_status(status);
        assert!(peak < 64 << 10, "{name}: {peak} KiB{run:?}");
        let (peak, run) = memory_of(&[Path::new("-"), &out], &bytes);
        let run = run.expect_status(status);
        assert!(peak < 64 << 10, "{name} on standard input: {peak} KiB{run:?}");
    }
}

/// A signal ends standard input and nothing else: what came before it is converted.
#[test]
fn an_archive_that_a_signal_cuts_is_kept() {
    let dir = Dir::new("signal");
    let tar = tar_of(&[("1.json", trace(1)), ("2.json", trace(2))]);
    let output = dir.join("out.pcapng");
    let mut child =
        Command::new(PROGRAM).arg("-").arg(&output).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&tar[..tar.len() / 2]).unwrap();
    crate::wait::wait_until("the pipe is empty", || crate::wait::unread(&pipe) == 0);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(crate::batch::streams(&crate::tshark::read(&output)), 1);
}

#[test]
fn an_archive_is_never_its_own_output() {
    let dir = Dir::new("own");
    let archive = dir.create("a.pcapng", tar_of(&[("x.json", trace(1))]));
    let before = fs::read(&archive).unwrap();
    convert(&[], &archive, &archive).run().expect_status(2).expect_stderr("is both input and output");
    assert!(fs::read(&archive).unwrap() == before);
    assert_eq!(dir.names(), ["a.pcapng"]);
}

#[test]
fn har_and_library_take_archives_as_they_can() {
    let dir = Dir::new("har");
    let http: Vec<PathBuf> = ["grpc_unary_buffered.json", "grpc_unary_streamed.json"]
        .map(|name| Path::new(crate::util::ROOT).join("testdata/http").join(name))
        .to_vec();
    let members: Vec<_> =
        http.iter().map(|path| (path.file_name().unwrap().to_str().unwrap(), fs::read(path).unwrap())).collect();
    let har = dir.join("expected.har");
    tap2pcap().arg(&http[0]).arg(&http[1]).arg(&har).run().expect_status(0);
    let tgz = dir.create("a.tgz", gzip(&tar_of(&members)));
    let output = dir.join("out.har");
    convert(&[], &tgz, &output).run().expect_status(0);
    assert!(fs::read(&output).unwrap() == fs::read(&har).unwrap());
    // The library converts one trace.
    let refused = tap2pcap::convert(&tgz, dir.join("out.pcapng"), &tap2pcap::ConvertOptions::default()).unwrap_err();
    assert!(refused.to_string().contains("it is a tar archive"), "{refused}");
}
