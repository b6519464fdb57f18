"""The virtual environments: one for the peers, one for ours, so that ours is what a plain install gives."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .processes import Failed
from .servers import LIMIT, Place, Server

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".venvs"
DJANGO = "django~=5.2"
PATIENCE = 1800.0
"""Seconds that an installation may take; our own is compiled."""


def peers(servers: Sequence[Server]) -> Path:
    """Installs what these servers need, each apart, so that one that fails spoils no other.

    Gives the directory of their programs.
    """
    programs = _environment("load-peers")
    _need(programs, [DJANGO])
    for packages in dict.fromkeys(server.packages for server in servers if server.packages):
        one = next(server for server in servers if server.packages == packages)
        if _installed(one, programs):
            continue
        print(f"load: installing {' '.join(packages)}", flush=True)
        if error := _pip(programs, packages):
            print(f"load: {one.name} is left out, for it does not install: {error}", flush=True)
    return programs


def ours() -> Path:
    """Builds and installs this checkout as it is shipped; gives the program."""
    programs = _environment("load-hawksbill")
    _need(programs, [DJANGO])
    print("load: building the wheel as it is shipped; the first time takes some minutes", flush=True)
    words = [str(ROOT / ".ci" / "wheel"), sys.executable]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    wheel = done.stdout.strip()
    if done.returncode or not wheel:
        raise Failed("the wheel cannot be built, for the reason above")
    if error := _pip(programs, ["--force-reinstall", "--no-deps", wheel]):
        raise Failed(f"Hawksbill cannot be installed: {error}")
    return programs / "hawksbill"


def libraries(name: str, packages: Sequence[str]) -> Path:
    """Installs what a program of ours needs into an environment of this name; gives its interpreter."""
    programs = _environment(name)
    _need(programs, packages)
    return programs / "python"


def limit() -> Path:
    """Builds what hyper alone can do, as ours is built; gives the program."""
    print("load: building the limit, hyper alone", flush=True)
    words = ["cargo", "build", "--quiet", "--profile", "dist", "--package", "hawksbill-benches"]
    words += ["--example", "limit", "--message-format", "json-render-diagnostics"]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    for line in reversed(done.stdout.splitlines()):
        if program := json.loads(line).get("executable"):
            return Path(program)
    raise Failed("the limit, benches/limit.rs, cannot be built")


def present(server: Server, place: Place) -> bool:
    """Whether a server is there."""
    if server.name == LIMIT:
        return place.limit is not None
    return not server.is_peer or _installed(server, place.bin)


def _installed(server: Server, programs: Path) -> bool:
    if server.needs.startswith("import "):
        command = [str(programs / "python"), "-c", server.needs]
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    return not server.needs or (programs / server.needs).exists()


def versions(programs: Path) -> dict[str, str]:
    """The versions of what is installed there, by name; nothing if it is no environment of Python."""
    if not (programs / "python").exists():
        return {}
    listing = (
        "import importlib.metadata as found\n"
        "for one in found.distributions(): print(one.metadata['Name'].lower(), one.version)"
    )
    command = [str(programs / "python"), "-c", listing]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    return dict(line.split(" ", 1) for line in text.splitlines())


def _environment(name: str) -> Path:
    where = ENVIRONMENTS / name
    if not (where / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", where], check=True, timeout=PATIENCE)
    return where / "bin"


def _need(programs: Path, packages: Sequence[str]) -> None:
    if error := _pip(programs, packages):
        raise Failed(f"{' '.join(packages)} cannot be installed: {error}")


def _pip(programs: Path, words: Sequence[str]) -> str | None:
    """Runs pip install; gives the end of what it said if it failed."""
    command = [
        str(programs / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "install",
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    return None if done.returncode == 0 else " / ".join(done.stderr.strip().splitlines()[-2:])
