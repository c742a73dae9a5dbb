//! Fields that this version does not know: skipped, and counted so that people learn of a newer Envoy.

use std::{borrow::Cow, fmt};

/// How an unknown field was named in its encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldId {
    /// Binary encodings carry numbers. So does text if its printer did not know the field.
    Number(u32),
    /// JSON and text carry names.
    Name(String),
}

impl fmt::Display for FieldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// One unknown field, and how often it occurs in the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField {
    /// The message that holds it, without its package, such as `SocketEvent`.
    pub message: &'static str,
    /// Its number or name.
    pub field: FieldId,
    /// Occurrences.
    pub count: u64,
}

/// Unknown fields of one source. At most [`UnknownFields::DISTINCT`] are listed, so that a hostile trace cannot make
/// the list grow without end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownFields {
    fields: Vec<UnknownField>,
    others: u64,
}

impl UnknownFields {
    /// The most different fields that are listed; any others are counted together.
    pub const DISTINCT: usize = 64;
    /// The most bytes of a field's name that are kept.
    const NAME: usize = 64;

    /// Counts one occurrence of a field by number.
    pub fn count_number(&mut self, message: &'static str, number: u32) {
        self.count(message, |field| *field == FieldId::Number(number), || FieldId::Number(number));
    }

    /// Counts one occurrence of a field by name.
    pub fn count_name(&mut self, message: &'static str, name: &str) {
        let end = name.floor_char_boundary(Self::NAME.min(name.len()));
        let name: Cow<'_, str> = Cow::Borrowed(&name[..end]);
        self.count(
            message,
            |field| matches!(field, FieldId::Name(known) if *known == name),
            || FieldId::Name(name.clone().into_owned()),
        );
    }

    fn count(&mut self, message: &'static str, is: impl Fn(&FieldId) -> bool, make: impl FnOnce() -> FieldId) {
        if let Some(known) = self.fields.iter_mut().find(|known| known.message == message && is(&known.field)) {
            known.count += 1;
        } else if self.fields.len() < Self::DISTINCT {
            self.fields.push(UnknownField { message, field: make(), count: 1 });
        } else {
            self.others += 1;
        }
    }

    /// The listed fields, in order of first appearance.
    #[must_use]
    pub fn fields(&self) -> &[UnknownField] {
        &self.fields
    }

    /// The occurrences of all unknown fields, listed or not.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.fields.iter().map(|field| field.count).sum::<u64>() + self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_and_their_list_is_bounded() {
        let mut unknown = UnknownFields::default();
        for number in 0..1000 {
            unknown.count_number("SocketEvent", number);
            unknown.count_name("Body", "later");
        }
        assert_eq!(unknown.fields().len(), UnknownFields::DISTINCT);
        assert_eq!(unknown.total(), 2000);
        let later = UnknownField { message: "Body", field: FieldId::Name("later".into()), count: 1000 };
        assert!(unknown.fields().contains(&later));
    }
}
