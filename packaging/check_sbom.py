"""Checks the SBOM of a release: check_sbom.py SBOM PROGRAM.

Another library than the one that wrote it validates it against CycloneDX's schema. The program itself says which crates
are in it: the places of their panics have the names of their folders.
"""

import argparse
import json
import re
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

IN_REGISTRY = re.compile(rb"/index\.crates\.io-[0-9a-f]+/([A-Za-z0-9_-]+?)-(\d+\.\d+\.\d+[^/\0]*)/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sbom", type=Path)
    parser.add_argument("program", type=Path)
    args = parser.parse_args()
    text = args.sbom.read_text()
    error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
    assert error is None, error
    assert "file:" not in text, "a folder of this machine"
    components = json.loads(text)["components"]
    unlicensed = [part["name"] for part in components if not part.get("licenses")]
    assert not unlicensed, f"without a licence: {unlicensed}"
    listed = {(part["name"], part["version"]) for part in components}
    inside = {(name.decode(), version.decode()) for name, version in IN_REGISTRY.findall(args.program.read_bytes())}
    assert len(inside) > 20, f"the program names few crates: {inside}"
    assert inside <= listed, f"in the program, but not in the SBOM: {sorted(inside - listed)}"
    names = {name for name, _ in listed}
    assert {"std", "glibc"} <= names, "the libraries that are no crates are missing"
    builders = names & {"cc", "clap_derive", "prost-build", "serde_derive", "syn"}
    assert not builders, f"only for building: {builders}"


if __name__ == "__main__":
    main()
