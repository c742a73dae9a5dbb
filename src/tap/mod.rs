//! The embedded tap socket: records connections as Envoy's tap transport socket does, without Envoy.
//!
//! A [`TapStream`] wraps a stream and tells a [`Recorder`] what passes; the recorder makes trace messages of it and
//! submits them to a [`Sink`], such as [`FilePerTap`]. [`Relay`] puts taps between a listener and a server.
//!
//! ```
//! # async fn example(stream: tokio::net::TcpStream) {
//! use std::sync::Arc;
//! use tap2pcap::{proto::tap::Connection, tap};
//!
//! let sink = tap::FilePerTap::new("/tmp/tap", tap::Format::ProtoBinary);
//! let tap = tap::Tap::new(tap::TapSettings::default(), Arc::new(sink), Arc::new(tap::SystemClock));
//! let stream = tap::TapStream::new(stream, tap.open(7, Connection::default()));
//! # }
//! ```

mod clock;
mod config;
mod encode;
mod net;
mod recorder;
mod relay;
mod sink;
mod stream;

pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{Config, ConfigError, Syntax};
pub use encode::Format;
pub use net::{
    Endpoint, EndpointError,
    tls::{Identity, TlsClient, TlsError, TlsServer},
};
pub use recorder::{Recorder, Tap, TapSettings};
pub use relay::{Notice, Relay, Route};
pub use sink::{FilePerTap, Sink, TraceSink};
pub use stream::TapStream;
