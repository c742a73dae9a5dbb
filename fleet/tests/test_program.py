"""The program at the other end of the pipes may do anything: each ends in rows, and none in a failed job."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest
from conftest import TESTDATA

import tap2pcap_spark
from tap2pcap_spark import Batches, Job, NoProgram, Reading, Storage, find_program

FINDING = json.dumps({"table": "findings", "code": "cut-off", "path": "x", "severity": "error"})


def script(tmp_path: Path, body: str) -> str:
    """Makes a program that behaves badly. It answers --version as any."""
    path = tmp_path / "tap2pcap"
    path.write_text(f'#!/bin/bash\n[ "$1" = --version ] && echo "tap2pcap 0" && exit\n{body}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def read(tmp_path: Path, program: str, uri: str, timeout: float = 60, **more: Any) -> tuple[dict[str, Any], list[Any]]:
    """Reads one file with a program, and gives its row of `files` and its findings."""
    tap2pcap_spark.program.cache_clear()
    options = more.get("options", ())
    job = Job("run", str(tmp_path / "out"), more.get("captures"), (), options, program, timeout, Storage())
    batches = Batches(job, "attempt")
    row = Reading(job, batches, uri, 0, 0).run()
    batches.flush()
    place = tmp_path / "out" / "findings"
    return row, pyarrow.dataset.dataset(place, format="parquet").to_table().to_pylist() if place.exists() else []


@pytest.fixture
def large(tmp_path: Path) -> str:
    """Makes a file of 64 MiB that takes no room."""
    path = tmp_path / "large.pb"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    return f"file:{path}"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("cat >/dev/null; exit 0", "ok", None),
        (f"head -c 10 >/dev/null; echo '{FINDING}'; exit 1", "damaged", "cut-off"),
        (f"exec 0<&-; echo '{FINDING}'; exit 2", "damaged", "cut-off"),
        ("head -c 10 >/dev/null; kill -9 $$", "failed", "program-failed"),
        ("kill -SEGV $$", "failed", "program-failed"),
        ("cat >/dev/null; exit 101", "failed", "program-failed"),
        ("cat >/dev/null; echo why >&2; exit 2", "failed", "program-failed"),
        ("head -c 50000000 /dev/zero >&2; cat >/dev/null", "ok", None),
        (f"yes '{FINDING}' | head -n 200000; cat >/dev/null; exit 1", "damaged", "cut-off"),
        ("echo '{'; echo '[]'; echo null; echo '{\"table\": \"new\"}'; cat >/dev/null", "ok", "program-failed"),
    ],
)
def test_programs_that_behave_badly(tmp_path: Path, large: str, body: str, status: str, code: str | None) -> None:
    """It may stop reading, die, talk without end, or write what is no JSON."""
    row, findings = read(tmp_path, script(tmp_path, body), large)
    assert row["status"] == status
    assert {finding["code"] for finding in findings} == ({code} if code else set())
    assert row["findings"] == len(findings)
    assert all(finding["input"] == large for finding in findings)


def test_the_reason_is_quoted_without_control_characters(tmp_path: Path, large: str) -> None:
    """What the program said stands in the finding."""
    row, findings = read(tmp_path, script(tmp_path, "printf 'panic\\e[31m\\nat x' >&2; kill -9 $$"), large)
    assert row["status"] == "failed"
    assert findings[0]["detail"] == "the program was ended by signal 9: panic [31m at x"


@pytest.mark.parametrize("end", ["kill -9 $$", "exit 101", "exit 2"])
def test_with_redact_nothing_is_quoted(tmp_path: Path, large: str, end: str) -> None:
    """The program may have quoted the trace."""
    body = f"cat >/dev/null; echo secret >&2; {end}"
    _, findings = read(tmp_path, script(tmp_path, body), large, options=("--redact",))
    assert findings[0]["code"] == "program-failed"
    assert "secret" not in json.dumps(findings)
    assert findings[0]["detail"].endswith("what it said is left out, because of --redact")


def test_a_program_that_hangs_is_stopped(tmp_path: Path, large: str) -> None:
    """After --timeout it is killed, and the rows so far stay."""
    started = time.monotonic()
    row, findings = read(tmp_path, script(tmp_path, f"echo '{FINDING}'; exec sleep 1000"), large, timeout=1)
    assert time.monotonic() - started < 30
    assert row["status"] == "failed"
    assert [finding["code"] for finding in findings] == ["cut-off", "program-timeout"]


def test_a_line_beyond_all_measure_is_left_out(tmp_path: Path, large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and the lines after it are read."""
    monkeypatch.setattr(tap2pcap_spark, "LONGEST_LINE", 1000)
    body = f"cat >/dev/null; head -c 5000 /dev/zero | tr '\\0' x; echo; echo '{FINDING}'; exit 1"
    _, findings = read(tmp_path, script(tmp_path, body), large)
    assert [finding["code"] for finding in findings] == ["program-failed", "cut-off"]


def test_a_file_that_is_gone_is_a_finding(tmp_path: Path, binary: str) -> None:
    """It was there when it was listed."""
    row, findings = read(tmp_path, binary, f"file:{tmp_path}/gone.pb")
    assert (row["status"], [finding["code"] for finding in findings]) == ("unreadable", ["unreadable"])


def test_a_file_that_breaks_off_is_a_finding(tmp_path: Path, binary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before is in the tables."""
    pieces = iter([(TESTDATA / "tap/large_str_111.pb").read_bytes()])

    def fail(piped: Any) -> bytes:
        try:
            return next(pieces)
        except StopIteration:
            piped.read_error = "connection reset"
            return b""

    monkeypatch.setattr(tap2pcap_spark.Piped, "_read", fail)
    row, findings = read(tmp_path, binary, f"file:{TESTDATA}/tap/large_str_111.pb")
    assert (row["status"], row["requests"]) == ("unreadable", 1)
    assert findings[-1]["detail"] == "the file could not be read to its end: connection reset"


def test_no_program_is_nobodys_finding(tmp_path: Path, large: str) -> None:
    """It stops the job."""
    with pytest.raises(NoProgram, match="no program tap2pcap on"):
        read(tmp_path, str(tmp_path / "nothing"), large)
    no_program = tmp_path / "large.pb"
    no_program.chmod(0o755)
    with pytest.raises(NoProgram, match="does not run on"):
        read(tmp_path, str(no_program), large)


def test_where_the_program_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel's is beside Python, the PATH comes last."""
    here = tmp_path / "path"
    here.mkdir()
    on_path = script(here, "")
    beside = tmp_path / "beside"
    beside.mkdir()
    monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(beside / "python"))
    assert find_program(None) == on_path
    wheel = script(beside, "")
    assert find_program(None) == wheel
    assert find_program(on_path) == on_path


@pytest.mark.parametrize(
    ("body", "there"), [("exit 0", True), ("exit 1", True), ("exit 2", False), ("kill -9 $$", False)]
)
@pytest.mark.parametrize("size", [1000, 40_000_000])
def test_a_capture_is_whole_or_absent(tmp_path: Path, large: str, body: str, there: bool, size: int) -> None:
    """A capture of a program that fails leaves nothing, whatever its size."""
    program = script(tmp_path, f"cat >/dev/null; [ $1 = tables ] || {{ head -c {size} /dev/zero; {body}; }}")
    row, _ = read(tmp_path, program, large, captures=str(tmp_path / "captures"))
    found = [path.name for path in (tmp_path / "captures").rglob("*") if path.is_file()]
    assert found == (["large.pb.pcapng"] if there else [])
    assert bool(row["capture"]) == there
    if there:
        assert (tmp_path / "captures" / found[0]).stat().st_size == size


MEMORY = """
import sys, threading, time
from pathlib import Path
from test_program import read

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def watch():
    while True:
        peaks.append(resident())
        time.sleep(0.01)

before = resident()
peaks = []
threading.Thread(target=watch, daemon=True).start()
row, _ = read(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
assert row["status"] == "ok" and row["requests"] == 6144, row
print(max(peaks) - before)
"""
TALKER = """
import base64, json, os, sys
body = base64.b64encode(os.urandom(1 << 16)).decode()
line = json.dumps({"table": "requests", "request": {"body": body}}) + "\\n"
while sys.stdin.buffer.read(1 << 20):
    sys.stdout.write(line * 6)
"""


def test_memory_depends_neither_on_the_file_nor_on_its_rows(tmp_path: Path) -> None:
    """A file of 1 GiB that becomes 500 MiB of lines takes a small part of either."""
    path = tmp_path / "large.pb"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "talker.py").write_text(TALKER)
    program = script(tmp_path, f"exec {sys.executable} {tmp_path}/talker.py")
    paths = f"{Path(__file__).parent}:{Path(tap2pcap_spark.__file__).parent}"
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path, program, f"file:{path}"],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    print(f"{int(done.stdout) >> 20} MiB more than before")
    assert 0 < int(done.stdout) < 320 << 20
