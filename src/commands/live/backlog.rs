//! Bytes of a tap stream that wait to be converted.
//!
//! Envoy keeps what its client does not read, without a limit. So one thread reads as fast as Envoy writes, and what the
//! reader of the capture is too slow for waits here: in memory up to a bound, and beyond it in a temporary file.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{input::Arrivals, interrupt, trace::Nanos};

/// How many bytes wait in memory. Of more, all go into the file.
const MAX_IN_MEMORY: usize = 8 << 20;

/// Why a stream takes no more bytes.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Too many bytes wait already.
    Full,
    /// Nobody reads any more.
    Abandoned,
    /// The temporary file failed.
    Failed(io::Error),
}

/// The two ends of a new backlog, which holds `max_waiting` bytes at most.
pub(super) fn backlog(max_waiting: u64, until: Until) -> (BacklogWriter, BacklogReader) {
    let shared = Arc::new(Shared::default());
    let writer = BacklogWriter { shared: Arc::clone(&shared), max_waiting, max_in_memory: MAX_IN_MEMORY, count: 0 };
    (writer, BacklogReader { shared, until, cut: Arc::default(), taken: Vec::new(), at: 0 })
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Signals that bytes or the end have arrived.
    arrived: Condvar,
    arrivals: Arc<Arrivals>,
}

/// What waits: first what is in the file, then what is in memory.
#[derive(Debug, Default)]
struct Waiting {
    file: Option<File>,
    /// The part of the file that is yet to be read.
    read_from: u64,
    written_to: u64,
    bytes: Vec<u8>,
    ended: bool,
    abandoned: bool,
}

impl Waiting {
    fn len(&self) -> u64 {
        self.in_file() + self.bytes.len() as u64
    }

    fn in_file(&self) -> u64 {
        self.written_to - self.read_from
    }

    /// Moves what is in memory into the file.
    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            file => file.insert(tempfile::tempfile()?),
        };
        file.seek(SeekFrom::Start(self.written_to))?;
        file.write_all(&self.bytes)?;
        self.written_to += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }

    /// Takes what comes next, about as much as fits in memory.
    fn take(&mut self, taken: &mut Vec<u8>) -> io::Result<()> {
        taken.clear();
        let Some(file) = self.file.as_mut().filter(|_| self.read_from < self.written_to) else {
            std::mem::swap(taken, &mut self.bytes);
            return Ok(());
        };
        file.seek(SeekFrom::Start(self.read_from))?;
        let len = (self.written_to - self.read_from).min(MAX_IN_MEMORY as u64);
        let read = file.take(len).read_to_end(taken)?;
        self.read_from += read as u64;
        if self.read_from == self.written_to || read == 0 {
            // The file gives its space back.
            (self.read_from, self.written_to) = (0, 0);
            file.set_len(0)?;
        }
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panic cannot leave the state half changed, so a poisoned lock is as good as any.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the bytes of a tap stream go. Dropping it ends the backlog.
#[derive(Debug)]
pub(super) struct BacklogWriter {
    shared: Arc<Shared>,
    max_waiting: u64,
    max_in_memory: usize,
    count: u64,
}

impl BacklogWriter {
    /// Adds bytes that arrived at `time`. It never waits for the reader.
    pub(super) fn write(&mut self, bytes: &[u8], time: Nanos) -> Result<(), Refusal> {
        let mut waiting = self.shared.lock();
        if waiting.abandoned {
            return Err(Refusal::Abandoned);
        }
        // The file gives its space back when all of it was read.
        if waiting.len() + bytes.len() as u64 > self.max_waiting || waiting.written_to > 2 * self.max_waiting {
            return Err(Refusal::Full);
        }
        if waiting.bytes.len() + bytes.len() > self.max_in_memory {
            waiting.spill().map_err(Refusal::Failed)?;
        }
        waiting.bytes.extend_from_slice(bytes);
        self.count += bytes.len() as u64;
        self.shared.arrivals.note(self.count, time);
        drop(waiting);
        self.shared.arrived.notify_one();
        Ok(())
    }

    /// Tells later whether it has been read.
    pub(super) fn watch(&self) -> BacklogWatch {
        BacklogWatch(Arc::clone(&self.shared))
    }
}

/// Tells whether a backlog has been read.
#[derive(Debug)]
pub(super) struct BacklogWatch(Arc<Shared>);

impl BacklogWatch {
    /// How many bytes wait.
    pub(super) fn waiting(&self) -> u64 {
        self.0.lock().len()
    }

    /// Whether nobody reads any more, or what waits has been read.
    pub(super) fn is_drained(&self) -> bool {
        let waiting = self.0.lock();
        waiting.abandoned || waiting.len() == 0
    }
}

impl Drop for BacklogWriter {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.arrived.notify_one();
    }
}

/// When a reader stops waiting for more. What waits already is still read.
#[derive(Clone, Debug, Default)]
pub(super) struct Until {
    time: Option<Instant>,
    /// The pipe that the capture goes into, once that is open.
    pipe: Arc<OnceLock<OwnedFd>>,
    /// Since when it is time to end.
    over: Arc<OnceLock<Instant>>,
    /// What waits is no longer read.
    hurry: Arc<AtomicBool>,
}

impl Until {
    /// Until a signal or, if there is one, this time.
    pub(super) fn time(time: Option<Instant>) -> Self {
        Self { time, ..Self::default() }
    }

    /// Also until nobody reads this pipe any more. A write would tell, but when nothing passes there is none.
    pub(super) fn watch(&self, pipe: OwnedFd) {
        // There is one pipe, so it is not set yet.
        let _ = self.pipe.set(pipe);
    }

    /// Whether it is time to end: a signal came, the time is over, or nobody reads the capture any more.
    pub(super) fn is_over(&self) -> bool {
        let is_over =
            interrupt::signal().is_some() || self.time.is_some_and(|until| Instant::now() >= until) || self.is_unread();
        if is_over {
            self.over.get_or_init(Instant::now);
        }
        is_over
    }

    /// Waits until `holds`. Returns whether it does: it is not waited for when it is time to end.
    pub(super) fn wait_for(&self, holds: impl Fn() -> bool) -> bool {
        while !holds() {
            if self.is_over() {
                return false;
            }
            thread::sleep(interrupt::INTERVAL);
        }
        true
    }

    /// Since when it is time to end.
    pub(super) fn over_since(&self) -> Option<Instant> {
        self.is_over().then(|| *self.over.get_or_init(Instant::now))
    }

    /// From now on, what waits is no longer read.
    pub(super) fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// Whether what waits is no longer read.
    fn is_past(&self) -> bool {
        let late = || self.pipe.get().is_some() && self.over_since().is_some_and(|over| over.elapsed() > GRACE);
        self.hurry.load(Ordering::Relaxed) || self.is_unread() || late()
    }

    /// Whether nobody reads the capture any more.
    pub(super) fn is_unread(&self) -> bool {
        self.pipe.get().is_some_and(interrupt::is_unread)
    }
}

/// How a stream ended for those who read it.
#[derive(Debug, Default)]
pub(in crate::commands) struct Cut {
    /// It went on, so that its last message may be cut.
    went_on: AtomicBool,
    /// How many bytes waited and were not read.
    left_out: AtomicU64,
}

impl Cut {
    /// Whether the stream was left while it went on.
    pub(in crate::commands) fn went_on(&self) -> bool {
        self.went_on.load(Ordering::Relaxed)
    }

    /// How many bytes waited and were not read.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

/// How long what waits is still read into a pipe after it was time to end. Its reader may be slow, and a gigabyte may
/// wait.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Where the bytes of a tap stream are read.
#[derive(Debug)]
pub(super) struct BacklogReader {
    shared: Arc<Shared>,
    until: Until,
    cut: Arc<Cut>,
    /// Bytes taken out of the backlog. They have been read up to `at`.
    taken: Vec<u8>,
    at: usize,
}

impl BacklogReader {
    /// How the stream ended.
    pub(super) fn cut(&self) -> Arc<Cut> {
        Arc::clone(&self.cut)
    }

    /// When the bytes arrived.
    pub(super) fn arrivals(&self) -> Arc<Arrivals> {
        Arc::clone(&self.shared.arrivals)
    }
}

impl Read for BacklogReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.taken.len() {
            let mut waiting = self.shared.lock();
            while waiting.len() == 0 && !waiting.ended && !self.until.is_over() {
                waiting = self
                    .shared
                    .arrived
                    .wait_timeout(waiting, interrupt::INTERVAL)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            if (!waiting.ended && waiting.len() == 0) || self.until.is_past() {
                self.cut.went_on.store(true, Ordering::Relaxed);
                self.cut.left_out.store(waiting.len(), Ordering::Relaxed);
                return Ok(0);
            }
            self.at = 0;
            waiting.take(&mut self.taken)?;
        }
        let count = (&self.taken[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

impl Drop for BacklogReader {
    fn drop(&mut self) {
        let mut waiting = self.shared.lock();
        waiting.abandoned = true;
        waiting.bytes = Vec::new();
        waiting.file = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reader_gets_every_byte_in_order_though_most_of_them_went_through_the_file() {
        let (mut writer, mut reader) = backlog(1 << 30, Until::default());
        let mut expected = Vec::new();
        for index in 0..40_u8 {
            let bytes = vec![index; (1 << 20) + usize::from(index)];
            writer.write(&bytes, u64::from(index)).unwrap();
            expected.extend_from_slice(&bytes);
            assert!(writer.shared.lock().bytes.len() <= MAX_IN_MEMORY);
        }
        assert!(writer.shared.lock().in_file() > 30 << 20);
        drop(writer);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert!(got == expected);
        assert_eq!(reader.arrivals().time(got.len() as u64), Some(39));
    }

    #[test]
    fn a_full_backlog_takes_nothing_until_it_is_read() {
        let (mut writer, mut reader) = backlog(1000, Until::default());
        writer.write(&[1; 1000], 0).unwrap();
        assert!(matches!(writer.write(&[2], 0), Err(Refusal::Full)));
        assert!(!writer.watch().is_drained());
        reader.read_exact(&mut [0; 1000]).unwrap();
        assert!(writer.watch().is_drained());
        writer.write(&[2], 0).unwrap();
        drop(reader);
        assert!(matches!(writer.write(&[2], 0), Err(Refusal::Abandoned)));
    }

    #[test]
    fn what_waits_is_read_though_the_time_is_over() {
        let (mut writer, mut reader) = backlog(1000, Until::time(Some(Instant::now())));
        writer.write(&[1; 10], 0).unwrap();
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert_eq!(got, [1; 10]);
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            steps in proptest::collection::vec((any::<bool>(), 1..6000_usize), 1..40),
        ) {
            let (mut writer, mut reader) = backlog(1 << 30, Until::default());
            writer.max_in_memory = 8000;
            let (mut written, mut read) = (0_usize, 0_usize);
            let byte = |at: usize| (at / 10 % 251) as u8;
            for (writes, len) in steps {
                if writes {
                    let bytes: Vec<_> = (written..written + len).map(byte).collect();
                    writer.write(&bytes, 0).unwrap();
                    written += len;
                } else {
                    let mut got = vec![0; len.min(written - read)];
                    reader.read_exact(&mut got).unwrap();
                    prop_assert!(got.iter().enumerate().all(|(index, got)| *got == byte(read + index)));
                    read += got.len();
                }
            }
            drop(writer);
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).unwrap();
            prop_assert_eq!(read + rest.len(), written);
            prop_assert!(rest.iter().enumerate().all(|(index, got)| *got == byte(read + index)));
        }
    }
}
