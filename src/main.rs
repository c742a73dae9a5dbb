//! The thin binary: all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tap2pcap::program::main()
}
