//! Where the tables go: three files in a directory, which appear together when they are complete, or one stream.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    capture::{Destination, Output, OutputError, OutputOptions, OutputPacking, PacketBuffer, put_all_in_place},
    commands::error::Error,
};

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Connections,
    Requests,
    Findings,
}

impl Table {
    pub(super) const ALL: [Self; 3] = [Self::Connections, Self::Requests, Self::Findings];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Requests => "requests",
            Self::Findings => "findings",
        }
    }

    /// Where it is in a directory.
    pub(super) fn path(self, directory: &Path, packing: OutputPacking) -> PathBuf {
        let suffix = if packing == OutputPacking::Zstd { ".ndjson.zst" } else { ".ndjson" };
        directory.join(format!("{}{suffix}", self.name()))
    }
}

/// Lines that wait to be written.
#[derive(Debug)]
pub(super) struct Lines {
    /// Whether all go to one stream, each with the name of its table.
    tagged: bool,
    tables: [Vec<u8>; Table::ALL.len()],
}

impl Lines {
    pub(super) fn new(tagged: bool) -> Self {
        Self { tagged, tables: Default::default() }
    }

    /// Adds a line, which is an object that is not empty.
    pub(super) fn push(&mut self, table: Table, line: &[u8]) {
        if !self.tagged {
            self.tables[table as usize].extend_from_slice(line);
            return;
        }
        let Some(members) = line.strip_prefix(b"{") else { return };
        let all = &mut self.tables[0];
        for part in [b"{\"table\":\"", table.name().as_bytes(), b"\",", members] {
            all.extend_from_slice(part);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tables.iter().map(Vec::len).sum()
    }

    pub(super) fn clear(&mut self) {
        self.tables.iter_mut().for_each(Vec::clear);
    }
}

/// The open outputs.
#[derive(Debug)]
pub(super) enum Sink {
    Stream(Box<Chunks>),
    /// The tables in their order, and the directories that were made for them.
    Directory(Box<[Chunks; Table::ALL.len()]>, MadeDirectories),
}

impl Sink {
    /// Opens the outputs.
    pub(super) fn create(output: &Destination, options: OutputOptions) -> Result<Self, Error> {
        let Some(directory) = output.file() else {
            return Chunks::create(output, options).map(|chunks| Self::Stream(Box::new(chunks)));
        };
        let made = MadeDirectories::create(directory).map_err(|source| Error::Table(directory.to_owned(), source))?;
        let table = |table: Table| Chunks::create(&Destination::File(table.path(directory, options.packing)), options);
        let [connections, requests, findings] = Table::ALL.map(table);
        Ok(Self::Directory(Box::new([connections?, requests?, findings?]), made))
    }

    /// Writes lines. If somebody waits for them, they are written `at_once`.
    pub(super) fn write(&mut self, lines: &Lines, at_once: bool) -> Result<(), Error> {
        match self {
            Self::Stream(chunks) => chunks.write(&lines.tables[0], at_once),
            Self::Directory(tables, _) => {
                tables.iter_mut().zip(&lines.tables).try_for_each(|(chunks, lines)| chunks.write(lines, at_once))
            }
        }
    }

    /// Completes the outputs.
    pub(super) fn finish(self) -> Result<(), Error> {
        match self {
            Self::Stream(chunks) => {
                let Chunks { output, buffer, .. } = *chunks;
                output.finish(&buffer).map_err(failed)
            }
            Self::Directory(tables, _made) => {
                let complete = |Chunks { output, buffer, .. }: Chunks| output.complete(&buffer);
                let complete = (*tables).into_iter().map(complete).collect::<Result<Vec<_>, _>>().map_err(failed)?;
                put_all_in_place(complete).map_err(failed)
            }
        }
    }
}

fn failed(error: OutputError) -> Error {
    Error::Table(error.path.clone(), error.into_io())
}

/// An output that gets its bytes in chunks of one size. Packed, they are the same in every run then.
#[derive(Debug)]
pub(super) struct Chunks {
    output: Output,
    buffer: PacketBuffer,
    /// Whether somebody reads the bytes as they come. Packed ones come late anyway.
    is_followed: bool,
}

/// How many bytes are written at once.
const CHUNK: usize = 256 << 10;

impl Chunks {
    fn create(destination: &Destination, options: OutputOptions) -> Result<Self, Error> {
        let output = Output::create(destination, options).map_err(failed)?;
        let is_followed = output.is_stream() && options.packing == OutputPacking::None;
        Ok(Self { output, buffer: PacketBuffer::default(), is_followed })
    }

    fn write(&mut self, mut bytes: &[u8], at_once: bool) -> Result<(), Error> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK - self.buffer.len()));
            self.buffer.append(now);
            bytes = rest;
            if self.buffer.len() == CHUNK {
                self.write_chunk()?;
            }
        }
        if at_once && self.is_followed && !self.buffer.is_empty() { self.write_chunk() } else { Ok(()) }
    }

    fn write_chunk(&mut self) -> Result<(), Error> {
        let Self { output, buffer, is_followed } = self;
        // A thread would learn that the reader is gone, but would tell it only with the next chunk, for which a live
        // source may take hours.
        let written = if *is_followed { output.write_here(buffer) } else { output.write(buffer) };
        written.map_err(failed)
    }
}

/// Directories that were made. Dropping this removes those that are still empty, because nothing was written.
#[derive(Debug)]
pub(super) struct MadeDirectories(Vec<PathBuf>);

impl MadeDirectories {
    /// Makes a directory, and those that lead to it.
    fn create(directory: &Path) -> io::Result<Self> {
        let mut made = Self(Vec::new());
        let leading: Vec<_> = directory.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        // One after the other, because `new/..` exists once `new` does.
        for path in leading.into_iter().rev().filter(|path| !path.is_dir()) {
            match fs::create_dir(path) {
                Ok(()) => made.0.push(path.to_owned()),
                // Somebody else has just made it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }
}

impl Drop for MadeDirectories {
    fn drop(&mut self) {
        // From the innermost outwards. One with a file in it stays.
        self.0.iter().rev().all(|path| fs::remove_dir(path).is_ok());
    }
}
