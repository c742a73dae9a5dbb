//! Which packets are one connection: of every source that goes into one capture.
//!
//! A tap of HTTP records exchanges, each by itself and often in a file of its own. Those of one kept-alive HTTP/1
//! connection have the same addresses, and follow each other. So the connection of a replayed exchange stays open until
//! the capture ends, and the next exchange with its addresses goes on there.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
};

use crate::{
    capture::Capture,
    synth::Flow,
    timeline::{Endpoints, Mapping, Opening, Resolver, Role},
    trace::Nanos,
};

/// Connections of replayed exchanges that are remembered; with one more, the oldest is closed and forgotten.
const MAX_KEPT: usize = 4096;

/// The client's and the server's address.
type Tuple = (SocketAddr, SocketAddr);

/// A connection of which another exchange may come, or that has to be told from one.
struct Kept {
    endpoints: Endpoints,
    role: Role,
    /// Of its last packet.
    time: Nanos,
    interface: u32,
    /// What the next exchange goes on with; of HTTP/2, which began with a greeting and numbers its streams, nothing is
    /// kept open.
    flow: Option<Flow>,
    complete: bool,
    stamp: u64,
}

/// The connections of one capture.
pub(super) struct Connections {
    resolver: Resolver,
    kept: HashMap<Tuple, Kept>,
    /// In the order in which they were put there; those that went on since are in it once more.
    oldest: VecDeque<(Tuple, u64)>,
    stamp: u64,
    /// The latest end of an exchange or a connection.
    latest: Nanos,
}

/// How a connection begins.
pub(super) enum Begun {
    /// With a handshake.
    New(Endpoints),
    /// It is there already.
    Resumed(Box<Flow>, Endpoints),
}

impl Connections {
    pub(super) fn new(mappings: Vec<Mapping>) -> Self {
        Self { resolver: Resolver::new(mappings), kept: HashMap::new(), oldest: VecDeque::new(), stamp: 0, latest: 0 }
    }

    /// A connection of the source that is called `source` begins.
    pub(super) fn begin(&mut self, source: &str, opening: &Opening, time: Nanos) -> Begun {
        self.latest = self.latest.max(time);
        if opening.http.as_ref().is_some_and(|http| http.version == 1) && !self.kept.is_empty() {
            let tuple = self.resolver.resolve(source, opening).tuple(opening.role);
            // One HTTP/1 connection carries one exchange at a time.
            let follows = |kept: &Kept| kept.flow.is_some() && kept.time <= time && kept.role == opening.role;
            if self.kept.get(&tuple).is_some_and(follows)
                && let Some(Kept { flow: Some(flow), endpoints, .. }) = self.kept.remove(&tuple)
            {
                return Begun::Resumed(Box::new(flow), endpoints);
            }
        }
        Begun::New(self.resolver.open(source, opening))
    }

    /// A connection ends, as far as its source knows.
    pub(super) fn end(
        &mut self,
        mut flow: Flow,
        endpoints: Endpoints,
        opening: &Opening,
        time: Nanos,
        complete: bool,
        (interface, capture): (u32, &mut Capture),
    ) -> io::Result<()> {
        self.latest = self.latest.max(time);
        let version = opening.http.as_ref().map(|http| http.version).filter(|_| endpoints.recorded);
        let Some(version) = version else {
            self.resolver.close(&endpoints);
            return close(&mut flow, time, complete, interface, capture);
        };
        let flow = if version == 1 {
            Some(flow)
        } else {
            close(&mut flow, time, complete, interface, capture)?;
            None
        };
        self.stamp += 1;
        let (stamp, role) = (self.stamp, opening.role);
        let tuple = endpoints.tuple(role);
        self.kept.insert(tuple, Kept { endpoints, role, time, interface, flow, complete, stamp });
        self.oldest.push_back((tuple, stamp));
        while self.kept.len() > MAX_KEPT || self.oldest.len() > 2 * MAX_KEPT {
            self.close_oldest(time, capture)?;
        }
        Ok(())
    }

    fn close_oldest(&mut self, time: Nanos, capture: &mut Capture) -> io::Result<()> {
        let Some((tuple, stamp)) = self.oldest.pop_front() else { return Ok(()) };
        if self.kept.get(&tuple).is_none_or(|kept| kept.stamp != stamp) {
            return Ok(());
        }
        let Some(mut kept) = self.kept.remove(&tuple) else { return Ok(()) };
        self.resolver.close(&kept.endpoints);
        match &mut kept.flow {
            Some(flow) => close(flow, time.max(kept.time), kept.complete, kept.interface, capture),
            None => Ok(()),
        }
    }

    /// The capture is complete but for the ends of connections, of which nothing is recorded.
    pub(super) fn close_all(&mut self, capture: &mut Capture) -> io::Result<()> {
        while !self.oldest.is_empty() {
            self.close_oldest(self.latest, capture)?;
        }
        Ok(())
    }
}

fn close(flow: &mut Flow, time: Nanos, complete: bool, interface: u32, capture: &mut Capture) -> io::Result<()> {
    let sink = &mut capture.interface(interface);
    if complete { flow.close(time, sink) } else { flow.abandon(time, sink) }
}
