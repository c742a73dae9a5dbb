//! `tap2pcap extcap`: what Wireshark asks, with tshark as one Wireshark. `scripts/interop-live` holds it against the
//! real Envoy.

use std::{
    env, fs,
    io::Read,
    net::TcpListener,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    fake_envoy::{FakeEnvoy, interleaved},
    tshark,
    util::{Dir, PROGRAM, ROOT, Run, convert, run_command, tap2pcap},
    wait::wait_until,
};

/// A home of its own, so that Wireshark's folders are empty.
struct Home {
    dir: Dir,
}

impl Home {
    fn new() -> Self {
        Self { dir: Dir::new("extcap") }
    }

    /// A home in which tshark finds the program.
    fn installed() -> Self {
        let home = Self::new();
        home.extcap(&["--install"]).expect_status(0);
        home
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("HOME", self.dir.path()).env_remove("XDG_CONFIG_HOME");
        command.env_remove("WIRESHARK_CONFIG_DIR").env_remove("WIRESHARK_EXTCAP_DIR");
        command
    }

    fn extcap(&self, args: &[&str]) -> Run {
        run_command(self.command(PROGRAM, &[&["extcap"], args].concat()))
    }

    fn tshark(&self, args: &[&str]) -> Run {
        // Its dumpcap waits without end for a capture that never begins.
        run_command(self.command("timeout", &[&["60", "tshark"], args].concat()))
    }

    /// The folder of the installed tshark, which is older than 4.2 or not.
    fn link(&self) -> PathBuf {
        let places = [".config/wireshark/extcap", ".local/lib/wireshark/extcap"];
        let links = places.map(|place| self.dir.join(place).join("tap2pcap-extcap"));
        links.into_iter().find(|link| link.is_symlink()).expect("it is installed")
    }
}

fn call(args: &[&str]) -> Run {
    tap2pcap().args(args).run()
}

/// The values that the button beside the config_id lists.
fn reloaded(endpoint: &str) -> String {
    let args = ["--extcap-config", "--extcap-interface", "envoy-tap", "--extcap-reload-option", "config-id"];
    let run = call(&[&args[..], &["--endpoint", endpoint]].concat()).expect_status(0);
    assert_eq!(run.stderr, "");
    run.stdout_text().to_owned()
}

const NO_VALUES: &str = "value {arg=1}{value=}{display=The only one}{default=true}\n";

/// A tap that sends the recorded stream, and nothing after it.
fn recorded() -> FakeEnvoy {
    FakeEnvoy::with_one_tap(|tap| {
        tap.accept();
        // Wireshark may have enough before the end.
        let _ = tap.send(&interleaved());
        tap.wait_for_end();
    })
}

/// A capture in the background, as Wireshark starts it: the link is called, and the capture goes into a pipe.
fn capture(dir: &Dir, url: &str, more: &[&str]) -> (Child, PathBuf) {
    let fifo = dir.fresh().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let link = fifo.with_file_name("tap2pcap-extcap");
    symlink(PROGRAM, &link).unwrap();
    let mut command = Command::new(link);
    command.args(["--capture", "--extcap-interface", "envoy-tap", "--fifo"]).arg(&fifo).args(["--endpoint", url]);
    let child = command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    (child, fifo)
}

#[track_caller]
fn ended(mut child: Child) -> Run {
    wait_until("it ends", || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Run { command: "tap2pcap-extcap".to_owned(), status: output.status, stdout: output.stdout, stderr }
}

#[test]
fn wireshark_gets_an_interface_a_link_type_and_options() {
    let version = env!("CARGO_PKG_VERSION");
    let interfaces = format!(
        "extcap {{version={version}}}{{help=https://www.envoyproxy.io/docs/envoy/latest/operations/traffic_tapping}}\
         {{display=tap2pcap}}\ninterface {{value=envoy-tap}}{{display=Envoy tap}}\n"
    );
    let dlts = "dlt {number=1}{name=EN10MB}{display=Ethernet}\n";
    let listing = PathBuf::from(ROOT).join("testdata/extcap/config.txt");
    let config = call(&["--extcap-interface", "envoy-tap", "--extcap-config"]).expect_clean();
    if env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::create_dir_all(listing.parent().unwrap()).unwrap();
        fs::write(&listing, config.stdout_text()).unwrap();
    }
    let expected = fs::read_to_string(&listing).unwrap_or_default();
    assert_eq!(config.stdout_text(), expected, "{}: UPDATE_GOLDEN=1 writes it", listing.display());
    for (args, expected) in [
        (&["--extcap-interfaces", "--extcap-version=4.0"][..], &*interfaces),
        (&["--extcap-interfaces"], &interfaces),
        (&["extcap", "--extcap-interfaces", "--extcap-version=9.9", "--extcap-later", "7"], &interfaces),
        (&["--extcap-dlts", "--extcap-interface", "envoy-tap"], dlts),
        (&["--extcap-interface", "envoy-tap", "--extcap-dlts", "--extcap-later=7"], dlts),
        (&["--extcap-config", "--extcap-interface", "envoy-tap"], &expected),
    ] {
        assert_eq!(call(args).expect_clean().stdout_text(), expected, "{args:?}");
    }
}

#[test]
fn what_is_no_call_is_an_error_in_one_sentence() {
    let dir = Dir::new("extcap-errors");
    let gone = dir.join("gone").display().to_string();
    let fifo = dir.create("fifo", "").display().to_string();
    let captures: &[&str] = &["--capture", "--extcap-interface", "envoy-tap", "--fifo", &fifo];
    for (args, words) in [
        (&["--extcap-dlts", "--extcap-interface", "eth0"][..], "no interface `eth0`"),
        (&["--extcap-dlts"], "--extcap-interface is missing"),
        (&["--extcap-interface", "envoy-tap"], "nothing to do"),
        (&["--capture", "--extcap-interface", "envoy-tap"], "--fifo"),
        (&["--capture", "--extcap-interface", "envoy-tap", "--fifo", &gone], "No such file"),
        (&[captures, &["--match", "{"]].concat(), "--match"),
        (&[captures, &["--header", "novalue"]].concat(), "NAME=VALUE"),
        (&[captures, &["--where", "response.code >"]].concat(), "--where"),
        (&[captures, &["--endpoint", "ftp://x"]].concat(), "expected http://HOST:PORT"),
        (&[captures, &["--max-rx", "-1"]].concat(), "--max-rx"),
        (&[captures, &["--no-such"]].concat(), "--no-such"),
        (&[captures, &["--extcap-capture-filter", "tcp"]].concat(), "no capture filters"),
        (&[captures, &["--endpoint", "http://127.0.0.1:1"]].concat(), "cannot connect to http://127.0.0.1:1"),
    ] {
        let run = call(args).expect_status(2).expect_stderr(words);
        assert!(run.stdout.is_empty() && run.stderr.lines().count() == 1, "{run:?}");
        assert!(run.stderr.starts_with("error: ") && !run.stderr.contains("--help"), "{run:?}");
        assert!(run.stderr.matches("refused").count() < 2, "{run:?}");
    }
    // The dialog colours the field by whether there are words.
    let run = call(&["--extcap-capture-filter", "tcp", "--extcap-interface", "envoy-tap"]).expect_clean();
    assert!(run.stdout_text().contains("no capture filters"), "{run:?}");
}

#[test]
fn the_reload_button_lists_the_taps_of_this_envoy() {
    let envoy = FakeEnvoy::start(|_| {});
    let values = reloaded(&envoy.url());
    assert!(!values.contains("The only one") && values.lines().count() > 5, "{values}");
    assert!(values.contains("{value=shared}{display=shared: "), "{values}");
    assert_eq!(values.matches("{value=shared}").count(), 1, "{values}");
    assert_eq!(values.matches("{default=true}").count(), 1, "{values}");
    let only = "value {arg=1}{value=tap}{display=tap: HTTP requests and sockets of clients}{default=false}\n";
    assert_eq!(reloaded(&FakeEnvoy::with_one_tap(|_| {}).url()), format!("{NO_VALUES}{only}"));
}

#[test]
fn the_reload_button_works_where_envoy_or_the_other_options_do_not() {
    // Something listens and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let begin = Instant::now();
    for endpoint in ["http://127.0.0.1:1", "unix:/no/such", "udp://127.0.0.1:9", "nonsense", "", &silent] {
        // Whether an Envoy of this machine listens at the default endpoint is not known.
        if !endpoint.is_empty() {
            assert_eq!(reloaded(endpoint), NO_VALUES, "{endpoint}");
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let envoy = FakeEnvoy::with_one_tap(|_| {});
    let url = envoy.url();
    // What Wireshark passes while a person types: values that are not valid yet, and an empty one after an option that
    // takes none.
    let others = ["--match", "{", "--once", "", "--where", "", "--max-rx", "x", "--endpoint", &url];
    let args = ["--extcap-config", "--extcap-interface", "envoy-tap", "--extcap-reload-option", "config-id"];
    let run = call(&[&args[..], &others].concat()).expect_clean();
    assert!(run.stdout_text().contains("{value=tap}"), "{run:?}");
}

#[test]
fn a_config_id_cannot_add_a_sentence() {
    let hostile = [
        "x}\\nvalue {arg=1}{value=evil}{display=evil}",
        "}{call=--fifo}{display=x",
        "two\\nlines",
        "{",
        "}",
        "\\u001b[2J",
        "\\u202eabc",
        "-q",
        "good one",
    ];
    let chains: Vec<_> = hostile
        .iter()
        .map(|id| {
            format!(
                r#"{{"transport_socket":{{"typed_config":{{
                "@type":"type.googleapis.com/envoy.extensions.transport_sockets.tap.v3.Tap",
                "common_config":{{"admin_config":{{"config_id":"{id}"}}}}}}}}}}"#
            )
        })
        .collect();
    let dump = format!(
        r#"{{"configs":[{{"@type":"type.googleapis.com/envoy.admin.v3.ListenersConfigDump","static_listeners":
        [{{"listener":{{"name":"x}}\nvalue {{arg=1}}","filter_chains":[{}]}}}}]}}]}}"#,
        chains.join(",")
    );
    let envoy = FakeEnvoy::with(&dump, "{}", "{}", |_| {});
    let expected = "value {arg=1}{value=-q}{display=-q: sockets of clients}{default=true}\n\
                    value {arg=1}{value=good one}{display=good one: sockets of clients}{default=false}\n";
    assert_eq!(reloaded(&envoy.url()), expected);
}

#[test]
fn the_pipe_gets_what_live_writes_until_wireshark_stops_it() {
    let dir = Dir::new("extcap-pipe");
    let envoy = recorded();
    let (child, fifo) =
        capture(&dir, &envoy.url(), &["--config-id", "tap", "--extcap-control-in", "/x", "--path", "", "--once"]);
    let mut reader = fs::File::open(&fifo).unwrap();
    let mut bytes = vec![0; 28];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[..4], 0x0A0D_0D0A_u32.to_le_bytes());
    // All that was sent comes at once, though the tap goes on.
    let mut buffer = vec![0; 1 << 16];
    let last: &[u8] = b"HTTP/1.1";
    while memchr::memmem::find_iter(&bytes, last).count() < 3 {
        let count = reader.read(&mut buffer).unwrap();
        assert!(count > 0);
        bytes.extend_from_slice(&buffer[..count]);
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    reader.read_to_end(&mut bytes).unwrap();
    let run = ended(child).expect_status(0);
    assert!(run.stderr.is_empty() && run.stdout.is_empty(), "{run:?}");
    let frames = tshark::read(&dir.create("got.pcapng", bytes));
    assert!(frames.len() > 20, "{}", frames.len());
}

#[test]
fn a_pipe_that_nobody_reads_any_more_ends_the_capture_though_nothing_passes() {
    let dir = Dir::new("extcap-idle");
    // The second one has been gone since the tap began, and does not come back.
    let silent = FakeEnvoy::with_one_tap(|tap| {
        tap.accept();
        tap.wait_for_end();
    });
    let gone = FakeEnvoy::with_one_tap(|tap| match tap.number {
        0 => {
            tap.accept();
            tap.end();
        }
        _ => tap.refuse("503 Service Unavailable", "away"),
    });
    for envoy in [&silent, &gone] {
        let (child, fifo) = capture(&dir, &envoy.url(), &[]);
        let mut reader = fs::File::open(&fifo).unwrap();
        reader.read_exact(&mut [0; 28]).unwrap();
        drop(reader);
        let run = ended(child).expect_status(0);
        assert!(run.stderr.is_empty() && run.stdout.is_empty(), "{run:?}");
    }
    // The same for `live` with `| head`.
    let mut command = Command::new(PROGRAM);
    command.args(["live", &silent.url(), "-", "-q"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 28]).unwrap();
    drop(stdout);
    let run = ended(child).expect_status(0);
    assert_eq!(run.stderr, "");
}

#[test]
fn who_waits_for_a_capture_that_fails_does_not_wait_for_ever() {
    let dir = Dir::new("extcap-fails");
    for more in [&[][..], &["--match", "{"], &["--extcap-capture-filter", "tcp"]] {
        let (child, fifo) = capture(&dir, "http://127.0.0.1:1", more);
        // This waits for a writer.
        let mut reader = fs::File::open(&fifo).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        let run = ended(child).expect_status(2);
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
}

#[test]
fn installing_puts_a_link_where_wireshark_looks_and_uninstalling_removes_it() {
    let home = Home::new();
    home.extcap(&["--uninstall"]).expect_status(0).expect_stderr("not installed");
    home.extcap(&["--install"]).expect_status(0).expect_stderr(": installed; it leads to").expect_stderr("tshark -D");
    let link = home.link();
    assert_eq!(fs::read_link(&link).unwrap().canonicalize().unwrap(), Path::new(PROGRAM).canonicalize().unwrap());
    home.extcap(&["--install"]).expect_status(0).expect_stderr("installed already");
    let listed = home.tshark(&["-D"]).expect_status(0);
    assert!(listed.stdout_text().lines().any(|line| line.ends_with(". envoy-tap (Envoy tap)")), "{listed:?}");
    home.extcap(&["--uninstall"]).expect_status(0).expect_stderr(": removed");
    assert!(!link.is_symlink());
    let listed = home.tshark(&["-D"]).expect_status(0);
    assert!(!listed.stdout_text().contains("envoy-tap"), "{listed:?}");
}

#[test]
fn only_links_to_a_tap2pcap_are_replaced_or_removed() {
    let home = Home::installed();
    let link = home.link();
    // An older version, which is gone.
    fs::remove_file(&link).unwrap();
    symlink("/opt/older/tap2pcap", &link).unwrap();
    home.extcap(&["--install"]).expect_status(0).expect_stderr(": installed;");
    assert!(link.exists());
    let foreign = |link: &Path| {
        for option in ["--install", "--uninstall"] {
            home.extcap(&[option]).expect_status(2).expect_stderr("it is no link to tap2pcap");
        }
        assert!(fs::symlink_metadata(link).is_ok());
    };
    fs::remove_file(&link).unwrap();
    symlink("/bin/sh", &link).unwrap();
    foreign(&link);
    fs::remove_file(&link).unwrap();
    fs::write(&link, "a file of somebody's").unwrap();
    foreign(&link);
    assert_eq!(fs::read_to_string(&link).unwrap(), "a file of somebody's");
}

#[test]
fn without_tshark_the_folder_of_later_wiresharks_is_taken() {
    let home = Home::new();
    let run = |args: &[&str]| {
        let mut command = home.command(PROGRAM, &[&["extcap"], args].concat());
        command.env("PATH", home.dir.path());
        run_command(command)
    };
    run(&["--install"]).expect_status(0).expect_stderr("no tshark here").expect_stderr("Help > About > Folders");
    let link = home.dir.join(".local/lib/wireshark/extcap/tap2pcap-extcap");
    assert!(link.exists());
    run(&["--install", "--system"]).expect_status(2).expect_stderr("tshark");
    // tshark may have come since, and name another folder.
    home.extcap(&["--uninstall"]).expect_status(0);
    assert!(!link.is_symlink());
    let mut command = home.command(PROGRAM, &["extcap", "--install"]);
    command.env("PATH", home.dir.path()).env_remove("HOME");
    run_command(command).expect_status(2).expect_stderr("HOME is not set");
}

#[test]
fn people_get_help() {
    let run = tap2pcap().args(&["extcap"]).run().expect_status(2);
    assert!(run.stderr.contains("--install") && run.stderr.contains("--uninstall"), "{run:?}");
    tap2pcap().args(&["extcap", "--install", "--uninstall"]).run().expect_status(2);
}

#[test]
fn tshark_captures_what_a_conversion_of_the_stream_has() {
    let home = Home::installed();
    let envoy = recorded();
    let stream = home.dir.create("tap.json", interleaved());
    let file = home.dir.join("file.pcapng");
    convert(&[], &stream, &file).run().expect_status(0);
    let live = home.dir.join("live.pcapng");
    let whole = tap2pcap().args(&["live", &envoy.url()]).arg(&live).args(&["--for", "2s"]).run().expect_status(0);
    let expected = tshark::read(&live);
    assert!(expected.len() > 20, "{whole:?}");
    // tshark ends the capture itself after the packets that are there while the tap goes on: the close of connections
    // that are still open comes at the end.
    let count = expected.iter().rposition(|frame| !frame.payload.is_empty()).unwrap() + 1;
    let got = home.dir.join("got.pcapng");
    let (endpoint, count) = (format!("extcap.envoy_tap.endpoint:{}", envoy.url()), count.to_string());
    let run = home.tshark(&["-i", "envoy-tap", "-o", &endpoint, "-c", &count, "-w", got.to_str().unwrap()]);
    let run = run.expect_status(0);
    assert!(!run.stderr.contains("Error by extcap"), "{run:?}");
    let frames = tshark::read(&got);
    assert_eq!(frames.len().to_string(), count);
    for (frame, expected) in frames.iter().zip(&expected) {
        assert_eq!((frame.src, frame.dst, &frame.payload), (expected.src, expected.dst, &expected.payload));
    }
}

#[test]
fn tshark_shows_why_there_is_no_capture() {
    let home = Home::installed();
    for (option, words) in [
        ("extcap.envoy_tap.endpoint:http://127.0.0.1:1", "cannot connect to http://127.0.0.1:1"),
        ("extcap.envoy_tap.match:{", "invalid value '{' for '--match"),
    ] {
        let run = home.tshark(&["-i", "envoy-tap", "-o", option, "-c", "1"]);
        assert!(run.stderr.contains("Error by extcap pipe: error: ") && run.stderr.contains(words), "{run:?}");
        assert!(run.status.code() == Some(1) && !run.stderr.contains("no device named"), "{run:?}");
    }
}
