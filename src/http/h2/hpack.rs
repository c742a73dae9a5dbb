//! HPACK (RFC 7541), decoded by the crate httlib-hpack. After a loss of header blocks, the dynamic table has entries that
//! nobody can know: a field that refers to one of them is reported as unknown, and the rest of the block is read
//! nevertheless.
//!
//! The crate gets one field at a time, cut out here: it indexes past the end of a field that is cut, and it moves the
//! rest of its buffer with each field. The decoder of loona-hpack, which tests hold this one against, builds its Huffman
//! tables anew for each string, which takes fifty times as long.

use std::fmt;

use httlib_hpack::{Decoder, DecoderError};

use crate::http::wire::{BlockField, FieldForm, Representation};

/// The largest dynamic table that is kept. Browsers ask for so much, and Envoy's default is 4096.
pub(crate) const MAX_TABLE: u32 = 64 << 10;

/// What an entry counts besides its name and value (RFC 7541 section 4.1).
const OVERHEAD: u32 = 32;

/// The last index of the static table (RFC 7541 appendix A).
pub(crate) const LAST_STATIC: u32 = 61;

/// A block that is not HPACK, or needs a larger table than is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadBlock;

/// The state of one direction's decoder.
pub(super) struct Hpack {
    decoder: Decoder<'static>,
    /// The table has entries beyond those that the decoder has, which are unknown.
    lost: bool,
    /// The encoded field.
    field: Vec<u8>,
    /// The decoded field: one, or none after a size update.
    decoded: Vec<(Vec<u8>, Vec<u8>, u8)>,
}

impl fmt::Debug for Hpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hpack").field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Default for Hpack {
    fn default() -> Self {
        // The table begins with 4096 bytes, and a size update may ask for more.
        let mut decoder = Decoder::default();
        decoder.set_max_dynamic_size(MAX_TABLE);
        Self { decoder, lost: false, field: Vec::new(), decoded: Vec::with_capacity(1) }
    }
}

impl Hpack {
    /// Bytes are missing that may have changed the table.
    pub(super) fn lose(&mut self) {
        // Only the entries that follow are known, and an encoder never refers to one that it has evicted. So it does no
        // harm to keep more of them than the encoder does.
        self.decoder = Decoder::with_dynamic_size(MAX_TABLE);
        self.lost = true;
    }

    /// Decodes a block, and passes on each field and each new size of the table. `each` says whether more fields are
    /// wanted: a byte may stand for a long field. If the block is cut, its error comes after the fields that are whole.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        mut each: impl FnMut(BlockField<'_>) -> bool,
    ) -> Result<(), BadBlock> {
        let (mut rest, mut wanted) = (block, true);
        while !rest.is_empty() {
            let field = Field::cut(&mut rest)?;
            // The other kinds change the table.
            if !wanted && matches!(field.kind, Kind::Indexed | Kind::Literal) {
                continue;
            }
            let form = field.form();
            self.field.clear();
            self.field.extend_from_slice(field.bytes);
            let unknown = match self.decode_field() {
                Err(DecoderError::InvalidIndex) if self.may_be_lost(field.index) => {
                    if field.kind == Kind::Indexed {
                        wanted = each(BlockField { name: None, value: None, form });
                        continue;
                    }
                    // The same field with an empty name, which no message has, in the place of the unknown one: the
                    // table gets the entry.
                    self.field.clear();
                    self.field.extend([field.bytes[0] & field.kind.pattern(), 0]);
                    self.field.extend_from_slice(field.value);
                    self.decode_field()
                }
                decoded => decoded,
            };
            unknown.map_err(|_| BadBlock)?;
            if let Some((name, value, _)) = self.decoded.first() {
                let name = Some(name.as_slice()).filter(|name| !name.is_empty());
                wanted = each(BlockField { name, value: Some(value), form });
            } else if field.kind == Kind::SizeUpdate {
                each(BlockField { name: None, value: None, form });
            }
            // An encoder that empties its table leaves nothing unknown in it.
            self.lost &= !(field.kind == Kind::SizeUpdate && field.index == 0);
        }
        Ok(())
    }

    /// Has the crate decode the one field in the buffer.
    fn decode_field(&mut self) -> Result<(), DecoderError> {
        self.decoded.clear();
        self.decoder.decode_exact(&mut self.field, &mut self.decoded).map(|_| ())
    }

    fn may_be_lost(&self, index: u32) -> bool {
        self.lost && index > LAST_STATIC && index <= LAST_STATIC + MAX_TABLE / OVERHEAD
    }
}

/// How a field is represented (RFC 7541 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Indexed,
    /// A literal that is added to the table.
    Added,
    SizeUpdate,
    Literal,
}

impl Kind {
    fn of(first: u8) -> Self {
        match first {
            0x80.. => Self::Indexed,
            0x40.. => Self::Added,
            0x20.. => Self::SizeUpdate,
            _ => Self::Literal,
        }
    }

    /// How many bits of the first byte belong to the number in it.
    fn prefix(self) -> u32 {
        match self {
            Self::Indexed => 7,
            Self::Added => 6,
            Self::SizeUpdate => 5,
            Self::Literal => 4,
        }
    }

    /// The other bits.
    fn pattern(self) -> u8 {
        u8::MAX << self.prefix()
    }
}

/// One field of a block, encoded.
#[derive(Debug)]
struct Field<'a> {
    kind: Kind,
    /// The index, or the new size of the table.
    index: u32,
    bytes: &'a [u8],
    /// Of a literal, its value.
    value: &'a [u8],
}

impl<'a> Field<'a> {
    fn form(&self) -> FieldForm {
        let representation = match self.kind {
            Kind::Indexed => Representation::Indexed,
            Kind::Added => Representation::Added,
            Kind::SizeUpdate => Representation::TableSize(self.index),
            Kind::Literal if self.bytes.first().is_some_and(|first| first & 0x10 != 0) => Representation::Never,
            Kind::Literal => Representation::Literal,
        };
        let huffman = [self.bytes.get(1), self.value.first()].map(|first| first.is_some_and(|first| first & 0x80 != 0));
        FieldForm { representation, index: self.index, huffman }
    }

    /// Cuts the first field off.
    fn cut(rest: &mut &'a [u8]) -> Result<Self, BadBlock> {
        let start = *rest;
        let kind = Kind::of(*start.first().ok_or(BadBlock)?);
        let index = number(rest, kind.prefix())?;
        let mut value = *rest;
        if matches!(kind, Kind::Added | Kind::Literal) {
            if index == 0 {
                cut_string(rest)?;
            }
            value = *rest;
            cut_string(rest)?;
        }
        let bytes = &start[..start.len() - rest.len()];
        value = &value[..value.len() - rest.len()];
        Ok(Self { kind, index, bytes, value })
    }
}

/// A number with a prefix of this many bits (RFC 7541 section 5.1). It has at most five bytes, as in the crate.
fn number(rest: &mut &[u8], prefix: u32) -> Result<u32, BadBlock> {
    let (first, mut after) = rest.split_first().ok_or(BadBlock)?;
    let mask = (1_u32 << prefix) - 1;
    let mut value = u32::from(*first) & mask;
    let mut shift = 0;
    let mut more = value == mask;
    while more {
        let (byte, next) = after.split_first().ok_or(BadBlock)?;
        after = next;
        value += u32::from(byte & 0x7f) << shift;
        shift += 7;
        more = byte & 0x80 != 0;
        if more && shift > 21 {
            return Err(BadBlock);
        }
    }
    *rest = after;
    Ok(value)
}

fn cut_string(rest: &mut &[u8]) -> Result<(), BadBlock> {
    let len = number(rest, 7)?;
    *rest = rest.get(len as usize..).ok_or(BadBlock)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Pair = (Option<Vec<u8>>, Option<Vec<u8>>);

    fn decode(hpack: &mut Hpack, block: &[u8]) -> Result<Vec<Pair>, BadBlock> {
        let mut fields = Vec::new();
        hpack.decode(block, |BlockField { name, value, form }| {
            if !matches!(form.representation, Representation::TableSize(_)) {
                fields.push((name.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec)));
            }
            true
        })?;
        Ok(fields)
    }

    fn known(name: &str, value: &str) -> Pair {
        (Some(name.into()), Some(value.into()))
    }

    #[test]
    fn fields_that_nobody_wants_cost_nothing_but_change_the_table() {
        let mut hpack = Hpack::default();
        let mut calls = 0;
        // An entry, ten references to it, and another entry.
        let block = [&[0x40, 1, b'a', 1, b'b'][..], &[0xbe; 10], &[0x40, 1, b'c', 1, b'd']].concat();
        hpack
            .decode(&block, |_| {
                calls += 1;
                false
            })
            .unwrap();
        assert_eq!(calls, 2);
        assert_eq!(decode(&mut hpack, &[0xbe, 0xbf]).unwrap(), [known("c", "d"), known("a", "b")]);
    }

    #[test]
    fn the_examples_of_the_rfc_decode() {
        // RFC 7541 appendix C.4: three requests with Huffman code.
        let mut hpack = Hpack::default();
        let first =
            [0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        let host = known(":authority", "www.example.com");
        let start = [known(":method", "GET"), known(":scheme", "http"), known(":path", "/"), host.clone()];
        assert_eq!(decode(&mut hpack, &first).unwrap(), start);
        let second = [0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        let fields = decode(&mut hpack, &second).unwrap();
        assert_eq!(fields[3..], [host, known("cache-control", "no-cache")]);
    }

    #[test]
    fn a_reference_to_a_lost_entry_is_unknown_and_later_ones_are_not() {
        let mut hpack = Hpack::default();
        assert_eq!(decode(&mut hpack, &[0xbe]), Err(BadBlock));
        hpack.lose();
        let block = [0xbe, 0x40, 1, b'a', 1, b'b', 0xbe, 0xbf, 0x7f, 0x01, 1, b'v', 0xbe];
        let unknown = (None, None);
        let ab = known("a", "b");
        let half = (None, Some(b"v".to_vec()));
        let expected = [unknown.clone(), ab.clone(), ab, unknown, half.clone(), half];
        assert_eq!(decode(&mut hpack, &block).unwrap(), expected);
        // A table that was emptied has nothing unknown in it.
        assert_eq!(decode(&mut hpack, &[0x20, 0x3f, 0xe1, 0x1f, 0xbe]), Err(BadBlock));
    }

    #[test]
    fn size_updates_evict_and_are_bounded() {
        let mut hpack = Hpack::default();
        decode(&mut hpack, &[0x40, 1, b'a', 1, b'b', 0x40, 1, b'c', 1, b'd']).unwrap();
        assert_eq!(decode(&mut hpack, &[0x3f, 0x03, 0xbe]).unwrap(), [known("c", "d")]);
        assert_eq!(decode(&mut hpack, &[0xbf]), Err(BadBlock));
        // 2^32 - 1.
        assert_eq!(decode(&mut hpack, &[0x3f, 0xe0, 0xff, 0xff, 0xff, 0x0f]), Err(BadBlock));
    }

    #[test]
    fn numbers_and_strings_that_are_too_long_are_refused() {
        let mut hpack = Hpack::default();
        for block in
            [&[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0x80], &[0, 5]]
        {
            assert_eq!(decode(&mut hpack, block), Err(BadBlock), "{block:?}");
        }
        // A string that ends inside, padding of eight bits, the end of a string.
        for string in [&[0x85_u8, 0xf1][..], &[0x82, 0x1f, 0xff], &[0x84, 0xff, 0xff, 0xff, 0xff]] {
            let block = [&[0x10, 1, b'a'], string].concat();
            assert_eq!(decode(&mut hpack, &block), Err(BadBlock), "{string:?}");
        }
    }

    #[test]
    fn the_table_stays_within_its_size() {
        let mut hpack = Hpack::default();
        // A name of 4000 bytes, then references to it with an empty value: each of them is an entry.
        let mut block = vec![0x40, 0x7f, 0xa1, 0x1e];
        block.extend([b'n'; 4000]);
        block.push(0);
        for _ in 0..100_000 {
            block.extend([0x7e, 0]);
        }
        let mut bytes = 0;
        hpack
            .decode(&block, |field| {
                bytes += field.name.unwrap().len();
                true
            })
            .unwrap();
        assert_eq!(bytes, 4000 * 100_001);
        // None but the last of them is left.
        assert_eq!(decode(&mut hpack, &[0xbe]).unwrap().len(), 1);
        assert_eq!(decode(&mut hpack, &[0xbf]), Err(BadBlock));
    }

    proptest! {
        #[test]
        fn another_implementation_reads_the_same(
            lists in proptest::collection::vec(
                proptest::collection::vec(
                    (proptest::sample::select(vec![&b":path"[..], b"cookie", b"x-a", b"x-b"]),
                     proptest::collection::vec(any::<u8>(), 0..200)),
                    0..20),
                1..10),
        ) {
            let mut encoder = loona_hpack::Encoder::new();
            let mut hpack = Hpack::default();
            for list in lists {
                let block = encoder.encode(list.iter().map(|(name, value)| (*name, value.as_slice())));
                let expected: Vec<Pair> =
                    list.iter().map(|(name, value)| (Some(name.to_vec()), Some(value.clone()))).collect();
                prop_assert_eq!(decode(&mut hpack, &block).unwrap(), expected);
            }
        }

        #[test]
        fn any_bytes_decode_as_the_other_implementation_does(blocks in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..60), 1..6))
        {
            let mut other = loona_hpack::Decoder::new();
            other.set_max_allowed_table_size(MAX_TABLE as usize);
            let mut hpack = Hpack::default();
            for block in blocks {
                let theirs = other.decode(&block);
                let ours = decode(&mut hpack, &block);
                // The other one refuses a block that ends with a size update, and numbers above 2^28.
                match (theirs, ours) {
                    (Ok(theirs), Ok(ours)) => {
                        let theirs: Vec<Pair> = theirs.into_iter().map(|(n, v)| (Some(n), Some(v))).collect();
                        prop_assert_eq!(ours, theirs);
                    }
                    (Ok(theirs), Err(error)) => prop_assert!(false, "{theirs:?} {error:?}"),
                    (Err(_), _) => break,
                }
            }
        }
    }
}
