//! Compiles the messages of `proto/` without `protoc`: prost types for writing traces, and a descriptor set for
//! prost-reflect's JSON and text mappings.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["envoy/data/tap/v3/wrapper.proto"], ["proto"])?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    prost_build::Config::new().include_file("proto.rs").compile_fds(descriptors)?;
    Ok(())
}
