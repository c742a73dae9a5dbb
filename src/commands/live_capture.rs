//! The capture that `record --pcapng` writes while it runs: what the tap records goes through the same stages as a
//! stream on standard input.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use tokio::sync::oneshot;

use super::{
    hints::Hints,
    settings::Settings,
    trace::{PacketConnections, Stop, Trace, close_all},
};
use crate::{
    capture::{Access, Capture, Destination, Format, OutputError, OutputOptions, Packing},
    input::{InputError, Source},
    report::Progress,
    tap::{PipeReader, PipeSink, SystemClock, Tap, TapSettings, pipe},
    timeline::Mappings,
};

/// What the capture calls its source, where a converted one names the trace file.
const NAME: &str = "record";

/// A capture before the relay starts. Dropping it leaves no file.
pub(super) struct LiveCapture {
    path: PathBuf,
    capture: Capture,
    sink: PipeSink,
    reader: PipeReader,
}

impl LiveCapture {
    pub(super) fn create(path: &Path, access: Access) -> Result<Self, OutputError> {
        let packing = path.extension().and_then(|suffix| Packing::of_suffix(suffix.to_str()?)).unwrap_or_default();
        let options = OutputOptions { access, packing, ..OutputOptions::default() };
        let capture = Capture::create_with(&Destination::new(path), Format::Pcapng, options)?;
        let (sink, reader) = pipe();
        Ok(Self { path: path.to_owned(), capture, sink, reader })
    }

    /// The tap that feeds the capture: every byte, at once, and each half-close when it happens.
    pub(super) fn tap(&self) -> Tap {
        let settings = TapSettings {
            streaming: true,
            max_buffered_rx_bytes: u32::MAX,
            max_buffered_tx_bytes: u32::MAX,
            record_bare_half_close: true,
            ..TapSettings::default()
        };
        Tap::new(settings, Arc::new(self.sink.clone()), Arc::new(SystemClock))
    }

    /// Writes from now on, in a thread of its own.
    pub(super) fn start(self) -> io::Result<RunningCapture> {
        let Self { path, capture, sink, reader } = self;
        let (tell, ended) = oneshot::channel();
        thread::Builder::new().name("live capture".into()).spawn(move || {
            let written = write(capture, reader, &path);
            // Nobody listens where a second signal has ended the program.
            let _ = tell.send(written);
        })?;
        Ok(RunningCapture { sink, ended })
    }
}

/// A capture that is being written.
pub(super) struct RunningCapture {
    sink: PipeSink,
    ended: oneshot::Receiver<Result<Written, OutputError>>,
}

/// What is to be said of a complete capture.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Server ports that Wireshark needs to be told about.
    pub hints: Hints,
    /// Something could not be converted.
    pub damaged: bool,
}

impl RunningCapture {
    /// Nothing more is recorded: the capture is completed.
    pub(super) fn complete(&self) {
        self.sink.end();
    }

    /// Waits until the capture is complete or cannot be written any further. `None`: its thread failed.
    pub(super) async fn ended(&mut self) -> Option<Result<Written, OutputError>> {
        (&mut self.ended).await.ok()
    }
}

fn write(mut capture: Capture, reader: PipeReader, path: &Path) -> Result<Written, OutputError> {
    // Whoever reads a pipe learns at once that it is a capture.
    capture.flush()?;
    let failed = |source| OutputError { path: path.to_owned(), source };
    let settings = Settings::of_live_tap();
    let source = match Source::from_reader(Path::new(NAME), Box::new(reader), settings.input) {
        Ok(source) => source,
        // Like tcpdump's, a capture that ended before anything came is a capture.
        Err(InputError::Empty { .. }) => return capture.finish().map(|()| Written::default()),
        Err(error) => return Err(failed(io::Error::other(error))),
    };
    let mut trace = Trace::live(source, &settings);
    convert(&mut trace, &mut capture).map_err(|stop| match stop {
        Stop::Output(error) => failed(error),
        Stop::Signal(_) => failed(io::ErrorKind::Interrupted.into()),
    })?;
    trace.finish();
    capture.finish()?;
    Ok(Written { damaged: trace.is_damaged(), hints: std::mem::take(&mut trace.hints) })
}

fn convert(trace: &mut Trace, capture: &mut Capture) -> Result<(), Stop> {
    let mut connections = PacketConnections::new(Mappings::default());
    while trace.advance(capture, &Progress::hidden())?.is_some() {
        trace.write(&mut connections, capture)?;
    }
    Ok(close_all(&mut connections, capture)?)
}
