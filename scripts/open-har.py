"""Opens each HAR file with haralyzer and checks what a person would look at."""

import base64
import json
import sys

from haralyzer import HarParser

entries = 0
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        parser = HarParser(json.load(file))
    assert (parser.version, parser.creator["name"]) == ("1.2", "tap2pcap"), path
    for entry in parser.har_data["entries"]:
        entries += 1
        request, response = entry["request"], entry["response"]
        assert request["method"] in ("GET", "POST"), (path, request)
        assert request["url"].startswith("http://"), (path, request)
        assert response["status"] == 200, (path, response)
        assert parser.match_status_code(entry, "200"), path
        assert parser.match_headers(entry, "response", "content-type", "application/.*", regex=True), path
        content = response["content"]
        if content.get("encoding") == "base64":
            body = base64.b64decode(content["text"])
            assert body.startswith(b"\0\0\0\0"), (path, body)
        elif "/text" in request["url"]:
            size = int(request["url"].partition("?n=")[2])
            assert content["text"].startswith(f"the quick brown fox {size}\n"[:size]), (path, content)
            assert content["size"] == len(content["text"]) == size, (path, content)
print(f"haralyzer: {len(sys.argv) - 1} files with {entries} entries open")
