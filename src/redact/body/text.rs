//! Secrets in text of any kind: `name=value`, `name: value`, `"name": "value"`, `<name>value</name>`, users and passwords of
//! URLs, JSON Web Tokens, and credentials after their scheme.
//!
//! The text is read once and byte by byte, and a value is masked as it comes: what was given back cannot be masked later.
//! Two things are known late: whether the authority of a URL has a user, which an `@` says, and whether the word after
//! `Basic` is a credential. An escape or an entity is known at its end, too. Where a piece ends before that is known,
//! what there is of them is masked.
//!
//! In markup and other text, a character may be an entity of HTML or XML, which is read as what it stands for.
//!
//! A byte may be percent-encoded, once or twice, as URLs inside of URLs are. Its level is how often. What ends a value
//! is encoded no deeper than the value's name was separated from it.

use std::ops::Range;

use crate::redact::{
    Counts, Kind,
    names::{self, MAX_NAME},
};

/// How deep percent-encoding is read.
const MAX_LEVEL: u8 = 2;

/// How many words before a separator are its name: `Client Secret: …`.
const MAX_WORDS: u8 = 3;

/// A buffer that has grown larger is given back.
const KEPT_CAPACITY: usize = 256;

/// Elements of HTML that have no content.
const VOID: [&[u8]; 8] = [b"input", b"meta", b"link", b"img", b"br", b"hr", b"source", b"param"];

/// Schemes of URLs, whose colon does not separate a name from a value.
const URL_SCHEMES: [&[u8]; 6] = [b"http", b"https", b"ws", b"wss", b"ftp", b"file"];

/// Schemes before credentials anywhere (RFC 9110 section 11.1). [`is_plain`] looks for their second letters.
const AUTH_SCHEMES: [&[u8]; 2] = [b"bearer", b"basic"];

/// Schemes before credentials in a value that is secret.
const SECRET_SCHEMES: [&[u8]; 6] = [b"bearer", b"basic", b"negotiate", b"digest", b"token", b"apikey"];

/// Parameters of challenges, which are no credentials.
const CHALLENGE: [&[u8]; 8] = [
    b"realm",
    b"scope",
    b"error",
    b"error_description",
    b"error_uri",
    b"charset",
    b"resource_metadata",
    b"authorization_uri",
];

/// What kind of text it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::redact) enum Mode {
    /// The value of a field.
    Field,
    /// A request target.
    Target,
    /// A form in the body.
    Form,
    /// A body whose type is not known. It may be a form.
    Untyped,
    /// What is written for people, or for machines.
    Text,
    /// HTML and XML.
    Markup,
    /// A program. A value ends where an expression does.
    Script,
    /// The inside of a string of JSON.
    Json,
}

impl Mode {
    /// Whether `name: value` is meant if the name has no quotation marks.
    fn has_colons(self) -> bool {
        !matches!(self, Self::Field | Self::Target)
    }

    /// Whether a plus sign is a space.
    fn has_pluses(self) -> bool {
        matches!(self, Self::Form | Self::Target | Self::Untyped)
    }

    /// Whether the text is all parameters from its first byte on.
    fn is_form(self) -> bool {
        matches!(self, Self::Form | Self::Untyped)
    }

    /// Whether a reference may begin with two solidi (RFC 3986 section 4.2). Elsewhere they begin comments.
    fn has_references(self) -> bool {
        matches!(self, Self::Field | Self::Target)
    }

    /// Whether what a name says may be on the next lines, as in YAML.
    fn has_blocks(self) -> bool {
        matches!(self, Self::Text | Self::Json | Self::Untyped | Self::Script)
    }

    /// Whether characters may be written as entities of HTML and XML.
    fn has_entities(self) -> bool {
        matches!(self, Self::Text | Self::Untyped | Self::Markup | Self::Script)
    }

    /// How much of `://` a reference needs not have.
    fn solidi(self) -> u8 {
        u8::from(self.has_references())
    }

    /// Whether it is short and known to be no prose.
    fn is_terse(self) -> bool {
        matches!(self, Self::Field | Self::Target | Self::Form)
    }
}

/// The bytes that are looked at, and what is done to them.
pub(in crate::redact) struct Out<'a> {
    pub(in crate::redact) bytes: &'a mut [u8],
    pub(in crate::redact) counts: &'a mut Counts,
    /// They are in a string of JSON, whose escapes stay escapes.
    pub(in crate::redact) json: bool,
    /// The first byte of the piece follows a reverse solidus in the one before.
    pub(in crate::redact) escaped: bool,
}

impl Out<'_> {
    fn mask(&mut self, range: Range<usize>) {
        let Some(bytes) = self.bytes.get_mut(range.clone()) else { return };
        if !self.json {
            bytes.fill(b'*');
            return;
        }
        // `\/` is the escape that can stand for any other.
        let mut escaped = range.start == 0 && self.escaped;
        for byte in bytes {
            (*byte, escaped) = match *byte {
                _ if escaped => (b'/', false),
                b'\\' => (b'\\', true),
                _ => (b'*', false),
            };
        }
    }
}

/// Where a secret value ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Before the next parameter of a query.
    Query,
    /// Before the next parameter of a form.
    Form,
    /// Before the next parameter in a list of any kind.
    Param,
    /// Before white space or the end of the tag.
    Attribute,
    /// At the end of the line.
    Line,
    /// Before the first line that is not indented.
    Block { new_line: bool },
    /// Before the next member of an object.
    Member,
    /// At this quotation mark.
    Quoted { mark: u8, escaped: bool },
    /// Where this many brackets are closed.
    Brackets { depth: u32, mark: u8, escaped: bool },
    /// Where the element of the last tag ends, of whose end tag so many bytes are there.
    Element { seen: usize },
    /// Before what cannot be in a token.
    Token,
    /// After so many dashes.
    Pem { dashes: u8 },
}

/// What a byte means inside a secret value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is secret.
    Mask(Rule),
    /// It is not, but the value goes on.
    Keep(Rule),
    /// The value ended before it.
    Before,
    /// The value ended with it.
    With,
}

/// A separator after the name of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Separator {
    level: u8,
    colon: bool,
    /// The name had quotation marks.
    quoted: bool,
    /// The name is one of a query's.
    query: bool,
    /// The name was too long to be read.
    long: bool,
    attribute: bool,
    /// Whether the value is on a line after the separator, and indented.
    next_line: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No secret so far.
    Words,
    /// After the separator, before the value.
    Before(Separator),
    /// In a value.
    Secret { rule: Rule, level: u8 },
}

/// What is known only at its end.
#[derive(Clone, Copy, Debug)]
struct Late {
    authority: bool,
    /// Where it begins in the piece.
    start: usize,
    /// Where what may be a port begins.
    port: Option<usize>,
    /// What may be a port is none.
    bad_port: bool,
    brackets: bool,
    /// An equals sign was the last byte of what may be a credential.
    equals: bool,
    /// A parameter of a challenge is before it.
    challenge: bool,
    /// It looks like a word of a sentence.
    prose: bool,
    length: usize,
    /// It began in an earlier piece, where it was masked.
    masked: bool,
    counted: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum TagState {
    #[default]
    Outside,
    /// After `<`.
    Start,
    Name,
    Attributes,
    End,
}

/// Tags of HTML and XML.
#[derive(Debug, Default)]
struct Tag {
    state: TagState,
    name: Vec<u8>,
    /// Its name, or an attribute that is a name, says secret.
    secret: bool,
    named: bool,
    /// The next word is the value of an attribute that is a name.
    capture: bool,
    /// The content of the element is a name of what follows.
    is_name: bool,
    /// The element before was a name that says secret.
    pair: bool,
    slash: bool,
    /// Its marks are entities.
    escaped: bool,
}

/// An escape that is not complete.
#[derive(Clone, Copy, Debug, Default)]
struct Percent {
    /// Its bytes at this level: none, the percent sign, or that and a digit.
    have: u8,
    digit: u8,
    level: u8,
    start: usize,
}

/// The longest entity that is read: `&#x0022;`.
const MAX_ENTITY: usize = 8;

/// An entity of HTML or XML that is not complete.
#[derive(Clone, Copy, Debug, Default)]
struct Entity {
    bytes: [u8; MAX_ENTITY],
    length: usize,
}

impl Entity {
    /// Takes the next byte, if it may belong to an entity.
    fn push(&mut self, byte: u8) -> bool {
        let fits = match self.length {
            0 => byte == b'&',
            _ => byte.is_ascii_alphanumeric() || byte == b'#' || byte == b';',
        };
        let Some(place) = self.bytes.get_mut(self.length).filter(|_| fits) else { return false };
        *place = byte;
        self.length += 1;
        true
    }

    /// What it stands for, as ASCII.
    fn meaning(&self) -> Option<u8> {
        let name = self.bytes.get(1..self.length)?.strip_suffix(b";")?;
        let number = |digits: &[u8], radix| {
            let number = u8::from_str_radix(str::from_utf8(digits).ok()?, radix).ok()?;
            number.is_ascii().then_some(number)
        };
        match name {
            b"amp" => Some(b'&'),
            b"lt" => Some(b'<'),
            b"gt" => Some(b'>'),
            b"quot" => Some(b'"'),
            b"apos" => Some(b'\''),
            [b'#', b'x' | b'X', digits @ ..] => number(digits, 16),
            [b'#', digits @ ..] => number(digits, 10),
            _ => None,
        }
    }
}

/// Takes the secrets out of one text.
#[derive(Debug)]
pub(in crate::redact) struct Text {
    mode: Mode,
    kind: Kind,
    /// The last words.
    name: Vec<u8>,
    words: u8,
    /// The last words are too long.
    long: bool,
    /// A space follows the last word.
    gap: bool,
    /// A quotation mark follows the last word.
    closed: bool,
    /// The last word is the name of a query's parameter.
    query: bool,
    /// A scheme of credentials was the last word.
    scheme: bool,
    /// It is a word that sentences have, too.
    is_basic: bool,
    /// How much of `://` is there.
    solidi: u8,
    jwt: Jwt,
    state: State,
    percent: Percent,
    entity: Entity,
    /// The byte that is looked at was written as an entity.
    is_entity: bool,
    /// So was the quotation mark that the secret began with.
    by_entity: bool,
    late: Option<Late>,
    tag: Tag,
}

/// What is there of a JSON Web Token, whose first part begins with a brace and a quotation mark, maybe with blanks
/// between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Jwt {
    /// It can begin here.
    None,
    E,
    Y,
    W,
    /// `eyA`, `ewk`, `ewo` or `ew0`: a brace and a blank.
    Blank,
    First,
    Dot,
    /// In another word.
    Other,
}

fn is_name_byte(byte: u8) -> bool {
    NAME_BYTE[usize::from(byte)]
}

static NAME_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let it = byte as u8;
        table[byte] =
            it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-' | b'.' | b'[' | b']' | b'$' | b'@' | 0x80..);
        byte += 1;
    }
    table
};

/// Whether a JSON Web Token may begin before this byte of a text: `eyJ`, `eyA`, `ewk`, `ewo` and `ew0` are the base64 of a
/// brace and a quotation mark or a blank. The text may end before that is known.
pub(in crate::redact) fn may_be_token(text: &[u8], second: usize) -> bool {
    let Some(first) = second.checked_sub(1) else { return false };
    let after_word = first.checked_sub(1).and_then(|before| text.get(before)).is_some_and(u8::is_ascii_alphanumeric);
    !after_word
        && match text.get(first..).unwrap_or_default() {
            [b'e', b'y', third, ..] => matches!(third, b'J' | b'A'),
            [b'e', b'w', third, ..] => matches!(third, b'k' | b'o' | b'0'),
            [b'e', b'y' | b'w'] => true,
            _ => false,
        }
}

/// Whether a byte of [`Class::Token`] is one of the first bytes of a JSON Web Token.
pub(in crate::redact) fn is_of_token(text: &[u8], at: usize) -> bool {
    let second = if text.get(at) == Some(&b'w') { Some(at) } else { at.checked_sub(1) };
    second.is_some_and(|second| may_be_token(text, second))
}

/// Whether there is no secret in a text, at first sight.
pub(in crate::redact) fn is_plain(text: &[u8]) -> bool {
    // A reference has a user, but no scheme.
    let has_user = memchr::memchr(b'@', text).is_some_and(|at| memchr::memmem::find(&text[..at], b"//").is_some());
    !has_user
        && !text.iter().enumerate().any(|(index, byte)| {
            let class = CLASS[usize::from(*byte)];
            match class {
                Class::Sign => true,
                Class::Scheme => may_be_scheme(&text[index..]),
                Class::Token => is_of_token(text, index),
                Class::Plain | Class::End => false,
            }
        })
}

/// What a byte may have to do with a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::redact) enum Class {
    Plain,
    /// It may be the sign of one.
    Sign,
    /// A scheme of credentials may begin with it.
    Scheme,
    /// It may be the second or the third byte of a JSON Web Token.
    Token,
    /// It may end a string of JSON, or be no part of one.
    End,
}

pub(in crate::redact) static CLASS: [Class; 256] = {
    let mut table = [Class::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'=' | b':' | b'<' | b'%' => Class::Sign,
            b'J' | b'A' | b'w' => Class::Token,
            b'b' | b'B' => Class::Scheme,
            b'"' | b'\'' | b'\\' | b'\n' => Class::End,
            _ => Class::Plain,
        };
        byte += 1;
    }
    table
};

/// Whether a scheme begins here, or may do so if there were more.
pub(in crate::redact) fn may_be_scheme(text: &[u8]) -> bool {
    AUTH_SCHEMES.iter().any(|scheme| {
        let length = scheme.len().min(text.len());
        text[..length].eq_ignore_ascii_case(&scheme[..length])
    })
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// The bytes of credentials (RFC 9110 section 11.2).
fn is_token68(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'')
}

impl Text {
    pub(in crate::redact) fn new(mode: Mode, kind: Kind) -> Self {
        Self {
            mode,
            kind,
            name: Vec::new(),
            words: 0,
            long: false,
            gap: false,
            closed: false,
            query: mode.is_form(),
            scheme: false,
            is_basic: false,
            solidi: mode.solidi(),
            jwt: Jwt::None,
            state: State::Words,
            percent: Percent::default(),
            entity: Entity::default(),
            is_entity: false,
            by_entity: false,
            late: None,
            tag: Tag::default(),
        }
    }

    /// Takes the secrets out of the next piece.
    pub(in crate::redact) fn data(&mut self, bytes: &mut [u8], counts: &mut Counts) {
        let length = bytes.len();
        let mut out = Out { bytes, counts, json: false, escaped: false };
        self.span(0..length, &mut out);
        self.end_piece(length, &mut out);
    }

    /// Takes the secrets out of a text that is there as a whole.
    pub(in crate::redact) fn whole(&mut self, bytes: &mut [u8], counts: &mut Counts) {
        let length = bytes.len();
        let mut out = Out { bytes, counts, json: false, escaped: false };
        self.span(0..length, &mut out);
        self.finish(length, &mut out);
    }

    /// Takes a part of a piece in which each byte stands for itself.
    pub(in crate::redact) fn span(&mut self, range: Range<usize>, out: &mut Out) {
        let mut at = range.start;
        while at < range.end {
            let rest = &out.bytes[at..range.end];
            let run =
                if self.is_idle() { rest.iter().position(|byte| !NAME_BYTE[usize::from(*byte)]) } else { Some(0) };
            let run = run.unwrap_or(rest.len());
            if run > 0 && self.run(&rest[..run]) {
                at += run;
                continue;
            }
            if rest[0] == b' ' && self.is_between_words() {
                (self.jwt, self.solidi, self.tag.slash) = (Jwt::None, self.mode.solidi(), false);
                self.space();
                at += 1;
                continue;
            }
            // A run that has something in it is not looked at again.
            for at in at..at + run.max(1) {
                self.character(out.bytes[at], at, out);
            }
            at += run.max(1);
        }
    }

    /// Whether the next bytes of a name are that, and nothing else.
    fn is_idle(&self) -> bool {
        let late_is_idle = self.late.is_none_or(|late| late.authority && late.port.is_none() && !late.masked);
        self.state == State::Words
            && self.percent.have == 0
            && self.entity.length == 0
            && !self.scheme
            && self.solidi < 3
            && late_is_idle
    }

    /// Whether a space is that, and nothing else.
    fn is_between_words(&self) -> bool {
        self.is_idle() && self.late.is_none() && !self.query && self.tag.state == TagState::Outside
    }

    /// Takes a run of bytes that names consist of, if there is no secret in it.
    fn run(&mut self, run: &[u8]) -> bool {
        if !matches!(self.jwt, Jwt::None | Jwt::Other)
            || matches!(self.tag.state, TagState::Start)
            || memchr::memchr2_iter(b'y', b'w', run).any(|at| may_be_token(run, at))
            || self.late.is_some() && memchr::memchr3(b'@', b'[', b']', run).is_some()
        {
            return false;
        }
        // A token may begin with the last bytes.
        let Some((last, _)) = run.split_last() else { return false };
        if *last == b'e' && run.iter().rev().nth(1).is_none_or(|before| !before.is_ascii_alphanumeric()) {
            return false;
        }
        self.solidi = 0;
        self.tag.slash = false;
        self.jwt = if last.is_ascii_alphanumeric() { Jwt::Other } else { Jwt::None };
        self.begin_word();
        self.extend(run);
        true
    }

    /// Takes a byte, which may belong to an entity.
    fn character(&mut self, byte: u8, at: usize, out: &mut Out) {
        if self.entity.length > 0 || byte == b'&' && self.mode.has_entities() {
            if self.entity.push(byte) {
                if byte == b';' {
                    self.end_entity(at + 1, out);
                }
                return;
            }
            self.flush_entity(at, out);
            if byte == b'&' {
                self.entity.push(byte);
                return;
            }
        }
        self.byte(byte, at..at + 1, out);
    }

    fn end_entity(&mut self, end: usize, out: &mut Out) {
        let Some(meaning) = self.entity.meaning() else { return self.flush_entity(end, out) };
        let start = end.saturating_sub(self.entity.length);
        self.entity.length = 0;
        if meaning == b'&' {
            // It may begin another entity, and separates parameters as it does elsewhere.
            if self.late.is_none() && matches!(self.state, State::Words | State::Before(Separator { query: false, .. }))
            {
                self.entity.push(meaning);
            } else {
                self.byte(meaning, start..end, out);
            }
            return;
        }
        self.flush_percent(start, out);
        self.is_entity = true;
        self.decoded(meaning, 1, start..end, out);
        self.is_entity = false;
    }

    /// What looked like an entity is none.
    fn flush_entity(&mut self, end: usize, out: &mut Out) {
        let Entity { bytes, length } = std::mem::take(&mut self.entity);
        for (index, byte) in bytes.into_iter().take(length).enumerate() {
            // What was in an earlier piece has no place in this one.
            let place = |index: usize| end.saturating_sub(length - index);
            self.byte(byte, place(index)..place(index + 1), out);
        }
    }

    /// Takes a byte, which stands at `range`.
    pub(in crate::redact) fn byte(&mut self, byte: u8, range: Range<usize>, out: &mut Out) {
        let digit = (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (self.percent.have, digit) {
            (0, _) if byte == b'%' => {
                self.percent = Percent { have: 1, digit: 0, level: 0, start: range.start };
            }
            (0, _) => self.decoded(byte, 0, range, out),
            (1, Some(digit)) => (self.percent.have, self.percent.digit) = (2, digit),
            (_, Some(digit)) => {
                let decoded = self.percent.digit << 4 | digit;
                let level = self.percent.level + 1;
                if decoded == b'%' && level < MAX_LEVEL {
                    self.percent = Percent { have: 1, digit: 0, level, ..self.percent };
                } else {
                    let start = self.percent.start;
                    self.percent = Percent::default();
                    self.decoded(decoded, level, start..range.end, out);
                }
            }
            (_, None) => {
                self.flush_percent(range.start, out);
                self.byte(byte, range, out);
            }
        }
    }

    /// What looked like an escape is none.
    fn flush_percent(&mut self, end: usize, out: &mut Out) {
        let Percent { have, digit, level, start } = std::mem::take(&mut self.percent);
        if have > 0 {
            self.decoded(b'%', level, start..end, out);
        }
        if have > 1 {
            let digit = char::from_digit(u32::from(digit), 16).map_or(b'0', |digit| digit as u8);
            self.decoded(digit, 0, end..end, out);
        }
    }

    /// The piece ends, and more may come.
    pub(in crate::redact) fn end_piece(&mut self, end: usize, out: &mut Out) {
        if let Some(late) = &mut self.late {
            if late.start < end {
                out.mask(late.start..end);
                if !std::mem::replace(&mut late.counted, true) {
                    out.counts.add(Kind::Url, 1);
                }
            }
            (late.start, late.masked, late.port) = (0, true, late.port.map(|_| 0));
        } else if self.percent.have > 0 && self.state != State::Words {
            out.mask(self.percent.start..end);
        }
        if self.entity.length > 0 && self.late.is_none() && self.masks_ampersands() {
            out.mask(end.saturating_sub(self.entity.length)..end);
        }
        self.percent.start = 0;
        if self.name.capacity() > KEPT_CAPACITY && self.name.len() <= KEPT_CAPACITY {
            self.name.shrink_to(KEPT_CAPACITY);
        }
    }

    /// Whether an ampersand would be a part of the value.
    fn masks_ampersands(&self) -> bool {
        match self.state {
            State::Words => false,
            State::Before(separator) => separator.colon || separator.attribute,
            State::Secret { rule, level } => matches!(self.verdict(b'&', 0, rule, level), Verdict::Mask(_)),
        }
    }

    /// The text ends.
    pub(in crate::redact) fn finish(&mut self, end: usize, out: &mut Out) {
        self.flush_entity(end, out);
        self.flush_percent(end, out);
        self.end_late(end, out);
    }

    /// Whether the next byte may be secret.
    pub(in crate::redact) fn is_in_secret(&self) -> bool {
        self.state != State::Words || self.late.is_some()
    }

    /// The text has ended, and another one begins.
    pub(in crate::redact) fn reset(&mut self) {
        self.clear();
        (self.scheme, self.solidi, self.jwt) = (false, 0, Jwt::None);
        (self.state, self.percent, self.late) = (State::Words, Percent::default(), None);
        (self.entity, self.by_entity) = (Entity::default(), false);
        if self.tag.state != TagState::Outside || self.tag.pair || self.tag.is_name {
            self.tag = Tag::default();
        }
        self.query = self.mode.is_form();
    }

    /// Takes a byte as it is meant.
    fn decoded(&mut self, byte: u8, level: u8, range: Range<usize>, out: &mut Out) {
        if self.late.is_some() || self.solidi == 3 || self.scheme {
            self.late(byte, &range, out);
        }
        match self.state {
            State::Words => self.word(byte, level, range, out),
            State::Before(separator) => self.before(byte, level, separator, range, out),
            State::Secret { rule, level: of_secret } => self.secret(byte, level, rule, of_secret, range, out),
        }
    }

    fn count(&self, query: bool, out: &mut Out) {
        let kind = match self.kind {
            Kind::Field if query => Kind::Url,
            kind => kind,
        };
        out.counts.add(kind, 1);
    }

    // What is known late.

    fn begin_late(&mut self, authority: bool, start: usize) {
        self.late = Some(Late {
            authority,
            start,
            port: None,
            bad_port: false,
            brackets: false,
            equals: false,
            challenge: false,
            prose: self.is_basic,
            length: 0,
            masked: false,
            counted: false,
        });
    }

    fn late(&mut self, byte: u8, range: &Range<usize>, out: &mut Out) {
        if self.solidi == 3 && self.late.is_none() && self.state == State::Words {
            self.begin_late(true, range.start);
            self.solidi = 0;
        }
        if self.scheme && self.state == State::Words && !is_space(byte) && !(byte == b'+' && self.mode.has_pluses()) {
            self.scheme = false;
            if is_token68(byte) && self.late.is_none() {
                self.begin_late(false, range.start);
            }
        }
        match self.late {
            Some(late) if late.authority => self.authority(late, byte, range, out),
            Some(late) => self.credential(late, byte, range, out),
            None => {}
        }
    }

    /// A byte of `user:password@host:port`, or the first one after it (RFC 3986 section 3.2).
    fn authority(&mut self, mut late: Late, byte: u8, range: &Range<usize>, out: &mut Out) {
        match byte {
            b'/' | b'?' | b'#' | b'&' | b'"' | b'<' | b'>' | b'\\' | b'`' | 0..=b' ' => {
                self.end_late(range.start, out);
                return;
            }
            b'@' => {
                out.mask(late.start..range.start);
                if late.start < range.start && !late.counted {
                    late.counted = true;
                    out.counts.add(Kind::Url, 1);
                }
                (late.start, late.port, late.bad_port, late.masked) = (range.end, None, false, false);
                self.late = Some(late);
                return;
            }
            b'[' => late.brackets = true,
            b']' => late.brackets = false,
            b':' if !late.brackets => (late.port, late.bad_port, late.length) = (Some(range.end), false, 0),
            _ if late.port.is_some() => {
                late.length = late.length.saturating_add(1);
                late.bad_port |= !byte.is_ascii_digit() || late.length > 5;
            }
            _ => {}
        }
        if late.masked {
            out.mask(range.clone());
            if !std::mem::replace(&mut late.counted, true) {
                out.counts.add(Kind::Url, 1);
            }
        }
        self.late = Some(late);
    }

    /// A byte of the word after a scheme, or the first one after it.
    fn credential(&mut self, mut late: Late, byte: u8, range: &Range<usize>, out: &mut Out) {
        let is_parameter = late.equals && byte != b'=' && (is_quote(byte) || late.challenge);
        if is_parameter && !late.masked {
            self.late = None;
            return;
        }
        if !is_token68(byte) {
            self.end_late(range.start, out);
            return;
        }
        late.equals = byte == b'=';
        late.challenge = late.equals && CHALLENGE.iter().any(|it| self.name.eq_ignore_ascii_case(it));
        late.prose &= byte.is_ascii_lowercase() || late.length == 0 && byte.is_ascii_uppercase() || byte == b'.';
        late.length = late.length.saturating_add(1);
        if late.masked {
            out.mask(range.clone());
        }
        self.late = Some(late);
    }

    fn end_late(&mut self, end: usize, out: &mut Out) {
        let Some(late) = self.late.take() else { return };
        let from = if late.authority {
            // What is no port is a password whose URL is cut, or has something in it that had to be encoded.
            late.port.filter(|_| late.bad_port)
        } else {
            (self.mode.is_terse() || !late.prose || late.length > 16).then_some(late.start)
        };
        if let Some(from) = from.filter(|from| *from < end)
            && !late.masked
        {
            out.mask(from..end);
            if !late.counted {
                let kind = if late.authority { Kind::Url } else { self.kind };
                out.counts.add(kind, 1);
            }
        }
    }

    // Words, until a secret begins.

    fn clear(&mut self) {
        if self.tag.capture && !self.name.is_empty() {
            self.tag.named |= names::is_secret(&self.name);
        }
        self.name.clear();
        (self.words, self.long, self.gap, self.closed) = (0, false, false, false);
    }

    /// A word begins or goes on.
    fn begin_word(&mut self) {
        if self.closed || self.gap && self.tag.state == TagState::Attributes {
            self.clear();
        } else if self.gap {
            self.gap = false;
            if self.words >= MAX_WORDS {
                let first = memchr::memchr(b' ', &self.name).map_or(self.name.len(), |space| space + 1);
                self.name.drain(..first);
                self.words -= 1;
            }
            self.name.push(b' ');
            self.words += 1;
        }
        self.words = self.words.max(1);
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = (MAX_NAME + 1).saturating_sub(self.name.len());
        self.long |= bytes.len() > room;
        self.name.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn word(&mut self, byte: u8, level: u8, range: Range<usize>, out: &mut Out) {
        if self.is_token(byte, &range, out) || self.in_tag(byte) {
            return;
        }
        self.solidi = match (self.solidi, byte) {
            (_, b':') => 1,
            (_, b' ' | b'\t' | b'<' | b'"' | b'\'' | b'(' | b'=' | b',' | b';') => self.mode.solidi(),
            (1, b'/') => 2,
            (2, b'/') => 3,
            // A reverse solidus before a solidus is an escape of JavaScript.
            (solidi @ 1..=2, b'\\') => solidi,
            _ => 0,
        };
        let in_authority = self.late.is_some_and(|late| late.authority);
        match byte {
            // Half of a character of UTF-16.
            0 => {}
            b'=' => self.separator(false, level),
            // `a && b`
            b'&' if self.mode == Mode::Script && self.query && self.name.is_empty() => self.parameter(false),
            b'?' | b'&' | b'#' => self.parameter(true),
            b';' => self.parameter(self.query),
            _ if self.query && !self.ends_query_name(byte) => self.push(byte),
            b':' if in_authority => self.clear(),
            b':' if self.closed || self.mode.has_colons() => self.separator(true, level),
            b' ' | b'\t' => self.space(),
            b'+' if self.mode.has_pluses() => self.space(),
            b'\n' | b'\r' => self.end_line(),
            b'"' | b'\'' => self.quote(),
            b'\\' => {}
            b'<' => self.begin_tag(),
            _ if is_name_byte(byte) => self.push(byte),
            _ => {
                self.clear();
                self.tag.capture = false;
                self.query = self.mode == Mode::Form && self.query;
            }
        }
    }

    fn push(&mut self, byte: u8) {
        self.begin_word();
        self.extend(&[byte]);
    }

    fn parameter(&mut self, query: bool) {
        self.clear();
        self.query = query;
    }

    fn ends_query_name(&self, byte: u8) -> bool {
        match self.mode {
            Mode::Form => false,
            Mode::Target => byte == b'"',
            Mode::Field => is_space(byte) || matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'\\'),
            // In programs, question marks and ampersands are operators.
            _ => is_space(byte) || matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'\\' | b':' | b',' | b'{' | b'}'),
        }
    }

    fn space(&mut self) {
        self.query = false;
        if self.closed {
            return;
        }
        if matches!(self.name.last(), Some(b'r' | b'R' | b'c' | b'C')) {
            let last = self.name.rsplit(|byte| !byte.is_ascii_alphanumeric()).next().unwrap_or_default();
            if AUTH_SCHEMES.iter().any(|scheme| last.eq_ignore_ascii_case(scheme)) {
                (self.scheme, self.is_basic) = (true, last.eq_ignore_ascii_case(b"basic"));
                self.clear();
            }
        }
        if self.tag.capture && !self.name.is_empty() {
            self.clear();
            self.tag.capture = false;
        }
        self.gap = !self.name.is_empty();
    }

    fn end_line(&mut self) {
        if self.name.ends_with(b"PRIVATE KEY-----") {
            self.state = State::Secret { rule: Rule::Pem { dashes: 0 }, level: MAX_LEVEL };
        }
        self.space();
        if !self.closed {
            self.clear();
        }
    }

    fn quote(&mut self) {
        self.query = false;
        if self.name.is_empty() || self.closed || self.gap {
            self.clear();
        } else {
            if self.tag.capture {
                self.tag.named |= names::is_secret(&self.name);
                self.tag.capture = false;
            }
            self.closed = true;
        }
    }

    fn separator(&mut self, colon: bool, level: u8) {
        let query = self.query && !colon;
        let attribute = self.tag.state == TagState::Attributes && !colon;
        let is_scheme = colon
            && !self.closed
            && !self.gap
            && self
                .name
                .rsplit(|byte| *byte == b' ')
                .next()
                .is_some_and(|last| URL_SCHEMES.iter().any(|scheme| last.eq_ignore_ascii_case(scheme)));
        let secret = !self.name.is_empty()
            && !is_scheme
            && (self.long
                || if query { names::is_secret_parameter(&self.name) } else { names::is_secret(&self.name) }
                || attribute && (self.tag.secret || self.tag.named) && names::is_named_by_sibling(&self.name));
        if secret {
            let (quoted, long) = (self.closed, self.long);
            self.state = State::Before(Separator { level, colon, quoted, query, long, attribute, next_line: None });
        } else {
            self.tag.capture = false;
        }
        let capture = attribute && !secret && names::names_sibling(&self.name);
        self.clear();
        self.tag.capture = capture;
        self.query = false;
    }

    /// Looks for a JSON Web Token, and masks what is after its first part, which names algorithms alone.
    fn is_token(&mut self, byte: u8, range: &Range<usize>, out: &mut Out) -> bool {
        self.jwt = match (self.jwt, byte) {
            (Jwt::None, b'e') => Jwt::E,
            (Jwt::E, b'y') => Jwt::Y,
            (Jwt::Y, b'J') => Jwt::First,
            (Jwt::E, b'w') => Jwt::W,
            (Jwt::Y, b'A') | (Jwt::W, b'k' | b'o' | b'0') => Jwt::Blank,
            // A blank or a quotation mark comes next.
            (Jwt::Blank, b'g' | b'i' | b'J' | b'K' | b'o') => Jwt::First,
            (Jwt::First, b'.') => Jwt::Dot,
            (Jwt::First, _) if is_base64url(byte) => Jwt::First,
            (Jwt::Dot, _) if is_base64url(byte) => {
                match self.late.take() {
                    Some(late) if !late.authority => {
                        out.mask(late.start..range.start);
                    }
                    _ => {}
                }
                self.clear();
                self.jwt = Jwt::None;
                self.state = State::Secret { rule: Rule::Token, level: 0 };
                self.count(self.query, out);
                out.mask(range.clone());
                return true;
            }
            _ if byte.is_ascii_alphanumeric() => Jwt::Other,
            _ => Jwt::None,
        };
        false
    }

    // Tags.

    fn begin_tag(&mut self) {
        // In the value of an attribute, it is no tag.
        if self.is_entity && !self.tag.escaped && self.tag.state == TagState::Attributes {
            self.clear();
            return;
        }
        self.tag.escaped = self.is_entity;
        if std::mem::take(&mut self.tag.is_name) {
            self.tag.pair = names::is_secret(&self.name);
        }
        self.tag.capture = false;
        self.clear();
        self.query = false;
        self.tag.state = TagState::Start;
    }

    /// Whether the byte belongs to the marks of a tag.
    fn in_tag(&mut self, byte: u8) -> bool {
        let after_solidus = std::mem::replace(&mut self.tag.slash, byte == b'/');
        match self.tag.state {
            TagState::Outside => false,
            TagState::Start => {
                self.tag.state = match byte {
                    b'/' => TagState::End,
                    _ if is_name_byte(byte) => TagState::Name,
                    _ => TagState::Outside,
                };
                false
            }
            TagState::Name => match byte {
                b':' => {
                    self.push(byte);
                    true
                }
                b'>' | b'/' | b' ' | b'\t' | b'\r' | b'\n' if byte != b'>' || self.is_entity == self.tag.escaped => {
                    let name = std::mem::take(&mut self.name);
                    let local = name.rsplit(|byte| *byte == b':').next().unwrap_or_default();
                    (self.tag.secret, self.tag.named) = (self.long || names::is_secret(local), false);
                    self.tag.name = name;
                    self.clear();
                    self.tag.state = TagState::Attributes;
                    if byte == b'>' {
                        self.end_tag(false);
                    }
                    true
                }
                _ if is_name_byte(byte) => false,
                _ => {
                    self.tag.state = TagState::Outside;
                    false
                }
            },
            TagState::Attributes | TagState::End if byte == b'>' && self.is_entity == self.tag.escaped => {
                self.clear();
                self.tag.capture = false;
                if self.tag.state == TagState::End {
                    self.tag.state = TagState::Outside;
                } else {
                    self.end_tag(after_solidus);
                }
                true
            }
            TagState::Attributes | TagState::End => false,
        }
    }

    fn end_tag(&mut self, empty: bool) {
        self.tag.state = TagState::Outside;
        self.query = false;
        let local = self.tag.name.rsplit(|byte| *byte == b':').next().unwrap_or_default();
        let is = |names: &[&[u8]]| names.iter().any(|name| local.eq_ignore_ascii_case(name));
        if empty || is(&VOID) {
            return;
        }
        let (is_form, is_value) = (is(&[b"form"]), is(&[b"string"]) || names::is_named_by_sibling(local));
        let is_name = names::names_sibling(local);
        self.tag.pair &= !is_name;
        if self.tag.secret || self.tag.pair || self.tag.named && !is_form {
            self.tag.pair &= !is_value;
            self.state = State::Secret { rule: Rule::Element { seen: 0 }, level: MAX_LEVEL };
        } else {
            self.tag.is_name = is_name;
        }
    }

    // Secrets.

    fn before(&mut self, byte: u8, level: u8, separator: Separator, range: Range<usize>, out: &mut Out) {
        let Separator { colon, quoted, query, long, attribute, .. } = separator;
        let level_of_secret = separator.level;
        let rule = match byte {
            0 => return,
            b'=' | b'"' | b'\'' if long && !query && !quoted => {
                self.state = State::Words;
                return;
            }
            b'\r' | b'\n' if colon && !quoted && self.mode.has_blocks() => {
                self.state = State::Before(Separator { next_line: Some(false), ..separator });
                return;
            }
            b' ' | b'\t' if !query => {
                let next_line = separator.next_line.map(|_| true);
                self.state = State::Before(Separator { next_line, ..separator });
                return;
            }
            b'\r' | b'\n' if quoted => return,
            // The line before had no value.
            _ if separator.next_line == Some(false) => {
                self.end_secret();
                self.word(byte, level, range, out);
                return;
            }
            b'=' | b'>' | b'\\' if !(query || attribute || colon && byte == b'>') => return,
            b'"' | b'\'' if !query || !matches!(self.mode, Mode::Form | Mode::Target) => {
                let rule = Rule::Quoted { mark: byte, escaped: false };
                self.state = State::Secret { rule, level: level.max(level_of_secret) };
                self.by_entity = self.is_entity;
                self.name.clear();
                return;
            }
            b'{' | b'[' if !query && !attribute => {
                let rule = Rule::Brackets { depth: 1, mark: 0, escaped: false };
                self.state = State::Secret { rule, level: level.max(level_of_secret) };
                self.count(false, out);
                return;
            }
            b'|' | b'>' if colon && !quoted && matches!(self.mode, Mode::Text | Mode::Json) => {
                Rule::Block { new_line: false }
            }
            _ if query && self.mode.is_form() && level_of_secret == 0 => Rule::Form,
            _ if query => Rule::Query,
            _ if attribute => Rule::Attribute,
            _ if colon && quoted => Rule::Member,
            _ if separator.next_line == Some(true) && self.mode != Mode::Script => Rule::Block { new_line: false },
            _ if colon => Rule::Line,
            _ => Rule::Param,
        };
        self.state = State::Secret { rule, level: level_of_secret };
        self.name.clear();
        if matches!(self.verdict(byte, level, rule, level_of_secret), Verdict::Mask(_)) {
            self.count(query, out);
        }
        self.secret(byte, level, rule, level_of_secret, range, out);
    }

    fn secret(&mut self, byte: u8, level: u8, rule: Rule, of_secret: u8, range: Range<usize>, out: &mut Out) {
        match self.verdict(byte, level, rule, of_secret) {
            Verdict::Mask(next) => {
                let is_first = match rule {
                    Rule::Quoted { .. } => self.name.is_empty(),
                    Rule::Element { .. } | Rule::Pem { .. } => !self.closed,
                    _ => false,
                };
                if is_first {
                    self.count(false, out);
                    self.closed = true;
                }
                // The first bytes may be the scheme of a credential.
                if self.name.len() < 12 {
                    self.name.push(byte);
                }
                out.mask(range);
                self.state = State::Secret { rule: next, level: of_secret };
            }
            Verdict::Keep(next) => self.state = State::Secret { rule: next, level: of_secret },
            Verdict::With => self.end_secret(),
            Verdict::Before => {
                self.end_secret();
                self.word(byte, level, range, out);
            }
        }
    }

    fn end_secret(&mut self) {
        self.clear();
        (self.query, self.solidi, self.jwt) = (false, 0, Jwt::None);
        (self.state, self.by_entity) = (State::Words, false);
    }

    fn verdict(&self, byte: u8, level: u8, rule: Rule, of_secret: u8) -> Verdict {
        // What is encoded deeper than the separator is part of the value.
        let here = level <= of_secret;
        let mode = self.mode;
        let is_encoded = of_secret > 0 && !self.by_entity && !matches!(rule, Rule::Element { .. } | Rule::Pem { .. });
        if level == 0 && byte == b'&' && (is_encoded || matches!(mode, Mode::Form | Mode::Target))
            || level == 0 && is_encoded && (is_space(byte) || matches!(byte, b'"' | b'<' | b'>'))
        {
            return Verdict::Before;
        }
        let end = |ends: bool| if here && ends { Verdict::Before } else { Verdict::Mask(rule) };
        let after_scheme = is_space(byte) && SECRET_SCHEMES.iter().any(|scheme| self.name.eq_ignore_ascii_case(scheme));
        match rule {
            Rule::Form => end(byte == b'&' || byte == b'\n' && mode == Mode::Untyped),
            Rule::Query if mode == Mode::Target => end(matches!(byte, b'&' | b'#')),
            Rule::Query => end(is_space(byte) && !after_scheme
                || matches!(byte, b'&' | b'#' | b'"' | b'<' | b'>')
                || byte == b'\'' && mode != Mode::Field),
            Rule::Param => end(is_space(byte) && !after_scheme
                || matches!(byte, b'&' | b';' | b'"' | b'\'' | b'<' | b'>')
                || byte == b',' && matches!(mode, Mode::Field | Mode::Script)
                || byte == b')' && mode == Mode::Script
                || matches!(byte, b'?' | b'#') && matches!(mode, Mode::Field | Mode::Target)),
            Rule::Attribute => end(is_space(byte) || byte == b'>'),
            Rule::Line => end(matches!(byte, b'\r' | b'\n')
                || matches!(byte, b',' | b'}' | b')' | b';') && mode == Mode::Script
                || byte == b'<' && mode == Mode::Markup),
            Rule::Block { new_line } => match byte {
                b'\n' => Verdict::Keep(Rule::Block { new_line: true }),
                b'\r' => Verdict::Keep(rule),
                b' ' | b'\t' => Verdict::Mask(Rule::Block { new_line: false }),
                _ if new_line => Verdict::Before,
                _ => Verdict::Mask(rule),
            },
            Rule::Member => end(matches!(byte, b',' | b'}' | b']' | b'\r' | b'\n')),
            Rule::Quoted { escaped: true, mark } => Verdict::Mask(Rule::Quoted { mark, escaped: false }),
            Rule::Quoted { mark, .. } if byte == mark && here => Verdict::With,
            Rule::Quoted { mark, .. } => {
                let escaped = byte == b'\\' && (self.by_entity || self.tag.state == TagState::Outside);
                Verdict::Mask(Rule::Quoted { mark, escaped })
            }
            Rule::Brackets { depth, mark, escaped } => brackets(byte, depth, mark, escaped),
            Rule::Element { seen } => self.element(byte, seen),
            Rule::Token => end(!is_token68(byte)),
            Rule::Pem { dashes } => match byte {
                b'-' if dashes == 4 => Verdict::With,
                b'-' => Verdict::Keep(Rule::Pem { dashes: dashes + 1 }),
                b'\r' | b'\n' => Verdict::Keep(Rule::Pem { dashes: 0 }),
                _ => Verdict::Mask(Rule::Pem { dashes: 0 }),
            },
        }
    }

    /// A byte in the content of an element, which its end tag ends.
    fn element(&self, byte: u8, seen: usize) -> Verdict {
        let name = &self.tag.name;
        /// After the mark of a tag that is not written as this one.
        const OTHER: usize = usize::MAX;
        match (seen, byte) {
            // The element around it ends.
            (OTHER, b'/') if self.tag.escaped => Verdict::Before,
            (_, b'<') if self.is_entity != self.tag.escaped => {
                if self.is_entity {
                    Verdict::Mask(Rule::Element { seen: 0 })
                } else {
                    Verdict::Keep(Rule::Element { seen: OTHER })
                }
            }
            (_, b'>') if self.is_entity != self.tag.escaped => Verdict::Mask(Rule::Element { seen: 0 }),
            (_, b'<') => Verdict::Keep(Rule::Element { seen: 1 }),
            (1, b'/') => Verdict::Keep(Rule::Element { seen: 2 }),
            (2.., b'>' | b' ' | b'\t' | b'\r' | b'\n') if seen - 2 == name.len() => Verdict::With,
            (2.., _) if name.get(seen - 2).is_some_and(|it| it.eq_ignore_ascii_case(&byte)) => {
                Verdict::Keep(Rule::Element { seen: seen + 1 })
            }
            _ => Verdict::Mask(Rule::Element { seen: 0 }),
        }
    }
}

/// A byte inside of brackets.
fn brackets(byte: u8, depth: u32, mark: u8, escaped: bool) -> Verdict {
    let next = |depth, mark, escaped| Verdict::Mask(Rule::Brackets { depth, mark, escaped });
    match byte {
        _ if escaped => next(depth, mark, false),
        b'\\' if mark != 0 => next(depth, mark, true),
        _ if mark != 0 => next(depth, if byte == mark { 0 } else { mark }, false),
        b'"' | b'\'' => next(depth, byte, false),
        b'{' | b'[' => next(depth.saturating_add(1), 0, false),
        b'}' | b']' if depth <= 1 => Verdict::With,
        b'}' | b']' => next(depth - 1, 0, false),
        _ => next(depth, 0, false),
    }
}
