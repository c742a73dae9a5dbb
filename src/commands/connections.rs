//! Which packets are one connection: of every source that goes into one capture.
//!
//! A tap of HTTP records exchanges, each by itself and often in a file of its own. Those of one kept-alive HTTP/1
//! connection have the same addresses, and follow each other. So the connection of a replayed exchange stays open until
//! the capture ends, and the next exchange with its addresses goes on there.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    io,
    net::SocketAddr,
};

use crate::{
    timeline::{Endpoints, Mappings, Opening, Resolver, Role},
    trace::Nanos,
};

/// Connections of replayed exchanges that are remembered; with one more, the oldest is closed and forgotten.
const MAX_KEPT: usize = 4096;

/// How long a connection may be idle between two exchanges, in nanoseconds: Envoy closes it after an hour unless
/// `common_http_protocol_options.idle_timeout` says otherwise.
const MAX_IDLE: Nanos = 3_600_000_000_000;

/// The client's and the server's address.
type Tuple = (SocketAddr, SocketAddr);

/// A connection of which another exchange may come, or that has to be told from one.
struct Kept<F> {
    endpoints: Endpoints,
    role: Role,
    /// Of its last packet.
    time: Nanos,
    /// What the next exchange goes on with. Nothing is kept open of HTTP/2, which began with a greeting and numbers its
    /// streams; after an exchange that is not complete or that is the last one of its connection; nor where the client's
    /// port is made up, because an exchange that has it recorded is another connection's.
    flow: Option<F>,
    stamp: u64,
}

/// The connections of one capture. `F` is what its user keeps of each of them between two exchanges.
pub(super) struct Connections<F> {
    resolver: Resolver,
    kept: HashMap<Tuple, Kept<F>>,
    /// In the order in which they were put there; those that went on since are in it once more.
    oldest: VecDeque<(Tuple, u64)>,
    stamp: u64,
    /// The latest end of an exchange or a connection.
    latest: Nanos,
}

/// How a connection begins.
pub(super) enum Begun<F> {
    /// With a handshake.
    New(Endpoints),
    /// It is there already.
    Resumed(F, Endpoints),
}

/// A connection that is over.
pub(super) struct Over<F> {
    pub flow: F,
    pub time: Nanos,
    /// Whether its end is known, or taken for known.
    pub complete: bool,
}

impl<F> Connections<F> {
    pub(super) fn new(mappings: Mappings) -> Self {
        Self { resolver: Resolver::new(mappings), kept: HashMap::new(), oldest: VecDeque::new(), stamp: 0, latest: 0 }
    }

    /// A connection of the source that is called `source` begins. One that is over by now is handed to `close`.
    pub(super) fn begin(
        &mut self,
        source: &str,
        opening: &Opening,
        time: Nanos,
        close: &mut dyn FnMut(Over<F>) -> io::Result<()>,
    ) -> io::Result<Begun<F>> {
        self.latest = self.latest.max(time);
        let endpoints = self.resolver.resolve(source, opening);
        let (client, server) = endpoints.tuple(opening.role);
        if let Entry::Occupied(kept) = self.kept.entry((client, server))
            && kept.get().time <= time
        {
            let idle = time - kept.get().time;
            let joins = opening.http.as_ref().is_some_and(|http| http.version == 1) && idle <= MAX_IDLE;
            if joins && kept.get().role == opening.role && kept.get().flow.is_some() {
                let Kept { flow, endpoints, .. } = kept.remove();
                if let Some(flow) = flow {
                    return Ok(Begun::Resumed(flow, endpoints));
                }
            } else if opening.http.is_none() || idle > MAX_IDLE {
                // These addresses are another connection's by now.
                let Kept { flow, endpoints, time, .. } = kept.remove();
                self.resolver.close(&endpoints);
                if let Some(flow) = flow {
                    close(Over { flow, time: time.max(self.latest), complete: true })?;
                }
            }
        }
        Ok(Begun::New(self.resolver.reserve(source, opening, endpoints)))
    }

    /// A connection ends, as far as its source knows. Those that are over by now are handed to `close`.
    pub(super) fn end(
        &mut self,
        flow: F,
        endpoints: Endpoints,
        opening: &Opening,
        time: Nanos,
        complete: bool,
        close: &mut dyn FnMut(Over<F>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.latest = self.latest.max(time);
        let Some(http) = opening.http.as_ref().filter(|_| endpoints.recorded) else {
            self.resolver.close(&endpoints);
            return close(Over { flow, time, complete });
        };
        let flow = if http.version == 1 && complete && !http.last && !endpoints.kept_apart {
            Some(flow)
        } else {
            close(Over { flow, time, complete })?;
            None
        };
        self.stamp += 1;
        let (stamp, role) = (self.stamp, opening.role);
        let tuple = endpoints.tuple(role);
        self.kept.insert(tuple, Kept { endpoints, role, time, flow, stamp });
        self.oldest.push_back((tuple, stamp));
        if self.oldest.len() > 2 * MAX_KEPT {
            let kept = &self.kept;
            self.oldest.retain(|(tuple, stamp)| kept.get(tuple).is_some_and(|kept| kept.stamp == *stamp));
        }
        while self.kept.len() > MAX_KEPT {
            if let Some(over) = self.forget_oldest(time) {
                close(over)?;
            }
        }
        Ok(())
    }

    fn forget_oldest(&mut self, time: Nanos) -> Option<Over<F>> {
        let (tuple, stamp) = self.oldest.pop_front()?;
        let kept = match self.kept.entry(tuple) {
            Entry::Occupied(kept) if kept.get().stamp == stamp => kept.remove(),
            // It went on since then.
            _ => return None,
        };
        self.resolver.close(&kept.endpoints);
        kept.flow.map(|flow| Over { flow, time: time.max(kept.time), complete: true })
    }

    /// The capture is complete but for the ends of connections, of which nothing is recorded.
    pub(super) fn end_all(&mut self, close: &mut dyn FnMut(Over<F>) -> io::Result<()>) -> io::Result<()> {
        while !self.oldest.is_empty() {
            if let Some(over) = self.forget_oldest(self.latest) {
                close(over)?;
            }
        }
        Ok(())
    }
}
