"""The one log: what the gateway says, what applications write and log, and the request that it belongs to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import APPS, COMMAND, Server
from watching import until

Start = Callable[..., Server]
Record = dict[str, Any]


def records(text: str) -> list[Record]:
    """Those among the lines that are records."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.fixture
def runtime() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture(params=["wsgi", "asgi"])
def talker(request: pytest.FixtureRequest, start: Start, runtime: Path) -> Server:
    """An application that talks, with a log in JSON."""
    return start(
        *("run", f"talker:{request.param}", "--listen", "127.0.0.1:0", "--request-id"),
        cwd=APPS,
        env={"HAWKSBILL_LOG_FORMAT": "auto", "XDG_RUNTIME_DIR": str(runtime)},
    )


def said(server: Server, path: str, *markers: str) -> list[Record]:
    """The records with the id of a request, in each of which is one of the markers."""
    with server.client() as client:
        answer = client.get(path)
    request = answer.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", request)
    assert answer.text == request
    for marker in markers:
        # In JSON the message may stand on either side of the id.
        server.wait_for(f"({request}.*{marker}|{marker}.*{request})")
    return [record for record in records(server.output()) if record.get("request_id") == request]


def test_what_is_printed(talker: Server) -> None:
    found = said(talker, "/print", "printed 1", "on standard error")
    # Whichever comes first: they are two streams.
    err, out = sorted(found, key=lambda record: str(record["stream"]))
    assert out["message"] == "printed 1"
    assert out["stream"] == "stdout"
    assert err["message"] == "on standard error"
    assert err["stream"] == "stderr"
    assert out["process"] == "talker"
    assert out["pid"] != talker.process.pid
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", out["time"])
    assert "level" not in out


def test_what_is_logged(talker: Server) -> None:
    (record,) = said(talker, "/log", "look")
    assert record["message"] == "look\nout"
    assert (record["level"], record["logger"]) == ("warn", "talker.views")
    (record,) = said(talker, "/raise", "it failed")
    assert record["level"] == "error"
    assert re.fullmatch(r"it failed\nTraceback (.*\n)*ValueError: caught", record["message"])
    found = said(talker, "/traceback", "ValueError: shown")
    assert found[0]["message"] == "Traceback (most recent call last):"


def test_what_is_written_past_python(talker: Server) -> None:
    with talker.client() as client:
        client.get("/raw")
    talker.wait_for("raw ")
    record = next(record for record in records(talker.output()) if record["message"] == "raw �")
    assert record["process"] == "talker"
    assert record["stream"] == "stderr"


def test_a_thread_without_a_request_is_heard(talker: Server) -> None:
    with talker.client() as client:
        client.get("/thread")
    talker.wait_for("from a thread")
    record = next(record for record in records(talker.output()) if record["message"] == "from a thread")
    assert "request_id" not in record


def test_what_an_application_raises_names_its_request(talker: Server) -> None:
    with talker.client() as client:
        answer = client.get("/fail")
    assert answer.status_code == 500
    talker.wait_for("RuntimeError: unhandled")
    record = next(record for record in records(talker.output()) if "unhandled" in record["message"])
    assert record["level"] == "error"
    assert record["app"] == "talker"
    # An error page has no id yet where the application has not answered; the record has.
    assert re.fullmatch("[0-9a-f]{32}", record["request_id"])


def test_a_crash_shows_where(talker: Server) -> None:
    with talker.client() as client, pytest.raises(httpx.TransportError):
        client.get("/crash")
    talker.wait_for("Fatal Python error: Aborted")
    talker.wait_for(r"in talk\b")
    talker.wait_for("ended unasked")
    with talker.client() as client:
        assert client.get("/").status_code == 200


def test_wsgi_errors(start: Start) -> None:
    server = start("run", "talker:wsgi", "--listen", "127.0.0.1:0", cwd=APPS)
    with server.client() as client:
        assert client.get("/errors").status_code == 200
    server.wait_for(r"STDERR talker\[\d+\]: to wsgi.errors$")


DJANGO = """
from django.http import HttpResponse
from django.urls import path
DEBUG = {debug}
SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
{logging}

def broken(request):
    raise KeyError("missing")

urlpatterns = [path("", broken)]
"""
WITH_ID = """
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"id": {"()": "hawksbill.logging.RequestId"}},
    "formatters": {"line": {"format": "own {request_id} {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "filters": ["id"], "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
"""


@pytest.mark.parametrize("debug", [False, True])
def test_djangos_own_records_come_once(start: Start, tmp_path: Path, debug: bool) -> None:
    (tmp_path / "broken.py").write_text(DJANGO.format(debug=debug, logging=""))
    server = start("run", "broken", "--django", "--listen", "127.0.0.1:0", cwd=tmp_path)
    with server.client() as client:
        assert client.get("/").status_code == 500
    server.wait_for("KeyError: 'missing'")
    with server.client() as client:
        client.get("/")
    # That of the second request comes behind all of the first.
    server.wait_for(r"(Internal Server Error: /[\s\S]*){2}KeyError: 'missing'$")
    assert server.output().count("Internal Server Error: /") == 2


def test_a_projects_own_format_can_have_the_id(start: Start, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(DJANGO.format(debug=False, logging=WITH_ID))
    server = start("run", "broken", "--django", "--listen", "127.0.0.1:0", "--request-id", cwd=tmp_path)
    with server.client() as client:
        request = client.get("/").headers["x-request-id"]
    server.wait_for(f"request={request}: own {request} Internal Server Error: /")


def test_a_file_of_its_own(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "error.log"
    server = start(
        *("run", "talker:wsgi", "--listen", "127.0.0.1:0", "--error-log", file, "--log-format", "json"),
        cwd=APPS,
    )
    moved = tmp_path / "error.log.1"
    with server.client() as client:
        client.get("/log")
        until(lambda: "look" in file.read_text())
        file.rename(moved)

        def is_there() -> bool:
            client.get("/thread")
            return file.exists() and "from a thread" in file.read_text()

        until(is_there)
    # Nobody writes any more.
    server.stop()
    both = records(moved.read_text() + file.read_text())
    assert {"look\nout", "from a thread"} <= {record["message"] for record in both}
    assert "look" not in server.output()


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    command = [*COMMAND, "run", "talker:wsgi", "--error-log", str(tmp_path / "no" / "error.log")]
    done = subprocess.run(command, cwd=APPS, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "cannot write the log file" in done.stderr
    assert "error_log" in done.stderr


def test_the_command_logs(start: Start, runtime: Path) -> None:
    server = start(
        "run", "talker:wsgi", "--listen", "127.0.0.1:0", cwd=APPS, env={"XDG_RUNTIME_DIR": str(runtime)}
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HAWKSBILL_")}
    environment = {**kept, "XDG_RUNTIME_DIR": str(runtime)}

    def logs(*arguments: str) -> str:
        command = [*COMMAND, "logs", *arguments]
        done = subprocess.run(
            command, cwd=APPS, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    with server.client() as client:
        client.get("/log")
        client.get("/print")
        server.wait_for("on standard error")
        lines = logs("-n", "3").splitlines()
        assert "look" in lines[0]
        assert lines[1] == "    out"
        assert lines[2].endswith("printed 1")
        assert lines[3].endswith("on standard error")
        assert [record["message"] for record in records(logs("talker", "--json", "--last", "1"))] == [
            "on standard error"
        ]
        assert logs("nobody") == ""
        follow = subprocess.Popen(
            [*COMMAND, "logs", "-f", "talker", "-n", "1"],
            cwd=APPS,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert follow.stdout is not None
        with follow:
            try:
                assert "on standard error" in follow.stdout.readline()
                client.get("/log")
                assert "look" in follow.stdout.readline()
                server.stop()
                # The gateway's end is the end of what follows it.
                assert follow.wait(timeout=20) == 0
            finally:
                follow.kill()
