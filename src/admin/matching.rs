//! What of a tap is wanted: Envoy's `MatchPredicate`.
//!
//! Envoy 1.40 builds matchers where nothing catches an exception, so a match that it takes for valid, but cannot build,
//! ends it: a regular expression that does not compile, or of more than about 97 characters, is enough. So a match is read into the fields that are known, and
//! what is sent is written from them.

mod regex;

use base64_simd::STANDARD;
use serde_json::{Map, Value, json};

use crate::untrusted;

/// Bytes of a match. Envoy looks at all of it for each event.
const MAX_TEXT: usize = 64 * 1024;
/// Bytes of one name, value or pattern.
const MAX_STRING: usize = 4096;
/// Rules within rules. Envoy reads messages to a depth of 100, and each rule is up to two of them.
const MAX_DEPTH: usize = 16;
/// Rules, headers and patterns altogether.
const MAX_RULES: usize = 1000;

/// A match that Envoy understands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MatchConfig(Value);

impl MatchConfig {
    /// Everything.
    #[must_use]
    pub(crate) fn any() -> Self {
        Self(json!({ "any_match": true }))
    }

    /// Envoy's `MatchPredicate`, as JSON or YAML.
    ///
    /// # Errors
    /// It is none, and why; or Envoy could not bear it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("the match has {} bytes; it may have {MAX_TEXT}", text.len()));
        }
        let value: Value = serde_saphyr::from_str(text).map_err(|error| {
            // Its first line says what and where; the others draw the place.
            let error = error.to_string();
            format!(
                "the match is neither JSON nor YAML: {}",
                untrusted::escape(error.lines().next().unwrap_or_default())
            )
        })?;
        let mut reader = Reader { rules: 0 };
        Ok(Self(reader.predicate(&Place::root(&value), 0)?))
    }

    /// Requests with exactly this value of a header.
    ///
    /// # Errors
    /// No header has such a name or value.
    pub(crate) fn header(name: &str, value: &str) -> Result<Self, String> {
        let name =
            header_name(name).map_err(|why| format!("{why}: {}", untrusted::escape(&untrusted::cap(name, 100))))?;
        string(value).map_err(|why| format!("the value of {name} {why}"))?;
        Ok(Self::request_header(&name, "exact", value))
    }

    /// Requests whose path begins so.
    ///
    /// # Errors
    /// No path does.
    pub(crate) fn path_prefix(prefix: &str) -> Result<Self, String> {
        string(prefix).map_err(|why| format!("the beginning of a path {why}"))?;
        Ok(Self::request_header(":path", "prefix", prefix))
    }

    fn request_header(name: &str, how: &str, value: &str) -> Self {
        Self(json!({ "http_request_headers_match": { "headers": [{ "name": name, "string_match": { how: value } }] } }))
    }

    /// What matches all of these. Of none, it is everything.
    #[must_use]
    pub(crate) fn all(mut matches: Vec<Self>) -> Self {
        match matches.len() {
            0 => Self::any(),
            1 => matches.remove(0),
            _ => Self(json!({ "and_match": { "rules": matches.into_iter().map(|one| one.0).collect::<Vec<_>>() } })),
        }
    }

    pub(super) fn as_json(&self) -> &Value {
        &self.0
    }

    /// Whether nothing is left out.
    #[must_use]
    pub(crate) fn is_any(&self) -> bool {
        *self == Self::any()
    }

    /// Whether a tap of a socket can match: it never has headers, trailers or bodies of HTTP.
    #[must_use]
    pub(super) fn can_hold_on_sockets(&self) -> bool {
        holds_on_sockets(&self.0)
    }
}

fn holds_on_sockets(rule: &Value) -> bool {
    let rules = |set: &Value| set["rules"].as_array().cloned().unwrap_or_default();
    match rule.as_object().and_then(|rule| rule.iter().next()) {
        Some((key, set)) => match key.as_str() {
            "any_match" => true,
            "not_match" => !holds_on_sockets(set),
            "or_match" => rules(set).iter().any(holds_on_sockets),
            "and_match" => rules(set).iter().all(holds_on_sockets),
            _ => false,
        },
        None => false,
    }
}

/// A value, and where it is in the match.
struct Place<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Place<'a> {
    fn root(value: &'a Value) -> Self {
        Self { value, path: String::new() }
    }

    fn refuse<T>(&self, why: &str) -> Result<T, String> {
        let path = if self.path.is_empty() { "the match" } else { &self.path };
        Err(format!("{path} {why}"))
    }

    fn object(&self) -> Result<&'a Map<String, Value>, String> {
        match self.value {
            Value::Object(map) => Ok(map),
            _ => self.refuse("must have fields, such as `any_match: true`"),
        }
    }

    fn list(&self, least: usize) -> Result<Vec<Place<'a>>, String> {
        match self.value {
            Value::Array(list) if list.len() >= least => Ok(list
                .iter()
                .enumerate()
                .map(|(index, value)| Place { value, path: format!("{}[{index}]", self.path) })
                .collect()),
            _ => self.refuse(&format!("must be a list of at least {least}")),
        }
    }

    fn field(&self, name: &str) -> Option<Place<'a>> {
        let value = self.value.get(name)?;
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Some(Place { value, path })
    }

    /// Refuses fields that are not among these.
    fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.object()?.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let key = untrusted::cap(key, 100);
                self.refuse(&format!(
                    "has an unknown field `{}`; known are {}",
                    untrusted::escape(&key),
                    known.join(", ")
                ))
            }
        }
    }

    /// The one field of these that is there. Envoy calls it a oneof.
    fn one_of<'n>(&self, names: &[&'n str]) -> Result<Option<(&'n str, Place<'a>)>, String> {
        let mut there = names.iter().filter_map(|name| Some((*name, self.field(name)?)));
        let first = there.next();
        match (&first, there.next()) {
            (Some((one, _)), Some((other, _))) => {
                self.refuse(&format!("has both {one} and {other}; only one is possible"))
            }
            _ => Ok(first),
        }
    }

    fn string(&self) -> Result<&'a str, String> {
        match self.value {
            Value::String(text) => string(text).or_else(|why| self.refuse(why)).map(|()| text.as_str()),
            _ => self.refuse("must be a string; write it in quotation marks"),
        }
    }

    fn bool(&self) -> Result<bool, String> {
        self.value.as_bool().map_or_else(|| self.refuse("must be true or false"), Ok)
    }

    /// An integer of 64 bits, which protobuf's JSON may write as a string.
    fn int64(&self) -> Result<i64, String> {
        let number = match self.value {
            Value::String(text) => text.parse().ok(),
            value => value.as_i64(),
        };
        number.map_or_else(|| self.refuse("must be an integer of 64 bits"), Ok)
    }
}

/// Whether Envoy can have this string: it is never empty, and nothing can be found that no header or path has.
fn string(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("must not be empty");
    }
    if text.len() > MAX_STRING {
        return Err("is longer than 4096 bytes");
    }
    if text.contains(['\0', '\r', '\n']) {
        return Err("has a line break or a NUL byte in it, which no header has");
    }
    Ok(())
}

/// A header's name, as Envoy has it: in lower case.
fn header_name(name: &str) -> Result<String, &'static str> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let token = name.strip_prefix(':').unwrap_or(name);
    if token.is_empty() || token.len() > 256 || !token.bytes().all(is_token) {
        return Err("this is no name of a header");
    }
    Ok(name.to_ascii_lowercase())
}

const HEADER_RULES: [&str; 4] = [
    "http_request_headers_match",
    "http_request_trailers_match",
    "http_response_headers_match",
    "http_response_trailers_match",
];
const BODY_RULES: [&str; 2] = ["http_request_generic_body_match", "http_response_generic_body_match"];
const LOGIC_RULES: [&str; 4] = ["or_match", "and_match", "not_match", "any_match"];

struct Reader {
    rules: usize,
}

impl Reader {
    fn count(&mut self, place: &Place) -> Result<(), String> {
        self.rules += 1;
        if self.rules > MAX_RULES {
            place.refuse(&format!("is one rule too many: there may be {MAX_RULES}"))
        } else {
            Ok(())
        }
    }

    fn predicate(&mut self, place: &Place, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return place.refuse(&format!("is nested too deeply: there may be {MAX_DEPTH} rules within each other"));
        }
        self.count(place)?;
        let names = [&LOGIC_RULES[..], &HEADER_RULES, &BODY_RULES].concat();
        place.only(&names)?;
        let Some((name, rule)) = place.one_of(&names)? else {
            return place.refuse("has no rule, such as `any_match: true`");
        };
        let value = match name {
            "any_match" => match rule.bool()? {
                true => Value::Bool(true),
                false => return rule.refuse("can only be true"),
            },
            "not_match" => self.predicate(&rule, depth + 1)?,
            "or_match" | "and_match" => {
                rule.only(&["rules"])?;
                let Some(rules) = rule.field("rules") else {
                    return rule.refuse("has no rules");
                };
                let rules: Result<Vec<Value>, String> =
                    rules.list(2)?.iter().map(|rule| self.predicate(rule, depth + 1)).collect();
                json!({ "rules": rules? })
            }
            _ if HEADER_RULES.contains(&name) => self.headers(&rule)?,
            _ => self.body(&rule)?,
        };
        Ok(json!({ name: value }))
    }

    fn headers(&mut self, place: &Place) -> Result<Value, String> {
        place.only(&["headers"])?;
        let Some(headers) = place.field("headers") else {
            return place.refuse("has no headers");
        };
        let headers: Result<Vec<Value>, String> = headers.list(1)?.iter().map(|header| self.header(header)).collect();
        Ok(json!({ "headers": headers? }))
    }

    fn header(&mut self, place: &Place) -> Result<Value, String> {
        const STRINGS: [&str; 4] = ["exact_match", "prefix_match", "suffix_match", "contains_match"];
        const KINDS: [&str; 8] = [
            "string_match",
            "present_match",
            "range_match",
            "safe_regex_match",
            STRINGS[0],
            STRINGS[1],
            STRINGS[2],
            STRINGS[3],
        ];
        const FLAGS: [&str; 2] = ["invert_match", "treat_missing_header_as_empty"];
        self.count(place)?;
        place.only(&[&["name"], &KINDS[..], &FLAGS].concat())?;
        let Some(name) = place.field("name") else {
            return place.refuse("has no name");
        };
        let mut header = Map::new();
        header.insert(
            "name".into(),
            header_name(name.string()?).or_else(|why| name.refuse(&format!("is wrong: {why}")))?.into(),
        );
        for flag in FLAGS {
            if let Some(value) = place.field(flag) {
                header.insert(flag.into(), value.bool()?.into());
            }
        }
        if let Some((kind, value)) = place.one_of(&KINDS)? {
            // The older fields for strings are gone from newer versions, and all versions since 1.18 have this one.
            let (kind, value) = match kind {
                "string_match" => (kind, text_match(&value)?),
                "safe_regex_match" => ("string_match", json!({ "safe_regex": safe_regex(&value)? })),
                "present_match" => (kind, value.bool()?.into()),
                "range_match" => (kind, range(&value)?),
                _ => {
                    let how = kind.trim_end_matches("_match");
                    ("string_match", json!({ how: value.string()? }))
                }
            };
            header.insert(kind.into(), value);
        }
        Ok(header.into())
    }

    fn body(&mut self, place: &Place) -> Result<Value, String> {
        place.only(&["bytes_limit", "patterns"])?;
        let mut body = Map::new();
        if let Some(limit) = place.field("bytes_limit") {
            let bytes =
                u32::try_from(limit.int64()?).or_else(|_| limit.refuse("must be a number from 0 to 4294967295"))?;
            body.insert("bytes_limit".into(), bytes.into());
        }
        let Some(patterns) = place.field("patterns") else {
            return place.refuse("has no patterns");
        };
        let patterns: Result<Vec<Value>, String> =
            patterns.list(1)?.iter().map(|pattern| self.pattern(pattern)).collect();
        body.insert("patterns".into(), patterns?.into());
        Ok(body.into())
    }

    fn pattern(&mut self, place: &Place) -> Result<Value, String> {
        const KINDS: [&str; 2] = ["string_match", "binary_match"];
        self.count(place)?;
        place.only(&KINDS)?;
        match place.one_of(&KINDS)? {
            None => place.refuse("has no pattern"),
            Some(("binary_match", value)) => {
                let text = value.string()?;
                if STANDARD.decode_to_vec(text).is_err() {
                    return value.refuse("must be bytes in base64");
                }
                Ok(json!({ "binary_match": text }))
            }
            // A body may have line breaks.
            Some((kind, value)) => match value.value {
                Value::String(text) if (1..=MAX_STRING).contains(&text.len()) => Ok(json!({ kind: text })),
                _ => value.refuse("must be a string of 1 to 4096 bytes"),
            },
        }
    }
}

/// `StringMatcher`. Its field `custom` can load any code that is in Envoy.
fn text_match(place: &Place) -> Result<Value, String> {
    const KINDS: [&str; 5] = ["exact", "prefix", "suffix", "contains", "safe_regex"];
    place.only(&[&KINDS[..], &["ignore_case"]].concat())?;
    let Some((kind, value)) = place.one_of(&KINDS)? else {
        return place.refuse("has no text, such as `exact: value`");
    };
    let mut matcher = Map::new();
    let value = if kind == "safe_regex" { safe_regex(&value)? } else { value.string()?.into() };
    matcher.insert(kind.into(), value);
    if let Some(ignore_case) = place.field("ignore_case") {
        let ignores = ignore_case.bool()?;
        if ignores && kind == "safe_regex" {
            return ignore_case.refuse("has no effect on a regular expression");
        }
        matcher.insert("ignore_case".into(), ignores.into());
    }
    Ok(matcher.into())
}

fn safe_regex(place: &Place) -> Result<Value, String> {
    place.only(&["regex", "google_re2"])?;
    // Older versions want this message to be there. Its one field is a limit, which has no use.
    if place.field("google_re2").is_some_and(|re2| !re2.value.as_object().is_some_and(Map::is_empty)) {
        return place.refuse("may have no options of RE2");
    }
    let Some(expression) = place.field("regex") else {
        return place.refuse("has no regex");
    };
    let text = expression.string()?;
    regex::check(text).or_else(|why| expression.refuse(&why))?;
    Ok(json!({ "regex": text }))
}

fn range(place: &Place) -> Result<Value, String> {
    place.only(&["start", "end"])?;
    let mut range = Map::new();
    for name in ["start", "end"] {
        let number = place.field(name).map_or(Ok(0), |number| number.int64())?;
        // As strings: numbers of YAML and JSON lose digits on their way through Envoy.
        range.insert(name.into(), number.to_string().into());
    }
    Ok(range.into())
}
