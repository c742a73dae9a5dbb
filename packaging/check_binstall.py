"""Checks that cargo-binstall would find the program: check_binstall.py FOLDER, which has a release's files.

This expands the templates of Cargo.toml as cargo-binstall does, for glibc and for musl. Compiling cargo-binstall takes
longer than all other checks.
"""

import argparse
import re
import tarfile
import tomllib
from pathlib import Path


def expanded(template: str, values: dict[str, str]) -> str:
    """A template with its values: { name }."""
    return re.sub(r"\{ *([a-z-]+) *\}", lambda field: values[field[1]], template)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    package = tomllib.loads(Path("Cargo.toml").read_text())["package"]
    metadata = package["metadata"]["binstall"]
    for target in ["x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl"]:
        merged = {**metadata, **metadata["overrides"].get(target, {})}
        assert merged["pkg-fmt"] == "tgz"
        values = {"name": package["name"], "version": package["version"], "target": target,
                  "repo": "https://host.example/tap2pcap", "bin": "tap2pcap", "binary-ext": ""}  # fmt: skip
        url = expanded(merged["pkg-url"], values)
        assert url.startswith(f"{values['repo']}/releases/download/v{package['version']}/"), url
        with tarfile.open(folder / url.rsplit("/", 1)[1]) as archive:
            program = archive.getmember(expanded(merged["bin-dir"], values))
        assert program.isfile() and program.mode & 0o111, program


if __name__ == "__main__":
    main()
