"""The programs that make load: wrk and h2load where they are there, else our own clients."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .client import Load, Order
from .processes import Failed, pinned
from .workloads import Workload

PACKAGE = Path(__file__).resolve().parent
GRACE = 20.0
"""Seconds that a program may take beyond its time."""

# What wrk is to do, and to print as JSON in the words of `Load`; times are microseconds there.
WRK = """
wrk.method, wrk.body = {method}, {body}
wrk.headers = {{ {headers} }}
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\nLOAD {{"requests": %d, "seconds": %.6f, "received": %d, "p50": %.3f, "p99": %.3f, "errors": %d}}\\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Loaded:
    """What a load saw, and what it cost."""

    load: Load
    cpu_seconds: float
    """User and system time of the program that made it."""


def tool(workload: Workload, seconds: float) -> str | None:
    """The program for a workload; `None`: it is missing."""
    if workload.kind == "http2":
        return "h2load" if shutil.which("h2load") else None
    if workload.kind == "websocket":
        return "websocket_load"
    # wrk counts in whole seconds.
    return "wrk" if shutil.which("wrk") and seconds >= 1 else "http_load"


def run(workload: Workload, port: int, seconds: float, core: int) -> Loaded:
    """Makes load from a core; raises `Failed` if that does not work."""
    name = tool(workload, seconds)
    if name is None:
        raise Failed("h2load is missing; on Debian it is in the package nghttp2-client")
    with tempfile.TemporaryDirectory() as scratch:
        if name == "wrk":
            text, used = _call(_wrk(workload, port, seconds, Path(scratch)), seconds, core)
            load = _told(text, "LOAD ")
        elif name == "h2load":
            log = Path(scratch) / "latencies"
            text, used = _call(_h2load(workload, port, seconds, log), seconds, core)
            load = _h2load_said(text, log)
        else:
            text, used = _call(_own(name, workload, port, seconds), seconds, core)
            load = _told(text, "")
    if workload.kind == "http" and load.requests and load.received < load.requests * workload.size:
        got = load.received // load.requests
        raise Failed(
            f"the answers have {got} bytes with their headers; {workload.size} belong in the body alone"
        )
    return Loaded(load, used)


def _call(words: list[str], seconds: float, core: int) -> tuple[str, float]:
    """Runs a program to its end; gives its output and its CPU time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    with (
        pinned(core),
        subprocess.Popen(
            words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as program,
    ):
        try:
            text, _ = program.communicate(timeout=seconds + GRACE)
        except BaseException as error:
            program.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"{words[0]} did not end in time") from error
            raise
    if program.returncode:
        raise Failed(f"{Path(words[0]).name} failed: {text.strip()[-300:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return text, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _told(text: str, mark: str) -> Load:
    """The `Load` in the last line of JSON that begins with the mark."""
    for line in reversed(text.splitlines()):
        if line.startswith(mark + "{"):
            return Load(**json.loads(line.removeprefix(mark)))
    raise Failed(f"the load said nothing of what it saw: {text.strip()[-300:]}")


def _wrk(workload: Workload, port: int, seconds: float, scratch: Path) -> list[str]:
    script = scratch / "load.lua"
    method = "POST" if workload.body else "GET"
    headers = dict(workload.headers)
    if workload.body:
        headers["Content-Type"] = "application/octet-stream"
    # Strings of JSON are strings of Lua as long as they are plain ASCII, which these are.
    pairs = ", ".join(f"[{json.dumps(key)}] = {json.dumps(value)}" for key, value in headers.items())
    body = f'string.rep("x", {workload.body})' if workload.body else "nil"
    script.write_text(WRK.format(method=json.dumps(method), body=body, headers=pairs))
    options = [
        "-t1",
        f"-c{workload.connections}",
        f"-d{round(seconds)}s",
        "--timeout",
        "10s",
        "-s",
        str(script),
    ]
    return ["wrk", *options, f"http://127.0.0.1:{port}{workload.path}"]


def _h2load(workload: Workload, port: int, seconds: float, log: Path) -> list[str]:
    options = ["-t1", f"-c{workload.connections}", f"-m{workload.streams}"]
    options += [
        "-D",
        f"{round(seconds * 1000)}ms" if seconds < 1 else str(round(seconds)),
        f"--log-file={log}",
    ]
    return ["h2load", *options, f"http://127.0.0.1:{port}{workload.path}"]


def _h2load_said(text: str, log: Path) -> Load:
    time = re.search(r"finished in ([\d.]+)(us|ms|s)", text)
    good = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    bad = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", text)
    traffic = re.search(r"traffic: .*?\((\d+)\)", text)
    if not (time and good and bad and traffic):
        raise Failed(f"h2load said nothing of what it saw: {text.strip()[-300:]}")
    seconds = float(time[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[time[2]]
    # One line a request: when, status, microseconds.
    took = sorted(int(line.split("\t")[2]) / 1000 for line in log.read_text().splitlines())

    def quantile(part: float) -> float:
        return took[int((len(took) - 1) * part)] if took else 0.0

    errors = sum(map(int, bad.groups())) + sum(map(int, good.groups()[1:]))
    return Load(int(good[1]), seconds, int(traffic[1]), quantile(0.5), quantile(0.99), errors)


def _own(name: str, workload: Workload, port: int, seconds: float) -> list[str]:
    http = workload.request(f"127.0.0.1:{port}").decode("latin-1")
    request = workload.path if workload.kind == "websocket" else http
    order = Order(port, workload.connections, seconds, request, workload.body, workload.size)
    return [sys.executable, "-m", f"{__package__}.{name}", json.dumps(asdict(order))]
