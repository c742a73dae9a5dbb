//! `tap2pcap extcap`: an interface in Wireshark.
//!
//! Wireshark runs each program in its extcap folder, and asks it by arguments. The answers are sentences on standard
//! output; a capture goes into a named pipe. Everything on standard error is shown as an error.

mod install;
mod sentence;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    mem,
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::OFlags;

pub(super) use self::install::run;
use self::sentence::{Sentence, is_plain};
use super::{Status, error::Error, live};
use crate::{
    admin::{Admin, ConfiguredTap},
    cli::{EXTCAP_ENDPOINT, ExtcapCall, LiveSource},
    interrupt::{self, Watched},
    untrusted, words,
};

/// The interface's name for programs, and for people.
const INTERFACE: &str = "envoy-tap";
const DISPLAY: &str = "Envoy tap";

/// What the help button of Wireshark's dialog opens.
const HELP: &str = "https://www.envoyproxy.io/docs/envoy/latest/operations/traffic_tapping";

/// How long Wireshark's dialog waits for Envoy at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long Wireshark may take to start dumpcap, which reads the pipe.
const READER_COMES: Duration = Duration::from_secs(5);

/// The option whose values Envoy knows, and its number among the options.
const CONFIG_ID: &str = "config-id";
const CONFIG_ID_NUMBER: &str = "1";

/// Answers a call from Wireshark.
pub(super) fn answer(call: ExtcapCall) -> Result<Status, Error> {
    let mut out = Watched(io::stdout().lock());
    if call.extcap_interfaces {
        out.write_all(interfaces().as_bytes())?;
        return Ok(Status::Done);
    }
    match call.extcap_interface.as_deref() {
        Some(INTERFACE) => {}
        Some(other) => {
            return Err(Error::Arguments(format!("there is no interface `{other}`: the only one is {INTERFACE}")));
        }
        None => return Err(Error::Arguments("--extcap-interface is missing".to_owned())),
    }
    if call.capture {
        drop(out);
        return capture(call);
    }
    let answer = if call.extcap_dlts {
        dlts()
    } else if let Some(option) = &call.extcap_reload_option {
        values_of(option, &call.endpoint)
    } else if call.extcap_config {
        config()
    } else if call.extcap_capture_filter.is_some() {
        // Words mean that it is no filter.
        format!("{NO_FILTERS}\n")
    } else {
        return Err(Error::Arguments(
            "nothing to do: --capture, --extcap-config or --extcap-dlts is missing".to_owned(),
        ));
    };
    out.write_all(answer.as_bytes())?;
    Ok(Status::Done)
}

const NO_FILTERS: &str =
    "Envoy tap has no capture filters; its options Path, Header, Match and Where say what is captured";

fn interfaces() -> String {
    let mut answer = String::new();
    Sentence::new("extcap")
        .with("version", env!("CARGO_PKG_VERSION"))
        .with("help", HELP)
        .with("display", "tap2pcap")
        .end(&mut answer);
    Sentence::new("interface").with("value", INTERFACE).with("display", DISPLAY).end(&mut answer);
    answer
}

fn dlts() -> String {
    let mut answer = String::new();
    Sentence::new("dlt").with("number", "1").with("name", "EN10MB").with("display", "Ethernet").end(&mut answer);
    answer
}

/// A key of a sentence, and its value.
type Part = (&'static str, &'static str);

/// An option: its name, what the dialog calls it, its type, its tab, what else Wireshark is to know, and its tooltip.
type Choice = (&'static str, &'static str, &'static str, &'static str, &'static [Part], &'static str);

/// The options that the dialog shows. Wireshark asks for them whenever it starts, so this does not ask Envoy.
fn config() -> String {
    const TAP: &str = "Envoy";
    const WHAT: &str = "What is captured";
    const LIMITS: &str = "Limits";
    let options: [Choice; 11] = [
        (
            "endpoint",
            "Admin endpoint",
            "string",
            TAP,
            &[("default", EXTCAP_ENDPOINT), ("required", "true"), ("validation", "^(http://|unix:|udp://).+$")],
            "Envoy's admin endpoint: http://HOST:PORT or unix:PATH. Or udp://HOST:PORT, an address of this machine that \
             Envoy's UDP sink sends to",
        ),
        (
            CONFIG_ID,
            "Tap (config_id)",
            "selector",
            TAP,
            &[("reload", "true"), ("placeholder", "Ask Envoy for its taps")],
            "The config_id of the tap. Ask Envoy again after a change of the endpoint",
        ),
        (
            "once",
            "End when Envoy ends",
            "boolflag",
            TAP,
            &[("default", "false")],
            "Otherwise the capture goes on as soon as Envoy is there again",
        ),
        (
            "path",
            "Path",
            "string",
            WHAT,
            &[("placeholder", "/api/")],
            "Only requests whose path begins with this. Only HTTP taps can match",
        ),
        (
            "header",
            "Header",
            "string",
            WHAT,
            &[("placeholder", "x-request-id=1234")],
            "Only requests with this header, NAME=VALUE. Only HTTP taps can match",
        ),
        (
            "match",
            "Match",
            "string",
            WHAT,
            &[("placeholder", "any_match: true")],
            "Only what this matcher of Envoy's tap holds for, in JSON or YAML",
        ),
        (
            "where",
            "Where",
            "string",
            WHAT,
            &[("placeholder", "response.code >= 500")],
            "Only connections with an exchange that this CEL expression over attributes holds for. They appear once it \
             does",
        ),
        (
            "max-rx",
            "Received bytes",
            "string",
            LIMITS,
            &[("default", "1M")],
            "At most so many bytes of what Envoy receives are kept of each event, such as 64K or 1M",
        ),
        (
            "max-tx",
            "Sent bytes",
            "string",
            LIMITS,
            &[("default", "1M")],
            "At most so many bytes of what Envoy sends are kept of each event",
        ),
        (
            "max-traces",
            "Traces",
            // A field for a number shows 0 when it is empty, and passes it.
            "string",
            LIMITS,
            &[("placeholder", "100"), ("validation", "^[0-9]*$")],
            "End after so many whole traces. Envoy collects them, and sends them together",
        ),
        ("for", "Duration", "string", LIMITS, &[("placeholder", "30s")], "End after this time, such as 30s or 5min"),
    ];
    let mut answer = String::new();
    for (number, (option, display, kind, group, more, tooltip)) in options.into_iter().enumerate() {
        let (number, call) = (number.to_string(), format!("--{option}"));
        let mut sentence = Sentence::new("arg")
            .with("number", &number)
            .with("call", &call)
            .with("display", display)
            .with("type", kind);
        for (key, value) in more {
            sentence = sentence.with(key, value);
        }
        sentence.with("tooltip", tooltip).with("save", "true").with("group", group).end(&mut answer);
    }
    answer.push_str(&config_ids(&[]));
    answer
}

/// The values of an option, for the button beside it. Where there are none to be had, the dialog stays as it is: why
/// Envoy does not answer is said when a capture starts.
fn values_of(option: &str, endpoint: &LiveSource) -> String {
    match endpoint {
        LiveSource::Admin(endpoint) if option.trim_start_matches('-') == CONFIG_ID => {
            config_ids(&Admin::within(endpoint, PATIENCE).taps().unwrap_or_default())
        }
        _ => config_ids(&[]),
    }
}

/// The values of the option `--config-id` for these taps.
fn config_ids(taps: &[ConfiguredTap]) -> String {
    let mut all: Vec<&str> = Vec::new();
    for tap in taps {
        if !all.contains(&&*tap.config_id) {
            all.push(&tap.config_id);
        }
    }
    // What cannot be a value in a sentence cannot come back from Wireshark either.
    let ids: Vec<&str> = all.iter().copied().filter(|id| is_plain(id)).collect();
    let must_choose = all.len() > 1 && !ids.is_empty();
    let mut answer = String::new();
    let mut value = |value: &str, display: &str, is_default: bool| {
        let default = if is_default { "true" } else { "false" };
        Sentence::new("value")
            .with("arg", CONFIG_ID_NUMBER)
            .with("value", value)
            .with("display", display)
            .with("default", default)
            .end(&mut answer);
    };
    if !must_choose {
        value("", "The only one", true);
    }
    for (index, id) in ids.iter().enumerate() {
        let mut kinds: Vec<String> =
            taps.iter().filter(|tap| tap.config_id == *id).map(|tap| tap.kind.words().to_owned()).collect();
        kinds.sort();
        kinds.dedup();
        let display = format!("{id}: {}", words::list(&kinds));
        value(id, &untrusted::cap(&display, 200), must_choose && index == 0);
    }
    answer
}

/// Captures until Wireshark has enough.
fn capture(call: ExtcapCall) -> Result<Status, Error> {
    let Some(fifo) = call.fifo.clone() else {
        return Err(Error::Arguments("--fifo is missing".to_owned()));
    };
    // Wireshark has made it, and removes it when it needs no capture any more.
    fs::metadata(&fifo).map_err(|error| Error::output(&fifo, error))?;
    if call.extcap_capture_filter.is_some() {
        let_go(&fifo);
        return Err(Error::Arguments(NO_FILTERS.to_owned()));
    }
    // It opens the pipe before anything else that can fail.
    live::run(&call.live(fifo))
}

/// Lets the reader of this pipe know that no capture comes, as soon as this process ends. dumpcap waits for a writer for
/// ever, and Wireshark shows what is on standard error when dumpcap has ended: the error must be there by then.
pub(super) fn let_go(fifo: &Path) {
    if !fs::metadata(fifo).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        return;
    }
    let begin = Instant::now();
    // dumpcap may not have opened it yet, and opening it would wait for that even if it never happens.
    let open = || OpenOptions::new().write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(fifo);
    while begin.elapsed() < READER_COMES && interrupt::signal().is_none() {
        if let Ok(pipe) = open() {
            // The end of the process closes it, after the error has been printed. Without a capture in it, dumpcap and
            // tshark fail as well.
            mem::forget(pipe);
            return;
        }
        thread::sleep(interrupt::INTERVAL);
    }
}

/// Answers a call for the values of an option, whose other arguments are not valid.
pub(super) fn answer_without_values() -> Result<Status, Error> {
    Watched(io::stdout().lock()).write_all(config_ids(&[]).as_bytes())?;
    Ok(Status::Done)
}
