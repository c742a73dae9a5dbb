//! Many traces at once, and programs that run while the test goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    io::{Read, Write as _},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};
use tap2pcap::proto::tap::{Body, Connection, SocketEvent, TraceWrapper, body::BodyType, socket_event::EventSelector};

use crate::{
    fixture::{self, Dress, closed, read, socket, write},
    manifest::{Sample, socket_samples},
    tshark::Frame,
    util::{Dir, PROGRAM, Run, modified_like},
    wait::{PATIENCE, unread, wait_until, within},
};

/// Numbers the events as Envoy has done since 1.37: one counter for both directions, from 1, and one more for `closed`.
pub fn numbered(mut events: Vec<SocketEvent>) -> Vec<SocketEvent> {
    let mut position = 1;
    for event in &mut events {
        position += u64::from(matches!(event.event_selector, Some(EventSelector::Closed(_))));
        event.seq_num = position;
        position += body(event).map_or(0, |body| match &body.body_type {
            Some(BodyType::AsBytes(bytes)) => bytes.len() as u64,
            _ => 0,
        });
    }
    events
}

/// The body of an event.
pub fn body(event: &mut SocketEvent) -> Option<&mut Body> {
    match event.event_selector.as_mut()? {
        EventSelector::Read(read) => read.data.as_mut(),
        EventSelector::Write(write) => write.data.as_mut(),
        EventSelector::Closed(_) => None,
    }
}

/// Cuts the body of an event to its first `len` bytes, as Envoy does.
pub fn cut(mut event: SocketEvent, len: usize) -> SocketEvent {
    let body = body(&mut event).unwrap();
    body.truncated = true;
    if let Some(BodyType::AsBytes(bytes)) = &mut body.body_type {
        bytes.truncate(len);
    }
    event
}

/// A different client for each number below 2^24.
pub fn client(number: u32) -> Connection {
    let [_, a, b, c] = number.to_be_bytes();
    Connection {
        local_address: socket("10.0.0.1", 8080),
        remote_address: socket(&format!("10.{}.{b}.{c}", 100 + u32::from(a)), 40_000 + number % 20_000),
    }
}

/// A connection from `start` to `end` with `rounds` questions and answers.
pub fn conversation(number: u32, rounds: u64, start: u64, end: u64) -> Vec<TraceWrapper> {
    let step = (end - start) / (2 * rounds + 1);
    let mut events = Vec::new();
    for round in 0..rounds {
        let question = format!("question {round} of connection {number}");
        let answer = format!("answer {round} for connection {number}");
        events.push(read(start + 2 * round * step, question.as_bytes()));
        events.push(write(start + (2 * round + 1) * step, answer.as_bytes()));
    }
    events.push(closed(end));
    fixture::streamed(u64::from(number), client(number), numbered(events))
}

/// Writes `count` traces that all happen at the same time.
pub fn write_overlapping(directory: &Path, count: u32, rounds: u64) {
    fs::create_dir_all(directory).unwrap();
    for number in 0..count {
        let (start, end) = (fixture::TIME + u64::from(number), fixture::TIME + 1_000_000_000 + u64::from(number));
        let bytes = Dress::Binary.file(&conversation(number, rounds, start, end));
        fs::write(directory.join(format!("tap_{number}.pb")), bytes).unwrap();
    }
}

/// Copies the real socket traces into a tree, one folder per version.
pub fn copy_samples(root: &Path) -> Vec<Sample> {
    let samples = socket_samples();
    for sample in &samples {
        let to = root.join(&sample.name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&sample.path, &to).unwrap();
        modified_like(&to, &sample.path);
    }
    samples
}

/// All files below a directory, hidden ones included, by their relative paths.
pub fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    paths(root).into_iter().map(|name| (name.clone(), fs::read(root.join(name)).unwrap())).collect()
}

/// The relative paths of all files below a directory.
pub fn paths(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(relative) = todo.pop() {
        let Ok(entries) = fs::read_dir(root.join(&relative)) else { continue };
        for entry in entries {
            let entry = entry.unwrap();
            let relative = relative.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                todo.push(relative);
            } else {
                found.insert(relative.into_os_string().into_string().unwrap());
            }
        }
    }
    found
}

/// Expects that time never goes back from one frame to the next.
#[track_caller]
pub fn expect_in_order(frames: &[Frame]) {
    for pair in frames.windows(2) {
        assert!(pair[0].time <= pair[1].time, "time goes back from {:?} to {:?}", pair[0], pair[1]);
    }
}

/// The number of TCP streams, as Wireshark counts them.
pub fn streams(frames: &[Frame]) -> usize {
    frames.iter().map(|frame| frame.stream).collect::<BTreeSet<_>>().len()
}

/// The last line of standard error that does not say how to open the capture.
pub fn last_line(run: &Run) -> &str {
    run.stderr.lines().rfind(|line| !line.starts_with("note: to see it dissected: ")).unwrap_or_default()
}

/// A program that runs while the test goes on.
pub struct Running {
    child: Child,
    command: String,
    stdin: Option<ChildStdin>,
    stdout: Heard,
    stderr: Heard,
}

/// What a program has written so far. A thread reads it, so that the program never waits for the test.
struct Heard {
    pieces: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
}

impl Heard {
    fn of(mut stream: impl Read + Send + 'static) -> Self {
        let (to, pieces) = channel();
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Some(count) = stream.read(&mut buffer).ok().filter(|count| *count > 0) {
                if to.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { pieces, bytes: Vec::new() }
    }

    fn so_far(&mut self) -> &[u8] {
        self.bytes.extend(self.pieces.try_iter().flatten());
        &self.bytes
    }

    /// Waits until `part` was written.
    fn wait_for(&mut self, part: &[u8]) -> Result<(), RecvTimeoutError> {
        let start = Instant::now();
        while !contains(&self.bytes, part) {
            self.bytes.extend(self.pieces.recv_timeout(PATIENCE.saturating_sub(start.elapsed()))?);
        }
        Ok(())
    }

    fn into_rest(mut self) -> Vec<u8> {
        self.bytes.extend(self.pieces.iter().flatten());
        self.bytes
    }
}

impl Running {
    /// Starts the program under test.
    pub fn start<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(args);
        Self::of(command)
    }

    /// Starts a command.
    pub fn of(mut command: Command) -> Self {
        let text = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Heard::of(child.stdout.take().unwrap());
        let stderr = Heard::of(child.stderr.take().unwrap());
        let stdin = child.stdin.take();
        Self { child, command: text, stdin, stdout, stderr }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input, which stays open.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Waits until the program has read everything that was sent.
    #[track_caller]
    pub fn wait_until_read(&self) {
        wait_until("it has read everything", || unread(self.stdin.as_ref().unwrap()) == 0);
    }

    /// Waits until `part` is on its standard output.
    #[track_caller]
    pub fn wait_for(&mut self, part: &[u8]) {
        match self.stdout.wait_for(part) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => {
                panic!("{}: waited in vain for {:?}", self.command, String::from_utf8_lossy(part))
            }
            Err(RecvTimeoutError::Disconnected) => {
                panic!("{}: ended without {:?}", self.command, String::from_utf8_lossy(part))
            }
        }
    }

    /// What it has written to its standard output so far.
    pub fn stdout(&mut self) -> &[u8] {
        self.stdout.so_far()
    }

    /// What it has written to its standard error so far.
    pub fn stderr(&mut self) -> &[u8] {
        self.stderr.so_far()
    }

    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it ends by itself, its standard input still open.
    #[track_caller]
    pub fn end(mut self) -> Run {
        let Some(status) = within(PATIENCE, || self.child.try_wait().unwrap()) else {
            self.child.kill().unwrap();
            panic!("{}: does not end", self.command);
        };
        let stderr = String::from_utf8_lossy(&self.stderr.into_rest()).into_owned();
        Run { command: self.command, status, stdout: self.stdout.into_rest(), stderr }
    }

    /// Closes its standard input and waits.
    #[track_caller]
    pub fn finish(mut self) -> Run {
        drop(self.stdin.take());
        self.end()
    }
}

pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(bytes, part).is_some()
}

/// Makes a named pipe.
pub fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Names in a directory that are neither captures nor temporary files.
pub fn strangers(root: &Path) -> Vec<String> {
    let expected = |path: &String| {
        let name = Path::new(path).file_name().unwrap().as_bytes();
        name.starts_with(b".tap2pcap-") || (!name.starts_with(b".") && name.ends_with(b".pcapng"))
    };
    paths(root).into_iter().filter(|path| !expected(path)).collect()
}

/// Names of unfinished captures in a directory.
pub fn temporaries(root: &Path) -> Vec<String> {
    let hidden = |path: &String| Path::new(path).file_name().unwrap().as_bytes().starts_with(b".");
    paths(root).into_iter().filter(hidden).collect()
}

/// A directory with traces of `count` connections, one after another in time.
pub fn small_batch(dir: &Dir, count: u32) -> PathBuf {
    let root = dir.join("traces");
    fs::create_dir(&root).unwrap();
    for number in 0..count {
        let start = fixture::TIME + u64::from(number) * 1_000_000;
        let trace = conversation(number, 2, start, start + 900_000);
        fs::write(root.join(format!("tap_{number}.pb")), Dress::Binary.file(&trace)).unwrap();
    }
    root
}
