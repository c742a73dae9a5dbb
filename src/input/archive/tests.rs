use super::*;

fn header(name: &str) -> Vec<u8> {
    let mut header = ::tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_size(10);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn an_archive_is_told_by_its_first_header_however_it_arrives() {
    for name in ["taps/path_0.pb", "./x", "f\u{fc}r.json", "1"] {
        let head = header(name);
        for len in 0..head.len() {
            assert_eq!(Kind::of(&head[..len]), None, "{name}: {len}");
            assert!(Kind::may_follow(&head[..len]), "{name}: {len}");
        }
        assert_eq!(Kind::of(&head), Some(Kind::Tar));
        for at in [0, 100, 130, 260] {
            let mut damaged = head.clone();
            damaged[at] ^= 1;
            assert_eq!(Kind::of(&damaged), None, "{name}: {at}");
        }
    }
    assert!(Kind::may_follow(b"PK"));
    assert_eq!(Kind::of(b"PK\x03\x04"), Some(Kind::Zip));
    assert_eq!(Kind::of(&[0; 1024]), None);
}

/// A live trace must be decoded when it arrives.
#[test]
fn the_head_of_a_plain_trace_is_no_archive_at_once() {
    let heads: [&[u8]; 9] = [
        b"socket_streamed_trace_segment{trace_id:1 ",
        b"{\n \"soc",
        b"{\"http",
        b"socket_streamed_trace_segment {\n",
        b"\x1a\x2c\x08\x07\x12",
        b"\x0a\x45\x0a\x43\x12",
        b"\x45\x0a\x43\x12",
        b"b\n\x60\x0a\x12",
        b"\x8c\x05\x1a",
    ];
    for head in heads {
        assert!(!Kind::may_follow(head), "{}", head.escape_ascii());
    }
}

#[test]
fn names_lead_nowhere_but_below() {
    for (name, expected) in [
        (&b"a/b.pb"[..], "a/b.pb"),
        (b"/etc/passwd", "etc/passwd"),
        (b"../../x", "x"),
        (b"a/../../b", "a/b"),
        (b"./a//b/.", "a/b"),
        (b"..", "unnamed"),
        (b"", "unnamed"),
        (b"a\0b", "a_b"),
    ] {
        assert_eq!(safe(name), Path::new(expected), "{}", name.escape_ascii());
    }
    let spot = Spot {
        place: InputPath::Stdin,
        path: "-".into(),
        relative: PathBuf::new(),
        mirrored: "stdin".into(),
        depth: 0,
    };
    let member = spot.member(b"./x.tar").member(b"../y.pb");
    assert_eq!((member.path, member.relative), ("-:x.tar:../y.pb".into(), "x.tar/y.pb".into()));
    assert_eq!((member.mirrored, member.depth), ("stdin/x.tar/y.pb".into(), 2));
}
