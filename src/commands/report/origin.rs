//! Where a failure came from: who has made the answer that failed, or why there is none.

use crate::page::Origin;

/// What is known of a failed request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence<'a> {
    /// The code that the client got.
    pub code: Option<u16>,
    /// gRPC's own status.
    pub grpc: Option<u32>,
    /// `%RESPONSE_FLAGS%`.
    pub flags: Option<&'a str>,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Option<&'a str>,
    /// Whether the request is whole in the trace.
    pub request_complete: bool,
    /// Whether this is the upstream's side.
    pub is_upstream: bool,
    /// `server: envoy`.
    pub says_envoy: bool,
    /// Whether upstreams were tapped, and none was tried.
    pub has_no_attempt: bool,
    /// The code of the attempt whose response the client got or, if it got none, of the last one; `None` inside if it was
    /// not answered.
    pub answering_code: Option<Option<u16>>,
    /// `x-envoy-upstream-service-time`, which Envoy sets when an upstream has answered.
    pub has_service_time: bool,
}

/// Where it came from, and why that is said, as a sentence.
pub(super) fn origin(evidence: &Evidence<'_>) -> (Origin, String) {
    let known = evidence.flags.into_iter().flat_map(|flags| flags.split(',')).filter_map(|flag| {
        let (origin, what) = of_flag(flag)?;
        Some((origin, format!("{what} (access log: {flag})")))
    });
    let mut known: Vec<_> = known.collect();
    // Envoy may have passed on an upstream's answer after its last attempt.
    let via_upstream = (Origin::Upstream, "The upstream answered so (access log: via_upstream)".to_owned());
    match known.iter().position(|(origin, _)| *origin == Origin::Client) {
        Some(client) => known.swap_remove(client),
        None if evidence.details == Some("via_upstream") => via_upstream,
        None if !known.is_empty() => known.swap_remove(0),
        None => {
            let (origin, what) = of_trace(evidence);
            (origin, what.to_owned())
        }
    }
}

fn of_trace(evidence: &Evidence<'_>) -> (Origin, &'static str) {
    match (evidence.code, evidence.is_upstream) {
        (Some(_), true) => (Origin::Upstream, "The upstream answered so"),
        (None, true) => (Origin::Upstream, "The upstream did not answer in this trace"),
        (Some(code), false) if evidence.answering_code == Some(Some(code)) => {
            (Origin::Upstream, "The upstream answered with the same status")
        }
        (Some(_), false) if evidence.answering_code == Some(None) => {
            (Origin::Envoy, "The upstream did not answer, so that Envoy did")
        }
        (Some(_), false) if evidence.answering_code.is_some() => {
            (Origin::Envoy, "The upstream answered with another status")
        }
        (None, false) if !evidence.request_complete => (Origin::Client, "The request is not complete in the trace"),
        (None, false) => (Origin::Unknown, "There is no response in the trace"),
        (Some(_), false) if evidence.has_service_time => {
            (Origin::Upstream, "Envoy passed on an upstream's answer, as x-envoy-upstream-service-time says")
        }
        (Some(_), false) if evidence.has_no_attempt => {
            (Origin::Envoy, "No attempt with an upstream belongs to it in the traces")
        }
        (Some(code), false) if evidence.says_envoy && (code >= 500 || evidence.grpc.is_some()) => {
            (Origin::Unknown, "Perhaps Envoy: x-envoy-upstream-service-time is missing, which upstreams' answers have")
        }
        _ => (Origin::Unknown, "The trace of one side does not tell"),
    }
}

/// What a flag of Envoy's access log means.
fn of_flag(flag: &str) -> Option<(Origin, &'static str)> {
    Some(match flag {
        "DC" => (Origin::Client, "The client closed the connection"),
        "DPE" => (Origin::Client, "The client's bytes are not valid HTTP"),
        "IH" => (Origin::Client, "The value of a header that Envoy checks strictly is invalid"),
        "DR" => (Origin::Client, "The client reset the stream"),
        "UF" => (Origin::Envoy, "The connection to the upstream failed"),
        "UC" => (Origin::Envoy, "The upstream closed the connection"),
        "UR" => (Origin::Envoy, "The upstream reset the stream"),
        "UT" => (Origin::Envoy, "The upstream did not answer in time"),
        "UPE" => (Origin::Envoy, "The upstream's bytes are not valid HTTP"),
        "UH" => (Origin::Envoy, "Envoy had no healthy upstream"),
        "UO" => (Origin::Envoy, "Envoy's circuit breaker was open"),
        "NR" => (Origin::Envoy, "Envoy had no route for the request"),
        "NC" => (Origin::Envoy, "Envoy did not know the cluster"),
        "NFCF" => (Origin::Envoy, "Envoy got no filter configuration"),
        "URX" => (Origin::Envoy, "Envoy gave up after its last attempt"),
        "UMSDR" => (Origin::Envoy, "The upstream took longer than a stream may last"),
        "LR" => (Origin::Envoy, "Envoy reset the connection"),
        "LH" => (Origin::Envoy, "Envoy failed its health check"),
        "FI" => (Origin::Envoy, "Envoy injected the fault"),
        "RL" | "RLSE" => (Origin::Envoy, "Envoy's rate limit rejected the request"),
        "UAEX" => (Origin::Envoy, "The authorization service denied the request"),
        "SI" => (Origin::Client, "The stream was idle for too long"),
        "DT" => (Origin::Envoy, "The request took longer than Envoy allows"),
        "OM" => (Origin::Envoy, "Envoy's overload manager ended the request"),
        "DF" => (Origin::Envoy, "The name of the upstream could not be resolved"),
        "DO" => (Origin::Envoy, "Envoy's load shedding dropped the request"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(evidence: Evidence<'_>) -> Origin {
        origin(&evidence).0
    }

    #[test]
    fn the_access_log_tells_more_than_the_trace() {
        let downstream = Evidence { code: Some(503), request_complete: true, says_envoy: true, ..Evidence::default() };
        assert_eq!(of(downstream), Origin::Unknown);
        assert_eq!(of(Evidence { flags: Some("UF,URX"), ..downstream }), Origin::Envoy);
        assert_eq!(of(Evidence { flags: Some("NR"), ..downstream }), Origin::Envoy);
        assert_eq!(of(Evidence { flags: Some("DC"), ..downstream }), Origin::Client);
        assert_eq!(of(Evidence { details: Some("via_upstream"), ..downstream }), Origin::Upstream);
        assert_eq!(of(Evidence { flags: Some("URX"), details: Some("via_upstream"), ..downstream }), Origin::Upstream);
        let (_, why) = origin(&Evidence { flags: Some("XX,UH"), ..downstream });
        assert_eq!(why, "Envoy had no healthy upstream (access log: UH)");
    }

    #[test]
    fn a_trace_of_one_side_tells_what_it_can() {
        let downstream = Evidence { request_complete: true, ..Evidence::default() };
        assert_eq!(of(downstream), Origin::Unknown);
        assert_eq!(of(Evidence::default()), Origin::Client);
        assert_eq!(of(Evidence { code: Some(500), has_service_time: true, ..downstream }), Origin::Upstream);
        assert_eq!(of(Evidence { code: Some(500), is_upstream: true, ..downstream }), Origin::Upstream);
        assert_eq!(of(Evidence { is_upstream: true, ..downstream }), Origin::Upstream);
    }

    #[test]
    fn pairs_tell_who_has_answered() {
        let both = Evidence { code: Some(503), request_complete: true, has_no_attempt: true, ..Evidence::default() };
        assert_eq!(of(Evidence { answering_code: Some(Some(503)), ..both }), Origin::Upstream);
        assert_eq!(of(Evidence { answering_code: Some(Some(200)), ..both }), Origin::Envoy);
        assert_eq!(of(Evidence { answering_code: Some(None), ..both }), Origin::Envoy);
        assert_eq!(of(both), Origin::Envoy);
        assert_eq!(of(Evidence { code: None, ..both }), Origin::Unknown);
    }
}
