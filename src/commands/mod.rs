//! One file per thing that the program does; the only place that joins the stages.

mod convert;

use crate::cli::Cli;

/// How a run of the program ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Done, nothing wrong.
    #[default]
    Done,
    /// Done, but some input was damaged; everything readable was converted.
    Damaged,
    /// Not done; no output file is left.
    NotDone,
}

impl Status {
    /// The exit status.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Damaged => 1,
            Self::NotDone => 2,
        }
    }
}

/// Runs the command that `cli` asks for.
///
/// # Errors
/// Why it was not done: status 2.
pub fn run(cli: &Cli) -> anyhow::Result<Status> {
    match &cli.command {
        None => convert::run(&cli.convert),
        Some(command) => match *command {},
    }
}
