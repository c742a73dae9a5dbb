//! The secret key that addresses and names are replaced with.

use hmac::{Hmac, KeyInit as _, Mac as _};
use ipcrypt_rs::IpcryptPfx;
use sha2::Sha256;
use thiserror::Error;

/// The bytes of a key.
const LEN: usize = IpcryptPfx::KEY_BYTES;

/// Why the content of a file is no key. It does not say what is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum KeyError {
    /// It is not as long as a key, or has something else than digits.
    #[error("expected a key: 32 bytes as 64 hexadecimal digits on one line, such as `openssl rand -hex 32` prints")]
    Form,
    /// It is half as long as a key.
    #[error("32 hexadecimal digits are half a key; `openssl rand -hex 32` prints the 64 that are needed")]
    Half,
    /// The mode for addresses has two keys, which would cancel each other out.
    #[error("the two halves of the key are the same; `openssl rand -hex 32` makes a key")]
    SameHalves,
}

/// Reads a key out of the content of its file: 64 hexadecimal digits on a line of their own, or 32 bytes.
pub(super) fn read(content: &[u8]) -> Result<[u8; LEN], KeyError> {
    let key = match <[u8; LEN]>::try_from(content) {
        Ok(digits) if digits.iter().all(u8::is_ascii_hexdigit) => return Err(KeyError::Half),
        Ok(key) => key,
        Err(_) => of_digits(content)?,
    };
    let (one, other) = key.split_at(LEN / 2);
    if one == other { Err(KeyError::SameHalves) } else { Ok(key) }
}

fn of_digits(content: &[u8]) -> Result<[u8; LEN], KeyError> {
    let digits = content.trim_ascii();
    let mut key = [0; LEN];
    if digits.len() == LEN && digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(KeyError::Half);
    }
    if digits.len() != 2 * LEN {
        return Err(KeyError::Form);
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
        *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or(KeyError::Form)?;
    }
    Ok(key)
}

/// HMAC-SHA-256 with a key for names alone, which comes from the key for addresses.
#[derive(Clone)]
pub(super) struct NameHash(Hmac<Sha256>);

impl NameHash {
    pub(super) fn new(key: &[u8; LEN]) -> Self {
        let of = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("a key of HMAC may have any length");
        let mut names = of(key);
        names.update(b"tap2pcap: names");
        Self(of(&names.finalize().into_bytes()))
    }

    /// The first 64 bits of a name's hash. Names of different kinds have different hashes.
    pub(super) fn of(&self, kind: &str, name: &[u8]) -> u64 {
        let mut hash = self.0.clone();
        hash.update(kind.as_bytes());
        hash.update(&[0]);
        hash.update(name);
        let bytes = hash.finalize().into_bytes();
        bytes.iter().take(size_of::<u64>()).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "0123456789abcdeffedcba98765432101032547698badcfeefcdab8967452301";

    #[test]
    fn a_key_is_digits_or_bytes() {
        let key = read(DIGITS.as_bytes()).unwrap();
        assert_eq!(key[..3], [0x01, 0x23, 0x45]);
        assert_eq!(read(format!(" {}\r\n", DIGITS.to_uppercase()).as_bytes()), Ok(key));
        assert_eq!(read(&key), Ok(key));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for (content, why) in [
            (String::new(), KeyError::Form),
            (DIGITS[1..].into(), KeyError::Form),
            (format!("{DIGITS}\n{DIGITS}\n"), KeyError::Form),
            (DIGITS.replace("01", "+1"), KeyError::Form),
            (DIGITS.replace('a', "g"), KeyError::Form),
            (DIGITS[32..].into(), KeyError::Half),
            (format!("{}\n", &DIGITS[32..]), KeyError::Half),
            (DIGITS[32..].repeat(2), KeyError::SameHalves),
            ("0".repeat(64), KeyError::SameHalves),
        ] {
            assert_eq!(read(content.as_bytes()), Err(why), "{content}");
        }
        assert_eq!(read(&[0; 32]), Err(KeyError::SameHalves));
    }

    #[test]
    fn hashes_depend_on_the_key_the_kind_and_the_name() {
        let hash = NameHash::new(&read(DIGITS.as_bytes()).unwrap());
        let other = NameHash::new(&[1; 32]);
        let all = [hash.of("host", b"a"), hash.of("host", b"b"), hash.of("socket", b"a"), other.of("host", b"a")];
        assert!((0..all.len()).all(|index| !all[index + 1..].contains(&all[index])), "{all:x?}");
    }
}
