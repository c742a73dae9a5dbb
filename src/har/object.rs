//! Objects of the format, field by field in its order.
//!
//! serde's derive macro does the same. It takes two per cent of the time that the whole program takes to compile, and
//! nothing else here needs it.

/// Implements `Serialize`: each name in the file with the field that has its value, `unless` a function of it says that
/// it is left out.
macro_rules! object {
    ($object:ty { $($name:literal: $field:ident $(unless $absent:path)?),* $(,)? }) => {
        impl serde::Serialize for $object {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct as _;
                // At most so many: JSON needs no number, only whether there are any.
                let mut object = serializer.serialize_struct(stringify!($object), [$($name),*].len())?;
                $(
                    if true $(&& !$absent(&self.$field))? {
                        object.serialize_field($name, &self.$field)?;
                    }
                )*
                object.end()
            }
        }
    };
}
