"""The program: `python -m reload`."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from load import install, machine, sections
from load.processes import Failed
from load.servers import Place

RESULTS = Path(__file__).resolve().parents[1] / "RESULTS.md"
PARTS = ("changes", "deaths", "crashes", "peers")
NEEDS = ("hpack", "hyperframe", "websockets")
"""What the clients speak with."""


@dataclass
class Options:
    """What was asked for."""

    parts: tuple[str, ...]
    kinds: tuple[str, ...]
    servers: tuple[str, ...]
    quick: bool
    report: Path | None
    hawksbill: Path | None
    peers: Path | None


def arguments(words: Sequence[str]) -> Options:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m reload", description="Counts what a deploy, a death and a crash cost the clients."
    )

    def names(flag: str, all_of_them: Sequence[str], says: str) -> None:
        def read(text: str) -> tuple[str, ...]:
            found = tuple(text.split(","))
            if all_of_them and (unknown := set(found) - set(all_of_them)):
                raise argparse.ArgumentTypeError(
                    f"there is no {', '.join(sorted(unknown))}, only {', '.join(all_of_them)}"
                )
            return found

        parser.add_argument(flag, metavar="A,B", default=tuple(all_of_them), type=read, help=says)

    names("--only", PARTS, f"these parts alone: {', '.join(PARTS)}")
    names("--kinds", ("fused", "front"), "of changes and deaths: fused, front")
    names("--servers", (), "these peers alone (ours is always there)")
    parser.add_argument(
        "--quick", action="store_true", help="a few of each: does it work? No file is written"
    )
    parser.add_argument(
        "--report", type=Path, help=f"where to write ({RESULTS.name} if all is done, else nowhere)"
    )
    parser.add_argument("--hawksbill", type=Path, help="measure this program, instead of building one")
    parser.add_argument(
        "--peers", type=Path, help="the directory of the peers' programs, instead of installing them"
    )
    found = parser.parse_args(words)
    whole = not found.quick and found.only == PARTS and len(found.kinds) == 2 and not found.servers
    return Options(
        parts=found.only,
        kinds=found.kinds,
        servers=found.servers,
        quick=found.quick,
        report=found.report or (RESULTS if whole else None),
        hawksbill=found.hawksbill.absolute() if found.hawksbill else None,
        peers=found.peers.absolute() if found.peers else None,
    )


def with_libraries() -> None:
    """Goes on in an environment that has what the clients need, where this one has not."""
    if all(map(importlib.util.find_spec, NEEDS)):
        return
    python = install.libraries("reload-clients", [*NEEDS])
    # No loop, should it be that what was installed is not found.
    if Path(sys.executable).absolute() != python:
        os.execv(python, [str(python), "-m", "reload", *sys.argv[1:]])
    raise Failed(f"{', '.join(NEEDS)} cannot be imported")


def facts() -> Iterator[tuple[str, str]]:
    """The machine and its state."""
    yield "date", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    yield "machine", machine.description()
    yield (
        "load of the machine",
        f"{os.getloadavg()[0]:.2f} before (1 minute); clients and servers share all cores",
    )
    yield "Python", f"CPython {platform.python_version()}"


def versions(place: Place) -> Iterator[tuple[str, str]]:
    """What was measured."""
    wanted = ("hawksbill", "gunicorn", "uvicorn", "granian", "uwsgi")
    known = {**install.versions(place.bin), **install.versions(place.hawksbill.parent)}
    yield "servers", ", ".join(f"{name} {known[name]}" for name in wanted if name in known)


def main(words: Sequence[str]) -> int:
    """Runs it all; gives the exit status: 1 if it could not be done, or something was lost."""
    options = arguments(words)
    # Asked to end, it ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with_libraries()
        # Only now: it needs the libraries.
        from . import peers, plan, report, run

        asked = peers.chosen(options.servers) if "peers" in options.parts else []
        place = Place(
            bin=options.peers or (install.peers(asked) if asked else Path(sys.executable).parent),
            hawksbill=options.hawksbill or install.ours(),
            limit=None,
        )
        about = [*facts(), *versions(place)]
        asked_for = plan.QUICK if options.quick else plan.WHOLE
        with tempfile.TemporaryDirectory() as scratch:
            results = run.Running(place, Path(scratch), asked_for).run(options.parts, options.kinds, asked)
    except Failed as error:
        print(f"reload: {error}", file=sys.stderr)
        return 1
    text = report.write(results, about)
    if options.report:
        sections.replace(options.report, "reload", text)
        print(f"reload: written to {options.report}")
    else:
        print(text)
    faults = run.faults(results)
    for line in faults:
        print(f"reload: {line}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
