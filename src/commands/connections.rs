//! Decides which packets belong to one connection, across all sources of a capture.
//!
//! The HTTP tap records exchanges, each by itself and often in a file of its own. Exchanges of one connection have the
//! same addresses. HTTP/1 carries one exchange at a time: the connection stays open when an exchange ends, and the next
//! one with the same addresses continues it. HTTP/2 carries many at once, each in a stream: an exchange with the same
//! addresses joins the connection during or after the others. Either connection ends when no exchange can follow, at
//! the latest at the end of the capture.

use std::{
    collections::{HashMap, VecDeque},
    io,
};

use crate::{
    synth::MAX_JOINED,
    timeline::{AddressPair, EndpointTable, Endpoints, Mappings, Opening, Role},
    trace::Nanos,
};

/// The most idle connections that are remembered. With one more, the oldest is closed and forgotten.
const MAX_KEPT: usize = 1024;

/// How long a connection may be idle between two exchanges, in nanoseconds: Envoy closes it after an hour unless
/// `common_http_protocol_options.idle_timeout` says otherwise.
const MAX_IDLE: Nanos = 3_600_000_000_000;

/// Identifies a connection, so that a later exchange finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// By the connection's own addresses.
    Own(AddressPair),
    /// By the addresses that the exchanges of an HTTP/2 connection have recorded, and the side that was tapped. The
    /// connection's own client port is made up if another connection has the recorded one.
    Shared(AddressPair, Role),
}

/// Identifies an HTTP/2 connection that several exchanges share.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedKey(Key);

/// A connection that another exchange may continue, or that must not be mistaken for another exchange's.
struct Kept<F> {
    endpoints: Endpoints,
    role: Role,
    /// The time of the first packet.
    began: Nanos,
    /// The time of the last packet.
    time: Nanos,
    /// The flow that the next exchange continues. An HTTP/1 flow is not kept after an exchange that is not complete, or
    /// that is the last one of its connection. It is not kept either if the client's port is made up: an exchange that
    /// has recorded this port is another connection's.
    flow: Option<F>,
    /// HTTP/2: how many exchanges are under way.
    open: usize,
    /// HTTP/2: how many exchanges have joined the first.
    joined: u32,
    /// Whether the exchange that ended last was complete. An unfinished stream before it does not tell how the
    /// connection ended.
    complete: bool,
    stamp: u64,
}

impl<F> Kept<F> {
    /// Whether an exchange that begins at `time` can be another stream. A source that records exchanges when they end
    /// has them in the order of their ends, so this exchange may begin before those that were written.
    fn takes(&self, time: Nanos) -> bool {
        let idle = if self.open > 0 { 0 } else { time.saturating_sub(self.time) };
        idle.max(self.began.saturating_sub(time)) <= MAX_IDLE && self.joined < MAX_JOINED
    }
}

/// The connections of one capture. `F` is what the caller keeps of each connection between two exchanges.
pub(super) struct Connections<F> {
    table: EndpointTable,
    kept: HashMap<Key, Kept<F>>,
    /// How many of the kept connections are shared.
    shared: usize,
    /// How many of the kept connections are idle: they have no exchange under way.
    idle: usize,
    /// The idle connections with their stamps, in the order in which they became idle. An entry is stale if its
    /// connection has continued since then.
    oldest: VecDeque<(Key, u64)>,
    stamp: u64,
    /// The latest end of an exchange or a connection.
    latest: Nanos,
}

/// How a connection begins.
pub(super) enum Begun<F> {
    /// It is new, and begins with a handshake. If there is a key, the caller passes the flow to [`Connections::share`].
    New(Endpoints, Option<SharedKey>),
    /// It continues this flow, whose exchange before is over.
    Resumed(F, Endpoints),
    /// It joins the flow that [`Connections::shared`] returns for this key.
    Joined(SharedKey, Endpoints),
}

/// A connection that is over.
pub(super) struct Over<F> {
    pub flow: F,
    pub time: Nanos,
    /// Whether its end is known, or is taken to be known.
    pub complete: bool,
}

impl<F> Connections<F> {
    pub(super) fn new(mappings: Mappings) -> Self {
        let table = EndpointTable::new(mappings);
        Self { table, kept: HashMap::new(), idle: 0, shared: 0, oldest: VecDeque::new(), stamp: 0, latest: 0 }
    }

    /// Begins a connection of the source with the name `source`. Passes connections that are over by now to `close`.
    pub(super) fn begin(
        &mut self,
        source: &str,
        opening: &Opening,
        time: Nanos,
        close: &mut dyn FnMut(Over<F>) -> io::Result<()>,
    ) -> io::Result<Begun<F>> {
        self.latest = self.latest.max(time);
        let endpoints = self.table.assign(source, opening);
        let (tuple, role) = (endpoints.tuple(opening.role), opening.role);
        let version = opening.http.as_ref().map(|http| http.version);
        let shared = Key::Shared(tuple, role);
        let shares = version == Some(2) && endpoints.recorded;
        if shares && let Some(kept) = self.kept.get_mut(&shared).filter(|kept| kept.takes(time)) {
            self.idle -= usize::from(kept.open == 0);
            (kept.open, kept.joined) = (kept.open + 1, kept.joined + 1);
            return Ok(Begun::Joined(SharedKey(shared), kept.endpoints.clone()));
        }
        let keys = [Key::Own(tuple), Key::Shared(tuple, Role::Downstream), Key::Shared(tuple, Role::Upstream)];
        for key in keys.into_iter().take(if self.shared == 0 { 1 } else { keys.len() }) {
            let Some(kept) = self.kept.get(&key).filter(|kept| kept.open == 0 && kept.time <= time) else { continue };
            let idle = time - kept.time;
            let resumes = version == Some(1) && idle <= MAX_IDLE && kept.role == role && matches!(key, Key::Own(_));
            if !(resumes && kept.flow.is_some()) && version.is_some() && idle <= MAX_IDLE {
                continue;
            }
            let Some(kept) = self.take_idle(key) else { continue };
            match kept.flow {
                Some(flow) if resumes => return Ok(Begun::Resumed(flow, kept.endpoints)),
                flow => {
                    // The addresses belong to another connection from now on.
                    self.table.close(&kept.endpoints);
                    if let Some(flow) = flow {
                        close(Over { flow, time: kept.time.max(self.latest), complete: kept.complete })?;
                    }
                }
            }
        }
        let endpoints = self.table.reserve(source, opening, endpoints);
        let key = (shares && !self.kept.contains_key(&shared)).then_some(SharedKey(shared));
        Ok(Begun::New(endpoints, key))
    }

    /// Adds a new connection that other exchanges may join.
    pub(super) fn share(&mut self, key: SharedKey, flow: F, endpoints: Endpoints, role: Role, time: Nanos) {
        let flow = Some(flow);
        let kept = Kept { endpoints, role, began: time, time, flow, open: 1, joined: 0, complete: true, stamp: 0 };
        self.shared += usize::from(self.kept.insert(key.0, kept).is_none());
    }

    /// The flow of a shared connection, and the time to write an entry of `time` with. This is not before the time of
    /// the entries that were written, because a connection does not go back in time.
    pub(super) fn shared(&mut self, key: SharedKey, time: Nanos) -> Option<(&mut F, Nanos)> {
        let kept = self.kept.get_mut(&key.0)?;
        kept.time = kept.time.max(time);
        Some((kept.flow.as_mut()?, kept.time))
    }

    /// Ends an exchange of a shared connection. Passes connections that are over by now to `close`.
    pub(super) fn end_shared(
        &mut self,
        key: SharedKey,
        complete: bool,
        close: &mut dyn FnMut(Over<F>) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(kept) = self.kept.get_mut(&key.0) else { return Ok(()) };
        self.latest = self.latest.max(kept.time);
        (kept.open, kept.complete) = (kept.open.saturating_sub(1), complete);
        if kept.open > 0 {
            return Ok(());
        }
        self.stamp += 1;
        kept.stamp = self.stamp;
        self.put_last(key.0, close)
    }

    /// Ends a connection, as far as its source knows. Passes connections that are over by now to `close`.
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
            self.table.close(&endpoints);
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
        let key = Key::Own(endpoints.tuple(role));
        let kept = Kept { endpoints, role, began: time, time, flow, open: 0, joined: 0, complete: true, stamp };
        if self.kept.insert(key, kept).is_some() {
            self.idle -= 1;
        }
        self.put_last(key, close)
    }

    /// Makes the connection idle: it has no exchange under way from now on.
    fn put_last(&mut self, key: Key, close: &mut dyn FnMut(Over<F>) -> io::Result<()>) -> io::Result<()> {
        self.oldest.push_back((key, self.stamp));
        self.idle += 1;
        if self.oldest.len() > 2 * MAX_KEPT {
            let kept = &self.kept;
            self.oldest.retain(|(key, stamp)| kept.get(key).is_some_and(|kept| kept.stamp == *stamp && kept.open == 0));
        }
        while self.idle > MAX_KEPT
            && let Some(oldest) = self.oldest.pop_front()
        {
            if let Some(over) = self.forget(oldest) {
                close(over)?;
            }
        }
        Ok(())
    }

    /// Removes an idle connection.
    fn take_idle(&mut self, key: Key) -> Option<Kept<F>> {
        self.idle -= 1;
        self.shared -= usize::from(matches!(key, Key::Shared(..)));
        self.kept.remove(&key)
    }

    fn forget(&mut self, (key, stamp): (Key, u64)) -> Option<Over<F>> {
        // A connection that another exchange continued since then is not forgotten.
        self.kept.get(&key).filter(|kept| kept.stamp == stamp && kept.open == 0)?;
        let kept = self.take_idle(key)?;
        self.table.close(&kept.endpoints);
        kept.flow.map(|flow| Over { flow, time: self.latest.max(kept.time), complete: kept.complete })
    }

    /// Ends the connections that were kept open, because the capture is complete but for them. The tap does not record
    /// their ends.
    pub(super) fn end_all(&mut self, close: &mut dyn FnMut(Over<F>) -> io::Result<()>) -> io::Result<()> {
        while let Some(oldest) = self.oldest.pop_front() {
            if let Some(over) = self.forget(oldest) {
                close(over)?;
            }
        }
        Ok(())
    }
}
