"""Writes the licences of the libraries in the program: licences.py TARGET OUTPUT.

Most of them ask for their text to go along with the program. A text that several crates have stands there once.
"""

import argparse
import json
from pathlib import Path

from sbom import crates_inside, libraries_inside, output_of

NAMES = ("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")
# Where Debian has what glibc asks for.
GLIBC = Path("/usr/share/doc/libc6/copyright")


def texts(folder: Path) -> list[str]:
    """The licences in a crate's folder."""
    files = [path for path in sorted(folder.iterdir()) if path.name.upper().startswith(NAMES) and path.is_file()]
    return [path.read_text(errors="replace").replace("\r\n", "\n").strip() for path in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    inside = crates_inside(args.target)
    packages = json.loads(output_of("cargo", "metadata", "--locked", "--format-version", "1"))["packages"]
    owners: dict[str, list[str]] = {}
    listing = []
    for package in sorted(packages, key=lambda package: (package["name"], package["version"])):
        title = f"{package['name']} {package['version']}"
        if (package["name"], package["version"]) in inside and package["source"]:
            listing.append(f"{title}: {package['license'] or 'see below'}")
            for text in texts(Path(package["manifest_path"]).parent):
                owners.setdefault(text, []).append(title)
    for part in libraries_inside(args.target):
        listing.append(f"{part['name']} {part['version']}: {part['licenses'][0]['expression']}")
        if part["name"] == "glibc" and GLIBC.exists():
            owners.setdefault(GLIBC.read_text().strip(), []).append("glibc")
    parts = ["The libraries in the program tap2pcap, and their licences.", "\n".join(listing)]
    parts += [f"{'=' * 80}\n{', '.join(crates)}\n{'=' * 80}\n{text}" for text, crates in owners.items()]
    args.output.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
