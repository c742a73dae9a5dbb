//! The temporary file, for what can be read only once and must be read again.

use std::{
    env,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::Arc,
};

use super::extent::Extent;
use crate::interrupt;

/// The most bytes of all members together. A bomb ends there.
const MAX_SPOOL: u64 = 4 << 30;

/// Bytes that are copied at once.
const COPY: usize = 128 << 10;

/// One file for the members of all archives. It has no name, so nothing is left of it however the program ends.
#[derive(Debug, Default)]
pub(super) struct Spool {
    file: Option<Arc<File>>,
    len: u64,
}

/// Why something was not copied whole.
#[derive(Debug)]
pub(super) enum SpoolError {
    /// It could be read up to here, and this much is kept.
    Read(Extent, io::Error),
    /// It could not be kept.
    Write(io::Error),
}

impl Spool {
    /// Copies all that `reader` holds.
    pub(super) fn add(&mut self, reader: &mut dyn Read) -> Result<Extent, SpoolError> {
        let file = self.file().map_err(SpoolError::Write)?;
        let start = self.len;
        let mut buffer = vec![0; COPY];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(Extent::of_open(file, start, self.len - start)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted && interrupt::signal().is_none() => continue,
                Err(error) => return Err(SpoolError::Read(Extent::of_open(file, start, self.len - start), error)),
            };
            let written = if self.len + count as u64 > MAX_SPOOL {
                let gibibytes = MAX_SPOOL >> 30;
                Err(io::Error::other(format!("more than {gibibytes} GiB of traces to unpack; unpack it first")))
            } else {
                file.write_all_at(&buffer[..count], self.len).map_err(|error| temporary(&error))
            };
            if let Err(error) = written {
                self.len = start;
                return Err(SpoolError::Write(error));
            }
            self.len += count as u64;
            // A signal ends the archive here, and what came of it is kept.
            if interrupt::signal().is_some() {
                let extent = Extent::of_open(file, start, self.len - start);
                return Err(SpoolError::Read(extent, io::ErrorKind::Interrupted.into()));
            }
        }
    }

    fn file(&mut self) -> Result<Arc<File>, io::Error> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(tempfile::tempfile().map_err(|error| temporary(&error))?);
        Ok(Arc::clone(self.file.insert(file)))
    }
}

fn temporary(error: &io::Error) -> io::Error {
    let directory = env::temp_dir();
    io::Error::new(
        error.kind(),
        format!("no temporary file in {}: {error}; TMPDIR chooses another", directory.display()),
    )
}
