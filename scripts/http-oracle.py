"""Makes HTTP conversations with h11 and h2, cuts them into events, and compares what `tap2pcap http` reads in them.

usage: http-oracle.py PROGRAM ROUNDS SEED
"""

import base64
import json
import random
import subprocess
import sys

import h11
import h2.config
import h2.connection
import h2.events
import h2.settings

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]
WORDS = ["alpha", "beta", "gamma", "delta"]


def fields(rng):
    return [("x-" + rng.choice(WORDS), "v" * rng.randrange(40) + rng.choice(WORDS)) for _ in range(rng.randrange(6))]


def body(rng):
    return rng.randbytes(rng.choice([0, 1, 10, 1000, 20000]))


def exchange(rng, number):
    method = rng.choice(METHODS)
    return {
        "method": method,
        "path": f"/{number}?q={rng.randrange(1000)}",
        "code": rng.choice([200, 200, 201, 204, 304, 404, 500]),
        "request": [("host", "example.com"), *fields(rng)],
        "response": fields(rng),
        "sent": body(rng) if method in ("POST", "PUT") else b"",
        "received": body(rng),
    }


def carries_body(one):
    return one["method"] != "HEAD" and one["code"] not in (204, 304)


def http1(rng):
    """One connection after h11's own rules: client bytes and server bytes, in turns."""
    client, server = h11.Connection(h11.CLIENT), h11.Connection(h11.SERVER)
    turns, exchanges = [], []
    for number in range(rng.randrange(1, 6)):
        one = exchange(rng, number)
        exchanges.append(one)
        if one["sent"] or one["method"] in ("POST", "PUT"):
            length = ("content-length", str(len(one["sent"])))
            one["request"].append(rng.choice([length, ("transfer-encoding", "chunked")]))
        out = client.send(h11.Request(method=one["method"], target=one["path"], headers=one["request"]))
        for at in range(0, len(one["sent"]), 7000):
            out += client.send(h11.Data(one["sent"][at : at + 7000]))
        out += client.send(h11.EndOfMessage())
        server.receive_data(out)
        while type(server.next_event()) not in (h11.EndOfMessage, h11.NEED_DATA.__class__):
            pass
        turns.append((True, out))
        out = b""
        if rng.random() < 0.2:
            out += server.send(h11.InformationalResponse(status_code=103, headers=[("link", "x")], reason="Early Hints"))
        if not carries_body(one):
            one["received"] = b""
        elif rng.random() < 0.5:
            one["response"].append(("content-length", str(len(one["received"]))))
        else:
            one["response"].append(("transfer-encoding", "chunked"))
        head = h11.Response(status_code=one["code"], headers=one["response"], reason="Whatever")
        out += server.send(head)
        if one["received"]:
            out += server.send(h11.Data(one["received"]))
        out += server.send(h11.EndOfMessage())
        turns.append((False, out))
        client.receive_data(out)
        while True:
            event = client.next_event()
            if type(event) is h11.EndOfMessage or event is h11.NEED_DATA:
                break
        client.start_next_cycle()
        server.start_next_cycle()
    return turns, exchanges


def http2(rng):
    """Streams of one connection, interleaved; the peers are h2's."""
    big = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**24, h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1000}
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    turns = []

    def move():
        for is_client, source, target in ((True, client, server), (False, server, client)):
            out = source.data_to_send()
            if out:
                turns.append((is_client, out))
                target.receive_data(out)

    for peer in (client, server):
        peer.update_settings(big) if peer is server else None
        peer.initiate_connection()
        peer.increment_flow_control_window(2**24)
    for _ in range(3):
        move()
    exchanges = [exchange(rng, number) for number in range(rng.randrange(1, 12))]
    waiting = []
    for one in exchanges:
        one["id"] = client.get_next_available_stream_id()
        one["request"] = [field for field in one["request"] if field[0] != "host"]
        head = [(":method", one["method"]), (":scheme", "https"), (":authority", "example.com"), (":path", one["path"])]
        client.send_headers(one["id"], head + one["request"], end_stream=not one["sent"])
        for at in range(0, len(one["sent"]), 9000):
            padding = rng.choice([None, 0, 9])
            last = at + 9000 >= len(one["sent"])
            client.send_data(one["id"], one["sent"][at : at + 9000], end_stream=last, pad_length=padding)
        waiting.append(one)
        if rng.random() < 0.5:
            move()
    move()
    parts = []
    for one in waiting:
        if not carries_body(one):
            one["received"] = b""
        pieces = [one["received"][at : at + 5000] for at in range(0, len(one["received"]), 5000)]
        one["trailers"] = fields(rng) if rng.random() < 0.3 else []
        parts.append([one, "head", pieces])
    while parts:
        state = rng.choice(parts)
        one, step, pieces = state
        if step == "head":
            state[1] = "body"
            ends = not pieces and not one["trailers"]
            server.send_headers(one["id"], [(":status", str(one["code"]))] + one["response"], end_stream=ends)
            if ends:
                parts.remove(state)
        elif pieces:
            piece = pieces.pop(0)
            ends = not pieces and not one["trailers"]
            server.send_data(one["id"], piece, end_stream=ends)
            if ends:
                parts.remove(state)
        else:
            server.send_headers(one["id"], one["trailers"], end_stream=True)
            parts.remove(state)
        if rng.random() < 0.4:
            move()
    move()
    return turns, exchanges


def events(rng, turns):
    """Each turn in one to five events."""
    out = []
    for is_client, bytes_ in turns:
        cuts = sorted(rng.randrange(len(bytes_) + 1) for _ in range(rng.randrange(5)))
        for start, end in zip([0, *cuts], [*cuts, len(bytes_)]):
            if end > start:
                out.append((is_client, bytes_[start:end]))
    return out


def trace(rng, turns, trace_id):
    address = lambda ip, port: {"socket_address": {"address": ip, "port_value": port}}
    ends = {"local_address": address("10.0.0.2", 80), "remote_address": address("10.0.0.1", 50000 + trace_id)}
    segments = [{"connection": ends}]
    number = 1
    for index, (is_client, bytes_) in enumerate(events(rng, turns)):
        kind = "read" if is_client else "write"
        time = f"2026-01-31T12:00:00.{index:06}Z"
        data = {"data": {"as_bytes": base64.b64encode(bytes_).decode()}}
        segments.append({"event": {"timestamp": time, "seq_num": str(number), kind: data}})
        number += len(bytes_)
    segments.append({"event": {"timestamp": "2026-01-31T12:00:01Z", "seq_num": str(number + 1), "closed": {}}})
    wrap = lambda segment: {"socket_streamed_trace_segment": {"trace_id": str(trace_id), **segment}}
    return "\n".join(json.dumps(wrap(segment)) for segment in segments)


def merged(pairs):
    out = {}
    for name, value in pairs:
        out[name] = f"{out[name]},{value}" if name in out else value
    return out


def compare(one, line):
    request, response = line["request"], line["response"]
    seen = {
        "method": request.get("method"),
        "path": request.get("path"),
        "code": response.get("code"),
        "request": request.get("headers"),
        "response": response.get("headers"),
        "trailers": response.get("trailers", {}),
        "sent": base64.b64decode(request.get("body", "")),
        "received": base64.b64decode(response.get("body", "")),
        "whole": (request["complete"], response["complete"]),
        "host": request.get("host"),
    }
    expected = {
        **{key: one[key] for key in ("method", "path", "code", "sent", "received")},
        "request": merged(one["request"]),
        "response": merged(one["response"]),
        "trailers": merged(one.get("trailers", [])),
        "whole": (True, True),
        "host": "example.com",
    }
    # h11 adds these by itself.
    for added in ("transfer-encoding", "connection"):
        if added not in expected["response"]:
            (seen["response"] or {}).pop(added, None)
    return {key: (expected[key], seen[key]) for key in expected if expected[key] != seen[key]}


def main():
    program, rounds, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    count = 0
    for index in range(rounds):
        rng = random.Random(seed * 1_000_003 + index)
        make = rng.choice([http1, http2])
        turns, exchanges = make(rng)
        text = trace(rng, turns, index % 10000)
        run = subprocess.run([program, "http", "-v", "--json", "-"], input=text.encode(), capture_output=True)
        lines = [json.loads(line) for line in run.stdout.splitlines()]
        lines.sort(key=lambda line: int(line["request"]["path"][1:].split("?")[0]))
        wrong = [compare(one, line) for one, line in zip(exchanges, lines)]
        if run.returncode or run.stderr or len(lines) != len(exchanges) or any(wrong):
            print(f"round {index} of seed {seed}, {make.__name__}: {len(exchanges)} exchanges, {len(lines)} read")
            print([difference for difference in wrong if difference][:1], run.stderr.decode()[:1000])
            sys.exit(1)
        count += len(lines)
    print(f"{rounds} conversations, {count} exchanges, all as they were")


main()
