//! Turns a JSON value into messages, by protobuf's JSON mapping.
//!
//! prost-reflect does the mapping. It does not say where it failed, so each message is mapped from the inside out,
//! field by field, until one field fails.

use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use super::{ConfigError, ConfigPath};
use crate::proto::{DESCRIPTORS, envoy::config::bootstrap::v3::Bootstrap};

const ANY: &str = "google.protobuf.Any";
const TYPE: &str = "@type";

pub(super) fn read(value: &Value) -> Result<Bootstrap, ConfigError> {
    let at = ConfigPath::default();
    let descriptor = DESCRIPTORS
        .get_message_by_name("envoy.config.bootstrap.v3.Bootstrap")
        .expect("build.rs compiles it into the pool");
    check(&at, &descriptor, value)?;
    map(&descriptor, value.clone())
        .and_then(|message| message.transcode_to().map_err(|error| error.to_string()))
        .map_err(|reason| at.refuse(reason))
}

fn map(descriptor: &MessageDescriptor, value: Value) -> Result<DynamicMessage, String> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor.clone(), value, &options).map_err(|error| error.to_string())
}

/// Finds the first field that is unknown or has a value that does not fit it.
fn check(at: &ConfigPath, descriptor: &MessageDescriptor, value: &Value) -> Result<(), ConfigError> {
    if descriptor.full_name() == ANY {
        return check_any(at, descriptor.parent_pool(), value);
    }
    if descriptor.full_name().starts_with("google.protobuf.") {
        // Durations and wrappers are not written as objects.
        return map(descriptor, value.clone()).map(drop).map_err(|reason| at.refuse(reason));
    }
    let Value::Object(object) = value else { return Err(at.refuse("an object is needed")) };
    check_fields(at, descriptor, object)
}

fn check_fields(
    at: &ConfigPath,
    descriptor: &MessageDescriptor,
    object: &Map<String, Value>,
) -> Result<(), ConfigError> {
    for (name, value) in object {
        let at = at.field(name);
        let Some(field) = descriptor.get_field_by_json_name(name).or_else(|| descriptor.get_field_by_name(name)) else {
            return Err(at.refuse("not supported by record"));
        };
        check_field(&at, descriptor, &field, value)?;
    }
    // Some errors are not in a single field: two members of one oneof, or one field under two names.
    map(descriptor, Value::Object(object.clone())).map(drop).map_err(|reason| at.refuse(reason))
}

fn check_field(
    at: &ConfigPath,
    descriptor: &MessageDescriptor,
    field: &FieldDescriptor,
    value: &Value,
) -> Result<(), ConfigError> {
    match (field.kind(), value) {
        (_, Value::Null) => return Ok(()),
        (Kind::Message(inner), Value::Array(items)) if field.is_list() => {
            for (index, item) in items.iter().enumerate() {
                check(&at.item(index), &inner, item)?;
            }
        }
        (Kind::Message(inner), value) if !field.is_list() => check(at, &inner, value)?,
        _ => {}
    }
    let alone = Map::from_iter([(field.json_name().to_owned(), value.clone())]);
    map(descriptor, Value::Object(alone)).map(drop).map_err(|reason| at.refuse(reason))
}

fn check_any(at: &ConfigPath, pool: &DescriptorPool, value: &Value) -> Result<(), ConfigError> {
    let Value::Object(object) = value else { return Err(at.refuse("an object is needed")) };
    let Some(Value::String(url)) = object.get(TYPE) else { return Err(at.refuse("\"@type\" is missing")) };
    let Some(descriptor) = type_name(url).and_then(|name| pool.get_message_by_name(name)) else {
        // The path is that of the extension, not of its configuration, because the extension is what is unknown.
        let extension = ConfigPath(at.0.strip_suffix(".typed_config").unwrap_or(&at.0).to_owned());
        return Err(extension.refuse(format!("{url} is not supported by record")));
    };
    let mut fields = object.clone();
    fields.remove(TYPE);
    check_fields(at, &descriptor, &fields)
}

/// The message that a type URL names.
pub(super) fn type_name(url: &str) -> Option<&str> {
    url.rsplit_once('/').map(|(_, name)| name)
}
