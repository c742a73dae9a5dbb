"""From lines to rows: every member that the program writes has a column, and nothing is lost that has none."""

from __future__ import annotations

import decimal
import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from conftest import TESTDATA

from tap2pcap_spark import MOST_DATES, TABLES, Batches, Job, Storage, to_row


def test_every_member_of_testdata_has_a_column(binary: str) -> None:
    """A new member of the program's lines needs a column here."""
    done = subprocess.run([binary, "tables", "--quiet", TESTDATA, "-"], capture_output=True, check=False)
    assert done.returncode == 1
    seen = set()
    for text in done.stdout.splitlines():
        line = json.loads(text)
        table = line.pop("table")
        seen.add(table)
        row = to_row(table, line)
        # A year that nanoseconds in 64 bits do not reach is the one thing that may not fit.
        more = json.loads(row.pop("more", "{}"))
        assert all(year >= "2262" for year in _leaves(more)), more
        pyarrow.RecordBatch.from_pylist([row], schema=pyarrow.schema(list(TABLES[table])))
    assert seen == set(TABLES)


def _leaves(value: Any) -> list[str]:
    return [leaf for inner in value.values() for leaf in _leaves(inner)] if isinstance(value, dict) else [value]


def test_values_become_what_the_schema_says() -> None:
    """Times keep their nanoseconds, ids all 64 bits, durations nine digits, bodies their bytes."""
    row = to_row(
        "requests",
        {
            "request": {"time": "2026-03-04T05:06:20.000010007Z", "duration": "0.000010s", "body": "AP8="},
            "connection": {"id": 2**64 - 1},
            "response": {"headers": {"a": "b"}},
        },
    )
    assert row == {
        "request": {
            "time": 1772600780000010,
            "time_ns": 1772600780000010007,
            "duration": decimal.Decimal("0.000010000"),
            "body": b"\x00\xff",
        },
        "connection": {"id": decimal.Decimal(2**64 - 1)},
        "response": {"headers": [("a", "b")]},
    }


@pytest.mark.parametrize(
    ("line", "more"),
    [
        ({"news": [1]}, {"news": [1]}),
        ({"request": {"news": {"a": 1}, "size": 2}}, {"request": {"news": {"a": 1}}}),
        ({"request": {"size": "many"}}, {"request": {"size": "many"}}),
        ({"request": {"size": 2**64}}, {"request": {"size": 2**64}}),
        ({"request": {"size": True}}, {"request": {"size": True}}),
        ({"request": {"time": "yesterday"}}, {"request": {"time": "yesterday"}}),
        ({"request": {"time": "2554-07-21T23:34:33.1Z"}}, {"request": {"time": "2554-07-21T23:34:33.1Z"}}),
        ({"request": {"duration": "inf"}}, {"request": {"duration": "inf"}}),
        ({"request": {"duration": 1e99}}, {"request": {"duration": 1e99}}),
        ({"request": {"body": "*"}}, {"request": {"body": "*"}}),
        ({"request": {"host": "\ud800"}}, {"request": {"host": "\ud800"}}),
        ({"request": {"headers": {"a": 1}}}, {"request": {"headers": {"a": 1}}}),
        ({"request": 7}, {"request": 7}),
        ({"input": "x", "attempt": "y", "more": "z"}, {"input": "x", "attempt": "y", "more": "z"}),
    ],
)
def test_what_does_not_fit_is_kept(line: dict[str, Any], more: dict[str, Any]) -> None:
    """Unknown members and values of other types are in `more`."""
    row = to_row("requests", line)
    assert json.loads(row["more"]) == more
    pyarrow.RecordBatch.from_pylist([row], schema=pyarrow.schema(list(TABLES["requests"])))


def test_null_is_absent() -> None:
    """A member that is null is one that is not there."""
    assert to_row("connections", {"local": {"trace": None}, "first": None}) == {"local": {}}


def test_dates_without_end_make_no_files_without_end(tmp_path: Path) -> None:
    """A trace whose times are all over the calendar fills a bounded number of partitions."""
    job = Job("run", str(tmp_path), None, (), (), None, 1.0, Storage())
    batches = Batches(job, "a")
    for year in range(1000, 2000):
        moment = f"{year}-01-01T00:00:00Z"
        batches.add("requests", {"request": {"time": moment}}, "file:/x", 0, 10)
    batches.flush()
    assert len(list((tmp_path / "requests").iterdir())) == MOST_DATES + 1
