//! The formats of lines: Envoy's format strings, and the objects of a `json_format`.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;

use super::{
    entry::LogEntry,
    json,
    operator::{Part, What, parts},
};

/// Envoy's own format.
const ENVOY: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%""#;

/// Istio's.
const ISTIO: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%"#;

/// Istio's before 1.8.
const OLD_ISTIO: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% "%DYNAMIC_METADATA(istio.mixer:status)%" "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%"#;

/// The formats that nobody needs to name. A line of Envoy's is no line of Istio's, and none of them begins as another.
static USUAL: LazyLock<Vec<TextFormat>> = LazyLock::new(|| {
    // They are constants, which a test reads lines with.
    [ENVOY, ISTIO, OLD_ISTIO].into_iter().filter_map(|format| TextFormat::new(format).ok()).collect()
});

/// Reads a line in one of the formats that nobody needs to name. Something may stand before it.
pub(super) fn read_usual(line: &[u8]) -> Option<LogEntry> {
    USUAL.iter().find_map(|format| format.read(line))
}

/// How the lines of a log are written.
#[derive(Clone, Debug)]
pub(crate) struct Format(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Text(TextFormat),
    /// The keys of a value in its object, from the outermost, and how it is written.
    Json(Vec<(Vec<String>, TextFormat)>),
}

impl Format {
    /// Reads a format as Envoy's configuration has it: the string of a `text_format`, or the object of a `json_format`
    /// in JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let text = text.strip_suffix("\\n").unwrap_or(text);
        if !text.starts_with('{') {
            let format = TextFormat::new(text)?;
            return if format.is_useful() { Ok(Self(Kind::Text(format))) } else { Err(useless()) };
        }
        let json = serde_json::from_str(text).map_err(|error| format!("not a json_format: {error}"))?;
        let mut formats = Vec::new();
        collect(&json, &mut Vec::new(), &mut formats)?;
        if formats.is_empty() { Err(useless()) } else { Ok(Self(Kind::Json(formats))) }
    }

    /// Reads a line; `None` if it is not written so.
    pub(super) fn read(&self, line: &[u8]) -> Option<LogEntry> {
        match &self.0 {
            Kind::Text(format) => format.read(line),
            Kind::Json(formats) => {
                let object = json::object(line)?;
                let mut entry = LogEntry::default();
                for (keys, format) in formats {
                    let value = keys.iter().try_fold(&object, |value, key| value.get(key));
                    if let Some(value) = value.and_then(json::scalar) {
                        format.read_into(value.as_bytes(), &mut entry);
                    }
                }
                Some(entry)
            }
        }
    }
}

fn useless() -> String {
    "none of its operators tells anything that a trace has as well".to_owned()
}

/// Collects the values of a `json_format` that an entry has.
fn collect(value: &Value, keys: &mut Vec<String>, formats: &mut Vec<(Vec<String>, TextFormat)>) -> Result<(), String> {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                keys.push(key.clone());
                collect(value, keys, formats)?;
                keys.pop();
            }
        }
        Value::String(text) => {
            let format = TextFormat::new(text).map_err(|why| format!("{}: {why}", keys.join(".")))?;
            if format.is_useful() {
                formats.push((keys.clone(), format));
            }
        }
        _ => {}
    }
    Ok(())
}

/// A format string.
#[derive(Clone, Debug)]
struct TextFormat {
    /// It has a group for each operator that an entry has.
    regex: Regex,
    operators: Vec<What>,
}

impl TextFormat {
    fn new(text: &str) -> Result<Self, String> {
        if text.contains('\n') {
            return Err("a line of the log must be one line of the format".to_owned());
        }
        let (mut regex, mut operators) = ("(?:^|\\s)".to_owned(), Vec::new());
        for part in parts(text)? {
            match part {
                Part::Literal(text) => regex.push_str(&regex::escape(&text)),
                Part::Operator(what) => {
                    let group = if what.is_kept() { "(" } else { "(?:" };
                    regex.extend([group, what.regex(), ")"]);
                    operators.extend(what.is_kept().then_some(what));
                }
            }
        }
        regex.push('$');
        let regex = RegexBuilder::new(&regex).unicode(false).build().map_err(|_| "too long".to_owned())?;
        Ok(Self { regex, operators })
    }

    fn is_useful(&self) -> bool {
        !self.operators.is_empty()
    }

    fn read(&self, line: &[u8]) -> Option<LogEntry> {
        let mut entry = LogEntry::default();
        self.read_into(line, &mut entry).then_some(entry)
    }

    /// Reads what is written so into an entry, and returns whether it is.
    fn read_into(&self, text: &[u8], entry: &mut LogEntry) -> bool {
        let Some(groups) = self.regex.captures(text) else { return false };
        for (what, group) in self.operators.iter().zip(groups.iter().skip(1)) {
            what.put(group.map_or(b"", |group| group.as_bytes()), entry);
        }
        true
    }
}
