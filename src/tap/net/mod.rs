//! Sockets under the tap: TCP, unix domain and TLS, listening and connecting.

mod abstract_name;
mod drain;
mod endpoint;
mod socket;
pub(super) mod tls;

pub(super) use drain::Drain;
pub use endpoint::{Endpoint, EndpointError};
pub(super) use socket::{Connecting, Listener, Socket};

use tokio::io::{AsyncRead, AsyncWrite};

/// A connected stream: a socket, or TLS over one.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {
    /// Makes the peer see a reset rather than an end when the stream is dropped.
    fn reset_on_drop(&self);
}

impl Transport for Box<dyn Transport> {
    fn reset_on_drop(&self) {
        (**self).reset_on_drop();
    }
}
