//! Findings without what they quote from a trace.

use std::io;

use super::Redaction;
use crate::{
    input::InputError,
    timeline::Pseudonyms as _,
    trace::{
        DecodeFault, ExchangeFact, Fact, FieldId, Finding, JsonFault, MadeUpField, Quote, TextFault, UnknownField,
    },
};

impl Redaction {
    /// The finding without text of the trace: where something is wrong, nobody has understood its bytes.
    pub(crate) fn finding(&self, finding: &Finding) -> Finding {
        let mut finding = finding.clone();
        let fact = &mut finding.fact;
        if let Some(trace_id) = trace_id(fact) {
            *trace_id = self.trace_id(*trace_id);
        }
        match fact {
            Fact::BadAddress { text, .. } => *text = self.host(text).into_owned(),
            Fact::Undecodable(fault) | Fact::TrailingBytes(fault) => mask_fault(fault),
            // It may be a trace that is not understood.
            Fact::TextAround { first, .. } => *first = asterisks(first),
            Fact::UnknownField(UnknownField { field: FieldId::Name(name), .. }) => *name = asterisks(name),
            Fact::Exchange { fact: ExchangeFact::MadeUp(MadeUpField::StatusDigits(Some(quote))), .. } => {
                *quote = Quote::new(b"*");
            }
            _ => {}
        }
        finding
    }

    /// Why an input cannot be read, without its first bytes, and without names if they are taken out.
    pub(crate) fn refusal(&self, error: &InputError) -> InputError {
        let path = self.file(&error.path().display().to_string()).into_owned().into();
        match error {
            InputError::Read { source, .. } => InputError::Read { path, source: self.reason(source) },
            InputError::Empty { .. } => InputError::Empty { path },
            InputError::NothingReadable { .. } => InputError::NothingReadable { path },
            InputError::Unrecognised { looks_like, .. } => {
                InputError::Unrecognised { path, looks_like: looks_like.without_bytes() }
            }
            InputError::Unfit { layer, within, .. } => {
                InputError::Unfit { path, layer: *layer, within: within.clone() }
            }
        }
    }

    /// The operating system's words have no names in them. Those of this program may: links have targets.
    fn reason(&self, error: &io::Error) -> io::Error {
        match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None if self.names => error.kind().into(),
            None => io::Error::new(error.kind(), error.to_string()),
        }
    }
}

/// The `trace_id` that a fact speaks of.
fn trace_id(fact: &mut Fact) -> Option<&mut u64> {
    match fact {
        Fact::MissingConnection { trace_id, .. }
        | Fact::MissingAddress { trace_id, .. }
        | Fact::TruncatedBodies { trace_id, .. }
        | Fact::TruncatedBody { trace_id }
        | Fact::DestroyedBodies { trace_id, .. }
        | Fact::MissingClose { trace_id, .. }
        | Fact::Exchange { trace_id, .. }
        | Fact::Http { trace_id, .. } => Some(trace_id),
        _ => None,
    }
}

/// Takes the bytes of the trace out of a fault.
fn mask_fault(fault: &mut DecodeFault) {
    match fault {
        DecodeFault::Text(
            TextFault::Expected { found: bytes, .. }
            | TextFault::Bool(bytes)
            | TextFault::Unsigned(bytes)
            | TextFault::Escape(bytes),
        ) => super::mask(bytes),
        DecodeFault::Json(JsonFault::NoObject(byte)) => *byte = b'*',
        // It quotes values, and nothing marks where.
        DecodeFault::Json(JsonFault::Parser(words)) => "JSON that does not fit; why is taken out".clone_into(words),
        DecodeFault::Wire(_) | DecodeFault::Text(_) | DecodeFault::Json(_) | DecodeFault::Inside => {}
    }
}

fn asterisks(text: &str) -> String {
    "*".repeat(text.chars().count())
}

#[cfg(test)]
mod tests {
    use super::{super::addresses::tests::KEY, *};
    use crate::{
        report::detail,
        trace::{Owner, Place, TextItem},
    };

    #[test]
    fn findings_quote_nothing() {
        let bytes = || b"hunter2".as_slice().into();
        let text = || "hunter2".to_owned();
        let facts = [
            Fact::Undecodable(TextFault::Expected { wanted: TextItem::Value, found: bytes() }.into()),
            Fact::Undecodable(TextFault::Bool(bytes()).into()),
            Fact::TrailingBytes(TextFault::Unsigned(bytes()).into()),
            Fact::TrailingBytes(TextFault::Escape(bytes()).into()),
            Fact::Undecodable(JsonFault::Parser(text()).into()),
            Fact::TextAround { bytes: 7, first: text(), names_trace: true },
            Fact::UnknownField(UnknownField { message: "Body", field: FieldId::Name(text()), count: 1 }),
            Fact::Exchange {
                trace_id: 1,
                fact: ExchangeFact::MadeUp(MadeUpField::StatusDigits(Some(Quote::new(b"hunter2")))),
            },
        ];
        let redaction = Redaction::default();
        for fact in facts {
            let finding = Finding::new(Place::default(), fact);
            assert!(detail(&finding).contains("hunter2"));
            let words = detail(&redaction.finding(&finding));
            assert!(!words.contains("hunter2"), "{words}");
        }
    }

    #[test]
    fn addresses_that_are_none_are_names() {
        let made_up = std::net::Ipv4Addr::UNSPECIFIED.into();
        let fact = Fact::BadAddress { owner: Owner::Remote, text: "db.example".to_owned(), made_up };
        let finding = Finding::new(Place::default(), fact);
        let addresses = crate::redact::Addresses::new(KEY).ok();
        let names = Redaction { addresses, names: true, ..Redaction::default() };
        assert!(detail(&Redaction::default().finding(&finding)).contains("db.example"));
        assert!(!detail(&names.finding(&finding)).contains("db.example"));
        let refusal = names.refusal(&InputError::Empty { path: "secret/a.pb".into() });
        assert!(!refusal.to_string().contains("secret"));
    }
}
