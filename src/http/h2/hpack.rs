//! HPACK (RFC 7541), decoded. After a loss of header blocks, the dynamic table has entries that nobody can know: a field
//! that refers to one of them is reported as unknown, and the rest of the block is read nevertheless.
//!
//! The decoder of the crate loona-hpack, which tests hold this one against, gives up the block then, and it builds its
//! Huffman tables anew for each string.

use std::{collections::VecDeque, sync::Arc};

/// The largest dynamic table that is kept. Browsers ask for so much, and Envoy's default is 4096.
const MAX_TABLE: usize = 64 << 10;

/// The size before anything else is agreed on (RFC 9113 section 6.5.2).
const DEFAULT_TABLE: usize = 4096;

/// What an entry counts besides its name and value (RFC 7541 section 4.1).
const OVERHEAD: usize = 32;

/// A block that is not HPACK, or needs a larger table than is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadBlock;

#[derive(Clone, Debug)]
enum Name {
    Static(usize),
    Literal(Arc<[u8]>),
    Unknown,
}

impl Name {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Static(index) => Some(STATIC[*index].0.as_bytes()),
            Self::Literal(name) => Some(name),
            Self::Unknown => None,
        }
    }
}

#[derive(Debug)]
struct Entry {
    name: Name,
    value: Option<Box<[u8]>>,
}

impl Entry {
    fn size(&self) -> usize {
        OVERHEAD + self.name.bytes().map_or(0, <[u8]>::len) + self.value.as_deref().map_or(0, <[u8]>::len)
    }
}

/// The state of one direction's decoder.
#[derive(Debug)]
pub(super) struct Hpack {
    table: VecDeque<Entry>,
    size: usize,
    max: usize,
    /// The table has entries beyond those in [`Hpack::table`], which are unknown.
    lost: bool,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Hpack {
    fn default() -> Self {
        let (table, name, value) = (VecDeque::new(), Vec::new(), Vec::new());
        Self { table, size: 0, max: DEFAULT_TABLE, lost: false, name, value }
    }
}

impl Hpack {
    /// Bytes are missing that may have changed the table.
    pub(super) fn lose(&mut self) {
        self.table.clear();
        self.size = 0;
        // Only the entries that follow are known, and an encoder never refers to one that it has evicted. So it does no
        // harm to keep more of them than the encoder does.
        self.max = MAX_TABLE;
        self.lost = true;
    }

    /// Decodes a block, and passes on each field: its name and its value, `None` where that is unknown. If the block is
    /// cut, its error comes after the fields that are whole.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        mut each: impl FnMut(Option<&[u8]>, Option<&[u8]>),
    ) -> Result<(), BadBlock> {
        let mut rest = block;
        while let Some(first) = rest.first().copied() {
            if first & 0x80 != 0 {
                let index = integer(&mut rest, 7)?;
                self.indexed(index, &mut each)?;
            } else if first & 0xe0 == 0x20 {
                let size = integer(&mut rest, 5)?;
                if size > MAX_TABLE {
                    return Err(BadBlock);
                }
                self.max = size;
                self.evict(0);
                // An encoder that empties its table leaves nothing unknown in it.
                self.lost &= size > 0;
            } else {
                let adds = first & 0x40 != 0;
                let index = integer(&mut rest, if adds { 6 } else { 4 })?;
                let name = if index == 0 {
                    string(&mut rest, &mut self.name)?;
                    None
                } else {
                    Some(self.name_of(index)?)
                };
                string(&mut rest, &mut self.value)?;
                match &name {
                    Some(name) => each(name.bytes(), Some(&self.value)),
                    None => each(Some(&self.name), Some(&self.value)),
                }
                if adds {
                    let name = name.unwrap_or_else(|| Name::Literal(self.name.as_slice().into()));
                    self.add(Entry { name, value: Some(self.value.as_slice().into()) });
                }
            }
        }
        Ok(())
    }

    fn indexed(&self, index: usize, each: &mut impl FnMut(Option<&[u8]>, Option<&[u8]>)) -> Result<(), BadBlock> {
        match index.checked_sub(1).ok_or(BadBlock)? {
            known if known < STATIC.len() => {
                let (name, value) = STATIC[known];
                each(Some(name.as_bytes()), Some(value.as_bytes()));
            }
            dynamic => match self.table.get(dynamic - STATIC.len()) {
                Some(entry) => each(entry.name.bytes(), entry.value.as_deref()),
                None if self.may_be_lost(dynamic) => each(None, None),
                None => return Err(BadBlock),
            },
        }
        Ok(())
    }

    fn name_of(&self, index: usize) -> Result<Name, BadBlock> {
        let index = index - 1;
        match index.checked_sub(STATIC.len()) {
            None => Ok(Name::Static(index)),
            Some(dynamic) => match self.table.get(dynamic) {
                Some(entry) => Ok(entry.name.clone()),
                None if self.may_be_lost(index) => Ok(Name::Unknown),
                None => Err(BadBlock),
            },
        }
    }

    fn may_be_lost(&self, index: usize) -> bool {
        self.lost && index < STATIC.len() + MAX_TABLE / OVERHEAD
    }

    fn add(&mut self, entry: Entry) {
        let size = entry.size();
        self.evict(size);
        // An entry larger than the table empties it (RFC 7541 section 4.4).
        if size <= self.max {
            self.size += size;
            self.table.push_front(entry);
        }
    }

    /// Evicts entries until there is room for this many bytes.
    fn evict(&mut self, room: usize) {
        while self.size + room > self.max
            && let Some(entry) = self.table.pop_back()
        {
            self.size -= entry.size();
        }
    }
}

/// An integer with a prefix of this many bits (RFC 7541 section 5.1).
fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, BadBlock> {
    let (first, mut after) = rest.split_first().ok_or(BadBlock)?;
    let mask = (1_u32 << prefix) - 1;
    let mut value = u32::from(*first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (byte, next) = after.split_first().ok_or(BadBlock)?;
            after = next;
            let more = u32::from(byte & 0x7f).checked_shl(shift).filter(|more| more >> shift == u32::from(byte & 0x7f));
            value = value.checked_add(more.ok_or(BadBlock)?).ok_or(BadBlock)?;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return Err(BadBlock);
            }
        }
    }
    *rest = after;
    usize::try_from(value).map_err(|_| BadBlock)
}

/// A string (RFC 7541 section 5.2).
fn string(rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), BadBlock> {
    out.clear();
    let huffman = rest.first().ok_or(BadBlock)? & 0x80 != 0;
    let len = integer(rest, 7)?;
    let (string, after) = rest.split_at_checked(len).ok_or(BadBlock)?;
    *rest = after;
    if huffman {
        return unpack(string, out);
    }
    out.extend_from_slice(string);
    Ok(())
}

/// Decodes Huffman code. What is left at the end must be fewer than eight bits, all of them ones.
fn unpack(mut packed: &[u8], out: &mut Vec<u8>) -> Result<(), BadBlock> {
    let (mut bits, mut count) = (0_u64, 0_u32);
    loop {
        while count <= 56 {
            let Some((byte, after)) = packed.split_first() else { break };
            bits = bits << 8 | u64::from(*byte);
            count += 8;
            packed = after;
        }
        if count == 0 {
            return Ok(());
        }
        // The next 32 bits, with ones after the last.
        let ones = u64::MAX.checked_shr(count).unwrap_or(0);
        let window = ((bits << (64 - count) | ones) >> 32) as u32;
        let (mut symbol, mut len) = CODE.short[(window >> 24) as usize];
        if len == 0 {
            len = 9;
            while len < 30 && window >= CODE.limits[usize::from(len)] {
                len += 1;
            }
            let nth = (window - CODE.firsts[len as usize]) >> (32 - u32::from(len));
            symbol = CODE.symbols[usize::from(CODE.offsets[len as usize]) + nth as usize];
        }
        if u32::from(len) > count {
            return if count < 8 && window == u32::MAX { Ok(()) } else { Err(BadBlock) };
        }
        // 256 is the end of a string, which must not be in one.
        out.push(u8::try_from(symbol).map_err(|_| BadBlock)?);
        count -= u32::from(len);
        bits &= (1_u64 << count).wrapping_sub(1);
    }
}

/// The Huffman code, made for decoding.
struct Code {
    /// For each byte, the symbol whose code it begins with, and the length of that code; 0 if it is longer.
    short: [(u16, u8); 256],
    /// All symbols in the order of their codes.
    symbols: [u16; 257],
    /// By length: the place of the first symbol in `symbols`.
    offsets: [u16; 32],
    /// By length: the first code, from the top bit on.
    firsts: [u32; 32],
    /// By length: the first code that is longer, from the top bit on.
    limits: [u32; 32],
}

static CODE: Code = code();

/// The code is canonical: symbols of the same length have consecutive codes, in the order of the symbols, and shorter
/// codes come first. So the lengths tell everything.
const fn code() -> Code {
    let mut code = Code { short: [(0, 0); 256], symbols: [0; 257], offsets: [0; 32], firsts: [0; 32], limits: [0; 32] };
    let (mut next, mut len, mut place) = (0_u64, 1, 0);
    while len <= 30 {
        code.offsets[len] = place as u16;
        code.firsts[len] = next as u32;
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == len {
                code.symbols[place] = symbol as u16;
                place += 1;
                if len <= 8 {
                    let mut byte = (next >> 24) as usize;
                    let end = byte + (1 << (8 - len));
                    while byte < end {
                        code.short[byte] = (symbol as u16, len as u8);
                        byte += 1;
                    }
                }
                next += 1 << (32 - len);
            }
            symbol += 1;
        }
        code.limits[len] = if next > u32::MAX as u64 { u32::MAX } else { next as u32 };
        len += 1;
    }
    code
}

/// The lengths of the codes of RFC 7541 appendix B, by symbol.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15,
    6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22,
    20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23,
    23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22,
    22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26,
    27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27,
    26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// RFC 7541 appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""),
    ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""),
    ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""),
    ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""),
    ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""),
    ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""),
    ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Field = (Option<Vec<u8>>, Option<Vec<u8>>);

    fn decode(hpack: &mut Hpack, block: &[u8]) -> Result<Vec<Field>, BadBlock> {
        let mut fields = Vec::new();
        hpack.decode(block, |name, value| fields.push((name.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec))))?;
        Ok(fields)
    }

    fn known(name: &str, value: &str) -> Field {
        (Some(name.into()), Some(value.into()))
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
        assert_eq!(hpack.size, 110);
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
        // A string that ends inside, padding of eight bits, padding with a zero, the end of a string.
        for string in [&[0x85_u8, 0xf1][..], &[0x82, 0x1f, 0xff], &[0x81, 0x18], &[0x84, 0xff, 0xff, 0xff, 0xff]] {
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
        hpack.decode(&block, |name, _| bytes += name.unwrap().len()).unwrap();
        assert_eq!(bytes, 4000 * 100_001);
        assert!(hpack.size <= DEFAULT_TABLE && hpack.table.len() == 1);
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
                let expected: Vec<Field> =
                    list.iter().map(|(name, value)| (Some(name.to_vec()), Some(value.clone()))).collect();
                prop_assert_eq!(decode(&mut hpack, &block).unwrap(), expected);
            }
        }

        #[test]
        fn any_bytes_decode_as_the_other_implementation_does(blocks in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..60), 1..6))
        {
            let mut other = loona_hpack::Decoder::new();
            other.set_max_allowed_table_size(MAX_TABLE);
            let mut hpack = Hpack::default();
            for block in blocks {
                let theirs = other.decode(&block);
                let ours = decode(&mut hpack, &block);
                // The other one refuses a block that ends with a size update, and numbers above 2^28.
                match (theirs, ours) {
                    (Ok(theirs), Ok(ours)) => {
                        let theirs: Vec<Field> = theirs.into_iter().map(|(n, v)| (Some(n), Some(v))).collect();
                        prop_assert_eq!(ours, theirs);
                    }
                    (Ok(theirs), Err(error)) => prop_assert!(false, "{theirs:?} {error:?}"),
                    (Err(_), _) => break,
                }
            }
        }
    }
}
