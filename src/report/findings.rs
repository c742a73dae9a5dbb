//! The words of findings. Stages state facts. Only this file puts them into words for people, with what they mean and
//! the option that changes them; `faults.rs` has the words of what decoders find.

use std::fmt;

use super::faults;
use crate::{
    trace::{ExchangeFact, Fact, Finding, HttpFact, Limited, Owner, Place},
    words::{bytes_are, count, count_of, times},
};

/// `byte 7, message 0`
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}, message {}", self.offset, self.message)
    }
}

/// The place and the words. They may quote the trace, so escape them before they reach a terminal.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, detail(self))
    }
}

/// What was found, and what it means. It may quote the trace, so escape it before it reaches a terminal.
#[must_use]
pub fn detail(finding: &Finding) -> String {
    let mut words = fact(&finding.fact);
    if finding.more > 0 {
        words.push_str(&format!("; and {} more findings close after it", finding.more));
    }
    words
}

fn fact(fact: &Fact) -> String {
    match fact {
        Fact::Undecodable(fault) => faults::undecodable(fault),
        Fact::CutOff(place) => faults::cut_off(*place),
        Fact::TrailingBytes(fault) => {
            format!("the bytes after the last message are not a message: {}", faults::undecodable(fault))
        }
        Fact::Zeros { bytes, runs } => {
            format!(
                "{bytes} zero bytes between or after messages, in {}; they are passed over",
                count_of(*runs, "place", "places")
            )
        }
        Fact::TextAround { bytes, first, names_trace } => {
            let text = count(*bytes, "byte");
            if first.is_empty() {
                return format!("{text} of white space after the messages skipped");
            }
            let names =
                if *names_trace { "; it holds the name of a trace in quotes or code, which is not read" } else { "" };
            format!("{text} of text around the messages skipped; its first line is \"{first}\"{names}")
        }
        Fact::ReadFailed(reason) => format!("cannot read on: {reason}"),
        Fact::LargeMessage { size, limit, with_rest } => {
            let rest = if *with_rest { ", and so is the rest of the source" } else { "" };
            format!("a message of {size} bytes or more is passed over{rest}; --max-message allows {limit} bytes")
        }
        Fact::ManyRecords { records, limit, beyond } => {
            let (kind, allowed) = match records {
                Limited::Events => ("events", "--max-events allows"),
                Limited::Headers => ("header fields", "--max-headers allows"),
                Limited::Parts => ("parts of an HTTP exchange", "there is room for"),
            };
            let all = (*limit as u64).saturating_add(*beyond);
            format!("a message of {all} {kind}; the last {beyond} are passed over, {allowed} {limit}")
        }
        Fact::LongAddress { len } => format!("an address of {len} bytes; only its beginning is kept"),
        Fact::BadTimes { first, times } => match times {
            0 | 1 => first.to_string(),
            2 => format!("{first}; one more time of this message cannot be read"),
            count => format!("{first}; {} more times of this message cannot be read", count - 1),
        },
        Fact::MixedKinds(kind) => format!("{} in a source that began with another kind", kind.field_name()),
        Fact::UnknownField(field) => {
            format!("{}.{} is unknown to this version, {}", field.message, field.field, times(field.count))
        }
        Fact::UnknownFields { times: count } => {
            format!("more fields are unknown to this version, {}", times(*count))
        }
        Fact::ManyConnections { limit } => format!(
            "more connections are open at once than the {limit} that --max-connections allows; the oldest are given up"
        ),
        Fact::LateTime => format!("{LATE_TIME}; the time of the event before is used"),
        Fact::NoTime => "an event without a time; it gets the time of the event before it, or else of the next event \
                         that has one"
            .to_owned(),
        Fact::TimeBackwards { by } => format!("an event is {by} ns older than the one before it on its connection"),
        Fact::LostBytes { bytes } => format!("before this event, {} missing, by seq_num", bytes_are(*bytes)),
        Fact::MissingConnection { trace_id, http_buffered } => missing_connection(*trace_id, *http_buffered),
        Fact::MissingAddress { trace_id, owner, unconnected } => missing_address(*trace_id, *owner, *unconnected),
        Fact::BadPort { owner, port, made_up } => {
            format!("{} port {port} is above 65535; {made_up} is used", owner.word())
        }
        Fact::BadAddress { owner, text, made_up } => {
            format!("{} address '{text}' is not an IP address; {made_up} is used", owner.word())
        }
        Fact::SameAddress { both, rewritten } => {
            let cause = if *rewritten { "after --map, both" } else { "both" };
            format!("{cause} ends have the address {both}; the client gets a made-up port")
        }
        Fact::TruncatedBodies { trace_id, bodies, bytes, open_ended } => {
            let missing = match (bytes, open_ended) {
                (_, false) => format!("{} missing", bytes_are(*bytes)),
                (0, true) => "how many bytes are missing is not known".to_owned(),
                (_, true) => format!("more than {} missing", bytes_are(*bytes)),
            };
            format!("trace_id {trace_id}: {} truncated, {missing}", count_of(*bodies, "body is", "bodies are"))
        }
        Fact::TruncatedBody { trace_id } => format!("trace_id {trace_id}: a body is truncated"),
        Fact::DestroyedBodies { trace_id, bodies, bytes } => format!(
            "trace_id {trace_id}: JSON_BODY_AS_STRING destroyed binary data in {}, {} missing",
            count_of(*bodies, "body", "bodies"),
            bytes_are(*bytes)
        ),
        Fact::MissingClose { trace_id, http: true } => {
            format!("trace_id {trace_id}: the exchange is not complete, so its connection stays open")
        }
        Fact::MissingClose { trace_id, http: false } => format!("trace_id {trace_id} ends without its closed event"),
        Fact::Exchange { trace_id, fact } => format!("trace_id {trace_id}: {}", exchange(fact)),
        Fact::Http { trace_id, fact } => format!("trace_id {trace_id}: {}", http(fact)),
    }
}

/// A time that does not fit in 32 bits of seconds.
const LATE_TIME: &str = "a time after the year 2106 fits pcapng, but not pcap";

fn missing_connection(trace_id: u64, http_buffered: Option<bool>) -> String {
    let advice = match http_buffered {
        None => "",
        Some(true) => "; the tap filter's record_downstream_connection records them",
        Some(false) => {
            "; a streamed HTTP trace never has any: buffered ones have them with the tap filter's \
             record_downstream_connection, and taps of a socket always do"
        }
    };
    format!("trace_id {trace_id} has no addresses; a capture gets made-up ones{advice}")
}

fn missing_address(trace_id: u64, owner: Owner, unconnected: bool) -> String {
    let missing = match (owner, unconnected) {
        (_, true) => {
            "Envoy's own address is missing: a streamed tap of a cluster begins before it is known; with \
             socket_tap_config.set_connection_per_event every event has it"
        }
        (Owner::Local, false) => "Envoy's own address is missing",
        (Owner::Remote, false) => "the peer's address is missing",
    };
    format!("trace_id {trace_id}: {missing}; a capture gets a made-up one")
}

fn exchange(fact: &ExchangeFact) -> String {
    match fact {
        ExchangeFact::Headless => "a body or trailers have no headers; they are written as they are".to_owned(),
        ExchangeFact::NoRequest => "there is no request".to_owned(),
        ExchangeFact::NoResponse => "there is no response".to_owned(),
        ExchangeFact::ShortBody => "its body ends before its content-length".to_owned(),
        ExchangeFact::SegmentsOutOfOrder => "its segments are not in the order in which HTTP sends them".to_owned(),
        ExchangeFact::MisplacedTrailers(count) => {
            format!("{count} trailers after a body of known length have no place in HTTP/1.1")
        }
        ExchangeFact::LateTime => format!("{LATE_TIME}; another is made up"),
        ExchangeFact::BadLength => "its content-length is not a number, or there are several".to_owned(),
        ExchangeFact::LongBody => "the body is longer than its content-length; it is sent in chunks".to_owned(),
        ExchangeFact::ExtraBody(side) => format!("the {} has more body than its headers allow", side.word()),
        // These two have the words of the comment in the capture.
        ExchangeFact::MadeUp(field) => field.to_string(),
        ExchangeFact::Unfit(fields) => fields.to_string(),
    }
}

fn http(fact: &HttpFact) -> String {
    match fact {
        HttpFact::Skipped { side, bytes } => {
            format!(
                "{} of the {} side passed over to find the next message",
                count_of(*bytes, "byte was", "bytes were"),
                side.word()
            )
        }
        HttpFact::NoMessage(side) => format!("where a {} should begin are other bytes", side.word()),
        HttpFact::BadHead(side) => format!("the header or trailer fields of a {} are not HTTP", side.word()),
        HttpFact::CutHead(side) => format!("the header fields of a {} are not all in the trace", side.word()),
        HttpFact::LongHead { side, limit } => {
            format!(
                "the header or trailer fields of a {} have more than {limit} bytes; the rest is not read",
                side.word()
            )
        }
        HttpFact::LongList { side, limit } => {
            format!("the header fields of a {} unpack to more than {limit} bytes; the rest is not kept", side.word())
        }
        HttpFact::ManyContinuations { side, limit } => {
            format!("the header fields of a {} come in more than {limit} frames; the rest is not read", side.word())
        }
        HttpFact::BothLengths(side) => {
            format!("a {} has both content-length and chunks, as in request smuggling; the chunks count", side.word())
        }
        HttpFact::BadLength(side) => format!(
            "the content-length of a {} is not a number, or there are several; where its body ends is not known",
            side.word()
        ),
        HttpFact::BadCoding(side) => {
            format!("the transfer-encoding of a {} does not tell where its body ends", side.word())
        }
        HttpFact::BadChunk(side) => format!(
            "a chunk of a {} has no readable size, or does not end there; where the body ends is not known",
            side.word()
        ),
        HttpFact::BadFrame(side) => format!("a frame of the {} side is not valid HTTP/2", side.word()),
        HttpFact::BadBlock(side) => format!("the header block of a {} does not decode", side.word()),
        HttpFact::UnknownFields { side, fields } => format!(
            "{} of a {} cannot be told, because bytes before are missing",
            count_of(*fields, "header field", "header fields"),
            side.word()
        ),
        HttpFact::ManyOpen { limit } => {
            format!("more than {limit} requests wait for their responses; the oldest is given up")
        }
        HttpFact::Destroyed => "HTTP/2 cannot be read from JSON_BODY_AS_STRING, which destroys binary data".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::WireFault;

    #[test]
    fn a_fact_that_stands_for_others_counts_them() {
        let garbage = Fact::Undecodable(WireFault::LongVarint.into());
        let finding = Finding { more: 999, ..Finding::new(Place::default(), garbage) };
        assert_eq!(detail(&finding), "a number of more than ten bytes; and 999 more findings close after it");
        assert_eq!(detail(&Finding { more: 0, ..finding }), "a number of more than ten bytes");
    }

    #[test]
    fn limits_name_the_options_that_raise_them() {
        let words = |fact| detail(&Finding::new(Place::default(), fact));
        let large = |with_rest| Fact::LargeMessage { size: 65, limit: 64, with_rest };
        assert_eq!(words(large(false)), "a message of 65 bytes or more is passed over; --max-message allows 64 bytes");
        assert!(words(large(true)).contains("passed over, and so is the rest of the source; --max-message"));
        let many = |records| words(Fact::ManyRecords { records, limit: 2, beyond: 3 });
        assert_eq!(many(Limited::Events), "a message of 5 events; the last 3 are passed over, --max-events allows 2");
        assert!(many(Limited::Headers).ends_with("--max-headers allows 2"));
        assert!(many(Limited::Parts).ends_with("there is room for 2"));
        assert!(words(Fact::ManyConnections { limit: 7 }).contains("the 7 that --max-connections allows"));
    }

    #[test]
    fn missing_bytes_are_as_sure_as_the_trace_is() {
        let words = |bytes, open_ended| {
            let fact = Fact::TruncatedBodies { trace_id: 7, bodies: 2, bytes, open_ended };
            detail(&Finding::new(Place::default(), fact))
        };
        assert_eq!(words(1, false), "trace_id 7: 2 bodies are truncated, 1 byte is missing");
        assert_eq!(words(0, true), "trace_id 7: 2 bodies are truncated, how many bytes are missing is not known");
        assert_eq!(words(3, true), "trace_id 7: 2 bodies are truncated, more than 3 bytes are missing");
    }
}
