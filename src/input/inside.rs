//! Recognises the inside of a message in text that was skipped, where the start of the message is lost.
//!
//! A log that was cut at its start, or that has lost lines, begins in the middle of a message. What is left of that is no
//! message, so it is skipped as text, but it is damage all the same. Ordinary text must not be called damage: there must
//! be a field that only a trace has, and after it a closing brace whose opening one is missing. Where such a field is
//! lost too, the layout of Envoy's printers shows it: closing braces on lines of their own, each indented by one step less
//! than the one before, down to the message that follows.

use crate::trace::Place;

/// Fields that other programs do not write, in the order of their bytes.
const OWN: [&[u8]; 22] = [
    b"asBytes",
    b"asString",
    b"as_bytes",
    b"as_string",
    b"endStream",
    b"end_stream",
    b"headersReceivedTime",
    b"headers_received_time",
    b"rawValue",
    b"raw_value",
    b"readTruncated",
    b"read_truncated",
    b"requestBodyChunk",
    b"request_body_chunk",
    b"responseBodyChunk",
    b"responseTrailers",
    b"response_body_chunk",
    b"response_trailers",
    b"seqNum",
    b"seq_num",
    b"writeTruncated",
    b"write_truncated",
];

/// Fields of traces that others have too, in the order of their bytes.
const SHARED: [&[u8]; 24] = [
    b"address",
    b"closed",
    b"data",
    b"event",
    b"events",
    b"headers",
    b"key",
    b"local_address",
    b"nanos",
    b"port_value",
    b"read",
    b"remote_address",
    b"request",
    b"request_headers",
    b"response",
    b"response_headers",
    b"seconds",
    b"socket_address",
    b"timestamp",
    b"trace_id",
    b"trailers",
    b"truncated",
    b"value",
    b"write",
];

/// Longer words are no fields.
const MOST_WORD: usize = 32;

/// What a run of text between two messages holds, byte by byte.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// Where the run begins.
    place: Option<Place>,
    /// Where the text so far ends.
    end: u64,
    /// A string is open. Envoy's strings end on their line.
    in_string: bool,
    in_escape: bool,
    /// The braces, and how they are if the run begins inside of a string. Only its first line can tell.
    braces: Braces,
    inverted: Option<Braces>,
    word: Vec<u8>,
    /// The byte before the word.
    before_word: u8,
    /// A word has ended, and what follows it may show that it is a field's name.
    ended: Option<Ended>,
    /// A field that only a trace has was met.
    has_own: bool,
    /// A field of a trace was met.
    has_any: bool,
    /// A line was met that is more than a closing brace.
    has_more: bool,
    /// White space directly before this byte.
    indent: usize,
    /// The last byte that is no white space.
    last: u8,
    /// Closing braces on lines of their own, as far as they go up to here.
    ladder: Ladder,
    /// Such a brace on this line, and how far it is indented.
    rung: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Ended {
    /// In quotes.
    Quoted,
    Bare,
}

#[derive(Clone, Copy, Debug, Default)]
struct Braces {
    open: u32,
    /// A message was closed that did not begin in the run, after one of its fields.
    is_damage: bool,
    unmatched: u32,
}

impl Braces {
    fn close(&mut self, has_own: bool) {
        match self.open.checked_sub(1) {
            Some(open) => self.open = open,
            None => {
                self.unmatched = self.unmatched.saturating_add(1);
                self.is_damage |= has_own;
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Ladder {
    rungs: usize,
    /// How far the last one is indented.
    indent: usize,
    step: usize,
}

impl Inside {
    /// Adds text that was skipped. What belongs to the same run stands before the same message.
    #[cold]
    pub(super) fn add(&mut self, place: Place, text: &[u8]) {
        match self.place {
            Some(begun) if begun.message == place.message => {
                if place.offset != self.end {
                    self.end_line();
                }
            }
            _ => {
                *self = Self {
                    place: Some(place),
                    before_word: b'\n',
                    inverted: Some(Braces::default()),
                    ..Self::default()
                };
            }
        }
        self.end = place.offset + text.len() as u64;
        if self.is_damage() {
            return;
        }
        for byte in text {
            self.byte(*byte);
        }
    }

    /// Where the inside of a message begins, if the run that ends here is one. `is_followed` by a message.
    pub(super) fn take(&mut self, is_followed: bool) -> Option<Place> {
        let place = self.place.take()?;
        self.end_line();
        let Ladder { rungs, step, .. } = self.ladder;
        let is_ladder = match step {
            // Few others indent like the printer of protobuf's JSON.
            1 => rungs >= 3 || rungs >= 2 && self.has_any,
            2 => rungs >= 2 && self.has_any || rungs >= 3 && !self.has_more && place.message == 0,
            _ => false,
        };
        let is_end = is_followed && is_ladder && self.braces.unmatched > 0;
        (self.braces.is_damage || is_end).then_some(place)
    }

    fn is_damage(&self) -> bool {
        self.inverted.is_none() && self.braces.is_damage
    }

    fn byte(&mut self, byte: u8) {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            if self.word.is_empty() {
                self.before_word = if self.indent > 0 { b' ' } else { self.last };
            }
            if self.word.len() <= MOST_WORD {
                self.word.push(byte);
            }
            self.ended = None;
        } else {
            self.after_word(byte);
        }
        if self.in_escape {
            self.in_escape = false;
        } else {
            match byte {
                b'"' => self.in_string = !self.in_string,
                b'\\' => self.in_escape = true,
                b'{' | b'}' => self.brace(byte),
                b'\n' => return self.end_line(),
                _ => {}
            }
        }
        if matches!(byte, b' ' | b'\t' | b'\r') {
            self.indent += 1;
            return;
        }
        let is_rung = byte == b'}' && (self.indent > 0 || self.last == b'\n');
        self.rung = match self.rung {
            _ if is_rung => Some(self.indent),
            rung if byte == b',' && self.last == b'}' => rung,
            _ => None,
        };
        (self.indent, self.last) = (0, byte);
    }

    fn brace(&mut self, brace: u8) {
        let braces = match self.in_string {
            false => Some(&mut self.braces),
            true => self.inverted.as_mut(),
        };
        match braces {
            Some(braces) if brace == b'{' => braces.open = braces.open.saturating_add(1),
            Some(braces) => braces.close(self.has_own),
            None => {}
        }
    }

    /// Looks at what follows a word.
    fn after_word(&mut self, byte: u8) {
        if !self.word.is_empty() && self.ended.is_none() {
            self.ended = match (self.before_word, byte) {
                (b'"', b'"') => {
                    self.ended = Some(Ended::Quoted);
                    return;
                }
                (b' ' | b'\t' | b'\n', b':' | b' ' | b'{') => Some(Ended::Bare),
                _ => None,
            };
        }
        let is_name = match (self.ended, byte) {
            (_, b' ') if self.ended.is_some() => return,
            (Some(Ended::Quoted), b':') => true,
            // A field of the text format begins its line, with or without a prefix.
            (Some(Ended::Bare), b':' | b'{') => !self.in_string,
            _ => false,
        };
        if is_name {
            let own = OWN.binary_search(&&self.word[..]).is_ok();
            self.has_own |= own;
            self.has_any |= own || SHARED.binary_search(&&self.word[..]).is_ok();
        }
        self.ended = None;
        self.word.clear();
    }

    fn end_line(&mut self) {
        if let Some(inverted) = self.inverted.take()
            && self.in_string
        {
            self.braces = inverted;
        } else if self.in_string && self.last == b'{' {
            // A quotation of a whole trace begins.
            self.braces.open = self.braces.open.saturating_add(1);
        }
        self.has_more |= self.rung.is_none() && self.last != b'\n';
        self.ladder = match (self.rung, self.ladder) {
            (None, _) if self.last == b'\n' => self.ladder,
            (None, _) => Ladder::default(),
            (Some(indent), ladder) => {
                let step = ladder.indent.saturating_sub(indent);
                match ladder.rungs {
                    1 if step > 0 => Ladder { rungs: 2, indent, step },
                    2.. if step == ladder.step => Ladder { rungs: ladder.rungs + 1, indent, step },
                    _ => Ladder { rungs: 1, indent, step: 0 },
                }
            }
        };
        (self.in_string, self.in_escape, self.ended, self.rung) = (false, false, None, None);
        (self.indent, self.last, self.before_word) = (0, b'\n', b'\n');
        self.word.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_inside(text: &str, is_followed: bool) -> bool {
        let is_inside = |piece: usize| {
            let mut inside = Inside::default();
            for (index, part) in text.as_bytes().chunks(piece).enumerate() {
                inside.add(Place { offset: (index * piece) as u64, message: 0 }, part);
            }
            inside.take(is_followed) == Some(Place::default())
        };
        let whole = is_inside(text.len());
        assert_eq!(whole, is_inside(1), "{text}");
        whole
    }

    #[test]
    fn the_fields_are_sorted() {
        assert!(OWN.is_sorted() && SHARED.is_sorted());
    }

    #[test]
    fn the_rest_of_a_message_is_its_inside() {
        for text in [
            " \"seq_num\": \"5\"\n }\n}\n",
            "  seq_num: 5\n}\n",
            "2024-05-01T10:00:00Z   \"seq_num\": \"5\"\n2024-05-01T10:00:01Z  }\n2024-05-01T10:00:02Z }\n",
            "envoy-1  |   events {\nenvoy-1  |   as_bytes: \"}{\"\nenvoy-1  |   }\nenvoy-1  | }\n",
            // The first line begins inside of a string.
            "Zm9v\",\"truncated\":false}},\"seq_num\":\"1\"}}}\n",
            "d\": {\"as_bytes\": \"Zm9v\"}}}}\n",
        ] {
            assert!(is_inside(text, true) && is_inside(text, false), "{text}");
        }
    }

    #[test]
    fn the_layout_tells_directly_before_a_message() {
        for text in [
            "   value: \"x\"\n  }\n }\n}\n",
            "  value: \"0\"\n    }\n  }\n}\n",
            "    },\n   }\n  }\n }\n}\n\n",
            "    }\n  }\n}\n",
        ] {
            assert!(is_inside(text, true), "{text}");
            assert!(!is_inside(text, false), "{text}");
            assert!(!is_inside(&format!("{text}more\n"), true), "{text}");
        }
    }

    #[test]
    fn other_text_is_none() {
        for text in [
            "$ cat tap.json\n",
            "}\n}\n",
            "x\n    }\n  }\n}\n",
            "  \"trace_id\": \"4bf9\"\n}\n",
            "    \"timestamp\": \"now\"\n  },\n  \"level\": \"info\"\n}\n",
            "{\"level\":\"info\",\"trace_id\":\"4bf9\",\"seq_num\":7}\n",
            "let text = \"{\n \"seq_num\": 7\n}\";\n",
            "a note that as_bytes }\n",
            "if seq_num == 7 {\n}\n}\n",
            "events {\n  worker_connections 1024;\n}\n",
            "fn read(as_bytes: &[u8]) {\n    \"seq_num\"\n}\n",
        ] {
            assert!(!is_inside(text, true), "{text}");
        }
    }
}
