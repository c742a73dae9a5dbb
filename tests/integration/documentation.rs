//! The recipes, listings, examples and manual pages of the documentation work as they are printed.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use crate::{
    fake_envoy::{FakeEnvoy, interleaved},
    util::{Dir, PROGRAM, ROOT, Run, TSHARK, run_command},
};

/// The code blocks of a page that are marked as `language`.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(ROOT).join(page)).unwrap();
    let (fence, mut blocks, mut block) = (format!("```{language}"), Vec::new(), None::<String>);
    for line in text.lines() {
        match &mut block {
            None if line == fence => block = Some(String::new()),
            None => {}
            Some(_) if line == "```" => blocks.extend(block.take()),
            Some(block) => *block += &format!("{line}\n"),
        }
    }
    blocks
}

/// A directory that looks like the repository's root, with the program installed. Its `cargo` runs the program that the
/// tests have built, and its `curl` stands for Envoy's admin endpoint.
struct Newcomer {
    dir: Dir,
}

impl Newcomer {
    fn new(test: &str) -> Self {
        let dir = Dir::new(test);
        for name in ["testdata", "LICENSE"] {
            symlink(Path::new(ROOT).join(name), dir.join(name)).unwrap();
        }
        fs::create_dir(dir.join("bin")).unwrap();
        symlink(PROGRAM, dir.join("bin/tap2pcap")).unwrap();
        let tool = |name: &str, script: &str| {
            let path = dir.create(name, format!("#!/bin/bash\n{script}\n"));
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        tool("bin/cargo", r#"[ "$1 $2 $3" = "run --release --" ] && exec tap2pcap "${@:4}"; exit 9"#);
        tool(
            "bin/curl",
            r#"case "$*" in
            *" -X POST http://127.0.0.1:9901/tap -d "*) python3 -c 'import json, sys; json.loads(sys.argv[1])' "${@: -1}" &&
                exec cat testdata/http/grpc_unary_buffered.json ;;
            *) PATH=${PATH#*:} exec curl "$@" ;;
            esac"#,
        );
        Self { dir }
    }

    fn run(&self, script: &str) -> Run {
        let mut command = Command::new("bash");
        let path = format!("{}:{}", self.dir.join("bin").display(), std::env::var("PATH").unwrap());
        command.args(["-euo", "pipefail", "-c", script]).current_dir(self.dir.path()).env("PATH", path);
        run_command(command).expect_status(0)
    }

    fn tshark(&self, capture: &str, args: &[&str]) -> String {
        let path = self.dir.join(capture);
        let args = ["-r", path.to_str().unwrap()].into_iter().chain(args.iter().copied());
        TSHARK.run(args, b"").stdout_text().to_owned()
    }
}

/// A port of the loopback interface that nobody uses.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn every_recipe_of_the_readme_works_as_printed() {
    let newcomer = Newcomer::new("readme");
    let blocks = blocks("README.md", "sh");
    let [
        first,
        test,
        install,
        file,
        look,
        directory,
        archive,
        config,
        live,
        check,
        requests,
        tables,
        report,
        redact,
        record,
    ] = blocks.as_slice()
    else {
        panic!("a recipe came or went: run it here");
    };
    assert_eq!((test.as_str(), install.as_str()), ("scripts/test\n", "cargo install --path .\n"));

    newcomer.run(first);
    assert_eq!(newcomer.tshark("path_0.pcapng", &["-Y", "http.request"]).lines().count(), 3);
    fs::remove_file(newcomer.dir.join("path_0.pcapng")).unwrap();
    newcomer.run(file);
    assert_eq!(newcomer.tshark("path_0.pcapng", &["-Y", "http.request"]).lines().count(), 3);

    let run = newcomer.run(look);
    assert!(
        run.stdout_text().lines().all(|line| line.contains("HTTP2")) && run.stdout_text().contains("HEADERS"),
        "{run:?}"
    );

    newcomer.run(directory);
    let traces = fs::read_dir(newcomer.dir.join("testdata/tap")).unwrap().count();
    assert_eq!(fs::read_dir(newcomer.dir.join("captures")).unwrap().count(), traces);
    assert!(newcomer.tshark("all.pcapng", &["-Y", "tcp.flags.syn == 1 && tcp.flags.ack == 0"]).lines().count() > 50);

    newcomer.run(archive);
    let connections =
        |capture| newcomer.tshark(capture, &["-Y", "tcp.flags.syn == 1 && tcp.flags.ack == 0"]).lines().count();
    assert_eq!(connections("archive.pcapng"), connections("all.pcapng"));

    let [printed] = self::blocks("README.md", "yaml").try_into().unwrap();
    assert_eq!(newcomer.run(config).stdout_text(), printed);

    let envoy = FakeEnvoy::with_one_tap(|tap| {
        tap.accept();
        tap.send(&interleaved()).unwrap();
        tap.end();
    });
    let run = newcomer.run(&live.replace("127.0.0.1:9901", &envoy.address.to_string()));
    assert!(run.stdout_text().contains("POST /client1/fail1"), "{run:?}");

    let run = newcomer.run(check);
    for part in ["truncated-body", "-d tcp.port==10000,http"] {
        assert!(run.stdout_text().contains(part), "no {part} in {run:?}");
    }

    let run = newcomer.run(requests);
    assert_eq!(run.stdout_text().lines().filter(|line| line.starts_with("TIME")).count(), 2, "{run:?}");
    assert_eq!(run.stdout_text().lines().count(), (1 + 2) + (1 + 5) + (1 + 5), "{run:?}");
    let slow = newcomer.tshark("slow.pcapng", &["-Y", "http.request", "-d", "tcp.port==1-65535,http"]);
    assert!((1..100).contains(&slow.lines().count()), "{slow}");
    assert_eq!(fs::read_to_string(newcomer.dir.join("requests.ndjson")).unwrap().lines().count(), 4);

    newcomer.run(tables);
    let lines = |name| fs::read_to_string(newcomer.dir.join("tables").join(name)).unwrap().lines().count();
    assert!(lines("connections.ndjson") > 100 && lines("requests.ndjson") > 100 && lines("findings.ndjson") > 0);

    newcomer.run(report);
    assert!(fs::read_to_string(newcomer.dir.join("report.html")).unwrap().contains("</html>"));

    newcomer.run(redact);
    assert!(
        newcomer
            .tshark("shared.pcapng", &["-T", "fields", "-e", "frame.comment"])
            .contains("redacted: asterisks stand for")
    );
    let read = |name| fs::read_to_string(newcomer.dir.join(name)).unwrap();
    assert_eq!(read("shared.ndjson").lines().count(), 4);
    assert!(read("shared.har").contains("host-") && read("taken-out.ndjson").lines().count() > 4);

    // The same recipe with ports that are free here.
    let ports = [("127.0.0.1:10000", free_port()), ("127.0.0.1:8080", free_port())];
    let record =
        ports.iter().fold(record.clone(), |script, (old, new)| script.replace(old, &format!("127.0.0.1:{new}")));
    let record = record.replace("127.0.0.1 8080", &format!("127.0.0.1 {}", ports[1].1));
    newcomer.run(&record);
    let licence = fs::read(newcomer.dir.join("LICENSE")).unwrap();
    assert_eq!(fs::read(newcomer.dir.join("LICENSE.copy")).unwrap(), licence);
    let size =
        newcomer.tshark("recorded.pcapng", &["-Y", "http.response", "-T", "fields", "-e", "http.content_length"]);
    assert_eq!(size.trim(), licence.len().to_string());
}

#[test]
fn the_listing_of_the_truncation_page_is_what_tshark_prints() {
    let newcomer = Newcomer::new("truncation");
    let [commands] = blocks("docs/truncation.md", "sh").try_into().unwrap();
    let [listing, comments] = <[String; 2]>::try_from(blocks("docs/truncation.md", "text")).unwrap();
    let words = |text: &str| text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let (printed, shown): (Vec<String>, Vec<String>) = (words(newcomer.run(&commands).stdout_text()), words(&listing));
    assert_eq!(printed, shown);

    let printed = newcomer.tshark("trunc.pcapng", &["-T", "fields", "-e", "frame.number", "-e", "frame.comment"]);
    let printed: Vec<_> = printed
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter(|(number, comment)| *number != "1" && !comment.is_empty())
        .map(|(number, comment)| format!("{number}: {comment}"))
        .collect();
    assert_eq!(printed, comments.lines().collect::<Vec<_>>());
}

/// Runs an example. `cargo test` builds the examples before the tests, unless it was asked for this test binary only.
fn example(name: &str, args: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--locked", "--example", name]).current_dir(ROOT);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.arg("--").args(args);
    run_command(command).expect_status(0)
}

#[test]
fn the_example_prints_the_bytes_of_each_connection() {
    let run = example(
        "bytes_per_connection",
        &[
            "testdata/tap/http2_str_PROTO_BINARY_4.pb",
            "testdata/envoy/1.40.0/h1trunc_str_PROTO_BINARY_137.pb",
            "testdata/envoy/1.40.0/h1trunc_buf_PROTO_BINARY_45.pb",
        ],
    );
    let expected = "\
127.0.0.1:53674 -> 127.0.0.1:10000: Envoy read 183 bytes, wrote 10059 bytes
127.0.0.1:60178 -> 127.0.0.1:21082: Envoy read 1275 of 3251 bytes, wrote 2470 of 8589 bytes
127.0.0.1:59442 -> 127.0.0.1:21040: Envoy read 1024 of more than 1024 bytes, wrote 1024 of more than 1024 bytes
";
    assert_eq!(run.stdout_text(), expected);
}

#[test]
fn every_command_has_its_manual_page_and_every_shell_its_completions() {
    let dir = Dir::new("manuals");
    example("manuals", &[dir.path().to_str().unwrap()]);
    for page in [
        "tap2pcap",
        "tap2pcap-validate",
        "tap2pcap-info",
        "tap2pcap-http",
        "tap2pcap-record",
        "tap2pcap-open",
        "tap2pcap-tables",
        "tap2pcap-report",
    ] {
        let text = fs::read_to_string(dir.join(format!("man/{page}.1"))).unwrap();
        assert!(text.contains(".SH OPTIONS") && text.contains(".SH SYNOPSIS"), "{text}");
    }
    // The completions know what the help names. bash checks the syntax of its completions.
    for (file, option) in
        [("tap2pcap.bash", "--truncated"), ("tap2pcap.fish", "-l truncated"), ("_tap2pcap", "--truncated=")]
    {
        let path = dir.join("completions").join(file);
        assert!(fs::read_to_string(&path).unwrap().contains(option), "{file}");
    }
    let mut bash = Command::new("bash");
    bash.arg("-n").arg(dir.join("completions/tap2pcap.bash"));
    run_command(bash).expect_status(0);
}

#[test]
fn the_recipe_with_curl_works_as_printed() {
    let newcomer = Newcomer::new("curl");
    let [command] = blocks("docs/live.md", "sh").try_into().unwrap();
    let run = newcomer.run(&command);
    assert!(run.stdout_text().contains("HEADERS"), "{run:?}");
}

/// A newcomer looks for a behaviour in docs/pipeline.md, so the files and folders that it names must exist.
#[test]
fn every_place_that_the_pipeline_page_names_exists() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/pipeline.md")).unwrap();
    let names = page.split('`').skip(1).step_by(2).filter_map(|code| code.split_whitespace().next());
    let is_place = |name: &&str| {
        let is_plain = name.chars().all(|char| char.is_ascii_alphanumeric() || "/._-".contains(char));
        is_plain && !name.starts_with("/dev/") && (name.contains('/') || name.ends_with(".rs"))
    };
    let mut places = 0;
    for name in names.filter(is_place) {
        places += 1;
        let exists = ["src", "."].iter().any(|root| Path::new(ROOT).join(root).join(name).exists());
        assert!(exists, "{name}");
    }
    assert!(places > 100, "{places}");
}

/// docs/pipeline.md: a stage imports only from the stages before it, and its messages name no option.
#[test]
fn stages_name_no_option_and_know_nothing_of_what_drives_them() {
    let files = ["input", "trace", "timeline", "synth", "capture", "har", "http"].into_iter().flat_map(|stage| {
        let files = walkdir::WalkDir::new(Path::new(ROOT).join("src").join(stage)).into_iter().map(Result::unwrap);
        files.filter(|file| file.path().extension().is_some_and(|suffix| suffix == "rs"))
    });
    let mut lines = 0;
    for file in files {
        for line in fs::read_to_string(file.path()).unwrap().lines() {
            lines += 1;
            let place = file.path().display();
            let is_comment = line.trim_start().starts_with("//");
            for above in ["cli::", "commands::", "report::"] {
                assert!(is_comment || !line.contains(above), "{place}: {line}");
            }
            // These options are those of other programs.
            let ours =
                line.replace("zstd -d --long=31", "").replace("protoc --decode_raw", "").replace("curl --raw", "");
            let mut dashes = ours.match_indices("--");
            let names_an_option =
                |(at, _)| ours[at + 2..].starts_with(|c: char| c.is_ascii_lowercase()) && !ours[..at].ends_with('-');
            assert!(!dashes.any(names_an_option), "{place}: {line}");
        }
    }
    assert!(lines > 10_000, "{lines}");
}

/// docs/pipeline.md: a decoder states its faults as types. Two words in a string literal would be words for people.
#[test]
fn decoders_have_no_words_for_people() {
    let input = Path::new(ROOT).join("src/input");
    // These say why nothing at all can be read from a source, or from there on. The last one writes traces for tests.
    let others = ["archive", "layers", "error.rs", "detect.rs", "detect", "discover.rs", "reader.rs", "scrambled.rs"];
    let others = others.map(|name| input.join(name));
    // Only those who change the program read these. The place is what serde_json adds to its messages, to remove it.
    let exempt = ["//", "expect(", "reason = ", "unreachable!", "assert!", "\" at line {} column {}\""];
    let is_letter = |byte: u8| byte.is_ascii_lowercase();
    let mut files = 0;
    for file in walkdir::WalkDir::new(&input).into_iter().map(Result::unwrap) {
        let path = file.path();
        let is_test = path.to_str().unwrap().ends_with("tests.rs");
        if !file.file_type().is_file() || is_test || others.iter().any(|other| path.starts_with(other)) {
            continue;
        }
        files += 1;
        let source = fs::read_to_string(path).unwrap();
        let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for line in code.lines().filter(|line| !exempt.iter().any(|exempt| line.contains(exempt))) {
            let line = line.replace("\\\"", "").replace("'\"'", "");
            let pieces: Vec<_> = line.split('"').collect();
            // Each pair is what stands before a literal, and the literal. A byte string is compared with a trace.
            for pair in pieces.windows(2).step_by(2).filter(|pair| !pair[0].ends_with('b')) {
                let mut threes = pair[1].as_bytes().windows(3);
                let has_words = threes.any(|three| is_letter(three[0]) && three[1] == b' ' && is_letter(three[2]));
                assert!(!has_words, "{}: {line}", path.display());
            }
        }
    }
    assert!(files > 20, "{files}");
    // A fault holds no words either. The strings are a message of serde_json and the name of a message.
    let faults = fs::read_to_string(Path::new(ROOT).join("src/trace/fault.rs")).unwrap();
    let is_string = |line: &&str| ["(String)", ": String", "str"].iter().any(|string| line.contains(string));
    let strings: Vec<_> =
        faults.lines().map(str::trim).filter(|line| !line.starts_with("//")).filter(is_string).collect();
    assert_eq!(strings, ["Parser(String),", "Object(&'static str),"]);
}
