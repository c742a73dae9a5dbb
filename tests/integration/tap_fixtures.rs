//! Makes the traces of `testdata/tap` from the scenarios of `testdata/scenarios` and compares them to the byte.
//! `scripts/fixtures` writes them (`UPDATE_GOLDEN=1`).
//!
//! A scenario is played in memory through a real tap: its clock and addresses are given, so nothing differs between
//! two runs.

use std::{collections::BTreeMap, env, fs, path::Path};

use crate::scenario::Scenario;

#[test]
fn scenarios_give_the_traces_of_testdata() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let folder = testdata.join("tap");
    let made = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files(&testdata.join("scenarios")) {
        let text = String::from_utf8(text).expect("UTF-8");
        let scenario: Scenario = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        scenario.play(&made.path().join(name.trim_end_matches(".toml")));
    }
    let made = files(made.path());
    if env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::remove_dir_all(&folder).expect("removable");
        fs::create_dir(&folder).expect("writable");
        for (name, bytes) in &made {
            fs::write(folder.join(name), bytes).expect("writable");
        }
    }
    let golden = files(&folder);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&made), names(&golden));
    for (name, bytes) in &made {
        assert!(golden[name] == *bytes, "{name} differs; scripts/fixtures makes all of them again");
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| entry.expect("readable"))
        .map(|entry| (entry.file_name().into_string().expect("UTF-8"), fs::read(entry.path()).expect("readable")))
        .collect()
}
