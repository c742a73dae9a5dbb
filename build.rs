//! Compiles the messages of `proto/` without `protoc`: prost types for writing traces, and a descriptor set for
//! prost-reflect's JSON and text mappings.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

/// Traces, and the configuration of `record`. The messages that stand in a `typed_config` are imported by nobody.
const ROOTS: [&str; 6] = [
    "envoy/data/tap/v3/wrapper.proto",
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
    "envoy/extensions/transport_sockets/tap/v3/tap.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(ROOTS, ["proto"])?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    prost_build::Config::new().include_file("proto.rs").compile_fds(descriptors)?;
    Ok(())
}
