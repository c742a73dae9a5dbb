//! The descriptor set in `proto/`, and the messages' types that are made from it.

use std::{fs, path::Path};

use prost::Message;

use crate::util::ROOT;

#[path = "../../build.rs"]
#[expect(dead_code, reason = "only the first line of the messages is of use here")]
mod build;

/// The files of traces and of the configuration of `record`. No file imports the messages that stand in a
/// `typed_config`, so they are listed here as well.
const ROOTS: [&str; 6] = [
    "envoy/data/tap/v3/wrapper.proto",
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
    "envoy/extensions/transport_sockets/tap/v3/tap.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
];

/// With UPDATE_GOLDEN=1, the test writes both.
#[test]
fn the_descriptor_set_and_the_messages_are_those_of_the_proto_files() {
    let proto = Path::new(ROOT).join("proto");
    let descriptors = protox::compile(ROOTS, [&proto]).unwrap().encode_to_vec();
    let messages = messages(&descriptors);
    for (name, made) in [("descriptors.binpb", descriptors), ("messages.rs", messages.into_bytes())] {
        let path = proto.join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &made).unwrap();
        }
        let kept = fs::read(&path).unwrap();
        assert!(kept == made, "{} is out of date: run this test with UPDATE_GOLDEN=1", path.display());
    }
}

/// The types of all messages in one file, each package in a module of its own. prost-build writes a file for each
/// package and one that includes them all; here, the packages stand in place of the lines that include them.
fn messages(descriptors: &[u8]) -> String {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let set = folder.path().join("descriptors.binpb");
    fs::write(&set, descriptors).unwrap();
    prost_build::Config::new()
        .file_descriptor_set_path(set)
        .skip_protoc_run()
        .out_dir(folder.path())
        .include_file("all.rs")
        .compile_protos(&[""; 0], &[""; 0])
        .unwrap();

    let mut messages = build::first_line(descriptors) + "\n";
    for line in fs::read_to_string(folder.path().join("all.rs")).unwrap().lines() {
        let included = line.trim().strip_prefix("include!(\"");
        match included.and_then(|line| line.strip_suffix("\");")) {
            Some(package) => messages += &fs::read_to_string(folder.path().join(package)).unwrap(),
            None => messages = messages + line + "\n",
        }
    }
    messages
}
