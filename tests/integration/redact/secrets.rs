//! Planted secrets, and templates of text with their places.

use std::{fmt::Write as _, ops::Range};

/// A string that occurs nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    pub text: String,
    pub kind: String,
    /// The name of the conversation.
    pub place: &'static str,
}

/// Makes secrets. The same seed gives the same ones.
pub struct Planter {
    random: u64,
    pub secrets: Vec<Secret>,
    /// So many of them have a place.
    placed: usize,
}

impl Planter {
    pub fn new(seed: u64) -> Self {
        Self { random: seed, secrets: Vec::new(), placed: 0 }
    }

    /// SplitMix64.
    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.random() % limit as u64).unwrap()
    }

    fn plant(&mut self, kind: &str, alphabet: &[u8]) -> String {
        let text: String = (0..20).map(|_| char::from(alphabet[self.below(alphabet.len())])).collect();
        self.secrets.push(Secret { text: text.clone(), kind: kind.to_owned(), place: "" });
        text
    }

    pub fn secret(&mut self, kind: &str) -> String {
        self.plant(kind, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
    }

    /// The text with a new secret in the place of each kind in angle quotation marks. A form may stand before the kind:
    /// `‹base64:session›`.
    pub fn expand(&mut self, template: &str) -> String {
        let mut out = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('‹') {
            let (place, after) = after.split_once('›').expect("a template's end of a place");
            out.push_str(before);
            let (form, kind) = place.split_once(':').unwrap_or(("", place));
            match form {
                "" => out.push_str(&self.secret(kind)),
                "digits" => {
                    let digits = self.plant(kind, b"123456789");
                    out.push_str(&digits);
                }
                "base64" => {
                    let text = self.secret(kind);
                    out.push_str(&base64_simd::STANDARD.encode_to_string(text));
                }
                // Of a host, which some readers write in lower case.
                "name" => {
                    let name = self.plant(kind, b"abcdefghijklmnopqrstuvwxyz0123456789");
                    out.push_str(&name);
                }
                // A user and a password (RFC 7617).
                "basic" => {
                    let user = self.secret(&format!("{kind} user"));
                    let password = self.secret(&format!("{kind} password"));
                    out.push_str(&base64_simd::STANDARD.encode_to_string(format!("{user}:{password}")));
                }
                "percent" => self.secret(kind).bytes().for_each(|byte| write!(out, "%{byte:02X}").unwrap()),
                "lower" => self.secret(kind).bytes().for_each(|byte| write!(out, "%{byte:02x}").unwrap()),
                "escaped" => self.secret(kind).bytes().for_each(|byte| write!(out, "\\u{byte:04x}").unwrap()),
                other => panic!("{other} is no form of a secret"),
            }
            rest = after;
        }
        out + rest
    }

    /// Gives those a place that have none yet, and returns their indexes.
    pub fn place(&mut self, name: &'static str) -> Range<usize> {
        let placed = self.placed..self.secrets.len();
        self.secrets[placed.clone()].iter_mut().for_each(|secret| secret.place = name);
        self.placed = placed.end;
        placed
    }
}
