//! Captures as tshark, an independent reader, shows them.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::util::{Dir, MERGECAP, TSHARK};

/// One packet, as tshark reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    pub time: u64,
    pub len: u32,
    pub cap_len: u32,
    pub src: Option<SocketAddr>,
    pub dst: Option<SocketAddr>,
    /// Payload on the wire.
    pub tcp_len: u32,
    /// Payload that was captured.
    pub payload: Vec<u8>,
    pub seq: u32,
    pub ack: u32,
    pub flags: u16,
    /// The receive window that the sender announces, in bytes, scaled as its handshake says.
    pub window: u32,
    pub stream: u32,
    pub checksums: [Checksum; 2],
    /// Whether Wireshark has doubts about sequence numbers or windows.
    pub analysis: bool,
    /// Expert items: severity and text.
    pub expert: Vec<(u32, String)>,
    pub comments: Vec<String>,
    pub direction: Option<u32>,
    pub interface: String,
    pub protocols: String,
}

/// The checksums of IPv4 and TCP. IPv6 has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    #[default]
    Absent,
    Good,
    Bad,
    Unverified,
}

/// The severity of an expert item from which on something is wrong: `PI_WARN`.
pub const WARNING: u32 = 0x0060_0000;

impl Frame {
    /// Expects that Wireshark finds nothing wrong with the packet.
    #[track_caller]
    pub fn expect_sound(&self, what: &dyn std::fmt::Display) {
        assert!(!self.analysis, "{what}: Wireshark doubts {self:?}");
        let wrong: Vec<_> = self.expert.iter().filter(|(severity, _)| *severity >= WARNING).collect();
        assert!(wrong.is_empty(), "{what}: {wrong:?} in {self:?}");
        assert!(!self.checksums.contains(&Checksum::Bad), "{what}: bad checksum in {self:?}");
    }
}

const FIELDS: [&str; 27] = [
    "frame.section_number",
    "frame.interface_id",
    "frame.time_epoch",
    "frame.len",
    "frame.cap_len",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.len",
    "tcp.payload",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.flags",
    "tcp.window_size",
    "tcp.stream",
    "ip.checksum.status",
    "tcp.checksum.status",
    "tcp.analysis.flags",
    "_ws.expert.severity",
    "_ws.expert.message",
    "frame.comment",
    "frame.packet_flags_direction",
    "frame.interface_name",
    "frame.protocols",
];

/// Separates several values of one field. tshark never escapes it, and no tested text contains it.
const BETWEEN: char = '\u{1f}';

/// Reads one capture.
pub fn read(capture: &Path) -> Vec<Frame> {
    rows(capture).into_iter().map(|row| row.frame).collect()
}

/// Reads many captures with one tshark, because starting it takes longer than reading a small capture. pcapng files may
/// be joined as they are, because a file may hold many sections. mergecap joins pcap files.
pub fn read_many(dir: &Dir, captures: &[PathBuf]) -> Vec<Vec<Frame>> {
    let joined = dir.fresh().join("joined");
    let pcapng = captures.iter().all(|path| path.extension().is_some_and(|suffix| suffix == "pcapng"));
    if pcapng {
        let bytes: Vec<u8> = captures.iter().flat_map(|path| fs::read(path).unwrap()).collect();
        fs::write(&joined, bytes).unwrap();
    } else {
        let options = ["-a", "-F", "pcapng", "-I", "none", "-w"].map(Path::new);
        let paths = captures.iter().map(PathBuf::as_path);
        MERGECAP.run(options.into_iter().chain([joined.as_path()]).chain(paths), &[]);
    }
    let mut frames = vec![Vec::new(); captures.len()];
    for row in rows(&joined) {
        let index = if pcapng { row.section - 1 } else { row.interface };
        frames[index].push(row.frame);
    }
    frames
}

struct Row {
    section: usize,
    interface: usize,
    frame: Frame,
}

fn rows(capture: &Path) -> Vec<Row> {
    let mut args: Vec<String> = [
        "-r",
        capture.to_str().unwrap(),
        "-o",
        "tcp.check_checksum:TRUE",
        "-o",
        "ip.check_checksum:TRUE",
        "-T",
        "fields",
        "-E",
        "separator=/t",
        "-E",
        &format!("aggregator={BETWEEN}"),
    ]
    .map(str::to_owned)
    .into();
    args.extend(FIELDS.iter().flat_map(|field| ["-e".to_owned(), (*field).to_owned()]));
    let run = TSHARK.run(args, &[]);
    run.stdout_text().lines().map(row).collect()
}

/// Runs tshark on a capture with more arguments and returns the lines it prints.
pub fn lines(capture: &Path, args: &[&str]) -> Vec<String> {
    let run = TSHARK.run(["-r", capture.to_str().unwrap()].iter().chain(args), &[]);
    run.stdout_text().lines().map(str::to_owned).collect()
}

fn row(line: &str) -> Row {
    let mut values = line.split('\t');
    let mut next = || values.next().unwrap_or_else(|| panic!("tshark prints too few fields: {line}"));
    let (section, interface) = (number(next()), number(next()));
    let time = nanos(next());
    let (len, cap_len) = (number(next()), number(next()));
    let [v4_src, v4_dst, v6_src, v6_dst, src_port, dst_port] = [(); 6].map(|()| next());
    let socket = |v4: &str, v6: &str, port: &str| {
        let ip: IpAddr = if v4.is_empty() { v6 } else { v4 }.parse().ok()?;
        Some(SocketAddr::new(ip, port.parse().ok()?))
    };
    let frame = Frame {
        time,
        len,
        cap_len,
        src: socket(v4_src, v6_src, src_port),
        dst: socket(v4_dst, v6_dst, dst_port),
        tcp_len: number(next()),
        payload: hex(next()),
        seq: number(next()),
        ack: number(next()),
        flags: u16::from_str_radix(next().trim_start_matches("0x"), 16).unwrap(),
        window: number(next()),
        stream: number(next()),
        checksums: [next(), next()].map(|status| match status {
            "" => Checksum::Absent,
            "1" => Checksum::Good,
            "0" => Checksum::Bad,
            _ => Checksum::Unverified,
        }),
        analysis: !next().is_empty(),
        expert: {
            let (severities, messages) = (next(), next());
            severities.split(BETWEEN).zip(messages.split(BETWEEN)).map(|(s, m)| (number(s), m.to_owned())).collect()
        },
        comments: next().split(BETWEEN).filter(|comment| !comment.is_empty()).map(unescape).collect(),
        direction: Some(next())
            .filter(|flags| !flags.is_empty())
            .map(|flags| u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap()),
        interface: next().to_owned(),
        protocols: next().to_owned(),
    };
    Row { section, interface, frame }
}

/// A number that tshark printed, or 0 if the field is absent.
fn number<T: std::str::FromStr + Default>(text: &str) -> T {
    text.parse().unwrap_or_default()
}

/// Parses seconds with nine decimal places, without rounding through floating point.
fn nanos(text: &str) -> u64 {
    let (seconds, nanos) = text.split_once('.').unwrap_or_else(|| panic!("not a time: {text}"));
    assert_eq!(nanos.len(), 9, "{text}");
    seconds.parse::<u64>().unwrap() * 1_000_000_000 + nanos.parse::<u64>().unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |digit: u8| (digit as char).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n")
}
