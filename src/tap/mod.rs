//! The embedded tap socket: records connections as Envoy's tap transport socket does, without Envoy.
//!
//! A [`TapStream`] wraps a stream and tells a [`Recorder`] what passes. The recorder makes trace messages of it and
//! submits them to a [`Sink`], such as [`FilePerTap`] or the writing end of a [`pipe()`]. [`Relay`] puts taps between a
//! listener and a server.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! # let dir = tempfile::tempdir()?;
//! # let prefix = dir.path().join("tap");
//! # let (stream, mut client) = tokio::io::duplex(64);
//! use std::sync::Arc;
//! use tap2pcap::{proto::tap::Connection, tap};
//! use tokio::io::AsyncWriteExt as _;
//!
//! let sink = tap::FilePerTap::new(&prefix, tap::TraceFormat::ProtoBinary);
//! let tap = tap::Tap::new(tap::TapSettings::default(), Arc::new(sink), Arc::new(tap::SystemClock));
//! // `stream` is any tokio stream.
//! let mut stream = tap::TapStream::new(stream, tap.open(7, Connection::default()));
//! stream.write_all(b"hello").await?;
//! stream.close();
//! # assert!(dir.path().join("tap_7.pb").is_file());
//! # Ok(())
//! # }
//! ```

mod clock;
mod config;
mod encode;
mod net;
mod pipe;
mod recorder;
mod relay;
mod sink;
mod stream;

pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{Config, ConfigError, Syntax};
pub use encode::TraceFormat;
pub use net::{
    Endpoint, EndpointError,
    tls::{TlsClient, TlsError, TlsIdentity, TlsServer},
};
pub use pipe::{PipeReader, PipeSink, pipe};
pub use recorder::{Recorder, Tap, TapSettings};
pub use relay::{Notice, Relay, Route};
pub use sink::{FilePerTap, Sink, TraceSink};
pub use stream::TapStream;
