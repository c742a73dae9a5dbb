//! Times whole runs of the program against `cat`, `cp -r` and `editcap` over the same bytes, in turn, and prints the
//! medians and their ratios. It only measures: no ratio makes it fail. `scripts/bench` runs it.
//!
//! All files are on tmpfs, so that the program and the kernel's copying are measured, not a disk. Before each run, a
//! scratch file of the output's size is written and unlinked, because a virtual machine may have given freed pages back
//! to its host.

use std::{
    error::Error,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How many pairs of runs count. One pair before them does not.
const RUNS: usize = 7;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One line of the table.
struct Work {
    name: &'static str,
    /// Arguments of the example `generate`, except the output.
    generate: [&'static str; 3],
    input: &'static str,
    /// Arguments of `tap2pcap`, with IN and OUT.
    convert: &'static [&'static str],
    /// The shell command to compare with, with IN and OUT.
    against: &'static str,
    goal: f64,
}

const CAT: &str = "cat IN > OUT";
const CONVERT: &str = "PROGRAM -q IN OUT.pcapng";

const WORKS: &[Work] = &[
    Work {
        name: "16 KiB events, length-delimited, 1 GiB",
        generate: ["delimited", "16384", "1073741824"],
        input: "large.pb_length_delimited",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: CAT,
        goal: 1.0,
    },
    Work {
        name: "16 KiB events, PROTO_BINARY, 1 GiB",
        generate: ["binary", "16384", "1073741824"],
        input: "large.pb",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: CAT,
        goal: 0.8,
    },
    Work {
        name: "100-byte events, length-delimited, 256 MiB",
        generate: ["delimited", "100", "268435456"],
        input: "small.pb_length_delimited",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: CAT,
        goal: 1.2,
    },
    Work {
        name: "100-byte events, PROTO_BINARY, 256 MiB",
        generate: ["binary", "100", "268435456"],
        input: "small.pb",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: CAT,
        goal: 1.2,
    },
    Work {
        name: "16 KiB events, PROTO_TEXT, 256 MiB",
        generate: ["text", "16384", "268435456"],
        input: "large.pb_text",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: CAT,
        goal: 5.0,
    },
    Work {
        name: "100-byte events, PROTO_TEXT, 256 MiB",
        generate: ["text", "100", "268435456"],
        input: "small.pb_text",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: CAT,
        goal: 5.0,
    },
    Work {
        name: "16 KiB events, JSON_BODY_AS_BYTES, 256 MiB",
        generate: ["json", "16384", "268435456"],
        input: "large.json",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: CAT,
        goal: 2.5,
    },
    Work {
        name: "100-byte events, JSON_BODY_AS_BYTES, 256 MiB",
        generate: ["json", "100", "268435456"],
        input: "small.json",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: CAT,
        goal: 2.5,
    },
    Work {
        name: "64 interleaved, 100-byte events, length-delimited, 256 MiB",
        generate: ["delimited:64", "100", "268435456"],
        input: "small.pb_length_delimited",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: CAT,
        goal: 1.5,
    },
    Work {
        name: "64 interleaved, 16 KiB events, PROTO_BINARY, 1 GiB",
        generate: ["binary:64", "16384", "1073741824"],
        input: "large.pb",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: CAT,
        goal: 1.0,
    },
    Work {
        name: "64 interleaved, 100-byte events, PROTO_TEXT, 256 MiB",
        generate: ["text:64", "100", "268435456"],
        input: "small.pb_text",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: CAT,
        goal: 2.0,
    },
    Work {
        name: "64 interleaved, 100-byte events, JSON_BODY_AS_BYTES, 256 MiB",
        generate: ["json:64", "100", "268435456"],
        input: "small.json",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: CAT,
        goal: 1.5,
    },
    Work {
        name: "HTTP, buffered, 4 KiB bodies, 256 MiB",
        generate: ["http-buffered", "4096", "268435456"],
        input: "http.pb_length_delimited",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: CAT,
        goal: 3.0,
    },
    Work {
        name: "HTTP, streamed, 4 KiB bodies, 256 MiB",
        generate: ["http-streamed", "4096", "268435456"],
        input: "http.pb_length_delimited",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: CAT,
        goal: 3.0,
    },
    Work {
        name: "validate, 16 KiB events, delimited, against converting",
        generate: ["delimited", "16384", "268435456"],
        input: "large.pb_length_delimited",
        convert: &["validate", "-q", "IN"],
        against: CONVERT,
        goal: 1.0,
    },
    Work {
        name: "validate, 100-byte events, delimited, against converting",
        generate: ["delimited", "100", "268435456"],
        input: "small.pb_length_delimited",
        convert: &["validate", "-q", "IN"],
        against: CONVERT,
        goal: 1.0,
    },
    Work {
        name: "validate, 100-byte events, PROTO_BINARY, against converting",
        generate: ["binary", "100", "268435456"],
        input: "small.pb",
        convert: &["validate", "-q", "IN"],
        against: CONVERT,
        goal: 1.0,
    },
    Work {
        name: "validate, 100-byte events, PROTO_TEXT, against converting",
        generate: ["text", "100", "268435456"],
        input: "small.pb_text",
        convert: &["validate", "-q", "IN"],
        against: CONVERT,
        goal: 1.0,
    },
    Work {
        name: "validate, 100-byte events, JSON_BODY_AS_BYTES, against converting",
        generate: ["json", "100", "268435456"],
        input: "small.json",
        convert: &["validate", "-q", "IN"],
        against: CONVERT,
        goal: 1.0,
    },
    Work {
        name: "validate, HTTP, buffered, against converting",
        generate: ["http-buffered", "4096", "268435456"],
        input: "http.pb_length_delimited",
        convert: &["validate", "-q", "IN"],
        against: CONVERT,
        goal: 1.0,
    },
    Work {
        name: "against editcap on the capture",
        generate: ["delimited", "100", "268435456"],
        input: "small.pb_length_delimited",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: "PROGRAM -q IN CAPTURE.pcapng; editcap -F pcapng CAPTURE.pcapng OUT",
        goal: 1.0,
    },
    Work {
        name: "10,000 traces of 4 KiB, mirrored, against cp -r",
        generate: ["many", "10000", "4096"],
        input: "many",
        convert: &["-q", "IN", "OUT/"],
        against: "cp -r IN OUT",
        goal: 1.1,
    },
    Work {
        name: "1,000 traces of 1 MiB, merged, against cat",
        generate: ["many", "1000", "1048576"],
        input: "merged",
        convert: &["-q", "IN", "OUT.pcapng"],
        against: "cat IN/* > OUT",
        goal: 0.8,
    },
];

fn main() -> Result<()> {
    let only = std::env::args().nth(1);
    let bin = std::env::current_exe()?.parent().and_then(Path::parent).ok_or("no target directory")?.to_owned();
    let (program, generate) = (bin.join("tap2pcap"), bin.join("examples/generate"));
    let memory = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let directory = memory.join(format!("tap2pcap-bench-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    println!("{}", machine());
    println!("| work | time | against | ratio (min to max) | goal | peak memory |");
    println!("|---|---|---|---|---|---|");
    let mut result = Ok(());
    for work in WORKS.iter().filter(|work| only.as_ref().is_none_or(|only| work.name.contains(only.as_str()))) {
        result = result.and_then(|()| bench(work, &program, &generate, &directory));
    }
    let result = result.and_then(|()| start_up(&program, &directory));
    fs::remove_dir_all(&directory)?;
    result
}

/// Measures what a run costs before it does any work: the program's size, and runs with hardly any work.
fn start_up(program: &Path, directory: &Path) -> Result<()> {
    let trace = directory.join("one.pb");
    let segment = fs::read("testdata/envoy/1.40.0/h1_str_PROTO_BINARY_133.pb")?;
    fs::write(&trace, &segment[..segment.len().min(1024)])?;
    let milliseconds = |args: &[&Path]| -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..=5 * RUNS {
            let start = Instant::now();
            // The trace is cut off after 1 KiB, so the program reports an error.
            Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(median(&mut times))
    };
    let version = milliseconds(&[Path::new("--version")])?;
    let small = milliseconds(&[Path::new("-q"), &trace, &directory.join("one.pcapng")])?;
    let size = fs::metadata(program)?.len() as f64 / f64::from(1 << 20);
    println!("\n--version: {version:.1} ms; a trace of 1 KiB: {small:.1} ms; the program: {size:.1} MiB");
    Ok(())
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores, {}, medians of {RUNS} pairs\n", model.trim_start_matches(['\t', ' ', ':']))
}

fn bench(work: &Work, program: &Path, generate: &Path, directory: &Path) -> Result<()> {
    let input = directory.join(work.input);
    let status = Command::new(generate).args(work.generate).arg(&input).status()?;
    if !status.success() {
        return Err(format!("generating {}: {status}", work.input).into());
    }
    let output = directory.join("out");
    let capture = directory.join("capture");
    let fill = |text: &str| {
        text.replace("PROGRAM", &program.display().to_string())
            .replace("CAPTURE", &capture.display().to_string())
            .replace("IN", &input.display().to_string())
            .replace("OUT", &output.display().to_string())
    };
    // The commands before the last `;` are preparation and are not timed.
    let (prepare, against) = match work.against.rsplit_once(';') {
        Some((prepare, against)) => (Some(fill(prepare)), fill(against)),
        None => (None, fill(work.against)),
    };
    if let Some(prepare) = prepare {
        Command::new("sh").arg("-c").arg(prepare).status()?;
    }
    let args: Vec<String> = work.convert.iter().map(|arg| fill(arg)).collect();
    let size = size_of(&input)? * 3 / 2;
    let (mut ours, mut theirs, mut ratios, mut peak) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for run in 0..=RUNS {
        let mut command = Command::new(program);
        command.args(&args);
        let (our_time, memory) = timed(command, size, directory)?;
        clean(directory)?;
        let mut command = Command::new("sh");
        command.arg("-c").arg(&against);
        let (their_time, _) = timed(command, size, directory)?;
        clean(directory)?;
        if run > 0 {
            ours.push(our_time);
            theirs.push(their_time);
            ratios.push(our_time / their_time);
            peak = peak.max(memory);
        }
    }
    fs::remove_file(&input).or_else(|_| fs::remove_dir_all(&input))?;
    let _ = fs::remove_file(capture.with_extension("pcapng"));
    ratios.sort_by(f64::total_cmp);
    println!(
        "| {} | {:.3} s | {:.3} s | **{:.2}** ({:.2} to {:.2}) | {:.1} | {} MiB |",
        work.name,
        median(&mut ours),
        median(&mut theirs),
        ratios[RUNS / 2],
        ratios[0],
        ratios[RUNS - 1],
        work.goal,
        peak / 1024
    );
    io::stdout().flush()?;
    Ok(())
}

fn size_of(path: &Path) -> io::Result<u64> {
    if path.is_dir() {
        fs::read_dir(path)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
    } else {
        Ok(fs::metadata(path)?.len())
    }
}

/// Removes what a run wrote.
fn clean(directory: &Path) -> io::Result<()> {
    for name in ["out", "out.pcapng"] {
        let path = directory.join(name);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
    Ok(())
}

/// Runs a command, and returns the seconds of wall clock and the largest resident memory in KiB that was seen.
fn timed(mut command: Command, scratch: u64, directory: &Path) -> Result<(f64, u64)> {
    warm(scratch, directory)?;
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let watcher = thread::spawn(move || {
        let mut peak = 0;
        while let Ok(status) = fs::read_to_string(&status) {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let Some(kib) = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()) else { break };
            peak = kib;
            thread::sleep(Duration::from_millis(5));
        }
        peak
    });
    child.wait()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok((seconds, watcher.join().unwrap_or(0)))
}

fn warm(size: u64, directory: &Path) -> io::Result<()> {
    let path = directory.join("scratch");
    let mut file = File::create(&path)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..size.div_ceil(1 << 20) {
        file.write_all(&zeros)?;
    }
    drop(file);
    fs::remove_file(path)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
