//! Which encoding a source is in, and that what is taken for a trace is read as one.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tap2pcap::input::{Detected, Encoding, InputError, SourceOptions, detect};
use tap2pcap_fuzz::{
    messages::{WINDOW, read},
    pieces::Pieces,
};

fuzz_target!(|data: &[u8]| {
    let options = SourceOptions { read_size: Some(WINDOW), ..SourceOptions::default() };
    // Only the suffix of the second breaks a tie.
    for name in ["path_0", "path_0.pb_length_delimited"] {
        let path = Path::new(name);
        let detected = detect(data, path);
        match (detected, read(data, path, Pieces::Whole, options)) {
            (Detected::Trace(encoding), Ok(reading)) => {
                let given = SourceOptions { encoding: Some(encoding), ..options };
                let same = read(data, path, Pieces::Whole, given).expect("not empty");
                assert_eq!(reading, same, "{encoding:?}");
                // Text may hold nothing but comments.
                let says = !reading.messages.is_empty() || !reading.findings.is_empty() || reading.unknown > 0;
                assert!(says || encoding == Encoding::Text, "{encoding:?}, and then not a word of it");
            }
            (Detected::Other(_), Err(InputError::Unrecognised { .. })) => {}
            // Detection alone does not look for traces after text.
            (Detected::Enveloped { .. } | Detected::Other(_), Ok(reading)) => {
                let says = !reading.messages.is_empty() || !reading.findings.is_empty() || reading.unknown > 0;
                assert!(says, "{detected:?}, and then not a word of it");
            }
            (_, Err(InputError::Empty { .. })) => assert!(data.is_empty()),
            (detected, read) => panic!("{detected:?}, but {read:?}"),
        }
    }
    // A live stream is recognised by what has come of it so far, which may look like something else.
    let _ = read(data, Path::new("path_0"), Pieces::small(data), options);
});
