"""Measures what one core does: files and bytes per second through the job's own code, without Spark around it.

taskset -c 0 python fleet/bench.py target/release/tap2pcap
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas

from tap2pcap_spark import Job, Storage, read_files

TESTDATA = Path(__file__).resolve().parents[1] / "testdata"
KIB = 1 << 10
# A connection with two large bodies, and one with a small request. Repeated, they fill a file.
KINDS = {"bodies": "tap/large_str_111.pb", "requests": "tap/http1_str_PROTO_BINARY_17.pb"}


def make(kind: str, size: int, count: int, folder: Path) -> list[Path]:
    """Makes files of about one size: whole traces, as often as they fit, once at least."""
    content = (TESTDATA / KINDS[kind]).read_bytes()
    content *= max(1, size // len(content))
    paths = [folder / f"{kind}_{number}.pb" for number in range(count)]
    for path in paths:
        path.write_bytes(content)
    return paths


def measure(binary: str, paths: list[Path], name: str) -> None:
    """Prints the rates of the program alone, and of the program with rows and Parquet."""
    size = sum(path.stat().st_size for path in paths)
    started = time.monotonic()
    for path in paths:
        command = [binary, "tables", "--quiet", "--jobs=1", "-", "-"]
        with path.open("rb") as file:
            subprocess.run(command, stdin=file, stdout=subprocess.DEVNULL, check=True)
    alone = time.monotonic() - started
    with tempfile.TemporaryDirectory() as tables:
        job = Job("bench", tables, None, (), (), binary, 3600, Storage())
        listing = pandas.DataFrame({"path": [f"file:{path}" for path in paths], "length": 1, "modified_ms": 1})
        started = time.monotonic()
        results = pandas.concat(read_files(job, iter([listing])))
        whole = time.monotonic() - started
        written = sum(path.stat().st_size for path in Path(tables).rglob("*.parquet"))
    rows = int(results[["connections", "requests", "findings"]].sum().sum())
    print(
        f"{name}: {len(paths)} files, {size / 2**20:.0f} MiB, {rows} rows: {len(paths) / whole:.0f} files/s, "
        f"{size / whole / 2**20:.1f} MiB/s, {rows / whole:.0f} rows/s; the program alone "
        f"{len(paths) / alone:.0f} files/s, {size / alone / 2**20:.1f} MiB/s; {written / 2**20:.1f} MiB of Parquet"
    )


def main() -> None:
    """Measures small files and a large one, of both kinds."""
    binary = sys.argv[1]
    for kind in KINDS:
        for size, count in ((100 * KIB, 200), (64 * KIB * KIB, 1)):
            with tempfile.TemporaryDirectory() as folder:
                measure(binary, make(kind, size, count, Path(folder)), f"{kind}, {count} of {size >> 10} KiB")


if __name__ == "__main__":
    main()
