//! Which taps are configured, from `/config_dump`.
//!
//! The answer can have tens of megabytes, and says of each listener and cluster all that there is. So it is not made
//! into values: each object returns the taps within it, and what its parents must know of it.

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

use crate::untrusted;

/// More than a request could use.
const MAX_TAPS: usize = 10_000;
/// Bytes of a name, such as a listener's.
const MAX_NAME: usize = 256;
/// Bytes of a config_id that can be asked for.
pub(super) const MAX_CONFIG_ID: usize = 4096;
/// What the place of a tap has besides the listener or cluster.
const MAX_PARTS: usize = 4;

/// Where a tap is in Envoy, which is what it can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TapKind {
    /// The transport socket of a listener: bytes of clients.
    Downstream,
    /// The transport socket of a cluster: bytes of servers.
    Upstream,
    /// The HTTP filter: requests and responses.
    HttpFilter,
}

impl TapKind {
    /// What it sees, for people.
    #[must_use]
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Downstream => "sockets of clients",
            Self::Upstream => "sockets of servers",
            Self::HttpFilter => "HTTP requests",
        }
    }
}

/// A tap with an `admin_config`. Its texts come from the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfiguredTap {
    /// What a request names it by. Several taps can have the same.
    pub(crate) config_id: String,
    /// What it is part of.
    pub(crate) kind: TapKind,
    /// Where that is, for people: `listener ingress, filter chain 2`.
    pub(crate) place: String,
    /// Of which listener, cluster or extension configuration.
    pub(super) owner: Owner,
    /// How the counters of its connection manager begin: `http.` and this.
    pub(super) stat_prefix: Option<String>,
    /// It is in a configuration that is not in use yet.
    pub(super) is_warming: bool,
    /// It takes only some of what there is.
    pub(super) is_sampling: bool,
}

/// What has a tap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Owner {
    Listener {
        name: String,
        stat_prefix: Option<String>,
    },
    Cluster {
        name: String,
        stat_name: Option<String>,
    },
    Extension {
        name: String,
    },
    #[default]
    Unknown,
}

/// All taps with an `admin_config`.
///
/// # Errors
/// It is no configuration of an Envoy.
pub(crate) fn taps(json: &[u8]) -> Result<Vec<ConfiguredTap>, String> {
    let mut count = 0;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let found = Node { key: "", count: &mut count }
        .deserialize(&mut deserializer)
        .and_then(|found| deserializer.end().map(|()| found))
        .map_err(|error| error.to_string())?;
    if !found.has_configs {
        return Err("it has no list named `configs`".into());
    }
    let mut taps: Vec<ConfiguredTap> = Vec::new();
    for tap in found.taps {
        let tap = tap.finish();
        // A listener that is replaced is there twice, old and new.
        if !taps
            .iter()
            .rev()
            .take(64)
            .any(|other| other.config_id == tap.config_id && other.kind == tap.kind && other.place == tap.place)
        {
            taps.push(tap);
        }
    }
    Ok(taps)
}

/// What an object has within it.
#[derive(Default)]
struct Found {
    taps: Vec<Tap>,
    /// It is a string.
    text: Option<String>,
    name: Option<String>,
    stat_prefix: Option<String>,
    alt_stat_name: Option<String>,
    type_url: Option<String>,
    /// Its own `config_id`, that of its `admin_config`, and that of its `common_config`.
    config_id: Option<String>,
    admin_id: Option<String>,
    tap_id: Option<String>,
    is_sampling: bool,
    has_configs: bool,
}

struct Tap {
    config_id: String,
    is_http: bool,
    owner: Owner,
    stat_prefix: Option<String>,
    /// From the inside out.
    parts: Vec<String>,
    is_warming: bool,
    is_sampling: bool,
}

impl Tap {
    fn part(&mut self, part: String) {
        if self.parts.len() < MAX_PARTS {
            self.parts.push(part);
        }
    }

    fn finish(self) -> ConfiguredTap {
        let kind = match (&self.owner, self.is_http) {
            (_, true) => TapKind::HttpFilter,
            (Owner::Cluster { .. }, false) => TapKind::Upstream,
            (_, false) => TapKind::Downstream,
        };
        let mut place = match &self.owner {
            Owner::Listener { name, .. } => format!("listener {name}"),
            Owner::Cluster { name, .. } => format!("cluster {name}"),
            Owner::Extension { name } => format!("extension configuration {name}"),
            Owner::Unknown => "a place that is not known".into(),
        };
        for part in self.parts.iter().rev() {
            place.push_str(", ");
            place.push_str(part);
        }
        ConfiguredTap {
            config_id: self.config_id,
            kind,
            place,
            owner: self.owner,
            stat_prefix: self.stat_prefix,
            is_warming: self.is_warming,
            is_sampling: self.is_sampling,
        }
    }
}

/// A name as it is kept. It is that of the same listener wherever Envoy names it.
pub(super) fn name(text: &str) -> String {
    untrusted::cap(text, MAX_NAME).into_owned()
}

/// Of a type's URL, which tap it is: of HTTP, or of a socket.
fn tap_type(url: &str) -> Option<bool> {
    match url.rsplit('/').next()? {
        "envoy.extensions.filters.http.tap.v3.Tap" | "envoy.config.filter.http.tap.v2alpha.Tap" => Some(true),
        "envoy.extensions.transport_sockets.tap.v3.Tap" | "envoy.config.transport_socket.tap.v2alpha.Tap" => {
            Some(false)
        }
        _ => None,
    }
}

/// The value of a key, or of an element of the list that the key has.
struct Node<'a> {
    key: &'a str,
    count: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        let text = match self.key {
            "name" | "stat_prefix" | "alt_stat_name" => Some(name(text)),
            "config_id" if text.len() <= MAX_CONFIG_ID => Some(text.to_owned()),
            "@type" | "type_url" if text.len() <= MAX_NAME => Some(text.to_owned()),
            _ => None,
        };
        Ok(Found { text, ..Found::default() })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        let mut number = 0;
        while let Some(mut element) = list.next_element_seed(Node { key: self.key, count: self.count })? {
            number += 1;
            let what = match self.key {
                "filter_chains" => Some("filter chain"),
                "transport_socket_matches" => Some("transport socket match"),
                _ => None,
            };
            if let Some(what) = what {
                for tap in &mut element.taps {
                    tap.part(match element.name.as_deref() {
                        Some(name) if !name.is_empty() => format!("{what} {number} ({name})"),
                        _ => format!("{what} {number}"),
                    });
                }
            }
            found.is_sampling |= element.is_sampling;
            found.taps.append(&mut element.taps);
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                // What was loaded at the start is also among the listeners and clusters. The others are not in use.
                "bootstrap" | "draining_state" | "error_state" | "static_route_configs" | "dynamic_route_configs" => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                _ => {}
            }
            let mut value = map.next_value_seed(Node { key: &key, count: self.count })?;
            found.is_sampling |= value.is_sampling;
            match key.as_str() {
                "name" => found.name = value.text,
                "stat_prefix" => found.stat_prefix = value.text,
                "alt_stat_name" => found.alt_stat_name = value.text,
                "config_id" => found.config_id = value.text,
                // A TypedStruct has both, and the second tells what it holds.
                "type_url" => found.type_url = value.text,
                "@type" => found.type_url = found.type_url.or(value.text),
                "admin_config" => found.admin_id = value.config_id,
                "common_config" => found.tap_id = value.admin_id,
                "value" => {
                    found.tap_id = found.tap_id.or(value.tap_id);
                    found.stat_prefix = found.stat_prefix.or(value.stat_prefix);
                }
                "tap_enabled" => found.is_sampling = true,
                "configs" => found.has_configs = true,
                "default_filter_chain" => {
                    value.taps.iter_mut().for_each(|tap| tap.part("default filter chain".into()));
                }
                "warming_state" | "dynamic_warming_clusters" => {
                    value.taps.iter_mut().for_each(|tap| tap.is_warming = true);
                }
                "listener" | "cluster" | "ecds_filter" => {
                    let name = value.name.unwrap_or_default();
                    let owner = match key.as_str() {
                        "listener" => Owner::Listener { name, stat_prefix: value.stat_prefix },
                        "cluster" => Owner::Cluster { name, stat_name: value.alt_stat_name },
                        _ => Owner::Extension { name },
                    };
                    for tap in value.taps.iter_mut().filter(|tap| tap.owner == Owner::Unknown) {
                        tap.owner = owner.clone();
                    }
                }
                _ => {}
            }
            found.taps.append(&mut value.taps);
        }
        if let Some(url) = &found.type_url {
            if let Some(is_http) = tap_type(url)
                && let Some(config_id) = found.tap_id.take()
            {
                *self.count += 1;
                if *self.count > MAX_TAPS {
                    return Err(A::Error::custom(format_args!("it has more than {MAX_TAPS} taps")));
                }
                found.taps.push(Tap {
                    config_id,
                    is_http,
                    owner: Owner::Unknown,
                    stat_prefix: None,
                    parts: Vec::new(),
                    is_warming: false,
                    is_sampling: std::mem::take(&mut found.is_sampling),
                });
            } else if url.ends_with(".HttpConnectionManager") {
                for tap in found.taps.iter_mut().filter(|tap| tap.stat_prefix.is_none()) {
                    tap.stat_prefix.clone_from(&found.stat_prefix);
                }
            }
        }
        Ok(found)
    }
}
