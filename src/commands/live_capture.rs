//! The capture that `record --pcapng` writes while it runs. The tap's events go through the same stages as a stream on
//! standard input.

use std::{io, path::Path, sync::Arc, thread};

use tokio::sync::oneshot;

use super::{error::Error, hints::Hints, settings::Settings, trace::Trace};
use crate::{
    capture::{Access, Capture, CaptureFormat, Captures, Destination, OutputOptions, OutputPacking},
    input::{InputError, Source},
    redact::Redaction,
    report::Progress,
    tap::{PipeReader, PipeSink, SystemClock, Tap, TapSettings, pipe},
};

/// The name of the source in the capture, where a conversion puts the name of the trace file.
const NAME: &str = "record";

/// A capture before the relay starts. Dropping it leaves no file.
pub(super) struct LiveCapture {
    capture: Capture,
    sink: PipeSink,
    reader: PipeReader,
    redaction: Option<Arc<Redaction>>,
}

impl LiveCapture {
    pub(super) fn create(
        destination: &Destination,
        access: Access,
        redaction: Option<Arc<Redaction>>,
    ) -> Result<Self, Error> {
        let suffix = destination.path().extension();
        let packing = suffix.and_then(|suffix| OutputPacking::of_suffix(suffix.to_str()?)).unwrap_or_default();
        let options = OutputOptions { access, packing, ..OutputOptions::default() };
        let capture = Capture::create_with(destination, CaptureFormat::Pcapng, options)?;
        let (sink, reader) = pipe();
        Ok(Self { capture, sink, reader, redaction })
    }

    /// The tap that feeds the capture: with every byte, as soon as it arrives, and each half-close when it happens.
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

    /// Starts to write, in a thread of its own.
    pub(super) fn start(self) -> io::Result<RunningCapture> {
        let Self { capture, sink, reader, redaction } = self;
        let (tell, ended) = oneshot::channel();
        thread::Builder::new().name("live capture".into()).spawn(move || {
            let written = write(capture, reader, redaction);
            // Nobody listens if a second signal has ended the program.
            let _ = tell.send(written);
        })?;
        Ok(RunningCapture { sink, ended })
    }
}

/// A capture that is being written.
pub(super) struct RunningCapture {
    sink: PipeSink,
    ended: oneshot::Receiver<Result<Written, Error>>,
}

/// What the program reports about a complete capture.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Server ports that Wireshark needs to be told about.
    pub hints: Hints,
    /// Whether something could not be converted.
    pub damaged: bool,
}

impl RunningCapture {
    /// Ends the recording, so that the capture is completed.
    pub(super) fn complete(&self) {
        self.sink.end();
    }

    /// Waits until the capture is complete or cannot be written any further. `None` if its thread failed.
    pub(super) async fn ended(&mut self) -> Option<Result<Written, Error>> {
        (&mut self.ended).await.ok()
    }
}

fn write(mut capture: Capture, reader: PipeReader, redaction: Option<Arc<Redaction>>) -> Result<Written, Error> {
    // The reader of a pipe sees at once that it is a capture.
    capture.flush()?;
    let settings = Settings::of_live_tap(redaction);
    let source = match Source::from_reader(Path::new(NAME), Box::new(reader), settings.input) {
        Ok(source) => source,
        // Like tcpdump's, a capture that ended before anything came is still written.
        Err(InputError::Empty { .. }) => {
            capture.finish()?;
            return Ok(Written::default());
        }
        Err(error) => return Err(capture.error(io::Error::other(error)).into()),
    };
    let mut trace = Trace::live(source, &settings);
    let mut captures = Captures::One(capture);
    trace.convert(&settings.mappings, &mut captures, &Progress::hidden())?;
    trace.finish();
    captures.finish()?;
    Ok(Written { damaged: trace.is_damaged(), hints: std::mem::take(&mut trace.hints) })
}
