//! Counters that tell whether there was anything to tap, from `/stats`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The filter is `(cx_total|cx_active|rq_total)$`, in a URI. Without it, an Envoy tells of a hundred thousand others.
pub(super) const PATH: &str = "/stats?format=json&filter=%28cx_total%7Ccx_active%7Crq_total%29%24";

/// Bytes of a name: those of listeners and clusters are shorter.
const MAX_NAME: usize = 1024;
const MAX_COUNTERS: usize = 200_000;

/// The values of counters at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters(BTreeMap<String, u64>);

#[derive(Deserialize)]
struct Stats {
    #[serde(deserialize_with = "each")]
    stats: Counters,
}

#[derive(Deserialize)]
struct Stat {
    // Histograms have no name, and a text no number.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    value: Option<serde_json::Value>,
}

fn each<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Counters, D::Error> {
    struct Each;

    impl<'de> serde::de::Visitor<'de> for Each {
        type Value = Counters;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of counters")
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Counters, A::Error> {
            let mut counters = Counters::default();
            while let Some(stat) = list.next_element::<Stat>()? {
                if let (Some(name), Some(value)) = (stat.name, stat.value.and_then(|value| value.as_u64()))
                    && name.len() <= MAX_NAME
                {
                    if counters.0.len() == MAX_COUNTERS {
                        return Err(serde::de::Error::custom(format_args!("it has more than {MAX_COUNTERS} counters")));
                    }
                    counters.0.insert(stat_name(&name), value);
                }
            }
            Ok(counters)
        }
    }

    deserializer.deserialize_seq(Each)
}

/// Envoy's names of counters have no colons: addresses and names get underscores instead.
pub(super) fn stat_name(name: &str) -> String {
    name.replace(':', "_")
}

impl Counters {
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map(|stats: Stats| stats.stats).map_err(|error| error.to_string())
    }

    /// `None` if Envoy has no counter of this name.
    pub(super) fn get(&self, name: &str) -> Option<u64> {
        self.0.get(&stat_name(name)).copied()
    }

    /// How much a counter grew. Since an Envoy that restarted began at 0, a smaller value counts as it is.
    pub(super) fn since(&self, before: &Self, name: &str) -> Option<u64> {
        let (now, before) = (self.get(name)?, before.get(name).unwrap_or(0));
        Some(if now < before { now } else { now - before })
    }
}
