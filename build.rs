//! Generates prost types for the messages of `proto/`, which `record` writes and reads.
//!
//! They come from a descriptor set beside the `.proto` files, so that the build needs neither `protoc` nor a `.proto`
//! compiler written in Rust. A test checks that the set matches the files.

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
