//! The binary. All of its code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tap2pcap::program::main()
}
