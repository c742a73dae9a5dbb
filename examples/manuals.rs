//! Writes the shell completions and the manual pages into a directory; `scripts/dist` packs them.
//!
//! `cargo run --example manuals -- DIRECTORY`
//!
//! This is an example and not a subcommand, so that its dependencies (clap_complete, clap_mangen) are compiled only by
//! people who make packages. They neither enlarge the program nor slow its installation.

use std::{error::Error, fs, path::Path};

use clap::CommandFactory as _;
use clap_complete::Shell;
use tap2pcap::program::Cli;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let (Some(directory), None) = (args.next(), args.next()) else {
        return Err("usage: manuals DIRECTORY".into());
    };
    let (completions, manuals) = (Path::new(&directory).join("completions"), Path::new(&directory).join("man"));
    fs::create_dir_all(&completions)?;
    fs::create_dir_all(&manuals)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut Cli::command(), "tap2pcap", &completions)?;
    }
    complete_values_in_fish(&completions.join("tap2pcap.fish"))?;
    // One page for the program and one for each subcommand: tap2pcap.1, tap2pcap-validate.1 and so on.
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &manuals)?;
    Ok(())
}

/// Makes fish complete the values of options. The script of clap_complete 4.6 finds the subcommand with fish's
/// `argparse`, which fails while the last option has no value yet, so nothing is offered. Without that option it does
/// not fail.
fn complete_values_in_fish(path: &Path) -> Result<(), Box<dyn Error>> {
    const ASKS: &str = "    argparse -s (__fish_tap2pcap_global_optspecs) -- $cmd 2>/dev/null\n";
    const ASKS_AGAIN: &str = "    or begin
        set -e cmd[-1]
        argparse -s (__fish_tap2pcap_global_optspecs) -- $cmd 2>/dev/null
    end
";
    let script = fs::read_to_string(path)?;
    if !script.contains(ASKS) {
        return Err("clap_complete's script for fish has changed: check whether `--truncated g` completes now".into());
    }
    fs::write(path, script.replacen(ASKS, &[ASKS, ASKS_AGAIN].concat(), 1))?;
    Ok(())
}
