//! Which packets are one connection: of every source that goes into one capture.
//!
//! A tap of HTTP records exchanges, each by itself and often in a file of its own. Those of one connection have the same
//! addresses. HTTP/1 carries one exchange at a time: the connection stays open when one ends, and the next exchange with
//! its addresses goes on there. HTTP/2 carries many at once, each in a stream: an exchange with its addresses joins the
//! connection while others are under way, or after them. Either connection ends where nothing can follow, at the latest
//! with the capture.

use std::{
    collections::{HashMap, VecDeque},
    io,
};

use crate::{
    synth::MAX_JOINED,
    timeline::{AddressPair, EndpointTable, Endpoints, Mappings, Opening, Role},
    trace::Nanos,
};

/// Connections without an exchange under way that are remembered; with one more, the oldest is closed and forgotten.
const MAX_KEPT: usize = 4096;

/// How long a connection may be idle between two exchanges, in nanoseconds: Envoy closes it after an hour unless
/// `common_http_protocol_options.idle_timeout` says otherwise.
const MAX_IDLE: Nanos = 3_600_000_000_000;

/// What finds a connection again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// By the addresses that it has.
    Own(AddressPair),
    /// HTTP/2, by the addresses that its exchanges have recorded, and whose side of them. Its own client port is made up
    /// where another connection has the recorded one.
    Shared(AddressPair, Role),
}

/// Finds a connection of HTTP/2 that several exchanges share.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedKey(Key);

/// A connection of which another exchange may come, or that has to be told from one.
struct Kept<F> {
    endpoints: Endpoints,
    role: Role,
    /// Of its first packet.
    began: Nanos,
    /// Of its last packet.
    time: Nanos,
    /// What the next exchange goes on with. Nothing is kept open of HTTP/1 after an exchange that is not complete or that
    /// is the last one of its connection; nor where the client's port is made up, because an exchange that has it
    /// recorded is another connection's.
    flow: Option<F>,
    /// HTTP/2: exchanges under way, and how many have joined the first.
    open: usize,
    joined: u32,
    /// The exchange that ended last was complete. An unfinished stream before it says nothing of the connection.
    complete: bool,
    stamp: u64,
}

impl<F> Kept<F> {
    /// Whether an exchange that begins at `time` can be another stream. Sources that record exchanges when they end have
    /// them in that order, so it may begin before those that were written.
    fn takes(&self, time: Nanos) -> bool {
        let idle = if self.open > 0 { 0 } else { time.saturating_sub(self.time) };
        idle.max(self.began.saturating_sub(time)) <= MAX_IDLE && self.joined < MAX_JOINED
    }
}

/// The connections of one capture. `F` is what its user keeps of each of them between two exchanges.
pub(super) struct Connections<F> {
    table: EndpointTable,
    kept: HashMap<Key, Kept<F>>,
    /// How many of these are shared.
    shared: usize,
    /// How many of them have no exchange under way.
    idle: usize,
    /// These, in the order in which they became so; those that went on since are in it once more.
    oldest: VecDeque<(Key, u64)>,
    stamp: u64,
    /// The latest end of an exchange or a connection.
    latest: Nanos,
}

/// How a connection begins.
pub(super) enum Begun<F> {
    /// With a handshake. One that has a key is handed to [`Connections::share`].
    New(Endpoints, Option<SharedKey>),
    /// It is there already, and the exchange before is over.
    Resumed(F, Endpoints),
    /// It is there already: [`Connections::shared`] has it.
    Joined(SharedKey, Endpoints),
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
        let table = EndpointTable::new(mappings);
        Self { table, kept: HashMap::new(), idle: 0, shared: 0, oldest: VecDeque::new(), stamp: 0, latest: 0 }
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
                    // These addresses are another connection's by now.
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

    /// Takes a new connection that other exchanges may join.
    pub(super) fn share(&mut self, key: SharedKey, flow: F, endpoints: Endpoints, role: Role, time: Nanos) {
        let flow = Some(flow);
        let kept = Kept { endpoints, role, began: time, time, flow, open: 1, joined: 0, complete: true, stamp: 0 };
        self.shared += usize::from(self.kept.insert(key.0, kept).is_none());
    }

    /// A connection that is shared, for an entry of this time. The time that is answered is not before those of the
    /// entries that were written: a connection does not go back in time.
    pub(super) fn shared(&mut self, key: SharedKey, time: Nanos) -> Option<(&mut F, Nanos)> {
        let kept = self.kept.get_mut(&key.0)?;
        kept.time = kept.time.max(time);
        Some((kept.flow.as_mut()?, kept.time))
    }

    /// An exchange of a shared connection ends. Connections that are over by now are handed to `close`.
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

    /// The connection has no exchange under way from now on.
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

    /// Takes a connection out that has no exchange under way.
    fn take_idle(&mut self, key: Key) -> Option<Kept<F>> {
        self.idle -= 1;
        self.shared -= usize::from(matches!(key, Key::Shared(..)));
        self.kept.remove(&key)
    }

    fn forget(&mut self, (key, stamp): (Key, u64)) -> Option<Over<F>> {
        // Unless it went on since then.
        self.kept.get(&key).filter(|kept| kept.stamp == stamp && kept.open == 0)?;
        let kept = self.take_idle(key)?;
        self.table.close(&kept.endpoints);
        kept.flow.map(|flow| Over { flow, time: self.latest.max(kept.time), complete: kept.complete })
    }

    /// The capture is complete but for the ends of connections, of which nothing is recorded.
    pub(super) fn end_all(&mut self, close: &mut dyn FnMut(Over<F>) -> io::Result<()>) -> io::Result<()> {
        while let Some(oldest) = self.oldest.pop_front() {
            if let Some(over) = self.forget(oldest) {
                close(over)?;
            }
        }
        Ok(())
    }
}
