//! Two Envoys that tapped one connection from both ends, or one that tapped it twice: recordings of one connection are
//! not one TCP stream.

use std::{collections::BTreeSet, path::PathBuf};

use tap2pcap::proto::tap::{Connection, TraceWrapper};

use crate::{
    conversation::{Conversation, Skips, streams},
    fixture::{Dress, TIME, closed, downstream, read, socket, streamed, write},
    tshark::{self, Frame},
    util::{Dir, tap2pcap},
};

const MS: u64 = 1_000_000;
const CLIENT: &str = "192.0.2.7:50123";
const SERVER: &str = "10.0.0.1:8080";

/// One request as a listener's tap sees it, from `start` on.
fn of_listener(start: u64) -> Vec<TraceWrapper> {
    let events = [read(start, b"request"), write(start + 10 * MS, b"response"), closed(start + 20 * MS)];
    streamed(1, downstream(), events)
}

/// The same request as the tap of the Envoy at the other end sees it.
fn of_cluster(start: u64) -> Vec<TraceWrapper> {
    let connection =
        Connection { local_address: socket("192.0.2.7", 50_123), remote_address: socket("10.0.0.1", 8080) };
    let events = [write(start, b"request"), read(start + 10 * MS, b"response"), closed(start + 20 * MS)];
    streamed(1, connection, events)
}

fn merged(dir: &Dir, options: &[&str], traces: &[(&str, &[TraceWrapper])]) -> PathBuf {
    let own = dir.fresh();
    let output = own.join("out.pcapng");
    let mut command = tap2pcap().arg("-q").args(options);
    for (name, messages) in traces {
        let input = own.join(name);
        std::fs::write(&input, Dress::Delimited.file(messages)).unwrap();
        command = command.arg(input);
    }
    command.arg(&output).run().expect_clean();
    output
}

/// Expects that each recording is a stream of its own, sound and whole. Returns the client address of each, and whether
/// its comment says that it is made up, in the order in which the recordings begin.
fn told_apart(frames: &[Frame], recordings: usize) -> Vec<(String, bool)> {
    frames.iter().for_each(|frame| frame.expect_sound(&"overlap"));
    assert!(frames.is_sorted_by_key(|frame| frame.time));
    let streams = streams(frames);
    assert_eq!(streams.len(), recordings, "{frames:#?}");
    let clients: Vec<_> = streams
        .into_iter()
        .map(|stream| {
            let conversation = Conversation::follow("overlap", stream.iter().copied(), Skips::Never);
            conversation.expect_all_acknowledged("overlap");
            let (client, server) = (conversation.client, conversation.server);
            let bytes = |from| conversation.captured(from).into_iter().map(|(_, piece)| piece).collect::<Vec<_>>();
            assert_eq!((bytes(client), bytes(server)), (vec![b"request".to_vec()], vec![b"response".to_vec()]));
            assert_eq!(server.to_string(), SERVER);
            assert_eq!(client.ip().to_string(), "192.0.2.7");
            assert!(stream.iter().all(|frame| frame.interface == stream[0].interface));
            let comment = &stream[0].comments[0];
            let told = comment.contains("another connection with these addresses is open at the same time");
            if told {
                let ports = format!("client port made up: {} for 50123", client.port());
                assert!(comment.contains(&ports), "{comment}");
                assert!(client.port() >= 49_152, "{client}");
            }
            (client.to_string(), told)
        })
        .collect();
    let distinct: BTreeSet<_> = clients.iter().map(|(client, _)| client).collect();
    assert_eq!(distinct.len(), recordings, "{clients:?}");
    clients
}

#[test]
fn both_ends_of_a_connection_are_two_streams() {
    let dir = Dir::new("both-ends");
    let listener = of_listener(TIME);
    // Clocks of two hosts are never quite the same.
    for (start, first) in
        [(TIME + 5 * MS, "listener.pb"), (TIME - 5 * MS, "cluster.pb"), (TIME + 19 * MS, "listener.pb")]
    {
        let cluster = of_cluster(start);
        let inputs = [("listener.pb", &listener[..]), ("cluster.pb", &cluster)];
        let forward = merged(&dir, &[], &inputs);
        let backward = merged(&dir, &[], &[inputs[1], inputs[0]]);
        for output in [forward, backward] {
            let frames = tshark::read(&output);
            assert_eq!(frames[0].interface, first);
            let clients = told_apart(&frames, 2);
            assert_eq!(clients[0], (CLIENT.to_owned(), false));
            assert!(clients[1].1 && clients[1].0 != CLIENT, "{clients:?}");
        }
    }
}

#[test]
fn each_of_many_recordings_of_a_connection_is_a_stream() {
    let dir = Dir::new("many-recordings");
    let traces: Vec<_> = (0..6).map(|index| of_listener(TIME + index * MS)).collect();
    let names: Vec<_> = (0..6).map(|index| format!("{index}.pb")).collect();
    let inputs: Vec<_> = names.iter().map(String::as_str).zip(traces.iter().map(Vec::as_slice)).collect();
    let frames = tshark::read(&merged(&dir, &[], &inputs));
    let clients = told_apart(&frames, 6);
    assert_eq!(clients.iter().filter(|(_, told)| !told).count(), 1, "{clients:?}");

    // A made-up port stays taken, even if a later connection really has it.
    let port: u32 = clients[1].0.rsplit_once(':').unwrap().1.parse().unwrap();
    let mut really = of_listener(TIME + 3 * MS);
    really[0] = streamed(1, Connection { remote_address: socket("192.0.2.7", port), ..downstream() }, []).remove(0);
    let frames = tshark::read(&merged(&dir, &[], &[inputs[0], inputs[1], ("really.pb", &really)]));
    assert_eq!(streams(&frames).len(), 3, "{frames:#?}");
    frames.iter().for_each(|frame| frame.expect_sound(&"really"));
}

#[test]
fn recordings_one_after_the_other_keep_their_addresses() {
    let dir = Dir::new("not-at-once");
    let (first, second) = (of_listener(TIME), of_listener(TIME + 21 * MS));
    let output = merged(&dir, &[], &[("first.pb", &first), ("second.pb", &second)]);
    let frames = tshark::read(&output);
    let streams = streams(&frames);
    assert_eq!(streams.len(), 2);
    for stream in streams {
        assert_eq!(stream[0].src.unwrap().to_string(), CLIENT);
        assert!(!stream[0].comments[0].contains("made up"), "{:?}", stream[0]);
    }
    for frame in &frames {
        assert!(frame.expert.iter().all(|(severity, _)| *severity < tshark::WARNING), "{frame:?}");
    }
}

/// This also holds within one source, as the admin endpoint streams it, and if `--map` gives two clients one address.
#[test]
fn recordings_of_one_source_and_by_map_are_told_apart() {
    let dir = Dir::new("one-source");
    let number = |id: u64, messages: Vec<TraceWrapper>| {
        let mut messages = messages;
        for message in &mut messages {
            if let Some(tap2pcap::proto::tap::trace_wrapper::Trace::SocketStreamedTraceSegment(segment)) =
                &mut message.trace
            {
                segment.trace_id = id;
            }
        }
        messages
    };
    let (one, two) = (number(1, of_listener(TIME)), number(2, of_cluster(TIME)));
    let interleaved: Vec<_> = one.iter().zip(&two).flat_map(|(one, two)| [one.clone(), two.clone()]).collect();
    let frames = tshark::read(&merged(&dir, &[], &[("both.pb", &interleaved)]));
    let clients = told_apart(&frames, 2);
    assert_eq!(clients.iter().filter(|(_, told)| *told).count(), 1, "{clients:?}");

    let mut other = of_listener(TIME + MS);
    other[0] = streamed(1, Connection { remote_address: socket("192.0.2.8", 50_123), ..downstream() }, []).remove(0);
    let inputs = [("one.pb", &one[..]), ("other.pb", &other)];
    let frames = tshark::read(&merged(&dir, &["--map", "192.0.2.8=192.0.2.7"], &inputs));
    let clients = told_apart(&frames, 2);
    assert!(!clients[0].1 && clients[1].1, "{clients:?}");

    // Bare mode tells streams apart by their addresses alone.
    let frames =
        tshark::read(&merged(&dir, &["--tcp", "bare"], &[("one.pb", &one), ("two.pb", &of_cluster(TIME + MS))]));
    assert_eq!(streams(&frames).len(), 2, "{frames:#?}");
    frames.iter().for_each(|frame| frame.expect_sound(&"bare"));
}
