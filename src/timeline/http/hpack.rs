//! Field blocks in HPACK (RFC 7541), as far as a writer needs it that refers to nothing but the static table.
//!
//! Blocks of several exchanges can then stand in one connection in any order. A field whose name is new is marked for
//! indexing and goes into the decoder's table, where nothing ever refers to it: the encoder alone decides what it refers
//! to. Strings are written as they are, without Huffman's code.

/// Representations of a field: the bits that mark them, and how many bits of the byte are left for a number (RFC 7541
/// section 6).
const INDEXED: (u8, u32) = (0x80, 7);
const LITERAL_WITH_INDEXING: (u8, u32) = (0x40, 6);
const LITERAL_WITHOUT_INDEXING: (u8, u32) = (0x00, 4);

/// A string that is not compressed (RFC 7541 section 5.2).
const PLAIN_STRING: (u8, u32) = (0x00, 7);

/// Appends a field.
pub(super) fn append_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    // Entries of one name follow each other, so the last one is as good as any if none has the value.
    let mut same_name = None;
    for (index, (known, its_value)) in (1..).zip(&STATIC_TABLE) {
        if known.as_bytes() == name {
            if its_value.as_bytes() == value {
                return append_number(out, INDEXED, index);
            }
            same_name = Some(index);
        }
    }
    match same_name {
        Some(index) => append_number(out, LITERAL_WITHOUT_INDEXING, index),
        None => {
            append_number(out, LITERAL_WITH_INDEXING, 0);
            append_string(out, name);
        }
    }
    append_string(out, value);
}

fn append_string(out: &mut Vec<u8>, text: &[u8]) {
    append_number(out, PLAIN_STRING, text.len());
    out.extend_from_slice(text);
}

/// A number (RFC 7541 section 5.1): in what is left of a byte, or after it in groups of seven bits, lowest first.
fn append_number(out: &mut Vec<u8>, (mark, bits): (u8, u32), number: usize) {
    let most = (1 << bits) - 1;
    if number < most {
        out.push(mark | number as u8);
        return;
    }
    out.push(mark | most as u8);
    let mut rest = number - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// RFC 7541 appendix A. Its first entry has the number 1.
static STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use loona_hpack::{Decoder, Encoder};
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn any_name() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![select(&STATIC_TABLE[..]).prop_map(|(name, _)| name.as_bytes().to_vec()), vec(any::<u8>(), 0..300),]
    }

    fn any_value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            select(&STATIC_TABLE[..]).prop_map(|(_, value)| value.as_bytes().to_vec()),
            vec(any::<u8>(), 0..300),
            Just(vec![b'x'; 100_000]),
        ]
    }

    fn block(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            append_field(&mut block, name, value);
        }
        block
    }

    proptest! {
        #[test]
        fn a_decoder_reads_the_fields_that_were_written(fields in vec((any_name(), any_value()), 0..20)) {
            prop_assert_eq!(Decoder::new().decode(&block(&fields)).unwrap(), fields);
        }

        #[test]
        fn fields_are_written_as_by_an_encoder_without_a_dynamic_table(
            fields in vec((any_name(), any_value()), 0..20),
        ) {
            let mut encoder = Encoder::new();
            encoder.set_max_table_size(0);
            let expected = encoder.encode(fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice())));
            prop_assert_eq!(block(&fields), expected);
        }
    }

    #[test]
    fn every_field_of_the_static_table_is_its_number() {
        for (number, (name, value)) in (1..).zip(&STATIC_TABLE) {
            assert_eq!(block(&[(name.as_bytes().to_vec(), value.as_bytes().to_vec())]), [0x80 | number]);
        }
    }
}
