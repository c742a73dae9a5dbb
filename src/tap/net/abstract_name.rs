//! Unix sockets in the abstract namespace. Only Linux has it, so on other systems an endpoint with `@` is refused, with
//! its name, when it is bound or connected to. A path is no substitute: it would look the same in a trace and leave a
//! file.

use std::{io, os::unix::net::UnixListener};

use socket2::SockAddr;

/// Listens at `@name`.
#[cfg(target_os = "linux")]
pub(super) fn bind(name: &str) -> io::Result<UnixListener> {
    use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};

    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// The address of `@name`: the kernel takes a NUL where people write `@`.
#[cfg(target_os = "linux")]
pub(super) fn address(name: &str) -> io::Result<SockAddr> {
    SockAddr::unix(format!("\0{name}"))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn bind(name: &str) -> io::Result<UnixListener> {
    Err(unsupported(name))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn address(name: &str) -> io::Result<SockAddr> {
    Err(unsupported(name))
}

#[cfg(not(target_os = "linux"))]
fn unsupported(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("@{name}: only Linux has abstract socket names; use a path"))
}
