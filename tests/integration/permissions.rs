//! Files and directories whose modes forbid to read or write them.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::{
    batch::{fifo, last_line, paths, small_batch},
    util::{Dir, PROGRAM, Run, run_command},
};

/// Runs the program without the privileges of root, for whom file modes do not apply.
fn without_privileges(args: &[&Path]) -> Run {
    let mut command;
    if rustix::process::geteuid().is_root() {
        command = Command::new("setpriv");
        command.args(["--bounding-set=-dac_override,-dac_read_search", "--", PROGRAM]);
    } else {
        command = Command::new(PROGRAM);
    }
    command.args(args);
    run_command(command)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// File modes have to apply, or else the tests below show nothing.
fn expect_modes_apply(dir: &Dir) {
    let secret = small_batch(dir, 1).join("tap_0.pb");
    let output = dir.join("readable.pcapng");
    set_mode(&secret, 0);
    without_privileges(&[&secret, &output]).expect_status(2);
    set_mode(&secret, 0o400);
    without_privileges(&[&secret, &output]).expect_status(0);
}

#[test]
fn inputs_that_may_not_be_read_are_named_and_the_others_are_converted() {
    expect_modes_apply(&Dir::new("modes"));
    let dir = Dir::new("unreadable");
    let traces = small_batch(&dir, 3);
    let secret = traces.join("tap_1.pb");
    let locked = traces.join("locked");
    fs::create_dir(&locked).unwrap();
    fs::copy(traces.join("tap_0.pb"), locked.join("tap_9.pb")).unwrap();
    set_mode(&secret, 0);
    set_mode(&locked, 0);
    // An input alone.
    let output = dir.join("out.pcapng");
    let run = without_privileges(&[&secret, &output]).expect_status(2);
    run.expect_stderr(&format!("error: {}: cannot read: Permission denied", secret.display()));
    assert!(!output.exists());
    // A file and a directory among others.
    for output in [dir.join("all.pcapng"), dir.fresh()] {
        let run = without_privileges(&[&traces, &output]).expect_status(1);
        assert_eq!(last_line(&run), "note: 2 of 3 traces converted", "{run:?}");
        for path in [&secret, &locked] {
            assert!(
                run.stderr.contains(&format!("error: {}: cannot read: Permission denied", path.display())),
                "{run:?}"
            );
        }
    }
    let run = without_privileges(&[Path::new("validate"), Path::new("--json"), &traces]).expect_status(1);
    let found: Vec<Value> = run.stdout_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let unreadable: Vec<_> =
        found.iter().filter(|line| line["code"] == "unreadable").map(|line| &line["path"]).collect();
    assert_eq!(unreadable, [locked.to_str().unwrap(), secret.to_str().unwrap()]);
    without_privileges(&[Path::new("info"), &traces]).expect_status(1).expect_stderr("Permission denied");
    // The directory is removed with the test.
    set_mode(&locked, 0o755);
}

#[test]
fn outputs_that_may_not_be_written_are_named() {
    let dir = Dir::new("unwritable");
    expect_modes_apply(&dir);
    let trace = dir.join("traces/tap_0.pb");
    // A directory where nothing may be created, and a pipe.
    let closed = dir.fresh();
    let pipe = dir.join("pipe");
    fifo(&pipe);
    set_mode(&closed, 0o555);
    set_mode(&pipe, 0o444);
    for output in [&closed.join("out.pcapng"), &closed.join("more/out.pcapng"), &pipe] {
        let run = without_privileges(&[&trace, output]).expect_status(2);
        let run = run.expect_stderr(&format!("error: {}: cannot write the capture: ", output.display()));
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
    let run = without_privileges(&[&trace, &closed]).expect_status(2);
    run.expect_stderr("tap_0.pb.pcapng: cannot write the capture: Permission denied");
    assert!(paths(&closed).is_empty());
}
