"""The whole job, on a cluster of two executors: the tables are those of one machine, whatever happens on the way."""

from __future__ import annotations

import base64
import decimal
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow.dataset
import pyarrow.fs
import pytest
from conftest import ROOT, TESTDATA, traces
from pyspark.sql import SparkSession

import tap2pcap_spark
from tap2pcap_spark import TABLES, Ledger, Storage, deal, fingerprint, list_files, parse, plan, relative, run, split_uri

Tables = dict[str, list[dict[str, Any]]]
TIMES = {"time", "first", "last"}
DURATIONS = {"duration", "backend_latency", "time_to_first_byte"}


def canonical(value: Any, name: str = "") -> Any:
    """Makes a line of the program comparable: a time is its nanoseconds, a duration a number, null is absent."""
    if isinstance(value, dict):
        members = {key: canonical(inner, key) for key, inner in value.items() if inner is not None}
        return {
            f"{key}_ns" if key in TIMES and isinstance(inner, int) else key: inner for key, inner in members.items()
        }
    if isinstance(value, str) and name in TIMES and value < "2262":
        return int(numpy.datetime64(value.removesuffix("Z"), "ns").astype(int))
    if isinstance(value, str) and name in DURATIONS:
        return decimal.Decimal(value.removesuffix("s"))
    return value


def line_of(row: dict[str, Any]) -> dict[str, Any]:
    """Turns a row of a table back into a line of the program, as `canonical` has it."""
    line = {name: _member(value) for name, value in row.items() if value is not None}
    line = {name: value for name, value in line.items() if name not in {"input", "attempt", "more"} | TIMES}
    _merge(line, json.loads(row["more"] or "{}"))
    return _without_empty(line)


def _member(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, decimal.Decimal) and value.as_tuple().exponent == 0:
        return int(value)
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return dict(value)
    if isinstance(value, dict):
        return {name: _member(inner) for name, inner in value.items() if inner is not None and name not in TIMES}
    return value


def _merge(line: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict):
            _merge(line.setdefault(name, {}), value)
        else:
            line[name] = value
            line.pop(f"{name}_ns", None)


def _without_empty(value: Any) -> Any:
    """Drops empty maps and lists: Arrow's reader has an empty list for an empty map."""
    if isinstance(value, dict):
        inner = {name: _without_empty(member) for name, member in value.items()}
        return {name: member for name, member in inner.items() if member not in ({}, [])}
    return value


def key(line: dict[str, Any]) -> str:
    """Makes rows comparable; a duration is the same with zeros at its end."""
    return json.dumps(line, sort_keys=True, default=lambda duration: str(duration.normalize()))


def rows_of(storage: Storage, tables: str, table: str) -> list[dict[str, Any]]:
    """Reads a table as any reader does: the whole directory."""
    fs, path = storage.open(f"{tables}/{table}")
    data = pyarrow.dataset.dataset(path, filesystem=fs, format="parquet", schema=pyarrow.schema(list(TABLES[table])))
    return data.to_table().to_pylist()


def assert_same(
    storage: Storage, tables: str, expected: dict[str, list[dict[str, Any]]], prefix: tuple[str, str]
) -> None:
    """Compares all rows of all tables, each as often as it is there."""
    for table, lines in expected.items():
        text = [json.dumps(line, ensure_ascii=False).replace(*prefix) for line in lines]
        wanted = Counter(key(_without_empty(_comparable(canonical(json.loads(line))))) for line in text)
        found = Counter(key(_comparable(line_of(row))) for row in rows_of(storage, tables, table))
        assert sum(found.values()) == len(lines) > 0, table
        assert sum("first_ns" in json.loads(row) for row in found) > len(found) / 2 or table != "connections"
        assert found == wanted, (table, list((found - wanted).items())[:2], list((wanted - found).items())[:2])


def _comparable(line: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what depends on how a file was given.

    That is the command line for tshark, which is quoted as the name needs it, and the made-up times of traces that
    carry none: they begin when the file was modified, which standard input does not tell.
    """
    made_up = set() if "time_ns" in line.get("connection", {}) else {f"{name}_ns" for name in TIMES}
    return {name: value for name, value in line.items() if name not in {"open"} | made_up}


@pytest.fixture
def job(spark: SparkSession, binary: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the job in this process, and gives what it said."""

    def go(*arguments: str) -> str:
        assert run(spark, parse([f"--binary={binary}", *arguments])) == 0
        return capsys.readouterr().out

    return go


def files_of(storage: Storage, tables: str) -> list[dict[str, Any]]:
    """Reads the table `files`."""
    fs, path = storage.open(f"{tables}/files")
    return pyarrow.dataset.dataset(path, filesystem=fs, format="parquet").to_table().to_pylist()


def test_a_directory(spark: SparkSession, job: Any, corpus: Path, expected: Any, binary: str, tmp_path: Path) -> None:
    """Tables and captures; a second run does nothing; new and changed files alone are read."""
    tree = tmp_path / "traces"
    shutil.copytree(corpus, tree)
    tables, captures = str(tmp_path / "tables"), tmp_path / "captures"
    arguments = [f"--input={tree}", f"--tables={tables}", f"--captures={captures}"]
    told = job(*arguments)
    assert "failed" not in told and "unreadable" not in told and "1 no-trace" in told
    assert_same(Storage(), tables, expected, (str(corpus), str(tree)))
    files = files_of(Storage(), tables)
    assert len(files) == sum(path.is_file() for path in tree.rglob("*"))
    assert {row["status"] for row in files} == {"ok", "damaged", "no-trace"}
    for table in TABLES:
        assert sum(row[table] for row in files) == len(expected[table])
    _check_captures(files, tree, captures, binary)

    assert f"nothing new: {len(files)} files, all of them done before" in job(*arguments)
    shutil.copy(TESTDATA / "tap/large_str_111.pb", tree / "new.pb")
    told = job(*arguments)
    assert f"1 files (1 ok); {len(files)} were done before; 1 connections, 1 requests, 0 findings" in told
    assert (captures / "new.pb.pcapng").is_file()
    assert "nothing new" in job(*arguments)
    shutil.copy(TESTDATA / "faults/firstbad.pb", tree / "new.pb")
    assert "1 files (1 damaged)" in job(*arguments)
    assert "nothing new" in job(*arguments)
    assert [row["status"] for row in files_of(Storage(), tables) if row["path"].endswith("/new.pb")] == [
        "ok",
        "damaged",
    ]
    _check_newest(spark, tables, len(expected["requests"]))
    with pytest.raises(SystemExit, match="was made with the options"):
        job(*arguments, "--redact")


def _check_newest(spark: SparkSession, tables: str, expected: int) -> None:
    """The SQL of the page leaves out the request of the version that a file had before."""
    sql = re.findall(r"^```sql\n(.*?)^```$", (ROOT / "docs/fleet.md").read_text(), re.M | re.S)
    for table in ("requests", "files"):
        spark.read.parquet(f"{tables}/{table}").createOrReplaceTempView(table)
    assert spark.table("requests").count() == expected + 1
    assert [spark.sql(text).count() for text in sql] == [expected]


def _check_captures(files: list[dict[str, Any]], tree: Path, captures: Path, binary: str) -> None:
    """Each capture is what the program makes of that file; others are not there, nor is anything unfinished."""
    there = {str(path) for path in captures.rglob("*") if path.is_file()}
    assert there == {row["capture"] for row in files if row["capture"]}
    for row in files[:: max(1, len(files) // 20)]:
        source = split_uri(row["path"])[2]
        with open(source, "rb") as file:
            made = subprocess.run([binary, "-q", "-", "-"], stdin=file, capture_output=True, check=False)
        assert bool(row["capture"]) == (made.returncode < 2 and row["status"] != "no-trace")
        if row["capture"]:
            assert Path(row["capture"]) == captures / f"{Path(source).relative_to(tree)}.pcapng"
            assert Path(row["capture"]).read_bytes() == made.stdout


def test_an_s3_server(job: Any, s3: Any, spark: SparkSession, corpus: Path, expected: Any) -> None:
    """Traces, tables and captures are objects of a server that others wrote."""
    for path in corpus.rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), "fleet", f"taps/{path.relative_to(corpus)}")
    arguments = ["--input=s3a://fleet/taps", "--tables=s3a://fleet/tables", "--captures=s3a://fleet/captures"]
    told = job(*arguments)
    assert "failed" not in told and "unreadable" not in told
    storage = tap2pcap_spark.settings_of_s3a(spark)
    assert_same(storage, "s3a://fleet/tables", expected, (str(corpus), "s3a://fleet/taps"))
    files = files_of(storage, "s3a://fleet/tables")
    for row in [row for row in files if row["capture"]][:5]:
        name = row["capture"].removeprefix("s3a://fleet/")
        assert s3.get_object(Bucket="fleet", Key=name)["Body"].read(4) == b"\x0a\x0d\x0d\x0a"
    assert "nothing new" in job(*arguments)
    s3.upload_file(str(TESTDATA / "tap/large_str_111.pb"), "fleet", "taps/new.pb")
    assert "1 files (1 ok)" in job(*arguments)
    assert "nothing new" in job(*arguments)


def test_an_executor_that_is_killed(
    spark: SparkSession, binary: str, corpus: Path, expected: Any, tmp_path: Path
) -> None:
    """Its files are read again by another one, and no row is there twice or missing."""
    calls, tables = tmp_path / "calls", f"{tmp_path}/tables"
    program = tmp_path / "tap2pcap"
    program.write_text(f'#!/bin/bash\necho >>{calls}\nexec {binary} "$@"\n')
    program.chmod(0o755)
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and (not calls.exists() or calls.stat().st_size < traces() // 4):
            time.sleep(0.02)
        killed.append(executors()[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert run(spark, parse([f"--binary={program}", f"--input={corpus}", f"--tables={tables}"])) == 0
    killer.join()
    assert killed
    files = files_of(Storage(), tables)
    assert calls.stat().st_size > len(files) + 20, "files were read again"
    assert_same(Storage(), tables, expected, ("", ""))


def executors() -> list[int]:
    """Lists the executors of this cluster: descendants of this process, by way of the driver."""
    listing = subprocess.run(["ps", "-ewwo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()[1:]]
    parents = {int(row[0]): int(row[1]) for row in rows}

    def ancestors(pid: int) -> list[int]:
        return [pid, *ancestors(parents[pid])] if pid in parents else []

    backends = [int(row[0]) for row in rows if "CoarseGrainedExecutorBackend" in row[2]]
    return [pid for pid in backends if os.getpid() in ancestors(pid)]


def test_nothing_is_shuffled(spark: SparkSession, tmp_path: Path, binary: str, monkeypatch: Any) -> None:
    """Rows are not moved between executors, and the contents of files are not read by the JVM."""
    monkeypatch.chdir(tmp_path)
    listing, by_spark = list_files(spark, Storage(), [f"file:{TESTDATA}/tap"], "auto")
    assert by_spark
    job = tap2pcap_spark.Job("run", str(tmp_path), None, (), (), binary, 60, Storage())
    done = Ledger(Storage(), str(tmp_path / "tables")).done("", False)
    first = plan(spark, job, listing, done)._jdf.queryExecution().executedPlan().toString()
    assert "binaryFile" in first and "MapInPandas" in first
    assert "Exchange" not in first and "content" not in first
    done.loc[0] = [f"file:{TESTDATA}/tap/large_str_111.pb", 1, 1]
    second = plan(spark, job, listing, done)._jdf.queryExecution().executedPlan().toString()
    assert "BroadcastExchange" in second and second.replace("BroadcastExchange", "").count("Exchange") == 0


def test_a_run_that_died_leaves_nothing_that_counts(job: Any, tmp_path: Path) -> None:
    """The next run removes its rows, which no table `files` names."""
    tables = tmp_path / "tables"
    dead = tables / "requests/date=2026-01-01/run=20260101T000000Z-dead"
    dead.mkdir(parents=True)
    (dead / "part-000000-1-abc-0000.parquet").write_bytes(b"half")
    (tables / "_runs").mkdir()
    (tables / "_runs/20260101T000000Z-dead").touch()
    told = job(f"--input={TESTDATA}/tap", f"--tables={tables}", "--where=request.method == 'PUT'")
    assert "run 20260101T000000Z-dead never came to its end" in told
    assert not list(tables.rglob("*dead*/*.parquet")) and not list((tables / "_runs").iterdir())
    assert {row["request"]["method"] for row in rows_of(Storage(), str(tables), "requests")} == {"PUT"}


def test_attempts_that_failed_are_removed_and_missing_files_stop_the_run(tmp_path: Path) -> None:
    """The rows of an attempt count if its task ended well, and then all of them are there."""
    ledger = Ledger(Storage(), str(tmp_path))
    place = tmp_path / "requests/date=2026-01-01/run=r"
    place.mkdir(parents=True)
    for name in ("part-0-1-a-0000.parquet", "part-0-2-b-0000.parquet", "part-0-2-b-0001.parquet.1.tmp"):
        (place / name).touch()
    ledger.settle("r", pandas.DataFrame({"attempt": ["0-2-b"], "data_files": [1]}))
    assert [path.name for path in place.iterdir()] == ["part-0-2-b-0000.parquet"]
    with pytest.raises(SystemExit, match="are missing"):
        ledger.settle("r", pandas.DataFrame({"attempt": ["0-2-b"], "data_files": [2]}))


def test_what_is_no_traces_fault_stops_the_job(spark: SparkSession, binary: str, tmp_path: Path, s3: Any) -> None:
    """A missing program, options that it refuses, and inputs that are not there."""
    arguments = [f"--input={TESTDATA}/tap", f"--tables={tmp_path}"]
    for wrong, words in [
        (["--binary=/nowhere/tap2pcap"], "no program tap2pcap on .*; looked at: /nowhere/tap2pcap"),
        ([f"--binary={binary}", "--where=request.nothing =="], "where"),
        ([f"--binary={binary}", f"--input={tmp_path}/nowhere"], "nowhere"),
        ([f"--binary={binary}", "--input=s3a://fleet/nowhere"], "nowhere"),
    ]:
        with pytest.raises(SystemExit, match=words):
            run(spark, parse([*arguments, *wrong]))
    assert not list(tmp_path.rglob("*.parquet"))


def test_spark_submit(binary: str, tmp_path: Path) -> None:
    """The file alone, given to spark-submit, with the program among --files; secrets are taken out."""
    shipped = tmp_path / "tap2pcap"
    shipped.write_text(f'#!/bin/sh\nexec {binary} "$@"\n')
    submit = shutil.which("spark-submit", path=str(Path(sys.executable).parent))
    command = [submit, "--master", "local[2]", "--conf", "spark.ui.enabled=false", "--files", shipped]
    script = [
        ROOT / "fleet/tap2pcap_spark.py",
        "--input",
        TESTDATA / "http",
        "--tables",
        tmp_path / "tables",
        "--redact",
    ]
    environment = os.environ | {"PYSPARK_PYTHON": sys.executable, "PATH": f"/usr/bin:/bin:{Path(submit).parent}"}
    done = subprocess.run(
        [*command, *script], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "tap2pcap: run" in done.stdout and "failed" not in done.stdout
    assert {row["options"] for row in files_of(Storage(), f"{tmp_path}/tables")} == {"--redact"}


def test_names() -> None:
    """URIs are taken as Hadoop writes them, and captures mirror what is below an input."""
    assert split_uri("file:/a b/%41.pb") == ("file", "", "/a b/%41.pb")
    assert split_uri("file:///a") == ("file", "", "/a")
    assert split_uri("s3a://bucket/a:b/c") == ("s3", "bucket", "/a:b/c")
    assert relative(["s3a://b/taps/"], "s3a://b/taps/x/y_0.pb") == "x/y_0.pb"
    assert relative(["file:/a"], "file:/ab/y_0.pb") == "y_0.pb"
    assert fingerprint(["--where=a == 1", "--redact"]) == "--where=a%20==%201 --redact"


def test_files_are_dealt_out_evenly() -> None:
    """Each task gets about as much as any other, and a large file is a task of its own."""
    small = [(f"s{number:04}", 100_000, 0) for number in range(4000)]
    groups = deal([*small, ("large", 10**10, 0)], 4)
    assert groups[0] == [("large", 10**10, 0)]
    sizes = [sum(length for _, length, _ in group) for group in groups[1:]]
    assert sum(map(len, groups)) == 4001 and max(sizes) < 2**27 and min(sizes[:-1]) > 2**25
