//! The configuration of `record`, as YAML and as JSON.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::{Corpus, fuzz_target};
use tap2pcap::tap::{Config, ConfigError, FilePerTap, ManualClock, Syntax, Tap, TapSettings};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = str::from_utf8(data) else { return Corpus::Reject };
    // Certificates are read from where a configuration says: not from any place of this machine.
    if text.contains("ilename") || text.contains("\\") {
        return Corpus::Reject;
    }
    let make_tap =
        |settings: TapSettings, sink: FilePerTap| Tap::new(settings, Arc::new(sink), Arc::new(ManualClock::default()));
    let [yaml, json] = [Syntax::Yaml, Syntax::Json].map(|syntax| Config::parse(text, syntax, make_tap));
    for config in [&yaml, &json] {
        match config {
            Ok(config) => assert!(!config.routes.is_empty()),
            Err(ConfigError::Refused { path, reason }) => assert!(!path.is_empty() && !reason.is_empty()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    if let (Ok(yaml), Ok(json)) = (yaml, json) {
        assert_eq!(yaml.routes.len(), json.routes.len());
    }
    Corpus::Keep
});
