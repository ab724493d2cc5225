"""What an image is made of, as a CycloneDX 1.5 document; run in the build stage of the images.

python3 sbom.py list NAME [MODEL]       # of /packages, of /base's Debian packages, of MODEL
python3 sbom.py metadata PYPROJECT DIR  # piBLOOM's own METADATA, for importlib.metadata

It needs nothing but Python's own library, for it runs where nothing is installed.
"""

import hashlib
import json
import os
import sys
import tomllib
from collections.abc import Iterator
from email import message_from_string
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

Component = dict[str, Any]


def wheels(folder: Path, architecture: str) -> Iterator[Component]:
    """Yield the Python packages installed in a folder."""
    for found in sorted(distributions(path=[str(folder)]), key=lambda found: found.name.lower()):
        name = found.name.lower().replace("_", "-")
        yield {
            "type": "library",
            "name": name,
            "version": found.version,
            "purl": f"pkg:pypi/{name}@{found.version}",
            **_licence(found.metadata["License-Expression"] or found.metadata["License"]),
        }


def debian_packages(root: Path, architecture: str) -> Iterator[Component]:
    """Yield the Debian packages of a root, as dpkg or a base without dpkg lists them."""
    status = root / "var/lib/dpkg/status"
    parts = [path.read_text() for path in sorted((root / "var/lib/dpkg/status.d").glob("*"))]
    if status.is_file():
        parts += status.read_text().split("\n\n")
    for part in parts:
        package = message_from_string(part)
        if (name := package["Package"]) and (version := package["Version"]):
            yield {
                "type": "library",
                "name": name,
                "version": version,
                "purl": f"pkg:deb/debian/{name}@{version}?arch={architecture}",
            }


def model_file(path: Path) -> Component:
    """Describe the baked model."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {
        "type": "machine-learning-model",
        "name": path.name,
        "hashes": [{"alg": "SHA-256", "content": digest.hexdigest()}],
    }


def document(name: str, model: Path | None, architecture: str) -> dict[str, Any]:
    """Return the whole list of one image."""
    components = [*wheels(Path("/packages"), architecture)]
    components += debian_packages(Path("/base"), architecture)
    if model is not None:
        components.append(model_file(model))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "name": f"pibloom-{name}",
                "version": _version(Path("/source/pyproject.toml")),
                "properties": [{"name": "architecture", "value": architecture}],
            }
        },
        "components": components,
    }


def write_metadata(pyproject: Path, folder: Path) -> None:
    """Write the dist-info of piBLOOM itself: a name and a version."""
    version = _version(pyproject)
    target = folder / f"pibloom-{version}.dist-info"
    target.mkdir(parents=True)
    (target / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pibloom\nVersion: {version}\n")


def _version(pyproject: Path) -> str:
    version: str = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["version"]
    return version


def _licence(said: str | None) -> dict[str, Any]:
    # Some packages have the whole text of their licence in this field.
    return {"licenses": [{"license": {"name": said}}]} if said and len(said) < 80 else {}


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    match arguments:
        case ["list", name, *model]:
            path = Path(model[0]) if model else None
            json.dump(document(name, path, os.environ["TARGETARCH"]), sys.stdout, indent=1)
        case ["metadata", pyproject, folder]:
            write_metadata(Path(pyproject), Path(folder))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
