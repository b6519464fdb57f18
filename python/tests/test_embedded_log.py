"""What a gateway inside a Python program has to say goes to the program's `logging`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import httpx
import pytest
from harness import Server
from hawksbill import ConfigError, Gateway

APPS = """
def wsgi(environ, start_response):
    raise ValueError("nothing on the shelf of " + environ["PATH_INFO"])

async def asgi(scope, receive, send):
    assert scope["type"] == "http", "no lifespan"
    raise LookupError("nobody at the till of " + scope["path"])
"""
PROGRAM = """
import logging
import urllib.error
import urllib.request
from hawksbill import Gateway
import shop

{setup}
gateway = Gateway(listen="127.0.0.1:0", log_level={level!r})
gateway.app("shop", shop.{interface})
gateway.site("*").route("/", "shop")
with gateway.start() as running:
    url = "http://127.0.0.1:%d/a" % running.port
    asked = urllib.request.Request(url, headers={{"X-Request-ID": "one"}})
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open(asked, timeout=30)
    except urllib.error.HTTPError as error:
        print(error.code, "The cause is in its log." in error.read().decode())
"""
RAISED = {
    "wsgi": "ValueError: nothing on the shelf of /a",
    "asgi": "LookupError: nobody at the till of /a",
}
INTERFACES = pytest.mark.parametrize("interface", ["wsgi", "asgi"])


def embedded(dir: Path, interface: str, setup: str = "", level: str = "info") -> str:
    """What a program with a gateway inside writes to standard error."""
    (dir / "shop.py").write_text(APPS)
    (dir / "program.py").write_text(PROGRAM.format(setup=dedent(setup), interface=interface, level=level))
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=dir, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "500 True\n"), done.stderr
    return done.stderr


@INTERFACES
def test_a_program_that_sets_no_logging_up_sees_the_traceback(tmp_path: Path, interface: str) -> None:
    said = embedded(tmp_path, interface)
    assert said.startswith(f"GET /a: {RAISED[interface]}\nTraceback (most recent call last):\n"), said
    assert said.count("Traceback") == 1
    assert f'{tmp_path}/shop.py", line ' in said


@INTERFACES
def test_a_programs_logging_has_the_level_the_application_and_the_request(
    tmp_path: Path, interface: str
) -> None:
    setup = """
        from hawksbill.logging import RequestId
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("[%(levelname)s|%(name)s|%(app)s|%(request_id)s] %(message)s"))
        handler.addFilter(RequestId())
        logging.getLogger("hawksbill").addHandler(handler)
        logging.getLogger("hawksbill").propagate = False
    """
    said = embedded(tmp_path, interface, setup)
    assert f"[ERROR|hawksbill.app|shop|one] GET /a: {RAISED[interface]}\nTraceback " in said
    assert said.count("Traceback") == 1


def test_log_level_says_how_much_comes_to_logging(tmp_path: Path) -> None:
    setup = "logging.basicConfig(level=logging.DEBUG, format='%(name)s %(levelname)s')"
    assert "DEBUG" in embedded(tmp_path, "wsgi", setup, "debug")
    assert "DEBUG" not in embedded(tmp_path, "wsgi", setup, "warn")


def test_a_file_of_its_own_is_refused_where_logging_has_all() -> None:
    gateway = Gateway(listen="127.0.0.1:0", error_log="error.log")
    gateway.site("*").route("/", respond="hello")
    with pytest.raises(ConfigError, match=r"error_log.*logger 'hawksbill'"):
        gateway.start()


@INTERFACES
def test_by_the_command_it_is_logged_once(tmp_path: Path, interface: str) -> None:
    (tmp_path / "shop.py").write_text(APPS)
    with Server("run", f"shop:{interface}", "--listen", "127.0.0.1:0", cwd=tmp_path) as server:
        assert httpx.get(f"{server.base}/a", trust_env=False, timeout=30).status_code == 500
        server.wait_for("^ .*" + RAISED[interface])
    # It has ended: what there is to say has been said.
    assert server.output().count("Traceback") == 1, server.output()
