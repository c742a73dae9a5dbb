//! The configuration of `record`: the part of an Envoy bootstrap that a TCP tap needs.
//!
//! A field is accepted only if it has the same effect as in Envoy. Everything else is refused, with its full path: a
//! tap that silently differs from the Envoy whose place it takes is worse than no tap.

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
    /// A field that is understood, but not possible.
    #[error("{path}: {reason}")]
    Refused {
        /// The field's path in the file, such as `static_resources.listeners[0].address`.
        path: String,
        /// Why.
        reason: String,
    },
}

/// The notation of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// YAML, which includes most JSON.
    Yaml,
    /// JSON.
    Json,
}

impl Syntax {
    /// The syntax of a file by its name, as in Envoy: `.json` is JSON.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        if path.extension().is_some_and(|extension| extension == "json") { Self::Json } else { Self::Yaml }
    }
}

/// What a configuration asks for.
pub struct Config {
    /// One for each listener.
    pub routes: Vec<Route>,
    /// Whether there is an `admin` field. It is accepted, because nearly every bootstrap has it, but ignored.
    pub has_admin: bool,
}

impl Config {
    /// Reads a bootstrap. `make_tap` creates each tap, with its clock and its error handler.
    ///
    /// # Errors
    /// [`ConfigError`] for the first field that is not understood or not possible.
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

/// The path of a field in the configuration, with the names that the file uses.
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
