//! Protobuf's text format as C++ prints it: two spaces per level, one field per line, escapes in octal.

use prost_types::Timestamp;

use super::walk::{Presence, Printer};

/// Appends one message.
pub(super) fn print(out: &mut Vec<u8>, fields: impl FnOnce(&mut TextPrinter<'_>)) {
    fields(&mut TextPrinter { out, depth: 0 });
}

pub(super) struct TextPrinter<'a> {
    out: &'a mut Vec<u8>,
    depth: usize,
}

impl TextPrinter<'_> {
    fn start(&mut self, name: &str) {
        self.out.resize(self.out.len() + 2 * self.depth, b' ');
        self.out.extend_from_slice(name.as_bytes());
    }

    fn scalar(&mut self, name: &str, value: &str) {
        self.start(name);
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'\n');
    }

    fn quoted(&mut self, name: &str, value: &[u8], presence: Presence) {
        if value.is_empty() && presence == Presence::Implicit {
            return;
        }
        self.start(name);
        self.out.extend_from_slice(b": \"");
        for &byte in value {
            match byte {
                b'\n' => self.out.extend_from_slice(br"\n"),
                b'\r' => self.out.extend_from_slice(br"\r"),
                b'\t' => self.out.extend_from_slice(br"\t"),
                b'"' | b'\'' | b'\\' => self.out.extend_from_slice(&[b'\\', byte]),
                b' '..=b'~' => self.out.push(byte),
                _ => {
                    self.out.extend_from_slice(&[b'\\', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)])
                }
            }
        }
        self.out.extend_from_slice(b"\"\n");
    }
}

impl Printer for TextPrinter<'_> {
    fn message(&mut self, name: &'static str, fields: impl FnOnce(&mut Self)) {
        self.start(name);
        self.out.extend_from_slice(b" {\n");
        self.depth += 1;
        fields(self);
        self.depth -= 1;
        self.start("}\n");
    }

    fn list<T>(&mut self, name: &'static str, items: &[T], fields: impl Fn(&mut Self, &T)) {
        for item in items {
            self.message(name, |text| fields(text, item));
        }
    }

    fn bool(&mut self, name: &'static str, value: bool) {
        if value {
            self.scalar(name, "true");
        }
    }

    fn uint32(&mut self, name: &'static str, value: u32, presence: Presence) {
        if value != 0 || presence == Presence::Explicit {
            self.scalar(name, &value.to_string());
        }
    }

    fn uint64(&mut self, name: &'static str, value: u64) {
        if value != 0 {
            self.scalar(name, &value.to_string());
        }
    }

    fn enumeration(&mut self, name: &'static str, value: i32, label: Option<&'static str>) {
        match (value, label) {
            (0, _) => {}
            (_, Some(label)) => self.scalar(name, label),
            (_, None) => self.scalar(name, &value.to_string()),
        }
    }

    fn bytes(&mut self, name: &'static str, value: &[u8], presence: Presence) {
        self.quoted(name, value, presence);
    }

    fn string(&mut self, name: &'static str, value: &[u8], presence: Presence) {
        self.quoted(name, value, presence);
    }

    fn timestamp(&mut self, name: &'static str, value: &Timestamp) {
        self.message(name, |text| {
            if value.seconds != 0 {
                text.scalar("seconds", &value.seconds.to_string());
            }
            if value.nanos != 0 {
                text.scalar("nanos", &value.nanos.to_string());
            }
        });
    }
}
