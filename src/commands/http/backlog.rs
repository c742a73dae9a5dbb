//! What waits for the end of its connection, and what waits to be sorted: in memory up to a bound, and beyond it in
//! temporary files.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
};

use crate::spool::Spool;

/// How many bytes wait in memory, of one source.
const MAX_WAITING: usize = 4 << 20;

/// How many bytes are sorted in memory, by one worker.
const MAX_SORTING: usize = 16 << 20;

/// A line and the key that it is sorted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::commands) struct Line {
    pub(in crate::commands) key: Vec<u8>,
    pub(in crate::commands) text: Vec<u8>,
    /// What `--where` needs of the exchange when the end of its connection has come.
    pub(in crate::commands) kept: Vec<u8>,
}

impl Line {
    fn size(&self) -> usize {
        self.key.len() + self.text.len() + self.kept.len() + size_of::<Self>()
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for part in [&self.key, &self.text, &self.kept] {
            out.write_all(&(part.len() as u64).to_le_bytes())?;
            out.write_all(part)?;
        }
        Ok(())
    }

    /// The next line, or `None` at the end.
    fn read(source: &mut impl Read) -> io::Result<Option<Self>> {
        let Some(key) = read_part(source)? else { return Ok(None) };
        let text = read_part(source)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let kept = read_part(source)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Some(Self { key, text, kept }))
    }
}

fn read_part(source: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 8];
    match source.read_exact(&mut len) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut part = vec![0; usize::try_from(u64::from_le_bytes(len)).map_err(io::Error::other)?];
    source.read_exact(&mut part)?;
    Ok(Some(part))
}

/// Lines that wait for the ends of their connections.
#[derive(Debug)]
pub(in crate::commands) struct Backlog(Spool);

impl Default for Backlog {
    fn default() -> Self {
        Self(Spool::new(MAX_WAITING))
    }
}

impl Backlog {
    /// Adds a line of a connection.
    pub(in crate::commands) fn push(&mut self, connection: u64, line: &Line) -> io::Result<()> {
        self.0.push(connection, |bytes| line.write(bytes).expect("writing to memory cannot fail"))
    }

    /// Takes the lines of a connection, in the order in which they were added.
    pub(in crate::commands) fn take<E: From<io::Error>>(
        &mut self,
        connection: u64,
        mut each: impl FnMut(Line) -> Result<(), E>,
    ) -> Result<(), E> {
        self.0.take(connection, |mut bytes| {
            while let Some(line) = Line::read(&mut bytes)? {
                each(line)?;
            }
            Ok(())
        })
    }
}

/// Sorts lines, or keeps those with the greatest keys.
#[derive(Debug, Default)]
pub(in crate::commands) struct Sorter {
    top: Option<usize>,
    greatest: BinaryHeap<Reverse<Line>>,
    lines: Vec<Line>,
    held: usize,
    /// Sorted files, and how many lines are in them.
    runs: Vec<File>,
    spilled: usize,
}

impl Sorter {
    /// A sorter that keeps the `top` greatest lines, or all of them.
    pub(in crate::commands) fn new(top: Option<usize>) -> Self {
        Self { top, ..Self::default() }
    }

    pub(in crate::commands) fn push(&mut self, line: Line) -> io::Result<()> {
        if let Some(top) = self.top.filter(|_| self.runs.is_empty()) {
            self.held += line.size();
            self.greatest.push(Reverse(line));
            if self.greatest.len() > top {
                self.held -= self.greatest.pop().map_or(0, |Reverse(least)| least.size());
            }
            if self.held <= MAX_SORTING {
                return Ok(());
            }
            // So many are sorted as if all were wanted.
            self.lines.extend(self.greatest.drain().map(|Reverse(line)| line));
            return self.spill();
        }
        self.held += line.size();
        self.lines.push(line);
        if self.held > MAX_SORTING { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> io::Result<()> {
        let mut lines = std::mem::take(&mut self.lines);
        self.held = 0;
        lines.sort_unstable();
        self.spilled += lines.len();
        let mut out = BufWriter::with_capacity(1 << 16, tempfile::tempfile()?);
        lines.iter().try_for_each(|line| line.write(&mut out))?;
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        self.runs.push(file);
        Ok(())
    }

    /// Adds what another sorter holds.
    pub(super) fn merge(&mut self, other: Self) -> io::Result<()> {
        self.runs.extend(other.runs);
        self.spilled += other.spilled;
        other
            .lines
            .into_iter()
            .chain(other.greatest.into_iter().map(|Reverse(line)| line))
            .try_for_each(|line| self.push(line))
    }

    /// Passes on all lines in the order of their keys.
    pub(in crate::commands) fn finish(mut self, mut each: impl FnMut(Line) -> io::Result<()>) -> io::Result<()> {
        let mut lines: Vec<Line> = self.greatest.into_iter().map(|Reverse(line)| line).collect();
        lines.append(&mut self.lines);
        lines.sort_unstable();
        let mut unwanted = self.top.map_or(0, |top| (lines.len() + self.spilled).saturating_sub(top));
        let mut lines = lines.into_iter();
        let mut runs: Vec<_> = self.runs.into_iter().map(|file| BufReader::with_capacity(1 << 16, file)).collect();
        // The next line of each run; what is in memory is the last of them.
        let mut next = BinaryHeap::new();
        for (index, run) in runs.iter_mut().enumerate() {
            next.extend(Line::read(run)?.map(|line| Reverse((line, index))));
        }
        let memory = runs.len();
        next.extend(lines.next().map(|line| Reverse((line, memory))));
        while let Some(Reverse((line, index))) = next.pop() {
            if unwanted == 0 {
                each(line)?;
            } else {
                unwanted -= 1;
            }
            let following = match runs.get_mut(index) {
                Some(run) => Line::read(run)?,
                None => lines.next(),
            };
            next.extend(following.map(|line| Reverse((line, index))));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, len: usize) -> Line {
        Line { key: number.to_be_bytes().to_vec(), text: vec![b'x'; len], kept: Vec::new() }
    }

    #[test]
    fn lines_come_back_in_their_order_from_the_file_too() {
        let mut backlog = Backlog::default();
        for number in 0..3000 {
            backlog.push(number % 3, &line(number, 10_000)).unwrap();
        }
        for connection in [1, 0, 2] {
            let mut numbers = Vec::new();
            backlog
                .take(connection, |line| {
                    assert_eq!(line.text.len(), 10_000);
                    numbers.push(u64::from_be_bytes(line.key.try_into().unwrap()));
                    Ok::<_, io::Error>(())
                })
                .unwrap();
            assert_eq!(numbers, (0..1000).map(|number| number * 3 + connection).collect::<Vec<_>>());
        }
    }

    #[test]
    fn lines_are_sorted_beyond_memory() {
        let sorted = |top| {
            let (mut sorter, mut other) = (Sorter::new(top), Sorter::new(top));
            for number in 0..4000_u64 {
                let half = if number % 2 == 0 { &mut sorter } else { &mut other };
                half.push(line(number * 7919 % 4001, 10_000)).unwrap();
            }
            sorter.merge(other).unwrap();
            let mut numbers = Vec::new();
            sorter
                .finish(|line| {
                    numbers.push(u64::from_be_bytes(line.key.try_into().unwrap()));
                    Ok(())
                })
                .unwrap();
            numbers
        };
        let all = sorted(None);
        assert_eq!(all.len(), 4000);
        assert!(all.is_sorted());
        assert_eq!(sorted(Some(3)), all[3997..]);
        // More than fit into memory.
        assert_eq!(sorted(Some(3500)), all[500..]);
    }
}
