//! Bytes that wait under keys until they are asked for: in memory up to a bound, and beyond it in a temporary file.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
};

/// The bytes of one key.
#[derive(Debug, Default)]
struct Waiting {
    /// Start and length of what is in the file.
    stretches: Vec<(u64, u64)>,
    /// What came after that.
    bytes: Vec<u8>,
}

/// Bytes that wait under keys.
#[derive(Debug)]
pub(crate) struct Spool {
    waiting: HashMap<u64, Waiting>,
    /// How many bytes may be in memory, and how many are.
    max_held: usize,
    held: usize,
    /// Has no name, so it is gone when the program is.
    file: Option<File>,
    file_len: u64,
    /// How many bytes of the file are still waiting.
    in_file: u64,
}

/// How many times as long as what is in memory the file may get before what no longer waits in it is left out.
const LEAST_TO_COMPACT: u64 = 4;

impl Spool {
    /// A spool that holds `max_held` bytes in memory.
    pub(crate) fn new(max_held: usize) -> Self {
        Self { waiting: HashMap::new(), max_held, held: 0, file: None, file_len: 0, in_file: 0 }
    }

    /// Adds what `write` appends to the bytes of `key`. Those are not passed to it whole, so it must only append.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub(crate) fn push(&mut self, key: u64, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let bytes = &mut self.waiting.entry(key).or_default().bytes;
        let before = bytes.len();
        write(bytes);
        self.held += bytes.len() - before;
        if self.held > self.max_held { self.spill() } else { Ok(()) }
    }

    /// Copies what is waiting into a new file, if that is the smaller part of this one. A stream may go on for days.
    fn compact(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.file_len < (LEAST_TO_COMPACT * self.max_held as u64).max(2 * self.in_file) {
            return Ok(());
        }
        let mut fresh = tempfile::tempfile()?;
        let mut len = 0;
        for waiting in self.waiting.values_mut() {
            let start = len;
            for (from, count) in &waiting.stretches {
                file.seek(SeekFrom::Start(*from))?;
                len += io::copy(&mut file.take(*count), &mut fresh)?;
            }
            waiting.stretches.clear();
            if len > start {
                waiting.stretches.push((start, len - start));
            }
        }
        (self.file, self.file_len) = (Some(fresh), len);
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        self.compact()?;
        let file = match &mut self.file {
            Some(file) => file,
            file => file.insert(tempfile::tempfile()?),
        };
        file.seek(SeekFrom::Start(self.file_len))?;
        let mut out = BufWriter::with_capacity(1 << 16, file);
        for waiting in self.waiting.values_mut().filter(|waiting| !waiting.bytes.is_empty()) {
            let bytes = std::mem::take(&mut waiting.bytes);
            out.write_all(&bytes)?;
            let len = bytes.len() as u64;
            match waiting.stretches.last_mut() {
                Some((start, before)) if *start + *before == self.file_len => *before += len,
                _ => waiting.stretches.push((self.file_len, len)),
            }
            self.file_len += len;
            self.in_file += len;
        }
        self.held = 0;
        out.flush()
    }

    /// Takes the bytes of `key`, in the order in which they were added. Each reader that `each` gets ends where a push
    /// has ended.
    ///
    /// # Errors
    /// The temporary file cannot be read, or `each` has failed.
    pub(crate) fn take<E: From<io::Error>>(
        &mut self,
        key: u64,
        mut each: impl FnMut(&mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(waiting) = self.waiting.remove(&key) else { return Ok(()) };
        self.held -= waiting.bytes.len();
        for (start, len) in waiting.stretches {
            let Some(file) = &mut self.file else { break };
            file.seek(SeekFrom::Start(start))?;
            self.in_file -= len;
            // Most keys have few bytes, and there may be many keys.
            let capacity = usize::try_from(len).map_or(1 << 16, |len| len.min(1 << 16));
            each(&mut BufReader::with_capacity(capacity, file.take(len)))?;
        }
        if !waiting.bytes.is_empty() {
            each(&mut waiting.bytes.as_slice())?;
        }
        if self.waiting.is_empty() {
            // Nothing in the file is needed any more.
            (self.file_len, self.in_file) = (0, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_spool_gives_back_what_came(
            pushes in proptest::collection::vec((0..4_u64, 0..3000_usize, any::<bool>()), 1..60),
        ) {
            let mut spool = Spool::new(5000);
            let mut expected: [Vec<u8>; 4] = Default::default();
            let (mut fill, mut most) = (0, 0);
            for (key, len, takes) in pushes {
                fill += 1;
                spool.push(key, |bytes| bytes.resize(bytes.len() + len, fill)).unwrap();
                prop_assert!(spool.held <= 5000);
                most = most.max(spool.in_file);
                prop_assert!(spool.file_len <= 20_000.max(2 * most) + 8000, "{} {most}", spool.file_len);
                let all = &mut expected[usize::try_from(key).unwrap()];
                all.resize(all.len() + len, fill);
                if takes {
                    let mut taken = Vec::new();
                    spool.take(key, |read| read.read_to_end(&mut taken).map(drop)).unwrap();
                    prop_assert_eq!(&taken, &*all);
                    all.clear();
                }
            }
        }
    }
}
