"""How much there is to do and how it goes: the figures, and `hawksbill top` in a real terminal."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from harness import COMMAND, Ask, Server, bad, fetch, good
from sites import PAUSE, write_shop_and_blog
from sites import SHOP_AND_BLOG as FRONT
from watching import PATIENCE, Measured, control, is_near, socket_of, until

pytestmark = pytest.mark.once

FUSED = """
listen = "127.0.0.1:0"

[apps.shop]
wsgi = "shop"
workers = 2

[sites."a.example"]
"/" = "shop"
"/pong" = { respond = "pong" }

[sites."b.example"]
"/" = "shop"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_shop_and_blog(tmp_path)


@pytest.fixture
def run(start: Callable[..., Server], project: Path, runtime: Path) -> Callable[[str], Server]:
    def run(config: str) -> Server:
        (project / "hawksbill.toml").write_text(config)
        return start("run", cwd=project, env={"XDG_RUNTIME_DIR": str(runtime)})

    return run


class Terminal:
    """A terminal with a shell in it: a window of a tmux of its own."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self._tmux = ["tmux", "-S", f"{env['XDG_RUNTIME_DIR']}/tmux", "-f", "/dev/null"]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HAWKSBILL_", "TMUX"))}
        self._env = {**kept, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **env}
        self._call("new-session", "-d", "-x", "80", "-y", "24", "-c", str(directory), "/bin/sh")
        self.resize(80, 24)

    def _call(self, *words: str) -> str:
        done = subprocess.run(
            [*self._tmux, *words], env=self._env, capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout

    def type(self, line: str) -> None:
        self._call("send-keys", "-l", line)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        self._call("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        self._call("resize-window", "-x", str(width), "-y", str(height))

    def screen(self) -> list[str]:
        return self._call("capture-pane", "-p").splitlines()

    def wait_for(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        """Waits until the screen shows it."""
        deadline = time.monotonic() + seconds
        while True:
            screen = "\n".join(self.screen())
            found = re.search(pattern, screen, re.MULTILINE)
            if found:
                return found
            assert time.monotonic() < deadline, f"there is no {pattern!r}:\n{screen}"
            time.sleep(0.05)

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self._call("kill-server")


@pytest.fixture
def terminal(project: Path, runtime: Path) -> Iterator[Terminal]:
    terminal = Terminal(project, {"XDG_RUNTIME_DIR": str(runtime)})
    yield terminal
    terminal.close()


def row(lines: list[str], name: str) -> list[str]:
    """The cells of a row after its name."""
    found = [line for line in lines if line.startswith(f"{name} ")]
    return found[0].removeprefix(name).split() if found else []


def seconds(cell: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(µs|ms|s)", cell).groups()  # type: ignore[union-attr]
    return float(number) * {"µs": 1e-6, "ms": 1e-3, "s": 1.0}[unit]


def watched(path: Path, moments: int) -> list[dict[str, Any]]:
    """What is told to one who watches, moment by moment."""
    told: list[dict[str, Any]] = []
    with control(path) as asking, asking.stream("GET", "/v1/metrics") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                told.append(json.loads(line.removeprefix("data: ")))
            if len(told) == moments:
                break
    return told


def told(runtime: Path) -> dict[str, Any]:
    """The figures of this moment."""
    with control(socket_of(runtime)) as asking:
        figures: dict[str, Any] = asking.get("/v1/status").json()["figures"]
    return figures


def named(rows: list[dict[str, Any]], **names: str) -> dict[str, Any]:
    (found,) = [row for row in rows if all(row.get(key) == value for key, value in names.items())]
    return found


def test_every_request_is_counted(run: Callable[[str], Server], runtime: Path) -> None:
    """By site and by application, with workers that have the sockets themselves."""
    server = run(FUSED)
    write_off = ["200 OK"] * 5 + ["404 Not Found"] * 3 + ["503 Service Unavailable"] * 2
    for host, path, queries in [
        ("a.example", "/", write_off),
        ("b.example", "/", write_off[:4]),
        ("a.example", "/pong", ["x"]),
        ("nowhere.example", "/", ["x"]),
    ]:
        for query in queries:
            with server.client(host) as asking:
                asking.get(f"{path}?{quote(query)}")
    # A request is counted when it is over, and that may be after its client has the answer.
    until(lambda: told(runtime)["total"]["requests"] == 16)
    figures = told(runtime)
    with control(socket_of(runtime)) as asking:
        exposed = asking.get("/v1/prometheus").text
    shop = named(figures["applications"], application="shop")
    assert (shop["requests"], shop["client_errors"], shop["server_errors"]) == (14, 3, 2)
    assert (shop["in_flight"], shop["workers"], shop["serving"], shop["restarts"]) == (0, 2, 2, 0)
    assert shop["memory"] > 1_000_000
    assert named(figures["sites"], site="a.example")["requests"] == 11
    assert named(figures["sites"], site="")["client_errors"] == 1
    assert named(figures["routes"], site="a.example", application="respond")["requests"] == 1
    assert 'hawksbill_requests_total{site="b.example",application="shop"} 4' in exposed
    assert 'hawksbill_request_seconds_bucket{site="b.example",application="shop",le="0.025"} 0' in exposed
    assert 'hawksbill_request_seconds_count{site="b.example",application="shop"} 4' in exposed
    assert 'hawksbill_pool_workers{pool="shop"} 2' in exposed


def test_what_is_counted_outlives_a_reload(run: Callable[[str], Server], runtime: Path, ask: Ask) -> None:
    server = run(FRONT)

    def requests() -> int:
        shop = named(told(runtime)["applications"], application="shop")
        count: int = shop["requests"]
        return count

    for _ in range(5):
        fetch(server.base)
    until(lambda: requests() == 5)
    good(ask("reload"))
    fetch(server.base)
    until(lambda: requests() == 6)


def test_watchers_are_bounded(run: Callable[[str], Server], runtime: Path) -> None:
    run(FUSED)
    with control(socket_of(runtime)) as asking:
        streams = [asking.stream("GET", "/v1/metrics") for _ in range(16)]
        for stream in streams:
            assert stream.__enter__().status_code == 200
        refused = asking.get("/v1/metrics")
        assert (refused.status_code, "too many watch" in refused.json()["error"]) == (503, True)
        for stream in streams:
            stream.__exit__(None, None, None)
        until(lambda: not _is_refused(socket_of(runtime)))


def _is_refused(path: Path) -> bool:
    with control(path) as asking, asking.stream("GET", "/v1/metrics") as stream:
        return stream.status_code == 503


@pytest.mark.parametrize("config", [FRONT, FUSED], ids=["front", "fused"])
def test_figures_are_those_of_the_clients(run: Callable[[str], Server], runtime: Path, config: str) -> None:
    server = run(config.replace("a.example", "*"))
    with Measured(server) as load:
        until(lambda: load.lately(5.0)[0] > 10)
        deadline = time.monotonic() + 60
        while True:
            shop = named(watched(socket_of(runtime), 7)[-1]["applications"], application="shop")
            rate, median = load.lately()
            if is_near(shop["rate"], rate) and is_near(shop["p50"], median):
                break
            assert time.monotonic() < deadline, f"{shop}, and the clients see {rate}/s and {median} s"
    assert shop["p99"] >= shop["p50"] >= PAUSE * 0.9
    assert load.failures == []


def test_top_in_a_terminal(
    run: Callable[[str], Server], terminal: Terminal, project: Path, runtime: Path
) -> None:
    server = run(FRONT)
    terminal.type(shlex.join([*COMMAND, "top"]))
    terminal.wait_for("^APPLICATION +REQ/S")
    with Measured(server) as load:

        def is_right() -> bool:
            cells = row(terminal.screen(), "shop")
            rate, median = load.lately()
            known = len(cells) == 10 and cells[1] != "-"
            return known and is_near(float(cells[0]), rate) and is_near(seconds(cells[1]), median)

        until(is_right)
        before = int(terminal.wait_for(r"^shop .* (\d+)$")[1])
        # The first is the busiest.
        terminal.press("Up", "Up", "r")
        serves = terminal.wait_for(r"generation (\d+) of shop serves")
        assert int(serves[1]) > before
        until(lambda: row(terminal.screen(), "shop")[-1:] == [serves[1]])
        assert load.failures == []
        pid = int(fetch(server.base).headers["x-pid"])
        os.kill(pid, signal.SIGKILL)
        until(lambda: row(terminal.screen(), "shop")[-2:-1] == ["1"])
    assert load.failures == []
    for width, height in [(120, 40), (60, 10), (80, 24)]:
        terminal.resize(width, height)
        terminal.wait_for("^hawksbill ")
        until(lambda height=height: len(terminal.screen()) == height)  # type: ignore[misc]
        # Where it is narrow the last columns are cut off.
        until(lambda: len(row(terminal.screen(), "shop")) >= 7)
    until(lambda: "".join(row(terminal.screen(), "front")[7:8]).endswith("M"))
    terminal.press("?")
    terminal.wait_for("how long half of the answers")
    terminal.press("q")
    terminal.wait_for("^APPLICATION")
    # By name, so that the first is the blog.
    terminal.press("Left")
    until(lambda: _first(terminal.screen()) == "blog")
    terminal.press("Up", "Up", "l")
    terminal.wait_for("^The log of blog")
    terminal.wait_for("blog has opened")
    terminal.press("Escape")
    terminal.wait_for("^APPLICATION")
    terminal.press("C-c")
    terminal.wait_for(r"^[#$]")
    terminal.type("stty -a")
    terminal.wait_for(r"(^| )icanon(?s:.*) echo ")
    assert not any(line.startswith("APPLICATION") for line in terminal.screen())


def _first(screen: list[str]) -> str:
    heads = [at for at, line in enumerate(screen) if line.startswith("APPLICATION")]
    rows = screen[heads[0] + 1 :] if heads else []
    return rows[0].split()[0] if rows and rows[0].strip() else ""


def test_top_ends_with_its_terminal_clean(run: Callable[[str], Server], terminal: Terminal) -> None:
    """Also where it is told to end by a signal; and it waits for a gateway that has gone."""
    server = run(FRONT)
    terminal.type(f"{shlex.join([*COMMAND, 'top'])}; echo ended with $?")
    terminal.wait_for("^APPLICATION")
    server.stop()
    terminal.wait_for("the gateway does not answer")
    terminal.press("q")
    terminal.wait_for("^ended with 0")
    terminal.type(f"{shlex.join([*COMMAND, 'top'])}; echo ended again with $?")
    terminal.wait_for("no gateway of this user is running")
    terminal.wait_for("^ended again with 1")


def test_top_without_a_terminal(run: Callable[[str], Server], ask: Ask) -> None:
    server = run(FRONT)
    fetch(server.base)
    shown = good(ask("top", "--once"))
    lines = shown.splitlines()
    assert re.match(r"hawksbill .* serving ", lines[0])
    assert {len(row(lines, name)) for name in ("shop", "static.example")} == {10}
    assert row(lines, "front")[0] == "-"
    assert "\x1b" not in shown
    refused = bad(ask("top"))
    assert "try 'hawksbill top --once'" in refused
