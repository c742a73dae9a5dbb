//! The configuration of `record`: the part of an Envoy bootstrap that a tap of TCP needs.
//!
//! A field is known here only if it does here what it does in Envoy. Everything else is refused by its full path,
//! because a tap that silently does something else than the Envoy it stands for is worse than none.

mod message;
mod resolve;

use std::path::Path;

use serde_json::Value;
use thiserror::Error;

use super::{FilePerTap, Route, Tap, TapSettings};

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Not JSON.
    #[error("not JSON")]
    Json(#[from] serde_json::Error),
    /// Not YAML.
    #[error("not YAML")]
    Yaml(#[from] Box<serde_saphyr::Error>),
    /// Understood, and not possible. The path is the one a reader finds in the file.
    #[error("{path}: {reason}")]
    Refused {
        /// Such as `static_resources.listeners[0].address`.
        path: String,
        /// Why.
        reason: String,
    },
}

/// How a configuration is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// YAML, of which most JSON is a part.
    Yaml,
    /// JSON.
    Json,
}

impl Syntax {
    /// By the file's name, as Envoy decides it: `.json` is JSON.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        if path.extension().is_some_and(|extension| extension == "json") { Self::Json } else { Self::Yaml }
    }
}

/// What a configuration asks for.
pub struct Config {
    /// One for each listener.
    pub routes: Vec<Route>,
    /// `admin` is there. It is accepted, because nearly every bootstrap has it, and ignored.
    pub has_admin: bool,
}

impl Config {
    /// Reads a bootstrap. `make_tap` gives a tap its clock, and somebody to report to.
    ///
    /// # Errors
    /// [`ConfigError`]: the first thing that is not understood or not possible.
    pub fn parse(
        text: &str,
        syntax: Syntax,
        make_tap: impl Fn(TapSettings, FilePerTap) -> Tap,
    ) -> Result<Self, ConfigError> {
        let mut value: Value = match syntax {
            Syntax::Json => serde_json::from_str(text)?,
            Syntax::Yaml => serde_saphyr::from_str(text).map_err(Box::new)?,
        };
        let has_admin = value.as_object_mut().is_some_and(|bootstrap| bootstrap.remove("admin").is_some());
        let bootstrap = message::read(&value)?;
        let routes = resolve::routes(&bootstrap, &make_tap)?;
        Ok(Self { routes, has_admin })
    }
}

/// A place in the configuration, written as in the file.
#[derive(Clone, Debug, Default)]
struct ConfigPath(String);

impl ConfigPath {
    fn field(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    fn item(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    fn refuse(&self, reason: impl Into<String>) -> ConfigError {
        let path = if self.0.is_empty() { "the configuration".to_owned() } else { self.0.clone() };
        ConfigError::Refused { path, reason: reason.into() }
    }
}
