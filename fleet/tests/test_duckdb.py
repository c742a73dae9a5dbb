"""The SQL of docs/duckdb.md gives the rows that the traces of testdata are known for, from JSON lines and Parquet."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas
import pytest
from conftest import ROOT, TESTDATA

from tap2pcap_spark import FILES, Job, Ledger, Storage, read_files

SQL: dict[str, str] = dict(re.findall(r"^```sql (\S+)\n(.*?)^```$", (ROOT / "docs/duckdb.md").read_text(), re.M | re.S))
FIRST = datetime.datetime(2026, 3, 4, 5, 6, 10, 506000)
MINUTE = datetime.datetime(2026, 3, 4, 5, 6)
EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    "slow-routes": [
        ("GET", "tap.example:10000", "/", 8, Decimal("0.090407"), Decimal("0.090407")),
        ("GET", "tls.example", "/", 1, Decimal("0.0031"), Decimal("0.0031")),
        ("GET", "tap.example", "/café", 10, Decimal("0.00225"), Decimal("0.00225")),
        ("GET", "upstream.example", "/health", 4, Decimal("0.0018"), Decimal("0.0018")),
        ("POST", "tap.example", "/upload", 10, Decimal("0.0009"), Decimal("0.0009")),
    ],
    "error-rate": [
        (datetime.datetime(2023, 11, 14, 22, 13), None, 2, 2, 100.0),
        (MINUTE, "tap.example", 40, 3, 7.5),
        (MINUTE, "tls.example", 3, 2, 66.7),
    ],
    "most-bytes": [
        (110, "http/1.1", "10.1.0.99:41100", "10.1.0.1:8080", 166108, Decimal("0.00001")),
        (111, "http/1.1", "10.1.0.99:41100", "10.1.0.1:8080", 166108, Decimal("0.00041")),
        (3, "http/2", "127.0.0.1:53674", "127.0.0.1:10000", 10242, Decimal("0.090407")),
        (0, "http/2", "127.0.0.1:53674", "127.0.0.1:10000", 10242, Decimal("0.090407")),
        (1, "http/2", "127.0.0.1:53674", "127.0.0.1:10000", 10242, Decimal("0.090407")),
    ],
    "clients-with-errors": [("198.51.100.7", 403, None, 2, FIRST)],
    "findings-by-code": [
        ("warning", "missing-address", 8, 8),
        ("warning", "truncated-body", 8, 8),
        ("warning", "missing-close", 4, 4),
        ("warning", "missing-connection", 3, 3),
        ("error", "bad-time", 2, 2),
    ],
    "requests-of-connections": [
        (85, "http/1.1", True, 3, 3605, 3849),
        (83, "http/1.1", True, 3, 3605, 3849),
        (84, "http/1.1", True, 3, 3605, 3849),
        (82, "http/1.1", True, 3, 3600, 1149),
        (80, "http/1.1", True, 3, 3600, 1149),
    ],
}


def of_one_machine(binary: str, traces: Path, target: Path) -> None:
    """Makes the tables of JSON lines."""
    subprocess.run([binary, "tables", "-q", traces, f"{target}/tables/"], stderr=subprocess.DEVNULL, check=False)


def of_the_job(binary: str, traces: Path, target: Path) -> None:
    """Makes the tables of Parquet, with an older version of a file and a run that died beside them."""
    files = sorted(path for path in traces.rglob("*") if path.is_file())
    listing = pandas.DataFrame({"path": [f"file:{path}" for path in files], "length": 0, "modified_ms": 0})
    for run in ("1", "2", "3"):
        job = Job(run, f"{target}/tables", None, (), (), binary, 60, Storage())
        results = pandas.concat(read_files(job, iter([listing])))
        if run != "3":
            Ledger(Storage(), job.tables).commit(run, results[FILES.names])


@pytest.fixture(scope="module", params=[of_one_machine, of_the_job])
def tables(request: pytest.FixtureRequest, binary: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Gives a connection that has run the views of the page, beside tables that the page's paths lead to."""
    target = tmp_path_factory.mktemp("duckdb")
    for folder in ("tap", "faults"):
        shutil.copytree(TESTDATA / folder, target / "traces" / folder)
    request.param(binary, target / "traces", target)
    with duckdb.connect() as connection, pytest.MonkeyPatch.context() as patch:
        patch.chdir(target)
        connection.execute(SQL["views-json" if request.param is of_one_machine else "views-parquet"])
        yield connection


def test_every_question_has_its_rows() -> None:
    """A new question on the page needs expected rows here."""
    assert {name for name in SQL if not name.startswith("views-")} == set(EXPECTED)


@pytest.mark.parametrize("question", EXPECTED)
def test_question(tables: duckdb.DuckDBPyConnection, question: str) -> None:
    """The rows are those of the test data, in this order."""
    expected = EXPECTED[question]
    rows = tables.execute(SQL[question]).fetchall()
    assert [row[: len(expected[0])] for row in rows] == expected
