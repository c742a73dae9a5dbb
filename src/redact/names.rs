//! Which names say that their value is secret.
//!
//! A name is compared as a whole, without case and without what separates its words, and word by word: `client-secret`,
//! `clientSecret` and `creds.client_secret` are the same. A name that is about a secret, and is none, is kept:
//! `token_type`, `password_length`.

/// A longer name is not read, and counts as secret.
pub(super) const MAX_NAME: usize = 4096;

/// A name is secret if it has one of these anywhere, over the ends of its words too.
const PARTS: [&[u8]; 49] = [
    b"accesskey",
    b"accountkey",
    b"apikey",
    b"appkey",
    b"assertion",
    b"authcode",
    b"authkey",
    b"authorization",
    b"bearer",
    b"cardnumber",
    b"ccnumber",
    b"codeverifier",
    b"connectionstring",
    b"consumerkey",
    b"creditcard",
    b"credential",
    b"csrf",
    b"devicecode",
    b"encryptionkey",
    b"hmac",
    b"jwt",
    b"masterkey",
    b"oauthverifier",
    b"onetimecode",
    b"passcode",
    b"passkey",
    b"passphrase",
    b"passwd",
    b"password",
    b"passwort",
    b"pincode",
    b"privatekey",
    b"pswd",
    b"samlart",
    b"samlrequest",
    b"samlresponse",
    b"secret",
    b"securitycode",
    b"sessid",
    b"sessionid",
    b"sessionkey",
    b"sharedkey",
    b"signature",
    b"signingkey",
    b"socialsecurity",
    b"subscriptionkey",
    b"token",
    b"verificationcode",
    b"xsrf",
];

/// For each letter, the first and the last plus one of `PARTS` that begin with it.
const BY_LETTER: [(u8, u8); 26] = by_letter();

const fn by_letter() -> [(u8, u8); 26] {
    let mut ranges = [(0, 0); 26];
    let mut index = 0;
    while index < PARTS.len() {
        let letter = (PARTS[index][0] - b'a') as usize;
        if ranges[letter].1 == 0 {
            ranges[letter].0 = index as u8;
        }
        ranges[letter].1 = index as u8 + 1;
        index += 1;
    }
    ranges
}

/// A name is secret if one of its words is one of these. They are parts of harmless words.
const WORDS: [&[u8]; 21] = [
    b"auth",
    b"authentication",
    b"cvc",
    b"cvv",
    b"dbpass",
    b"iban",
    b"otp",
    b"otps",
    b"pass",
    b"pgpass",
    b"pin",
    b"psw",
    b"pw",
    b"pwd",
    b"session",
    b"sid",
    b"sig",
    b"ssn",
    b"totp",
    b"userpass",
    b"userpwd",
];

/// A name is secret if its last word is one of these: `Set-Cookie`, but not `cookie_consent`.
const LAST: [&[u8]; 2] = [b"cookie", b"cookies"];

/// What has such a last word is about a secret: `token_type`, `session_timeout`, `token_endpoint`.
const ABOUT: [&[u8]; 32] = [
    b"alg",
    b"algorithm",
    b"algorithms",
    b"at",
    b"count",
    b"counts",
    b"duration",
    b"enabled",
    b"endpoint",
    b"expiration",
    b"expires",
    b"expiry",
    b"in",
    b"length",
    b"lifetime",
    b"limit",
    b"method",
    b"methods",
    b"policy",
    b"rate",
    b"required",
    b"strength",
    b"supported",
    b"time",
    b"timeout",
    b"ttl",
    b"type",
    b"types",
    b"uri",
    b"url",
    b"usage",
    b"used",
];

/// Before `tokens` as the last word, these count the tokens of a text or of a rate limit.
const COUNTED: [&[u8]; 13] = [
    b"audio",
    b"cached",
    b"completion",
    b"input",
    b"limit",
    b"max",
    b"min",
    b"num",
    b"output",
    b"prompt",
    b"reasoning",
    b"remaining",
    b"total",
];

/// These have one of `PARTS`, and are other words, if no word begins in them: `secret_arya`.
const OTHERS: [&[u8]; 6] = [b"secretari", b"secretary", b"tokenisa", b"tokenise", b"tokenisi", b"tokeniz"];

/// Whether the value of a member, a part or a variable with this name is secret.
pub(super) fn is_secret(name: &[u8]) -> bool {
    with_squeezed(name, is_secret_squeezed)
}

/// Whether the value of a parameter of a URL or of a form is secret: `key` and `code` are there, too.
pub(super) fn is_secret_parameter(name: &[u8]) -> bool {
    let name = name.trim_ascii();
    name.eq_ignore_ascii_case(b"key") || name.eq_ignore_ascii_case(b"code") || is_secret(name)
}

/// Whether the value of a header field, whose name has lower case, is secret.
pub(super) fn is_secret_field(name: &[u8]) -> bool {
    match name {
        b"x-forwarded-client-cert" | b"proxy-authentication-info" | b"cookie2" | b"set-cookie2" => true,
        // A challenge of the handshake, and the answer to it (RFC 6455 section 11.3).
        b"sec-websocket-key" | b"sec-websocket-accept" => false,
        // Whether credentials may be sent (Fetch Standard, 3.3.3).
        b"access-control-allow-credentials" => false,
        _ if is_common(name) => false,
        _ => is_secret(name),
    }
}

/// Names that nearly every message has and that say nothing, so that nobody has to take them apart.
fn is_common(name: &[u8]) -> bool {
    matches!(
        name,
        b":authority"
            | b":method"
            | b":path"
            | b":scheme"
            | b":status"
            | b"accept"
            | b"accept-encoding"
            | b"accept-language"
            | b"cache-control"
            | b"connection"
            | b"content-encoding"
            | b"content-length"
            | b"content-type"
            | b"date"
            | b"etag"
            | b"expires"
            | b"grpc-accept-encoding"
            | b"grpc-encoding"
            | b"grpc-message"
            | b"grpc-status"
            | b"grpc-timeout"
            | b"host"
            | b"last-modified"
            | b"location"
            | b"origin"
            | b"referer"
            | b"server"
            | b"te"
            | b"traceparent"
            | b"transfer-encoding"
            | b"user-agent"
            | b"vary"
            | b"x-envoy-attempt-count"
            | b"x-envoy-expected-rq-timeout-ms"
            | b"x-envoy-upstream-service-time"
            | b"x-forwarded-for"
            | b"x-forwarded-proto"
            | b"x-request-id"
    )
}

/// Whether the value of a member with this name is itself the name of a sibling's value: `{"name": …, "value": …}`.
pub(super) fn names_sibling(name: &[u8]) -> bool {
    [b"name".as_slice(), b"key", b"field", b"param", b"parameter", b"header", b"property"]
        .iter()
        .any(|it| name.eq_ignore_ascii_case(it))
}

/// Whether a sibling names the value of a member with this name.
pub(super) fn is_named_by_sibling(name: &[u8]) -> bool {
    [b"value".as_slice(), b"values", b"val", b"content", b"data", b"default", b"defaultvalue", b"stringvalue"]
        .iter()
        .any(|it| name.eq_ignore_ascii_case(it))
}

/// A name's letters and digits in lower case, and where its words begin.
struct Squeezed<'a> {
    letters: &'a [u8],
    /// For each byte, whether a word begins with it.
    starts: &'a [bool],
}

fn with_squeezed(name: &[u8], check: impl Fn(&Squeezed) -> bool) -> bool {
    const ON_STACK: usize = 64;
    if name.len() <= ON_STACK {
        let (mut letters, mut starts) = ([0; ON_STACK], [false; ON_STACK]);
        let length = squeeze(name, &mut letters, &mut starts);
        check(&Squeezed { letters: &letters[..length], starts: &starts[..length] })
    } else if name.len() <= MAX_NAME {
        let (mut letters, mut starts) = (vec![0; name.len()], vec![false; name.len()]);
        let length = squeeze(name, &mut letters, &mut starts);
        check(&Squeezed { letters: &letters[..length], starts: &starts[..length] })
    } else {
        true
    }
}

/// Fills in the letters and the beginnings of words, of which there are at most as many as bytes, and returns how many
/// letters there are.
fn squeeze(name: &[u8], letters: &mut [u8], starts: &mut [bool]) -> usize {
    #[derive(Clone, Copy, PartialEq)]
    enum Class {
        Separator,
        Digit,
        Lower,
        Upper,
    }
    let class = |byte: u8| match byte {
        b'a'..=b'z' | 0x80.. => Class::Lower,
        b'A'..=b'Z' => Class::Upper,
        b'0'..=b'9' => Class::Digit,
        _ => Class::Separator,
    };
    let mut length = 0;
    let mut before = Class::Separator;
    for (index, byte) in name.iter().enumerate() {
        let now = class(*byte);
        if now != Class::Separator {
            let next_is_lower = name.get(index + 1).is_some_and(|next| class(*next) == Class::Lower);
            letters[length] = byte.to_ascii_lowercase();
            // `apiKey`, `OTPCode`, `otp2`
            starts[length] = match (before, now) {
                (Class::Upper, Class::Upper) => next_is_lower,
                (Class::Upper, Class::Lower) => false,
                (before, now) => before != now,
            };
            length += 1;
        }
        before = now;
    }
    length
}

impl<'a> Squeezed<'a> {
    fn words(&self) -> impl Iterator<Item = &'a [u8]> {
        let (letters, starts) = (self.letters, self.starts);
        let mut from = 0;
        std::iter::from_fn(move || {
            if from >= letters.len() {
                return None;
            }
            let next = starts[from + 1..].iter().position(|start| *start).map_or(letters.len(), |next| from + 1 + next);
            let word = &letters[from..next];
            from = next;
            Some(word)
        })
    }
}

fn is_secret_squeezed(name: &Squeezed) -> bool {
    (has_part(name) || name.words().last().is_some_and(|word| LAST.contains(&word)) || name.words().any(is_word))
        && !is_about(name)
}

/// Whether it is one of [`WORDS`].
fn is_word(word: &[u8]) -> bool {
    /// The letters that they begin with.
    const FIRST: u32 = {
        let (mut letters, mut index) = (0, 0);
        while index < WORDS.len() {
            letters |= 1 << (WORDS[index][0] - b'a');
            index += 1;
        }
        letters
    };
    let begins = |letter: &u8| letter.is_ascii_lowercase() && FIRST >> (letter - b'a') & 1 == 1;
    word.first().is_some_and(begins) && WORDS.contains(&word)
}

fn has_part(name: &Squeezed) -> bool {
    let letters = name.letters;
    let is_one_word = |from: usize, length: usize| {
        name.starts.get(from + 1..from + length).is_some_and(|starts| !starts.contains(&true))
    };
    letters.iter().enumerate().any(|(index, letter)| {
        letter.is_ascii_lowercase() && {
            let (first, end) = BY_LETTER[usize::from(letter - b'a')];
            let rest = &letters[index..];
            let may_be = |part: &[u8]| rest.get(1) == part.get(1) && rest.starts_with(part);
            PARTS[usize::from(first)..usize::from(end)].iter().any(|part| may_be(part))
                && !OTHERS.iter().any(|other| rest.starts_with(other) && is_one_word(index, other.len()))
        }
    })
}

fn is_about(name: &Squeezed) -> bool {
    let (mut before, mut last): (&[u8], &[u8]) = (b"", b"");
    for word in name.words() {
        (before, last) = (last, word);
    }
    ABOUT.contains(&last) && !before.is_empty()
        || last == b"tokens" && COUNTED.contains(&before)
        || last == b"token" && before == b"max"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_names_are_not_secret_anyway() {
        for name in ["etag", "host", "x-request-id", "grpc-message", "traceparent", ":path", "content-type"] {
            assert!(is_common(name.as_bytes()) && !is_secret(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn names_of_secrets() {
        for name in [
            "password",
            "Password",
            "PASSWD",
            "user[password]",
            "creds.api-key",
            "clientSecret",
            "client_secret",
            "accessToken",
            "access_token",
            "next_page_token",
            "pageToken",
            "id_token",
            "tokens",
            "refreshToken",
            "X-Api-Key",
            "apikey",
            "hapikey",
            "AWSAccessKeyId",
            "private_key",
            "X-Amz-Signature",
            "X-Amz-Credential",
            "SAMLResponse",
            "SAMLRequest",
            "client_assertion",
            "csrfmiddlewaretoken",
            "_csrf",
            "XSRF-TOKEN",
            "jwt",
            "PHPSESSID",
            "JSESSIONID",
            "session",
            "session_id",
            "sid",
            "connect.sid",
            "sig",
            "otp",
            "OTPCode",
            "totp",
            "userPIN",
            "pin",
            "cvv",
            "cvv2",
            "cardCVC",
            "ssn",
            "pwd",
            "user_pwd",
            "pass",
            "smtp-pass",
            "auth",
            "x-auth",
            "creditCard",
            "card_number",
            "cc-number",
            "IBAN",
            "passphrase",
            "signing_key",
            "encryptionKey",
            "session_key",
            "Ocp-Apim-Subscription-Key",
            "authkey",
            "credentials",
            "Authorization",
            "bearer",
            "cookie",
            "Set-Cookie",
            "curl header cookie",
            "api key",
            "api+key",
            "database.password1",
            "p a s s w o r d",
            "code_verifier",
            "device_code",
            "AccountKey",
            "X-Secret-Array",
            "secretArray",
            "secretarray",
            "secret_arn",
            "secret-ary",
            "token_issue",
            "tokenIssuer",
            "tokenissuer",
        ] {
            assert!(is_secret(name.as_bytes()), "{name}");
            assert!(is_secret_parameter(name.as_bytes()), "{name}");
        }
        assert!(is_secret(&[b'x'; MAX_NAME + 1]));
        assert!(is_secret(&[&[b'x'; 1000][..], b"-token"].concat()));
    }

    #[test]
    fn names_of_other_things() {
        for name in [
            "",
            "-",
            "author",
            "authority",
            "authors",
            "spin",
            "pinned",
            "shipping",
            "design",
            "assign",
            "signal",
            "passenger",
            "compass",
            "bypass",
            "passive",
            "keyboard",
            "key",
            "keys",
            "code",
            "status_code",
            "monkey",
            "tokenizer",
            "tokenization",
            "secretary",
            "secretariat",
            "tokenise",
            "tokenisation",
            "max_tokens",
            "maxTokens",
            "token_type",
            "tokenType",
            "token_count",
            "tokens_used",
            "expires_in",
            "total_tokens",
            "completion_tokens",
            "password_length",
            "session_timeout",
            "token_endpoint",
            "authorization_endpoint",
            "token_endpoint_auth_methods_supported",
            "sidebar",
            "side",
            "siding",
            "sigma",
            "optional",
            "potpourri",
            "user",
            "name",
            "id",
            "page",
            "limit",
            "q",
            "state",
            "nonce",
            "grant_type",
            "client_id",
            "redirect_uri",
            "scope",
            "cookie_consent",
            "public_key",
            "publicKey",
            "standard",
            "authenticated",
            "caribana",
        ] {
            assert!(!is_secret(name.as_bytes()), "{name}");
        }
        assert!(is_secret_parameter(b"key") && is_secret_parameter(b"code") && !is_secret_parameter(b"zip_code"));
    }

    #[test]
    fn names_of_fields() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "set-cookie2",
            "x-api-key",
            "x-forwarded-client-cert",
            "authentication-info",
            "proxy-authentication-info",
            "x-amz-security-token",
            "x-auth-token",
            "x-csrf-token",
            "x-vault-token",
            "x-hub-signature-256",
            "x-gitlab-token",
            "private-token",
            "content-password",
            "content-signing-key",
            "access-control-token",
        ] {
            assert!(is_secret_field(name.as_bytes()), "{name}");
        }
        for name in [
            "www-authenticate",
            "proxy-authenticate",
            "sec-websocket-key",
            "sec-websocket-accept",
            "content-type",
            "content-security-policy",
            "content-security-policy-report-only",
            "content-disposition",
            "content-encoding",
            "content-length",
            "content-location",
            "access-control-allow-headers",
            "access-control-expose-headers",
            "access-control-request-method",
            "access-control-allow-credentials",
            "x-frame-options",
            "etag",
            "host",
            ":authority",
            ":path",
            "referer",
            "location",
            "x-request-id",
            "traceparent",
            "x-forwarded-for",
            "user-agent",
            "accept",
            "key",
            "x-ratelimit-remaining-tokens",
            "sec-websocket-protocol",
            "public-key-pins",
            "x-envoy-original-path",
        ] {
            assert!(!is_secret_field(name.as_bytes()), "{name}");
        }
    }
}
