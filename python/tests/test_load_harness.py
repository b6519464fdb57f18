"""The comparison with peers in `benches/load`: that it measures, not what."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.suite

BENCHES = Path(__file__).resolve().parents[2] / "benches"
PROGRAMS = Path(sys.executable).parent

CONNECTIONS = 20
BEST = "\u00d7 best"
TO_LIMIT = "\u00d7 hyper"

Table = list[dict[str, str]]


def tables(report: str) -> dict[str, Table]:
    """The rows of each workload's table, by column; of columns with the same name, the first."""
    found: dict[str, Table] = {}
    for section in report.split("\n## ")[1:]:
        name = re.search(r"^`([a-z0-9-]+)`$", section, re.MULTILINE)
        lines = [line for line in section.splitlines() if line.startswith("| ")]
        if name and lines:
            head, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
            found[name[1]] = [dict(reversed(list(zip(head, row, strict=True)))) for row in rows]
    return found


def number(text: str) -> float:
    """What a cell says."""
    return float(text.replace(",", "").rstrip("%"))


def load(
    *arguments: str | Path, seconds: float = 240, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the harness with the programs of this environment, without building."""
    command = [sys.executable, "-m", "load", "--hawksbill", PROGRAMS / "hawksbill", "--peers", PROGRAMS]
    return subprocess.run(
        [*map(str, command), *map(str, arguments)],
        cwd=BENCHES,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=seconds,
    )


@pytest.fixture(scope="module")
def limit() -> Path:
    """Hyper alone, built without optimisation: what matters here is that it answers."""
    words = ["cargo", "build", "--quiet", "-p", "hawksbill-benches", "--example", "limit"]
    done = subprocess.run(
        [*words, "--message-format", "json-render-diagnostics"],
        cwd=BENCHES,
        stdout=subprocess.PIPE,
        text=True,
        timeout=280,
        check=True,
    )
    (program,) = (found for line in done.stdout.splitlines() if (found := json.loads(line).get("executable")))
    return Path(program)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, limit: Path) -> str:
    """All workloads, a fraction of a second each, of ours and of the standard library's server."""
    path = tmp_path_factory.mktemp("load") / "report.md"
    done = load(
        *("--servers", "wsgiref", "--rounds", "1", "--seconds", "0.3"),
        *("--connections", str(CONNECTIONS), "--report", path, "--limit", limit),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return path.read_text()


WSGI = ["hello", "headers", "echo", "large", "stream", "sleep", "one", "django"]
SPEEDS = [f"wsgi-{name}" for name in WSGI] + [f"asgi-{name}" for name in WSGI] + ["websocket-echo"]
HTTP2 = ["wsgi-http2", "asgi-http2"]
MEMORIES = ["wsgi-idle", "asgi-idle", "websocket-idle"]


def test_all_that_was_measured_is_in_the_report(report: str) -> None:
    """One test: of several, each process that runs tests would measure for its own."""
    for workload in (*SPEEDS, *HTTP2):
        a_workload_has_a_row_of_ours_with_sane_figures(report, workload)
    a_sleep_takes_as_long_as_it_sleeps(report)
    a_peer_has_a_row_and_is_the_measure(report)
    for workload in ("wsgi-hello", "asgi-echo", "wsgi-http2", "asgi-one"):
        the_limit_is_a_measure_of_its_own(report, workload)
    for workload in MEMORIES:
        memory_is_that_of_a_process_that_holds_all_connections(report, workload)
    it_says_on_what_it_was_measured(report)


def a_workload_has_a_row_of_ours_with_sane_figures(report: str, workload: str) -> None:
    ours = next(row for row in tables(report)[workload] if row["server"] == "hawksbill")
    assert number(ours["errors"]) == 0, workload
    rate = next(value for column, value in ours.items() if column.endswith("/s"))
    assert number(rate) > 0, workload
    assert number(ours["CPU µs"]) >= 0, workload
    # More than one core would mean that a server is not where it was put; clock ticks are 10 ms.
    assert 0 <= number(ours["server busy"]) <= 115, workload
    # Ten megabytes may take a slow machine longer than is measured.
    if not workload.endswith("-stream"):
        assert 0 < number(ours["p50 ms"]) <= number(ours["p99 ms"]), workload


def a_sleep_takes_as_long_as_it_sleeps(report: str) -> None:
    for interface in ("wsgi", "asgi"):
        ours = next(row for row in tables(report)[f"{interface}-sleep"] if row["server"] == "hawksbill")
        assert number(ours["p50 ms"]) >= 10


def a_peer_has_a_row_and_is_the_measure(report: str) -> None:
    rows = {row["server"]: row for row in tables(report)["wsgi-hello"]}
    assert set(rows) == {"hawksbill", "wsgiref", "hyper"}
    assert number(rows["wsgiref"][BEST]) == 1
    best = number(rows["wsgiref"]["requests/s"])
    mine = number(rows["hawksbill"]["requests/s"])
    assert number(rows["hawksbill"][BEST]) == pytest.approx(mine / best, abs=0.01)


def the_limit_is_a_measure_of_its_own(report: str, workload: str) -> None:
    rows = {row["server"]: row for row in tables(report)[workload]}
    assert number(rows["hyper"][TO_LIMIT]) == 1
    assert number(rows["hyper"]["errors"]) == 0
    mine, its = (number(rows[name]["p50 ms"]) for name in ("hawksbill", "hyper"))
    assert number(rows["hawksbill"][TO_LIMIT]) == pytest.approx(mine / its, rel=0.1)


def test_what_is_not_there_to_be_a_limit_is_told() -> None:
    done = load("--servers", "wsgiref", "--only", "wsgi-one", "--seconds", "0.1", "--rounds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hyper: it is not installed" in done.stdout
    assert TO_LIMIT not in done.stdout.split("## WSGI")[1]


def memory_is_that_of_a_process_that_holds_all_connections(report: str, workload: str) -> None:
    ours = next(row for row in tables(report)[workload] if row["server"] == "hawksbill")
    assert number(ours["PSS at rest, MB"]) > 1
    assert number(ours["processes"]) >= 1
    assert ours["held open"] == f"{CONNECTIONS} of {CONNECTIONS}"


def it_says_on_what_it_was_measured(report: str) -> None:
    for fact in (
        "date",
        "machine",
        "cores",
        "load of the machine",
        "load programs",
        "environment of Hawksbill",
    ):
        assert re.search(rf"^\| {fact} \| \S", report, re.MULTILINE), fact


def test_what_fails_is_said_and_the_rest_is_measured() -> None:
    """A peer without keep-alive holds no connection; it is told as that, and ours has its row."""
    done = load("--servers", "wsgiref", "--only", "wsgi-idle", "--connections", str(CONNECTIONS))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["server"]: row for row in tables(done.stdout)["wsgi-idle"]}
    assert rows["wsgiref"]["held open"] == f"0 of {CONNECTIONS}"
    assert rows["wsgiref"]["KB each connection"] == "\u2013"
    assert rows["hawksbill"]["held open"] == f"{CONNECTIONS} of {CONNECTIONS}"


def test_minutes_of_full_load_have_a_line_each(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    done = load("--soak", "0.04", "--report", path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = tables(path.read_text())
    assert set(found) == {"wsgi-soak", "asgi-soak"}
    for rows in found.values():
        assert [(row["server"], row["minute"]) for row in rows] == [("hawksbill", "1"), ("hawksbill", "2")]
        for row in rows:
            assert number(row["requests"]) > 100
            assert number(row["errors"]) == 0
            assert 1 < number(row["PSS, MB"]) <= number(row["RSS, MB"])
        assert number(rows[0]["\u00d7 first"]) == 1


@pytest.mark.parametrize("word", ["--servers", "--only"])
def test_an_unknown_name_is_refused_with_what_there_is(word: str) -> None:
    done = load(word, "nothing", seconds=30)
    assert done.returncode == 1
    assert "'nothing'; there are" in done.stderr
    assert "hello" in done.stderr or "granian" in done.stderr


def test_nothing_is_left_running(tmp_path: Path) -> None:
    """Whoever it started has the same home directory, which nobody else has."""
    only = ("--servers", "wsgiref", "--only", "wsgi-one", "--seconds", "0.1", "--rounds", "1")
    done = load(*only, env={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    home = b"HOME=" + os.fsencode(tmp_path) + b"\0"
    for process in Path("/proc").iterdir():
        try:
            environment = (process / "environ").read_bytes() if process.name.isdigit() else b""
        except OSError:
            continue
        assert home not in environment, process
