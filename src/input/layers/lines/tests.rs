use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::input::layers::tests::Trickle;

/// What is left of a text that arrives in pieces of these sizes.
fn read(text: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut reader: Box<dyn Read + Send> = Box::new(Trickle(text.to_vec(), sizes.to_vec(), 0));
    for _ in 0..STAGES {
        reader = Box::new(Lines::new(reader, Met::default()));
    }
    let mut out = Vec::new();
    reader.read_to_end(&mut out).unwrap();
    out
}

#[track_caller]
fn expect(text: &str, expected: &str) {
    for sizes in [vec![1], vec![7, 3, 50], vec![1 << 20]] {
        let out = read(text.as_bytes(), &sizes);
        assert_eq!(String::from_utf8_lossy(&out), expected, "{sizes:?}");
    }
}

#[test]
fn a_prefix_is_blanked_and_text_stays() {
    let text = "start\na | {\na |  \"socket_buffered_trace\": {\na |   \"x\": \"{\"\na |  }\na | }\na | end {\n";
    let expected = "start\n    {\n     \"socket_buffered_trace\": {\n      \"x\": \"{\"\n     }\n    }\na | end {\n";
    expect(text, expected);
    // Without a second line of the same prefix, nothing is taken off.
    for text in
        ["a | {\nb | \"socket_buffered_trace\": {\n", "a | {\n", "a | {", "a | {\na | text\n", "// {\n//  \"a\": {\n"]
    {
        expect(text, text);
    }
}

#[test]
fn lines_of_two_writers_become_two_traces() {
    expect(
        "a | {\nb | {\na |  \"x\": {\nb |  \"y\": {\ntext\na |  }\nb |  }\nb | }\na | }\n",
        "    {\n     \"x\": {\n     }\n    }\ntext\n    {\n     \"y\": {\n     }\n    }\n",
    );
}

/// Elastic's records nest the name of a pod or file, and those of Datadog have tags.
#[test]
fn nested_names_and_tags_tell_the_writers_of_records_apart() {
    let kubernetes = |pod: &str| format!("\"kubernetes\":{{\"pod\":{{\"name\":\"{pod}\"}}}}");
    let file = |pod: &str| format!("\"log\":{{\"file\":{{\"path\":\"/{pod}.log\"}},\"offset\":1}}");
    let tags = |pod: &str| format!("\"tags\":[\"a:b\",\"pod_name:{pod}\"]");
    let string = |pod: &str| format!("\"ddtags\":\"a:b,pod_name:{pod}\"");
    let named: [&dyn Fn(&str) -> String; 4] = [&kubernetes, &file, &tags, &string];
    for name in named {
        let records =
            [("a", "{"), ("b", "{"), ("a", " \\\"x\\\": {"), ("b", " \\\"y\\\": {"), ("a", " }"), ("b", " }")];
        let ends = [("b", "}"), ("a", "}")];
        let record = |(pod, line): &(&str, &str)| format!("{{\"message\":\"{line}\",{}}}\n", name(pod));
        let text: String = records.iter().chain(&ends).map(record).collect();
        let out = String::from_utf8(read(text.as_bytes(), &[1 << 20])).unwrap();
        let words: String = out.split_whitespace().collect();
        assert_eq!(words, "{\"x\":{}}{\"y\":{}}", "{}", name("a"));
    }
    // The id of a record is not that of its writer.
    expect(
        "{\"_source\":{\"id\":\"1\",\"message\":\"{\\n\"}}\n{\"_source\":{\"id\":\"2\",\"message\":\" \\\"x\\\": {}}\\n\"}}\n",
        "{\n \"x\": {}}\n",
    );
}

/// `grep` and `tail` put the name of the file before the lines of containers, and the number of the line.
#[test]
fn lines_of_containers_may_have_the_name_of_their_file_before_them() {
    for (first, second) in [("/a/0.log:", "/a/0.log:"), ("0.log:9:", "0.log-10-"), ("9:", "10:")] {
        let time = "2024-05-01T10:00:00Z stdout";
        expect(
            &format!(
                "{first}{time} F {{\nother.log:{time} F  \"y\": {{\n{second}{time} P  \"x\": \n{second}{time} F {{}}\n\
                 {second}{time} F }}\n"
            ),
            &format!("{{\n \"x\": {{}}\n}}\nother.log:{time} F  \"y\": {{\n"),
        );
    }
}

#[test]
fn records_are_unquoted_and_parts_are_joined() {
    expect(
        "{\"log\":\"{\\n\",\"stream\":\"stdout\"}\n{\"log\":\" {x\\n\",\"stream\":\"stderr\"}\n\
         {\"log\":\" \\\"socket_buffered_tr\",\"stream\":\"stdout\"}\n{\"log\":\"ace\\\": {}}\\n\",\"stream\":\"stdout\"}\n",
        "{\n \"socket_buffered_trace\": {}}\n{\"log\":\" {x\\n\",\"stream\":\"stderr\"}\n",
    );
    expect(
        "2024-05-01T10:00:00Z stdout P {\"socket_buffer\n2024-05-01T10:00:00Z stdout F ed_trace\": {}}\n",
        "2024-05-01T10:00:00Z stdout P {\"socket_buffer\n2024-05-01T10:00:00Z stdout F ed_trace\": {}}\n",
    );
    expect(
        "2024-05-01T10:00:00Z stdout P {\"socket_buffered_trace\": {\"x\": \"\n2024-05-01T10:00:00Z stdout F abc\"}}\n",
        "{\"socket_buffered_trace\": {\"x\": \"abc\"}}\n",
    );
    let object = "{\n \"a\": 1,\n \"message\": \"{\\\"http_buffered_trace\\\": {}}\"\n}\n";
    expect(object, "{\"http_buffered_trace\": {}}\n");
    let other = "{\n \"a\": 1,\n \"message\": \"no trace\"\n}\n";
    expect(other, other);
    // What is in a trace is not a record.
    let trace = "{\n \"http_buffered_trace\": {\n  \"message\": \"{\\\"http_buffered_trace\\\": {}}\"\n }\n}\n";
    expect(&format!("x\n{trace}"), &format!("x\n{trace}"));
}

/// A live stream: what is there is passed on, and waits for no line break.
#[test]
fn a_plain_trace_after_text_does_not_wait() {
    struct Live(Vec<&'static [u8]>);
    impl Read for Live {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.remove(0);
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }
    let pieces: Vec<&[u8]> = vec![b"text\n", b"{\"socket_buffered_trace\": {}}", b"{\"socket_buffered_trace\":"];
    let mut lines = Lines::new(Box::new(Live(pieces)), Met::default());
    let mut buffer = [0; 100];
    for expected in [&b"text\n"[..], b"{\"socket_buffered_trace\": {}}", b"{\"socket_buffered_trace\":"] {
        let count = lines.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], expected);
    }
}

/// More than may wait is passed on, and none of it is lost.
#[test]
fn what_is_beyond_the_limits_is_passed_on() {
    let open = "a | {\na |  \"x\": {\n".to_owned();
    let texts = [
        open.clone() + &"a line of someone else\n".repeat(MOST_HELD / 20),
        (0..MOST_TRACES + 9).map(|index| format!("{index}x | {{\n{index}x |  \"x\": {{\n")).collect(),
        (0..MOST_WAITING * 3).map(|index| format!("{index}x | {{\n")).collect(),
        format!("x | {{\n{}\n", "y".repeat(MOST_WAITING_BYTES + 1)),
        format!("{{\n \"a\": \"{}\"\n}}\n", "y".repeat(MOST_LINE + READ)),
    ];
    for text in texts {
        let out = read(text.as_bytes(), &[1 << 16]);
        assert_eq!(out.len(), text.len(), "{}", &text[..40]);
        let mut letters = [text.as_bytes(), &out].map(|text| text.iter().filter(|byte| **byte == b'y').count());
        letters.sort_unstable();
        assert_eq!(letters[0], letters[1]);
    }
}

/// A long line of an open trace would make it as long as the line. Its rest is left out, and the trace is damaged.
#[test]
fn the_rest_of_a_long_line_in_an_open_trace_is_left_out() {
    struct Long(u64, Vec<u8>);
    impl Read for Long {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if let Some(left) = self.0.checked_sub(buffer.len() as u64) {
                self.0 = left;
                buffer.fill(b'y');
                return Ok(buffer.len());
            }
            let count = (&*self.1).read(buffer)?;
            self.1.drain(..count);
            Ok(count)
        }
    }
    let open = b"a | {\na |  \"x\": {\na |  \"".as_slice();
    let long = open.chain(Long(512 << 20, b"\"\na |  }\nend\n".to_vec()));
    let mut lines = Lines::new(Box::new(long), Met::default());
    let mut out = Vec::new();
    lines.read_to_end(&mut out).unwrap();
    assert!((MOST_LINE..MOST_LINE + 4 * READ).contains(&out.len()), "{}", out.len());
    assert!(out.ends_with(b"ya |  }\nend\n"), "{}", out[out.len() - 40..].escape_ascii());
}

#[test]
fn an_error_comes_after_what_was_read() {
    struct Fails(usize);
    impl Read for Fails {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1 => (&b"a | {\na |  \"x\": {\na | "[..]).read(buffer),
                _ => Err(io::Error::other("the disk failed")),
            }
        }
    }
    let mut lines = Lines::new(Box::new(Fails(0)), Met::default());
    let mut out = Vec::new();
    let error = lines.read_to_end(&mut out).unwrap_err();
    assert_eq!((out.len(), error.to_string().as_str()), (22, "the disk failed"));
}

proptest! {
    /// Whatever the lines are, none is lost, and the pieces they arrive in make no difference.
    #[test]
    fn no_line_is_lost(
        lines in vec(
            select(&[
                "a | {", "a |  \"x\": {", "a |  }", "a | }", "b | {", "b |  \"x\": {", "b | }", "text", "c {", "{", "}",
                " \"socket_buffered_trace\": {", " }", "socket_buffered_trace {", "  x: 1", "a | socket_buffered_trace {",
                "a |   x: '{'", "$ {\"socket_buffered_trace\": {", "", "[", "\"", "a | {\"http_buffered_trace\": {}}",
            ][..]),
            0..30,
        ),
        sizes in vec(1..40_usize, 1..5),
    ) {
        let text = lines.join("\n");
        let whole = read(text.as_bytes(), &[1 << 20]);
        prop_assert_eq!(whole.len(), text.len());
        prop_assert_eq!(read(text.as_bytes(), &sizes), whole);
    }

    /// Nor do records make anything panic, or depend on the pieces.
    #[test]
    fn any_records_are_read_alike_in_any_pieces(
        lines in vec(
            select(&[
                "{\"log\":\"{\\n\",\"stream\":\"stdout\"}", "{\"log\":\" \\\"x\\\": {\\n\",\"stream\":\"stdout\"}",
                "{\"log\":\"}\\n\",\"stream\":\"stdout\"}", "{\"log\":\"part\",\"stream\":\"stderr\"}", "{\"log\":", "{",
                "{\"msg\":\"{\",\"message\":\"{\"}", "{\"msg\":\"\\\"a\\\":{\",\"message\":\"\\\"b\\\":\"}", "}", "text",
                "2024-05-01T10:00:00Z stdout F {", "2024-05-01T10:00:00Z stdout P  \"a\": ", "2024-05-01T10:00:00Z stdout F",
                "2024-05-01T10:00:00Z stderr F {", "{\"message\":\"{\\\"http_buffered_trace\\\": {}}\"}", " \"a\": 1",
            ][..]),
            0..30,
        ),
        sizes in vec(1..40_usize, 1..5),
    ) {
        let text = lines.join("\n");
        prop_assert_eq!(read(text.as_bytes(), &sizes), read(text.as_bytes(), &[1 << 20]));
    }
}
