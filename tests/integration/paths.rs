//! Files with unusual names.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::{
    batch::conversation,
    fixture::{Dress, TIME},
    tshark,
    util::{Dir, PROGRAM, Run, run_command},
};

/// Stems of names, with blanks, line breaks, bytes that are no text, a dash, and characters that a shell or a terminal
/// acts on.
const STEMS: [&[u8]; 8] = [
    b"with space",
    b"new\nline\r",
    b"\xff\xfe\x80 no text",
    b"-dash",
    b"--help",
    b"-",
    b"'quote\"$HOME`;*",
    "für\u{202e}".as_bytes(),
];

fn named(stem: &[u8], suffix: &str) -> OsString {
    OsStr::from_bytes(&[stem, suffix.as_bytes()].concat()).to_owned()
}

fn trace(number: u32) -> Vec<u8> {
    let start = TIME + u64::from(number) * 1_000_000;
    Dress::Binary.file(&conversation(number, 2, start, start + 900_000))
}

/// Runs the program in `place`.
fn run_in<I: AsRef<OsStr>>(place: &Path, args: impl IntoIterator<Item = I>) -> Run {
    let mut command = Command::new(PROGRAM);
    command.args(args).current_dir(place);
    run_command(command)
}

/// A name as an argument after options. It gets a `./` if it would be taken for an option.
fn argument(name: &OsStr) -> OsString {
    if name.as_bytes().starts_with(b"-") { Path::new(".").join(name).into_os_string() } else { name.to_owned() }
}

/// The frames of a capture under a name that tshark accepts.
fn frames(dir: &Dir, capture: &Path) -> Vec<tshark::Frame> {
    let plain = dir.join("plain.pcapng");
    fs::copy(capture, &plain).unwrap();
    tshark::read(&plain)
}

fn names(directory: &Path) -> BTreeSet<OsString> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn every_name_is_an_input_and_an_output() {
    let dir = Dir::new("names");
    for (number, stem) in STEMS.into_iter().enumerate() {
        let place = dir.fresh();
        let (input, output) = (named(stem, ".pb"), named(stem, ".pcapng"));
        fs::write(place.join(&input), trace(number as u32)).unwrap();
        run_in(&place, [argument(&input), argument(&output)]).expect_clean();
        let first = frames(&dir, &place.join(&output));
        assert_eq!(first.iter().filter(|frame| !frame.payload.is_empty()).count(), 4, "{input:?}");
        // After `--`, nothing is an option.
        fs::remove_file(place.join(&output)).unwrap();
        run_in(&place, [OsString::from("--"), input.clone(), output.clone()]).expect_clean();
        assert_eq!(frames(&dir, &place.join(&output)), first);
        // An error names the input in one line.
        fs::write(place.join(&input), "what is this?").unwrap();
        for args in [[&input, &output], [&output, &input]] {
            let run = run_in(&place, args.map(|name| argument(name))).expect_status(2);
            assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
            let known: String = stem.iter().map(|byte| char::from(*byte)).filter(char::is_ascii_alphabetic).collect();
            let said: String = run.stderr.chars().filter(char::is_ascii_alphabetic).collect();
            // Escapes contain letters as well, so only the text before the first one is compared.
            assert!(said.contains(&known[..known.len().min(3)]), "{known} in {run:?}");
        }
        assert_eq!(names(&place), [input, output].into(), "nothing else is left");
    }
    // `-` alone is standard input or output, and `./-` a file.
    let place = dir.fresh();
    fs::write(place.join("-"), trace(1)).unwrap();
    run_in(&place, ["./-", "./-.pcapng"]).expect_clean();
    assert_eq!(names(&place), ["-", "-.pcapng"].map(OsString::from).into());
}

#[test]
fn every_name_is_found_in_a_directory_of_any_name() {
    let dir = Dir::new("directories-of-any-name");
    for stem in STEMS {
        let place = dir.fresh();
        let root = named(stem, "");
        // `-` would be standard input.
        let folder = argument(&root);
        fs::create_dir(place.join(&root)).unwrap();
        for (number, stem) in STEMS.into_iter().enumerate() {
            fs::write(place.join(&root).join(named(stem, ".pb")), trace(number as u32)).unwrap();
        }
        let out = named(stem, " out");
        fs::create_dir(place.join(&out)).unwrap();
        let run = run_in(&place, [folder.clone(), argument(&out)]).expect_status(0);
        assert!(run.stderr.ends_with("note: 8 of 8 traces converted\n"), "{run:?}");
        let expected: BTreeSet<_> = STEMS.into_iter().map(|stem| named(stem, ".pb.pcapng")).collect();
        assert_eq!(names(&place.join(&out)), expected);
        // A merged capture has an interface for each file, under the part of its name that is text.
        let all = named(stem, "-all.pcapng");
        run_in(&place, [folder, argument(&all)]).expect_status(0);
        let interfaces: BTreeSet<_> =
            frames(&dir, &place.join(&all)).into_iter().map(|frame| frame.interface).collect();
        let expected: BTreeSet<_> = [
            "with space.pb",
            "new\\u{a}line\\u{d}.pb",
            "\u{fffd}\u{fffd}\u{fffd} no text.pb",
            "-dash.pb",
            "--help.pb",
            "-.pb",
            "'quote\"$HOME`;*.pb",
            "für\\u{202e}.pb",
        ]
        .map(str::to_owned)
        .into();
        assert_eq!(interfaces, expected);
    }
}

#[test]
fn machines_read_every_name_and_shells_every_command() {
    let dir = Dir::new("names-for-machines");
    let place = dir.fresh();
    symlink(PROGRAM, dir.join("tap2pcap")).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    for (number, stem) in STEMS.into_iter().enumerate() {
        let input = named(stem, ".pb");
        fs::write(place.join(&input), trace(number as u32)).unwrap();
        for command in ["info", "validate"] {
            let run = run_in(&place, [OsString::from(command), "--json".into(), argument(&input)]).expect_status(0);
            for line in run.stdout_text().lines() {
                let value: Value = serde_json::from_str(line).unwrap();
                assert_eq!(value["path"], *argument(&input).to_string_lossy(), "{run:?}");
            }
            assert_eq!(run.stdout_text().lines().count(), usize::from(command == "info"), "{run:?}");
            let run = run_in(&place, [OsString::from(command), "--json".into(), "--".into(), input.clone()]);
            run.expect_status(0);
        }
        let run = run_in(&place, [OsString::from("info"), "--json".into(), argument(&input)]).expect_status(0);
        let value: Value = serde_json::from_str(run.stdout_text()).unwrap();
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", value["open"].as_str().unwrap()]).current_dir(&place).env("PATH", &path);
        let run = run_command(shell).expect_status(0);
        assert!(run.stdout_text().contains("[SYN]"), "{value}{run:?}");
    }
}
