"""Reads Envoy's tap traces on a Spark cluster: tables of connections, requests and findings, and captures.

    spark-submit --files tap2pcap tap2pcap_spark.py --input s3a://bucket/taps/ --tables s3a://bucket/tables/

Spark lists the files and hands their names to its tasks. A task opens a file itself, streams it into the standard
input of `tap2pcap tables`, reads the lines that come back, and writes them as Parquet. Neither a file nor its rows pass
through the JVM, and nothing is shuffled. The rows of a run count once the table `files` names the attempts that wrote
them, which is the last thing that a run writes. docs/fleet.md has the schema and the costs.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import collections
import contextlib
import dataclasses
import datetime
import decimal
import functools
import json
import os
import posixpath
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas
import pyarrow
import pyarrow.fs
import pyarrow.parquet
from pyspark import SparkFiles, TaskContext
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

MIB = 1 << 20
PIECE = MIB  # of a file, on its way into the program
LONGEST_LINE = 64 * MIB
PATIENCE = 60.0  # seconds for a read that goes on after the program has ended
LONGEST_WORDS = 4096  # bytes of standard error that a finding quotes
ROWS_PER_BATCH = 2000
BYTES_PER_BATCH = 4 * MIB  # lines that wait as Python objects, which take about ten times that
BYTES_PER_FLUSH = 64 * MIB  # Arrow batches that wait in a task before they become files
SMALL_CAPTURE = 16 * MIB  # a capture up to this size reaches an object store in one request
MOST_DATES = 400  # that one task writes partitions for: times in a hostile trace do not make files without end
BYTES_PER_TASK = 128 * MIB
COST_OF_A_FILE = 256 << 10  # what starting the program counts as, in bytes, when files are dealt out to tasks
SUFFIXES = {".pb", ".pb_length_delimited", ".pb_text", ".json"}  # that Envoy gives to traces
NO_TRACE = {"not-a-trace", "empty"}  # findings about files that may lie beside traces
NO_TRACES = "no trace files among"  # what the program says of an archive without traces
OBJECT_STORES = {"s3", "gcs", "abfs"}

# ---------------------------------------------------------------------------------------------------------- the schema

TIME = pyarrow.timestamp("us", tz="UTC")
SECONDS = pyarrow.decimal128(20, 9)
UINT64 = pyarrow.decimal128(20, 0)
STRING, INT, BOOL = pyarrow.string(), pyarrow.int64(), pyarrow.bool_()
FIELDS = pyarrow.map_(pyarrow.string(), pyarrow.string())
NAMES = pyarrow.list_(pyarrow.string())


def _struct(**members: pyarrow.DataType) -> pyarrow.StructType:
    """Makes a struct; a time `t` gets a sibling `t_ns` with all its digits."""
    fields: list[tuple[str, pyarrow.DataType]] = []
    for name, kind in members.items():
        fields.append((name, kind))
        if kind == TIME:
            fields.append((f"{name}_ns", INT))
    return pyarrow.struct(fields)


_END = _struct(address=STRING, port=INT)
_NAMED_END = _struct(address=STRING, port=INT, trace=STRING)
_SIDE = _struct(events=INT, bytes=INT, lost=INT, open_ended=INT)
_TRACE = _struct(file=STRING, offset=INT)
_CONNECTION = _struct(
    id=UINT64,
    time=TIME,
    duration=SECONDS,
    protocol=STRING,
    received_bytes=INT,
    sent_bytes=INT,
    side=STRING,
)
_REQUEST = _struct(
    time=TIME,
    duration=SECONDS,
    method=STRING,
    scheme=STRING,
    host=STRING,
    path=STRING,
    url_path=STRING,
    query=STRING,
    protocol=STRING,
    id=STRING,
    useragent=STRING,
    referer=STRING,
    headers=FIELDS,
    size=INT,
    total_size=INT,
    body=pyarrow.binary(),
    complete=BOOL,
)
_RESPONSE = _struct(
    code=INT,
    grpc_status=INT,
    headers=FIELDS,
    trailers=FIELDS,
    size=INT,
    total_size=INT,
    body=pyarrow.binary(),
    complete=BOOL,
    backend_latency=SECONDS,
    time_to_first_byte=SECONDS,
)
_OURS = {"more": STRING, "input": STRING, "attempt": STRING}

TABLES: dict[str, pyarrow.StructType] = {
    "connections": _struct(
        source=_END,
        destination=_END,
        connection=_CONNECTION,
        trace=_TRACE,
        path=STRING,
        format=STRING,
        layers=NAMES,
        mode=STRING,
        role=STRING,
        trace_id=UINT64,
        local=_NAMED_END,
        remote=_NAMED_END,
        first=TIME,
        last=TIME,
        read=_SIDE,
        write=_SIDE,
        closed=BOOL,
        protocol=STRING,
        tls=_struct(alpn=NAMES, server_name=STRING, cut=BOOL),
        proxy=_struct(version=INT, source=_END, destination=_END),
        open=STRING,
        **_OURS,
    ),
    "requests": _struct(
        source=_END,
        destination=_END,
        connection=_CONNECTION,
        trace=_TRACE,
        request=_REQUEST,
        response=_RESPONSE,
        **_OURS,
    ),
    "findings": _struct(path=STRING, severity=STRING, code=STRING, offset=INT, message=INT, detail=STRING, **_OURS),
}

FILES = pyarrow.schema(
    [
        ("path", STRING),
        ("length", INT),
        ("modified_ms", INT),
        ("run", STRING),
        ("attempt", STRING),
        ("status", STRING),
        ("connections", INT),
        ("requests", INT),
        ("findings", INT),
        ("seconds", pyarrow.float64()),
        ("capture", STRING),
        ("program", STRING),
        ("options", STRING),
    ]
)

# --------------------------------------------------------------------------------------------- from lines to the schema


_EPOCH = datetime.datetime(1970, 1, 1)
_NANO = decimal.Decimal("1e-9")
_EXACT = decimal.Context(prec=40)


class Misfit(ValueError):
    """A value that its column cannot hold. It goes to the column `more` instead."""


def _nanoseconds(text: Any) -> int:
    """Reads a time in RFC 3339 and UTC, as nanoseconds since 1970."""
    try:
        whole, _, fraction = text.removesuffix("Z").partition(".")
        since = datetime.datetime.fromisoformat(whole) - _EPOCH
        return (since.days * 86400 + since.seconds) * 10**9 + int(fraction[:9].ljust(9, "0"))
    except (AttributeError, ValueError, OverflowError) as error:
        raise Misfit from error


def _seconds(text: Any) -> decimal.Decimal:
    """Reads a duration such as `0.001s`."""
    try:
        value = decimal.Decimal(text.removesuffix("s"))
        if value.is_finite() and abs(value) < 10**11:
            return value.quantize(_NANO, context=_EXACT)
    except (AttributeError, ArithmeticError) as error:
        raise Misfit from error
    raise Misfit


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise Misfit
    return value


def _unsigned(value: Any) -> decimal.Decimal:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        raise Misfit
    return decimal.Decimal(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Misfit
    return value


def _string(value: Any) -> str:
    """Takes text; a lone surrogate, which JSON allows, has no UTF-8."""
    if not isinstance(value, str):
        raise Misfit
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Misfit from error
    return value


def _binary(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise Misfit from error


def _fields(value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, dict):
        raise Misfit
    return [(_string(name), _string(text)) for name, text in value.items()]


def _names(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise Misfit
    return [_string(name) for name in value]


_READERS: dict[pyarrow.DataType, Callable[[Any], Any]] = {
    SECONDS: _seconds,
    UINT64: _unsigned,
    STRING: _string,
    INT: _integer,
    BOOL: _boolean,
    FIELDS: _fields,
    NAMES: _names,
    pyarrow.binary(): _binary,
}


class Fitter:
    """Splits objects into what the columns of a struct hold and the rest: unknown members and misfits."""

    def __init__(self, kind: pyarrow.StructType) -> None:
        self._times = frozenset(field.name for field in kind if field.type == TIME)
        self._structs = {field.name: Fitter(field.type) for field in kind if pyarrow.types.is_struct(field.type)}
        self._readers = {field.name: _READERS[field.type] for field in kind if field.type in _READERS}

    def fit(self, line: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Gives the row and the rest."""
        row: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        for name, value in line.items():
            if value is None:
                continue
            try:
                if name in self._times:
                    moment = _nanoseconds(value)
                    row[name] = moment // 1000
                    row[f"{name}_ns"] = _integer(moment)
                elif name in self._structs:
                    row[name], remains = self._structs[name].fit(dict(value))
                    if remains:
                        rest[name] = remains
                else:
                    row[name] = self._readers[name](value)
            except (KeyError, TypeError, ValueError):
                rest[name] = value
        return row, rest


_FITTERS = {table: Fitter(kind) for table, kind in TABLES.items()}


def to_row(table: str, line: dict[str, Any]) -> dict[str, Any]:
    """Makes a row of a line. Whatever has no column is in `more`, as JSON."""
    row, rest = _FITTERS[table].fit({name: value for name, value in line.items() if name not in _OURS})
    rest.update((name, line[name]) for name in _OURS if name in line)
    if rest:
        row["more"] = json.dumps(rest, separators=(",", ":"))
    return row


def _date(table: str, row: dict[str, Any], modified_ms: int) -> str:
    """Says which date a row is filed under: its own time in UTC, or when its file was modified."""
    moment = None
    if table == "requests":
        moment = row.get("request", {}).get("time")
    if moment is None and table != "findings":
        moment = row.get("connection", {}).get("time")
    return _day((moment if moment is not None else modified_ms * 1000) // 86_400_000_000)


@functools.lru_cache(4096)
def _day(days: int) -> str:
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=days)).isoformat()


# --------------------------------------------------------------------------------------------------------- file systems


@dataclasses.dataclass(frozen=True)
class Storage:
    """How to reach file systems: Hadoop's settings of S3A, in pairs, so that it can be a key."""

    s3a: tuple[tuple[str, str], ...] = ()

    def open(self, uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
        """Gives the file system of a URI, and the path in it."""
        scheme, authority, path = split_uri(uri)
        return _file_system(self, scheme, authority), f"{authority}{path}" if scheme == "s3" else path


def split_uri(uri: str) -> tuple[str, str, str]:
    """Takes a URI apart as Hadoop writes it: nothing in it is percent-encoded."""
    scheme, colon, rest = uri.partition(":")
    if not colon or "/" in scheme:
        return "file", "", os.path.abspath(uri)
    scheme = "s3" if scheme in ("s3a", "s3n") else scheme
    if not rest.startswith("//"):
        return scheme, "", rest
    authority, _, path = rest[2:].partition("/")
    return scheme, authority, f"/{path}"


@functools.cache
def _file_system(storage: Storage, scheme: str, authority: str) -> pyarrow.fs.FileSystem:
    if scheme == "file":
        return pyarrow.fs.LocalFileSystem()
    if scheme == "s3":
        return pyarrow.fs.S3FileSystem(**_s3_options(dict(storage.s3a), authority))
    return pyarrow.fs.FileSystem.from_uri(f"{scheme}://{authority}/")[0]


def _s3_options(conf: dict[str, str], bucket: str) -> dict[str, Any]:
    """Translates the settings of S3A. What they do not say, the environment and the instance's role do."""

    def setting(name: str) -> str | None:
        return conf.get(f"fs.s3a.bucket.{bucket}.{name}") or conf.get(f"fs.s3a.{name}")

    options: dict[str, Any] = {
        "allow_delayed_open": True,  # a small object is one request, not three
        "access_key": setting("access.key"),
        "secret_key": setting("secret.key"),
        "session_token": setting("session.token"),
        "region": setting("endpoint.region") or os.environ.get("AWS_REGION"),
        "endpoint_override": setting("endpoint"),
    }
    if setting("connection.ssl.enabled") == "false":
        options["scheme"] = "http"
    endpoint = options["endpoint_override"]
    if endpoint and "://" in endpoint:
        options["scheme"], options["endpoint_override"] = endpoint.split("://", 1)
    return {name: value for name, value in options.items() if value}


def join(uri: str, *parts: str) -> str:
    """Appends names to a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def publish(storage: Storage, uri: str, content: Any) -> None:
    """Writes an object that others see whole or not at all."""
    fs, path = storage.open(uri)
    if fs.type_name in OBJECT_STORES:
        with fs.open_output_stream(path, compression=None, buffer_size=0) as stream:
            stream.write(content)
        return
    fs.create_dir(posixpath.dirname(path), recursive=True)
    unfinished = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with fs.open_output_stream(unfinished, compression=None) as stream:
            stream.write(content)
        fs.move(unfinished, path)
    except BaseException:
        _remove(fs, unfinished)
        raise


def _remove(fs: pyarrow.fs.FileSystem, path: str) -> None:
    """Removes a file that may not be there."""
    try:
        fs.delete_file(path)
    except FileNotFoundError:
        pass
    except OSError:
        if fs.get_file_info(path).type != pyarrow.fs.FileType.NotFound:
            raise


def _names_in(storage: Storage, uri: str) -> list[str]:
    """Lists the names in a directory; one that does not exist has none."""
    fs, path = storage.open(uri)
    return sorted(info.base_name for info in fs.get_file_info(pyarrow.fs.FileSelector(path, allow_not_found=True)))


# ---------------------------------------------------------------------------------------------------------- the program


@dataclasses.dataclass(frozen=True)
class Job:
    """What every task knows."""

    run: str
    tables: str
    captures: str | None
    inputs: tuple[str, ...]
    options: tuple[str, ...]
    binary: str | None
    timeout: float
    storage: Storage


class NoProgram(RuntimeError):
    """An executor has no program to run, which no trace is to blame for."""


def find_program(wanted: str | None) -> str:
    """Finds the program: as asked for, beside Python (the wheel), among the files of the job, on the PATH."""
    places = [wanted] if wanted else [os.path.join(os.path.dirname(sys.executable), "tap2pcap"), *_shipped()]
    for place in places:
        if os.path.isfile(place) and os.access(place, os.X_OK):
            return os.path.abspath(place)
    found = None if wanted else shutil.which("tap2pcap")
    if found:
        return found
    where = ", ".join(places) + ("" if wanted else ", PATH")
    raise NoProgram(f"no program tap2pcap on {socket.gethostname()}; looked at: {where}")


def _shipped() -> list[str]:
    """Says where Spark may have put the file that came with --files: in its own folder, or where YARN starts."""
    places = [os.path.abspath("tap2pcap")]
    with contextlib.suppress(AssertionError, AttributeError, RuntimeError):  # Outside a job, nothing is shipped.
        places.insert(0, SparkFiles.get("tap2pcap"))
    return places


@functools.cache
def program(wanted: str | None) -> tuple[str, str]:
    """Gives the program and its version, having run it once in this process."""
    path = find_program(wanted)
    try:
        told = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NoProgram(f"{path} does not run on {socket.gethostname()}: {error}") from error
    return path, told.stdout.decode(errors="replace").strip()


class Unreadable(OSError):
    """A file that cannot be opened."""


class Piped:
    """The program with one file on its standard input, and threads that keep its pipes moving.

    One thread feeds, one drains standard error, and the caller reads `lines` or `pieces`: no pipe waits for another.
    """

    def __init__(self, arguments: list[str], storage: Storage, uri: str, timeout: float) -> None:
        fs, path = storage.open(uri)
        try:
            self._source = fs.open_input_stream(path, compression=None, buffer_size=0)
        except (OSError, pyarrow.ArrowException) as error:
            raise Unreadable(str(error)) from error
        self.read_error: str | None = None
        self.timed_out = False
        self._words: collections.deque[bytes] = collections.deque()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe)
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._feed, self._listen)]
        self._watchdog = threading.Timer(timeout, self._stop)
        self._watchdog.daemon = True
        for thread in [*self._threads, self._watchdog]:
            thread.start()

    def _feed(self) -> None:
        """Copies the file into the program, until either has had enough."""
        assert self._process.stdin
        try:
            with self._source:
                while piece := self._read():
                    self._process.stdin.write(piece)
        except BrokenPipeError:
            pass  # It stopped reading; its status and its lines say why.
        finally:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _read(self) -> bytes:
        try:
            return self._source.read(PIECE)
        except Exception as error:  # Whatever it is, the file has not been read to its end.
            self.read_error = str(error)
            return b""

    def _listen(self) -> None:
        """Keeps the end of what the program says, and never lets it wait."""
        assert self._process.stderr
        held = 0
        while words := self._process.stderr.read1(LONGEST_WORDS):
            self._words.append(words)
            held += len(words)
            while held - len(self._words[0]) >= LONGEST_WORDS:
                held -= len(self._words.popleft())

    def _stop(self) -> None:
        self.timed_out = True
        self._process.kill()

    def lines(self) -> Iterator[bytes]:
        """Yields lines as they come. A line beyond all measure comes as an empty one."""
        assert self._process.stdout
        while line := self._process.stdout.readline(LONGEST_LINE):
            whole = line.endswith(b"\n")
            yield line if whole or len(line) < LONGEST_LINE else b""
            while not whole and (line := self._process.stdout.readline(LONGEST_LINE)):
                whole = line.endswith(b"\n")

    def pieces(self) -> Iterator[bytes]:
        """Yields bytes as they come."""
        assert self._process.stdout
        while piece := self._process.stdout.read(PIECE):
            yield piece

    def finish(self) -> int:
        """Waits for the end and gives the exit status, or a signal's number below zero."""
        status = self._process.wait()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._watchdog.cancel()
        return status

    def words(self) -> str:
        """Gives the end of standard error on one line, without control characters."""
        text = b"".join(self._words)[-LONGEST_WORDS:].decode(errors="replace").strip()
        return "".join(character if character.isprintable() else " " for character in text)

    def __enter__(self) -> Piped:
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        self._process.kill()
        for stream in (self._process.stdout, self._process.stderr):
            if stream and not any(thread.is_alive() for thread in self._threads):
                stream.close()
        self._process.wait()


def last_words(piped: Piped, options: tuple[str, ...]) -> str:
    """Quotes standard error, unless that may be a quotation of a trace whose secrets are to be taken out."""
    return "what it said is left out, because of --redact" if "--redact" in options else piped.words()


def fault(piped: Piped, status: int, options: tuple[str, ...]) -> tuple[str, str] | None:
    """Says what went wrong beside the trace itself, as a code and words."""
    if piped.timed_out:
        return "program-timeout", "the program took longer than --timeout allows and was stopped"
    if piped.read_error:
        return "unreadable", f"the file could not be read to its end: {piped.read_error}"
    if status < 0:
        return "program-failed", f"the program was ended by signal {-status}: {last_words(piped, options)}"
    if status > 2:
        return "program-failed", f"the program ended with status {status}: {last_words(piped, options)}"
    return None


# ------------------------------------------------------------------------------------------------------------- one file


class Batches:
    """The rows of one attempt at a task: few as Python objects, more as Arrow batches, the rest in files."""

    def __init__(self, job: Job, attempt: str) -> None:
        self._job, self.attempt = job, attempt
        self._rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._row_count = self._row_bytes = 0
        self._batches: dict[tuple[str, str], list[pyarrow.RecordBatch]] = {}
        self._batch_bytes = 0
        self._dates: set[str] = set()
        self.files = 0

    def add(self, table: str, line: dict[str, Any], uri: str, modified_ms: int, size: int) -> None:
        """Takes one row in."""
        row = to_row(table, line) | {"input": uri, "attempt": self.attempt}
        date = _date(table, row, modified_ms)
        if date not in self._dates and len(self._dates) >= MOST_DATES:
            date = _day(modified_ms // 86_400_000)
        self._dates.add(date)
        self._rows.setdefault((table, date), []).append(row)
        self._row_count += 1
        self._row_bytes += size
        if self._row_count >= ROWS_PER_BATCH or self._row_bytes >= BYTES_PER_BATCH:
            self._pack()

    def _pack(self) -> None:
        """Turns rows into Arrow batches, and batches into files once there are enough."""
        for key, rows in self._rows.items():
            batch = pyarrow.RecordBatch.from_pylist(rows, schema=pyarrow.schema(list(TABLES[key[0]])))
            self._batches.setdefault(key, []).append(batch)
            self._batch_bytes += batch.nbytes
        self._rows.clear()
        self._row_count = self._row_bytes = 0
        if self._batch_bytes >= BYTES_PER_FLUSH:
            self._write()

    def _write(self) -> None:
        for (table, date), batches in self._batches.items():
            sink = pyarrow.BufferOutputStream()
            pyarrow.parquet.write_table(pyarrow.Table.from_batches(batches), sink, compression="zstd")
            name = f"part-{self.attempt}-{self.files:04}.parquet"
            place = join(self._job.tables, table, f"date={date}", f"run={self._job.run}", name)
            publish(self._job.storage, place, sink.getvalue())
            self.files += 1
        self._batches.clear()
        self._batch_bytes = 0

    def flush(self) -> None:
        """Writes all that is left."""
        self._pack()
        self._write()


class Reading:
    """One file on its way into the tables."""

    def __init__(self, job: Job, batches: Batches, uri: str, length: int, modified_ms: int) -> None:
        self._job, self._batches = job, batches
        self._uri, self._length, self._modified_ms = uri, length, modified_ms
        self._name = trace_name(uri)
        self._counts = dict.fromkeys(TABLES, 0)
        self._capture: str | None = None

    def run(self) -> dict[str, Any]:
        """Reads the file, and its capture if one is wanted. Gives its row of the table `files`."""
        started = time.monotonic()
        path, version = program(self._job.binary)
        try:
            status = self._tables(path)
            if self._job.captures and status in ("ok", "damaged"):
                self._write_capture(path)
        except Unreadable as error:
            status = "unreadable"
            self._find("unreadable", str(error))
        return {
            "path": self._uri,
            "length": self._length,
            "modified_ms": self._modified_ms,
            "run": self._job.run,
            "attempt": self._batches.attempt,
            "status": status,
            **self._counts,
            "seconds": time.monotonic() - started,
            "capture": self._capture,
            "program": version,
            "options": fingerprint(self._job.options),
        }

    def _arguments(self, path: str, *rest: str) -> list[str]:
        return [path, *rest, "--quiet", "--jobs=1", *self._job.options, "-", "-"]

    def _tables(self, path: str) -> str:
        arguments = self._arguments(path, "tables", f"--stdin-name={self._name}")
        with Piped(arguments, self._job.storage, self._uri, self._job.timeout) as piped:
            foreign = self._rows(piped)
            status = piped.finish()
            wrong = fault(piped, status, self._job.options)
            if not wrong and status == 2 and not self._counts["findings"] and not foreign:
                foreign = NO_TRACES in piped.words() and self._may_pass()  # an archive of other things
                if not foreign:
                    words = last_words(piped, self._job.options)
                    wrong = "program-failed", f"the program ended with status 2: {words}"
        if wrong:
            self._find(*wrong)
            return "unreadable" if wrong[0] == "unreadable" else "failed"
        if foreign:
            return "no-trace"
        return "ok" if status == 0 else "damaged"

    def _rows(self, piped: Piped) -> bool:
        """Takes in the lines. Says whether all that they tell is that this is no trace.

        Among files such a one is passed over, as it is on one machine.
        """
        may_pass = self._may_pass()
        held: tuple[bytes, dict[str, Any]] | None = None
        total = 0
        for line in piped.lines():
            total += 1
            try:
                row = json.loads(line)
                table = row.pop("table")
                if may_pass and total == 1 and table == "findings" and row.get("code") in NO_TRACE:
                    held = line, row
                else:
                    self._add(table, row, len(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                if line.endswith(b"\n") or not line:
                    self._find("program-failed", f"line {total} of the program's output is too long or no row")
        if held and total > 1:
            self._add("findings", held[1], len(held[0]))
        return held is not None and total == 1

    def _may_pass(self) -> bool:
        """Says whether the file was only found: neither asked for by name, nor named as Envoy names traces."""
        return not is_named_as_trace(self._name) and self._uri not in self._job.inputs

    def _add(self, table: str, row: dict[str, Any], size: int) -> None:
        self._counts[table] += 1  # which an unknown table fails at
        self._batches.add(table, row, self._uri, self._modified_ms, size)

    def _find(self, code: str, detail: str) -> None:
        """Adds a finding of this job."""
        found = {"path": self._name, "severity": "error", "code": code, "detail": detail}
        self._add("findings", found, len(detail))

    def _write_capture(self, path: str) -> None:
        place = join(self._job.captures or "", f"{relative(self._job.inputs, self._uri)}.pcapng")
        with (
            Piped(self._arguments(path), self._job.storage, self._uri, self._job.timeout) as piped,
            CaptureFile(self._job.storage, place) as capture,
        ):
            for piece in piped.pieces():
                capture.write(piece)
            status = piped.finish()
            wrong = fault(piped, status, self._job.options)
            if not wrong and status < 2:
                capture.complete()
                self._capture = place
        if wrong:
            self._find(wrong[0], f"no capture: {wrong[1]}")


class CaptureFile:
    """An output that nobody sees before it is complete: one request if it is small, else a file that is renamed."""

    def __init__(self, storage: Storage, uri: str) -> None:
        self._storage, self._uri = storage, uri
        self._fs, self._path = storage.open(uri)
        self._unfinished = posixpath.join(posixpath.dirname(self._path), f".{uuid.uuid4().hex}.tmp")
        self._held = bytearray()
        self._stream: pyarrow.NativeFile | None = None

    def write(self, piece: bytes) -> None:
        """Appends bytes."""
        if self._stream is None and len(self._held) + len(piece) <= SMALL_CAPTURE:
            self._held += piece
            return
        if self._stream is None:
            self._fs.create_dir(posixpath.dirname(self._path), recursive=True)
            self._stream = self._fs.open_output_stream(self._unfinished, compression=None)
            self._stream.write(bytes(self._held))
            self._held.clear()
        self._stream.write(piece)

    def complete(self) -> None:
        """Gives the output its name."""
        if self._stream is None:
            publish(self._storage, self._uri, bytes(self._held))
        else:
            self._stream.close()
            self._fs.move(self._unfinished, self._path)
            self._stream = None

    def __enter__(self) -> CaptureFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()
            _remove(self._fs, self._unfinished)


def is_named_as_trace(name: str) -> bool:
    """Says whether a file has the suffix that Envoy gives to traces, packed or not."""
    stem, suffix = posixpath.splitext(name)
    return (posixpath.splitext(stem)[1] if suffix in (".gz", ".zst") else suffix) in SUFFIXES


def trace_name(uri: str) -> str:
    """Says what a file is called in the tables: a local one by its path, any other by its URI."""
    scheme, _, path = split_uri(uri)
    return path if scheme == "file" else uri


def relative(inputs: Iterable[str], uri: str) -> str:
    """Gives the path of a file below the input that it was found in, or its name if it was named itself."""
    scheme, authority, path = split_uri(uri)
    for root in map(split_uri, inputs):
        below = root[2].rstrip("/") + "/"
        if root[:2] == (scheme, authority) and path.startswith(below):
            return path.removeprefix(below)
    return posixpath.basename(path)


def fingerprint(options: Iterable[str]) -> str:
    """Gives the options that decide what is in the tables, as text to compare."""
    return " ".join(urllib.parse.quote(option, safe="=-,:") for option in options)


# ------------------------------------------------------------------------------------------------------------- one task

_RESULT = ", ".join(
    f"{field.name} {'bigint' if field.type == INT else 'double' if field.type == pyarrow.float64() else 'string'}"
    for field in FILES
)
RESULT = f"{_RESULT}, data_files bigint"


def read_files(job: Job, listing: Iterator[pandas.DataFrame]) -> Iterator[pandas.DataFrame]:
    """Reads the files of one task. Their rows of `files` come when all that they tell of has been written."""
    context = TaskContext.get()
    number = f"{context.partitionId():06}-{context.taskAttemptId()}" if context else "0"
    batches = Batches(job, f"{number}-{uuid.uuid4().hex[:12]}")
    files = (row for batch in listing for row in batch[["path", "length", "modified_ms"]].itertuples(index=False))
    results = [Reading(job, batches, path, length, modified).run() for path, length, modified in files]
    batches.flush()
    names = [*FILES.names, "data_files"]
    for start in range(0, len(results), 1000):
        chunk = [row | {"data_files": batches.files} for row in results[start : start + 1000]]
        yield pandas.DataFrame(chunk, columns=names)


# ----------------------------------------------------------------------------------------------------------- the driver


LISTING = "path string, length bigint, modified_ms bigint"


def list_with_spark(spark: SparkSession, inputs: list[str]) -> DataFrame:
    """Lists files with the source binaryFile. Without the column content it reads nothing of them."""
    spark.conf.set("spark.sql.files.openCostInBytes", COST_OF_A_FILE)
    source = spark.read.format("binaryFile").option("recursiveFileLookup", "true").option("ignoreMissingFiles", "true")
    return source.load(inputs).select("path", "length", F.expr("unix_millis(modificationTime)").alias("modified_ms"))


def list_with_arrow(spark: SparkSession, storage: Storage, inputs: list[str]) -> DataFrame:
    """Lists files from the driver, for file systems that Hadoop does not know here."""
    files = [file for uri in inputs for file in _walk(storage, uri)]
    groups = deal(files, spark.sparkContext.defaultParallelism)
    rows = spark.sparkContext.parallelize(groups, max(1, len(groups))).flatMap(lambda group: group)
    return spark.createDataFrame(rows, LISTING)


def _walk(storage: Storage, uri: str) -> Iterator[tuple[str, int, int]]:
    """Yields the files below a URI with the names that Hadoop would give them; hidden ones are left out, as there."""
    fs, path = storage.open(uri)
    found = fs.get_file_info(path)
    if found.type == pyarrow.fs.FileType.NotFound:
        raise FileNotFoundError(f"{uri} does not exist")
    prefix = uri[: len(uri) - len(split_uri(uri)[2])] if split_uri(uri)[0] != "file" else "file:"
    if found.type == pyarrow.fs.FileType.Directory:
        infos = fs.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    else:
        infos = [found]
    root = path.rstrip("/")
    for info in infos:
        below = info.path.removeprefix(root).split("/")
        if info.is_file and not any(part.startswith((".", "_")) for part in below):
            inner = info.path[len(split_uri(uri)[1]) :]
            yield f"{prefix}{inner}", info.size, info.mtime_ns // 10**6


def deal(files: list[tuple[str, int, int]], cores: int) -> list[list[tuple[str, int, int]]]:
    """Deals files out to tasks as Spark does: the largest first, each task as much as any other."""
    total = sum(length + COST_OF_A_FILE for _, length, _ in files)
    most = min(BYTES_PER_TASK, max(COST_OF_A_FILE, total // max(1, cores)))
    groups: list[list[tuple[str, int, int]]] = []
    room = 0
    for file in sorted(files, key=lambda file: (-file[1], file[0])):
        cost = file[1] + COST_OF_A_FILE
        if not groups or cost > room:
            groups.append([])
            room = most
        groups[-1].append(file)
        room -= cost
    return groups


def list_files(spark: SparkSession, storage: Storage, inputs: list[str], how: str) -> tuple[DataFrame, bool]:
    """Lists the files of all inputs. Says whether Spark did it."""
    if how == "arrow":
        return list_with_arrow(spark, storage, inputs), False
    try:
        return list_with_spark(spark, inputs), True
    except Exception as error:
        if how == "auto" and ("No FileSystem for scheme" in str(error) or "ClassNotFoundException" in str(error)):
            print("tap2pcap: Hadoop has no file system for this scheme here; the driver lists the files itself")
            return list_with_arrow(spark, storage, inputs), False
        raise


def overlooked(storage: Storage, listing: DataFrame, seen: int, known: Iterable[str]) -> list[tuple[str, int, int]]:
    """Lists what Spark found, but did not hand out: files without a byte, and those that vanished meanwhile."""
    if len(listing._jdf.inputFiles()) == seen:
        return []
    every = map(urllib.parse.unquote, listing.inputFiles())
    paths = {f"file:{path.removeprefix('file://')}" if path.startswith("file://") else path for path in every}
    return [_stat(storage, path) for path in sorted(paths.difference(known))]


def _stat(storage: Storage, uri: str) -> tuple[str, int, int]:
    fs, path = storage.open(uri)
    info = fs.get_file_info(path)
    return uri, info.size or 0, (info.mtime_ns or 0) // 10**6


class Ledger:
    """The table `files`, which knows what is done, and the marks of runs that are under way."""

    def __init__(self, storage: Storage, tables: str) -> None:
        self._storage, self._tables = storage, tables

    def _known(self) -> pyarrow.Table:
        fs, path = self._storage.open(join(self._tables, "files"))
        names = [name for name in _names_in(self._storage, join(self._tables, "files")) if name.endswith(".parquet")]
        found = [pyarrow.parquet.read_table(posixpath.join(path, name), filesystem=fs) for name in names]
        return pyarrow.concat_tables(found) if found else FILES.empty_table()

    def done(self, options: str, retry: bool) -> pandas.DataFrame:
        """Gives the files as they were last read. Rows that were made with other options do not mix with these."""
        known = self._known().select(["path", "length", "modified_ms", "run", "status", "options"]).to_pandas()
        others = set(known["options"]) - {options}
        if others:
            raise SystemExit(
                f"tap2pcap: {self._tables} was made with the options [{min(others)}], not [{options}]; "
                "use another directory for other options"
            )
        newest = known.sort_values("run", kind="stable").drop_duplicates("path", keep="last")
        if retry:
            newest = newest[~newest["status"].isin(["failed", "unreadable"])]
        return newest[["path", "length", "modified_ms"]]

    def start(self, run: str) -> None:
        """Marks a run as under way."""
        publish(self._storage, join(self._tables, "_runs", run), b"under way\n")

    def commit(self, run: str, results: pandas.DataFrame) -> None:
        """Makes the rows of a run count."""
        sink = pyarrow.BufferOutputStream()
        table = pyarrow.Table.from_pandas(results[FILES.names], schema=FILES, preserve_index=False)
        pyarrow.parquet.write_table(table, sink, compression="zstd")
        publish(self._storage, join(self._tables, "files", f"{run}.parquet"), sink.getvalue())
        self._unmark(run)

    def _unmark(self, run: str) -> None:
        fs, path = self._storage.open(join(self._tables, "_runs", run))
        _remove(fs, path)

    def clean(self) -> list[str]:
        """Removes what runs left that never came to their end."""
        committed = set(_names_in(self._storage, join(self._tables, "files")))
        dead = []
        for run in _names_in(self._storage, join(self._tables, "_runs")):
            if f"{run}.parquet" not in committed:
                self.drop(run)
                dead.append(run)
            else:
                self._unmark(run)
        return dead

    def drop(self, run: str) -> None:
        """Removes all rows of a run."""
        for fs, path in self.parts(run):
            _remove(fs, path)
        self._unmark(run)

    def parts(self, run: str) -> list[tuple[pyarrow.fs.FileSystem, str]]:
        """Lists the files of a run, those that nobody sees yet too."""
        found = []
        for table in TABLES:
            for date in _names_in(self._storage, join(self._tables, table)):
                place = join(self._tables, table, date, f"run={run}")
                fs, path = self._storage.open(place)
                found += [(fs, posixpath.join(path, name)) for name in _names_in(self._storage, place)]
        return found

    def settle(self, run: str, results: pandas.DataFrame) -> None:
        """Removes what attempts wrote that failed later, and makes sure that nothing is missing."""
        wanted = results.drop_duplicates("attempt").set_index("attempt")["data_files"].to_dict()
        there: collections.Counter[str] = collections.Counter()
        for fs, path in self.parts(run):
            attempt = posixpath.basename(path).removeprefix("part-").rpartition("-")[0]
            if attempt in wanted and path.endswith(".parquet"):
                there[attempt] += 1
            else:
                _remove(fs, path)
        if any(there[attempt] != files for attempt, files in wanted.items()):
            raise SystemExit(
                f"tap2pcap: files of run {run} are missing from {self._tables}; is another run writing there? "
                "Nothing of this run counts."
            )


def plan(spark: SparkSession, job: Job, listing: DataFrame, done: pandas.DataFrame) -> DataFrame:
    """Makes the query: list, leave out what is done, read. Nothing in it moves rows between executors."""
    if len(done):
        known = spark.createDataFrame(done, LISTING)
        listing = listing.join(F.broadcast(known), ["path", "length", "modified_ms"], "left_anti")
    return listing.mapInPandas(functools.partial(read_files, job), RESULT)


def settings_of_s3a(spark: SparkSession) -> Storage:
    """Takes the settings of S3A from Hadoop's configuration, where spark.hadoop.* and core-site.xml end up."""
    names = ["access.key", "secret.key", "session.token", "endpoint", "endpoint.region", "connection.ssl.enabled"]
    conf = spark.sparkContext._jsc.hadoopConfiguration()
    found = {}
    for entry in conf.getPropsWithPrefix("fs.s3a.").entrySet():
        if any(entry.getKey().endswith(name) for name in names):
            found[f"fs.s3a.{entry.getKey()}"] = entry.getValue()
    return Storage(tuple(sorted(found.items())))


def check_program(spark: SparkSession, job: Job) -> None:
    """Fails at once if executors have no program, not the same one, or one that does not take the options.

    Each task looks for its program again, since executors come and go.
    """
    cores = max(2, spark.sparkContext.defaultParallelism)
    told = spark.sparkContext.parallelize(range(cores), cores).map(lambda _: try_program(job)).collect()
    faults = sorted({words[1:] for words in told if words.startswith("!")})
    if faults:
        raise SystemExit(f"tap2pcap: {faults[0]}")
    if len(set(told)) > 1:
        raise SystemExit(f"tap2pcap: executors have different programs: {', '.join(sorted(set(told)))}")


def try_program(job: Job) -> str:
    """Gives the version of the program on this executor, or `!` and why it cannot be used."""
    try:
        path, version = program(job.binary)
    except NoProgram as error:
        return f"!{error}"
    arguments = [path, "tables", "--quiet", *job.options, "-", "-"]
    tried = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    if b'"empty"' not in tried.stdout:  # the finding about an input without a byte
        return f"!{path} on {socket.gethostname()}: {tried.stderr.decode(errors='replace').strip()}"
    return version


def run(spark: SparkSession, arguments: argparse.Namespace) -> int:
    """Runs the job and says what it did."""
    spark.sparkContext.addPyFile(os.path.abspath(__file__))
    storage = settings_of_s3a(spark)
    inputs = [uri if ":" in uri.split("/")[0] else f"file:{os.path.abspath(uri)}" for uri in arguments.input]
    options = program_options(arguments)
    moment = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S%fZ")
    job = Job(
        run=f"{moment}-{uuid.uuid4().hex[:8]}",
        tables=arguments.tables,
        captures=arguments.captures,
        inputs=tuple(inputs),
        options=options,
        binary=arguments.binary,
        timeout=arguments.timeout,
        storage=storage,
    )
    check_program(spark, job)
    ledger = Ledger(storage, arguments.tables)
    for dead in ledger.clean():
        print(f"tap2pcap: run {dead} never came to its end; its rows were removed")
    done = ledger.done(fingerprint(options), arguments.retry_failed)
    try:
        listing, by_spark = list_files(spark, storage, inputs, arguments.listing)
    except (AnalysisException, OSError) as error:
        raise SystemExit(f"tap2pcap: {error}") from error
    seen = Observation("listing")
    query = plan(spark, job, listing.observe(seen, F.count(F.lit(1)).alias("files")), done)
    ledger.start(job.run)
    results = query.toPandas()
    listed = seen.get["files"]
    if by_spark:
        more = overlooked(storage, listing, listed, {*results["path"], *done[done["length"] > 0]["path"]})
        listed += len(more)
        if more:
            others = plan(spark, job, spark.createDataFrame(more, LISTING), done).toPandas()
            results = pandas.concat([results, others], ignore_index=True)
    if not len(results):
        ledger.drop(job.run)
        print(f"tap2pcap: nothing new: {listed} files, all of them done before")
        return 0
    refuse_if_nothing_opens(ledger, job, results)
    ledger.settle(job.run, results)
    ledger.commit(job.run, results)
    print(summary(job, results, listed))
    return 0


def refuse_if_nothing_opens(ledger: Ledger, job: Job, results: pandas.DataFrame) -> None:
    """Stops a run that could open none of its files: then it is credentials that are wrong, and not the files."""
    if len(results) > 1 and (results["status"] == "unreadable").all():
        ledger.drop(job.run)
        raise SystemExit(f"tap2pcap: none of {len(results)} files could be opened; nothing was kept")


def summary(job: Job, results: pandas.DataFrame, listed: int) -> str:
    """Says in one line what a run did."""
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(results["status"].value_counts().items()))
    rows = ", ".join(f"{int(results[table].sum())} {table}" for table in TABLES)
    before = f"; {listed - len(results)} were done before" if listed > len(results) else ""
    return f"tap2pcap: run {job.run}: {len(results)} files ({statuses}){before}; {rows}"


def program_options(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Gives the options that both calls of the program get."""
    options = []
    if arguments.where:
        options.append(f"--where={arguments.where}")
    for flag in ("redact", "redact_bodies", "redact_keep_unknown"):
        if getattr(arguments, flag):
            options.append(f"--{flag.replace('_', '-')}")
    for many in ("redact_header", "keep_header"):
        options += [f"--{many.replace('_', '-')}={name}" for name in getattr(arguments, many)]
    return tuple(options)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    words = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(prog="tap2pcap_spark.py", description=words[0], allow_abbrev=False)
    add = parser.add_argument
    add("--input", action="append", required=True, metavar="URI", help="a file or a directory (repeatable)")
    add("--tables", required=True, metavar="URI", help="directory of the tables")
    add("--captures", metavar="URI", help="directory of captures, one for each file that holds a trace")
    add("--where", metavar="EXPR", help="only what this CEL expression holds for")
    add("--redact", action="store_true", help="take out secrets")
    add("--redact-header", action="append", default=[], metavar="NAME", help="take out this header field too")
    add("--keep-header", action="append", default=[], metavar="NAME", help="keep this header field")
    add("--redact-bodies", action="store_true", help="take out all bodies")
    add("--redact-keep-unknown", action="store_true", help="keep bytes that are not understood")
    add("--binary", metavar="PATH", help="the program on executors [default: the wheel's, that of --files, the PATH's]")
    add("--timeout", type=float, default=3600, metavar="SECONDS", help="for one file [default: 3600]")
    add("--retry-failed", action="store_true", help="read those files again that were unreadable or failed")
    add(
        "--listing",
        choices=["auto", "spark", "arrow"],
        default="auto",
        help="who lists the files: Spark's binaryFile, the driver with Arrow, or Spark if it can [default: auto]",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Is what spark-submit calls."""
    parsed = parse(arguments)
    spark = SparkSession.builder.appName("tap2pcap").getOrCreate()
    spark.conf.set("spark.sql.execution.arrow.pyspark.enabled", "true")
    try:
        return run(spark, parsed)
    finally:
        spark.stop()


if __name__ == "__main__":
    # Tasks find their functions by the name of this module, not as parts of a script.
    import tap2pcap_spark

    sys.exit(tap2pcap_spark.main())
