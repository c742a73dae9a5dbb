//! The descriptor set in `proto/`, from which the build makes the messages' types.

use std::{fs, path::Path};

use prost::Message;

use crate::util::ROOT;

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

/// With UPDATE_GOLDEN=1, the test writes the descriptor set.
#[test]
fn the_descriptor_set_is_that_of_the_proto_files() {
    let proto = Path::new(ROOT).join("proto");
    let compiled = protox::compile(ROOTS, [&proto]).unwrap().encode_to_vec();
    let path = proto.join("descriptors.binpb");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &compiled).unwrap();
    }
    let kept = fs::read(&path).unwrap();
    assert!(kept == compiled, "{} is out of date: run this test with UPDATE_GOLDEN=1", path.display());
}
