//! Makes prost types of the messages of `proto/`, which `record` writes and reads.
//!
//! They come from a descriptor set that lies beside the `.proto` files, and that a test holds against them, so that neither
//! `protoc` nor a compiler in Rust for its language is needed to build the program.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    #[cfg(feature = "record")]
    {
        const DESCRIPTORS: &str = "proto/descriptors.binpb";
        println!("cargo::rerun-if-changed={DESCRIPTORS}");
        prost_build::Config::new()
            .file_descriptor_set_path(DESCRIPTORS)
            .skip_protoc_run()
            .include_file("proto.rs")
            .compile_protos(&[""; 0], &[""; 0])?;
    }
    Ok(())
}
