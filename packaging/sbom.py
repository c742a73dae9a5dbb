"""Writes the SBOM of the program: sbom.py WHEEL TARGET OUTPUT.

Maturin puts an SBOM into a wheel, which cargo-cyclonedx has made. That one lists what is needed for building, too, for
all platforms, and it has the time, a random number and the folder of this machine. This one lists what is in the
program, adds the C library and that of Rust, and is the same for the same commit and toolchain.
"""

import argparse
import json
import os
import subprocess
import uuid
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Object = dict[str, Any]


def output_of(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def crates_inside(target: str) -> set[tuple[str, str]]:
    """Names and versions of the crates that are compiled into the program: neither build scripts nor macros."""
    tree = output_of(
        "cargo", "tree", "--locked", "--target", target, "--edges", "normal,no-proc-macro",
        "--prefix", "none", "--format", "{p}",
    )  # fmt: skip
    return {(name, version.removeprefix("v")) for name, version, *_ in map(str.split, tree.splitlines())}


def libraries_inside(target: str) -> list[Object]:
    """The libraries in the program that are not crates."""
    rust = dict(line.split(": ", 1) for line in output_of("rustc", "-vV").splitlines() if ": " in line)
    libraries = [library("std", rust["release"], "MIT OR Apache-2.0", "Rust's standard library")]
    if target.endswith("-linux-gnu"):
        version = output_of("getconf", "GNU_LIBC_VERSION").split()[1]
        package = subprocess.run(
            ["dpkg-query", "--show", "--showformat", "${Version}", "libc6-dev"], capture_output=True, text=True
        )
        version = package.stdout or version
        libraries.append(library("glibc", version, "LGPL-2.1-or-later", "The GNU C library"))
    return libraries


def library(name: str, version: str, licence: str, description: str) -> Object:
    """A component that no registry of crates has."""
    return {
        "type": "library",
        "bom-ref": f"{name}@{version}",
        "name": name,
        "version": version,
        "description": description,
        "scope": "required",
        "licenses": [{"expression": licence}],
    }


def narrowed(sbom: Object, target: str) -> Object:
    """The SBOM with what is in the program alone, and with nothing that depends on the machine or the day."""
    inside = crates_inside(target)
    program = sbom["metadata"]["component"]
    crates = [part for part in sbom["components"] if (part["name"], part["version"]) in inside]
    missing = inside - {(part["name"], part["version"]) for part in [*crates, program]}
    if missing:
        raise SystemExit(f"sbom.py: the wheel's SBOM lacks {sorted(missing)}")
    libraries = libraries_inside(target)
    purl = f"pkg:cargo/{program['name']}@{program['version']}"
    narrow: Object = {
        "bomFormat": sbom["bomFormat"],
        "specVersion": sbom["specVersion"],
        "version": sbom["version"],
        "metadata": {
            "timestamp": commit_time(),
            "tools": sbom["metadata"]["tools"],
            "component": {key: value for key, value in program.items() if key != "components"} | {"purl": purl},
            "properties": [{"name": "cdx:rustc:sbom:target:triple", "value": target}],
        },
        "components": crates + libraries,
        "dependencies": needs(sbom, [program, *crates], libraries),
    }
    # The program's reference is a folder of this machine.
    narrow = json.loads(json.dumps(narrow).replace(json.dumps(program["bom-ref"]), json.dumps(purl)))
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(narrow, sort_keys=True))
    return {**narrow, "serialNumber": f"urn:uuid:{number}"}


def needs(sbom: Object, crates: list[Object], libraries: list[Object]) -> list[Object]:
    """Which crate needs which, as far as they are in the program, which is the first and needs the libraries."""
    refs = [part["bom-ref"] for part in crates]
    known = set(refs)
    entries = []
    for entry in sbom["dependencies"]:
        if entry["ref"] in known:
            others = [ref for ref in entry.get("dependsOn", []) if ref in known]
            if entry["ref"] == refs[0]:
                others += [part["bom-ref"] for part in libraries]
            entries.append({"ref": entry["ref"], "dependsOn": others})
    return entries + [{"ref": part["bom-ref"]} for part in libraries]


def commit_time() -> str:
    """The time that a release has: that of its commit."""
    return datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("target")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    with zipfile.ZipFile(args.wheel) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".cyclonedx.json")]
        sbom = json.loads(wheel.read(name))
    args.output.write_text(json.dumps(narrowed(sbom, args.target), indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
