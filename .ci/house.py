"""The dependency rules of the house.

Arrows point down, siblings do not import each other, pyo3 stays in its crate, and the stated Rust version
is enough for every dependency.
"""

from __future__ import annotations

import json
import subprocess
import sys

GROUND = {"hawksbill-core"}
FIRST = {"hawksbill-hop", "hawksbill-websocket"}
FLOOR = {
    "hawksbill-server",
    "hawksbill-router",
    "hawksbill-layers",
    "hawksbill-apps",
    "hawksbill-supervisor",
}

ALLOWED = {
    "hawksbill-core": set(),
    **dict.fromkeys(FIRST, GROUND),
    **dict.fromkeys(FLOOR, GROUND | FIRST),
    "hawksbill": GROUND | FIRST | FLOOR,
    "hawksbill-python": {"hawksbill"} | GROUND | FIRST,
    "hawksbill-wheel": {"hawksbill-python"},
}
"""What a crate of the house may depend on, of the crates of the house."""

ONLY_IN = {
    "pyo3": {"hawksbill-python", "hawksbill-wheel", "hawksbill-hosting-benches"},
    "clap": {"hawksbill"},
}
"""Foreign crates that only some crates of the house may name."""

WITHOUT_PYTHON = ("hawksbill",)


def metadata() -> dict[str, object]:
    """Return what cargo knows of the workspace."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def version(text: str) -> tuple[int, ...]:
    """Return a version that compares by its numbers."""
    return tuple(int(part) for part in text.split("."))


def main() -> int:
    """Tell each broken rule and return how many there are."""
    data = metadata()
    broken = []
    packages = {package["id"]: package for package in data["packages"]}
    members = [packages[identity] for identity in data["workspace_members"]]
    house = {package["name"] for package in members}
    for package in members:
        name = package["name"]
        normal = {dep["name"] for dep in package["dependencies"] if dep["kind"] is None}
        if name in ALLOWED:
            for extra in sorted((normal & house) - ALLOWED[name]):
                broken.append(f"{name} depends on {extra}, which does not stand beneath it")
        for foreign, owners in ONLY_IN.items():
            if foreign in normal and name not in owners:
                broken.append(f"{name} depends on {foreign}, which belongs in {', '.join(sorted(owners))}")
    for name in WITHOUT_PYTHON:
        command = ["cargo", "tree", "--locked", "-p", name, "-e", "normal", "--prefix", "none"]
        graph = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        if any(line.startswith("pyo3") for line in graph.splitlines()):
            broken.append(f"{name} has pyo3 in its dependency graph")
    stated = version(members[0]["rust_version"])
    for package in packages.values():
        needed = package.get("rust_version")
        if needed and version(needed) > stated:
            broken.append(
                f"{package['name']} needs Rust {needed}, the workspace states {members[0]['rust_version']}"
            )
    for line in broken:
        print(f"house: {line}", file=sys.stderr)
    return len(broken)


if __name__ == "__main__":
    sys.exit(main())
