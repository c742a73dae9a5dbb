//! A source means the same in whatever pieces it is read: a network or a pipe cuts it anywhere.

use std::{io, path::Path};

use tap2pcap::{
    input::{Advance, Encoding, Source, SourceOptions},
    trace::{Code, Finding, Findings},
};

use crate::fixture::{Dress, sound};

/// The findings of a source that is read in pieces of `size` bytes.
fn findings_by_pieces(encoding: Encoding, bytes: &[u8], size: usize) -> Vec<Finding> {
    read_by_pieces(encoding, bytes, size).0
}

/// The number of messages of such a source.
fn messages_by_pieces(encoding: Encoding, bytes: &[u8], size: usize) -> u64 {
    read_by_pieces(encoding, bytes, size).1
}

fn read_by_pieces(encoding: Encoding, bytes: &[u8], size: usize) -> (Vec<Finding>, u64) {
    struct Pieces(io::Cursor<Vec<u8>>, usize);
    impl io::Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(self.1);
            self.0.read(&mut buffer[..most])
        }
    }
    let reader = Box::new(Pieces(io::Cursor::new(bytes.to_owned()), size));
    let options = SourceOptions { encoding: Some(encoding), ..SourceOptions::default() };
    let mut source = Source::from_reader(Path::new("path_0"), reader, options).unwrap();
    let mut findings = Findings::default();
    loop {
        match source.advance(&mut findings) {
            Advance::Message => {}
            Advance::NeedInput => source.fill(&mut findings),
            Advance::End => return (findings.take(), source.decoded()),
        }
    }
}

#[test]
fn a_field_that_is_too_long_gives_the_same_finding_in_any_reads() {
    let mut bytes = Dress::Binary.file(&sound());
    // Field 100 with a length of eight bytes, and then bytes that only a large read has in the same window.
    bytes.extend_from_slice(b"\xa2\x06\xff\xff\xff\xff\xff\xff\xff\x7f and more");
    let whole = findings_by_pieces(Encoding::Binary, &bytes, usize::MAX);
    assert!(whole.iter().any(|finding| finding.to_string().contains("protobuf allows")), "{whole:?}");
    assert_eq!(whole, findings_by_pieces(Encoding::Binary, &bytes, 1));
}

#[test]
fn a_number_goes_on_in_the_next_read() {
    let json = br#"{"socket_streamed_trace_segment": {"event": {"closed": {}}, "newer": 1e5}}"#;
    for size in 1..=json.len() {
        let findings = findings_by_pieces(Encoding::Json, json, size);
        assert_eq!(findings, [], "in pieces of {size} bytes");
    }
}

#[test]
fn a_damaged_json_object_that_is_closed_is_not_cut_off() {
    let json =
        br#"{"socket_streamed_trace_segment": {"event": {"closed": {}}}}{"socket_streamed_trace_segment": "\u"}"#;
    let whole = findings_by_pieces(Encoding::Json, json, usize::MAX);
    assert_eq!(whole.iter().map(|finding| finding.code()).collect::<Vec<_>>(), [Code::TrailingBytes]);
    for size in 1..=json.len() {
        assert_eq!(findings_by_pieces(Encoding::Json, json, size), whole, "in pieces of {size} bytes");
    }
}

#[test]
fn a_json_object_after_damage_is_found_however_far_it_is_indented() {
    let json = format!(r#"|{{{}"socket_streamed_trace_segment": {{"event": {{"closed": {{}}}}}}}}"#, " ".repeat(16));
    let whole = findings_by_pieces(Encoding::Json, json.as_bytes(), usize::MAX);
    // The finding is about the `|`, and none is about what follows it.
    assert_eq!(whole.iter().map(|finding| finding.place.message).collect::<Vec<_>>(), [0]);
    assert_eq!(messages_by_pieces(Encoding::Json, json.as_bytes(), usize::MAX), 1);
    for size in 1..json.len() {
        assert_eq!(messages_by_pieces(Encoding::Json, json.as_bytes(), size), 1, "in pieces of {size} bytes");
    }
}

#[test]
fn a_text_literal_ends_at_its_quote_or_line_break() {
    for end in ["\"", "\n"] {
        let rest = " ".repeat(80);
        let text = format!("socket_buffered_trace {{ local: \"a\" \"b{end}127\" }}{rest}");
        let whole = findings_by_pieces(Encoding::Text, text.as_bytes(), usize::MAX);
        let place = text.find("127").unwrap() as u64;
        // The damage is at the literal's end or right after it, and not at the end of the text.
        assert!(whole[0].place.offset.abs_diff(place) <= 3, "{whole:?}");
        assert_eq!(whole, findings_by_pieces(Encoding::Text, text.as_bytes(), 1));
    }
}
