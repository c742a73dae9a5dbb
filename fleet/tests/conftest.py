"""What the tests share: the program, a set of traces, one Spark cluster, an S3 server."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "fleet"))
TESTDATA = ROOT / "testdata"
SUFFIXES = {".pb", ".pb_length_delimited", ".pb_text", ".json"}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


def traces() -> int:
    """Says how many traces the set has."""
    return int(os.environ.get("TAP2PCAP_TRACES", "1000"))


@pytest.fixture(scope="session")
def binary() -> str:
    """Gives the program under test."""
    path = Path(os.environ.get("TAP2PCAP", ROOT / "target/debug/tap2pcap")).resolve()
    assert path.is_file(), f"build it first: {path}"
    return str(path)


def originals() -> list[Path]:
    """Lists the traces of testdata that are small enough to be copied many times."""
    folders = ["tap", "envoy", "faults", "http"]
    found = sorted(path for folder in folders for path in (TESTDATA / folder).rglob("*") if path.suffix in SUFFIXES)
    return [path for path in found if path.stat().st_size < 100_000 and path.name != "manifest.json"]


def damage(content: bytes, number: int) -> bytes:
    """Damages a trace: cut, overwritten in the middle, or emptied."""
    half = len(content) // 2
    kinds = [content[: half + 1], content[:half] + b"\xff" * 16 + content[half + 16 :], b"", b"\0" * len(content)]
    return kinds[number % len(kinds)]


def make_traces(target: Path, count: int) -> None:
    """Makes traces of testdata: half of them in a tar, 20 damaged, some with strange names, some files beside them."""
    dice = random.Random(18)
    sources = [(path.suffix, path.read_bytes()) for path in originals()]
    damaged = set(dice.sample(range(count), 20))
    with tarfile.open(target / "half.tar", "w") as tar:
        for number in range(count):
            suffix, content = sources[number % len(sources)]
            if number in damaged:
                content = damage(content, number)
            odd = " ü%41" if number % 97 == 0 else ""
            name = f"pod-{number % 7}/trace{odd}_{number}{suffix}"
            if number % 2:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                place = target / name
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(content)
    (target / "NOTES.txt").write_text("No trace, and passed over.\n")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gives a directory of traces."""
    target = tmp_path_factory.mktemp("traces")
    make_traces(target, traces())
    return target


@pytest.fixture(scope="session")
def expected(corpus: Path, binary: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Gives the tables of one machine."""
    target = tmp_path_factory.mktemp("one-machine")
    status = subprocess.run([binary, "tables", "--quiet", corpus, f"{target}/"], check=False, stderr=subprocess.DEVNULL)
    assert status.returncode == 1, "some of the traces are damaged"
    return {table: read_lines(target / f"{table}.ndjson") for table in ("connections", "requests", "findings")}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads a file of JSON lines."""
    with path.open() as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """Starts moto's S3 server, and tells this process and its executors where it is."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(CREDENTIALS)
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="fleet")
    yield client
    server.stop()


@pytest.fixture(scope="session")
def spark(s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Starts a cluster with two executors, which are processes of their own."""
    home = tmp_path_factory.mktemp("spark")
    os.environ.update(SPARK_LOCAL_IP="127.0.0.1", SPARK_WORKER_DIR=str(home / "work"), PYSPARK_PYTHON=sys.executable)
    builder = SparkSession.builder.master("local-cluster[2,1,1024]").appName("test-fleet")
    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.warehouse.dir": str(home / "warehouse"),
        "spark.local.dir": str(home / "local"),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.driver.memory": "768m",
        "spark.hadoop.fs.s3a.endpoint": s3.meta.endpoint_url,
        "spark.hadoop.fs.s3a.access.key": "test",
        "spark.hadoop.fs.s3a.secret.key": "test",
        "spark.hadoop.fs.s3a.endpoint.region": "us-east-1",
    }
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
    shutil.rmtree(home, ignore_errors=True)
