"""The command line: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import hawksbill
import pytest
from harness import COMMAND, Server


def run(
    *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    command = [*COMMAND, *map(str, arguments)]
    environ = {**os.environ, **(env or {})}
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=60)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with one small application of each kind and some broken ones."""
    files = {
        "small.py": """
            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"small"]

            async def app(scope, receive, send):
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"asynchronous"})
            """,
        "made.py": """
            def create_app():
                from small import application
                return application
            """,
        "broken.py": """
            def helper():
                raise RuntimeError("the shelf is empty")

            helper()
            """,
        "needs.py": "import a_module_that_is_not_there\n",
        "spelt.py": "def application(:\n",
        "nothing.py": "value = 3\n",
        "lifespan.py": """
            async def app(scope, receive, send):
                if scope["type"] == "lifespan":
                    await receive()
                    await send({"type": "lifespan.startup.failed", "message": "no database today"})
            """,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(dedent(text))
    return tmp_path


def test_the_version_is_told(tmp_path: Path) -> None:
    printed = run("--version", cwd=tmp_path)
    assert printed.returncode == 0
    assert printed.stdout.strip() == f"hawksbill {hawksbill.__version__}"


def test_the_installed_command_is_the_same(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("hawksbill")
    printed = subprocess.run([command, "--version"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert printed.stdout == run("--version", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("small", "small"),
        ("small:application", "small"),
        ("small:app", "asynchronous"),
        ("made", "small"),
        ("made:create_app", "small"),
    ],
)
def test_an_application_is_found_by_looking(
    start: Callable[..., Server], project: Path, target: str, body: str
) -> None:
    server = start("run", target, "--listen", "127.0.0.1:0", cwd=project)
    with server.client() as client:
        assert client.get("/").text == body
        assert client.get("/", headers={"Host": "any.thing"}).text == body


def test_settings_come_from_file_environment_and_flags(start: Callable[..., Server], project: Path) -> None:
    (project / "hawksbill.toml").write_text(
        dedent("""
            listen = "192.0.2.1:1"
            max_body = "10"
            [apps.small]
            wsgi = "small"
            [sites."*"]
            "/" = "small"
            """)
    )
    env = {"HAWKSBILL_LISTEN": "192.0.2.2:1", "HAWKSBILL_MAX_BODY": "20"}
    server = start("run", "--listen", "127.0.0.1:0", cwd=project, env=env)
    with server.client() as client:
        assert client.post("/", content=b"x" * 15).status_code == 200
        assert client.post("/", content=b"x" * 25).status_code == 413


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("missing", ["no module 'missing'", "'dir'"]),
        ("needs", ["needs.py", "a_module_that_is_not_there"]),
        ("broken", ["Traceback", "broken.py", "the shelf is empty"]),
        ("spelt", ["spelt.py", "SyntaxError"]),
        ("nothing", ["nothing", "application"]),
        ("nothing:value", ["nothing:value", "cannot be called"]),
        ("small:absent", ["absent", "application"]),
        ("lifespan", ["no database today"]),
    ],
)
def test_an_application_that_does_not_start_ends_the_program(
    project: Path, target: str, words: list[str]
) -> None:
    ended = run("run", target, "--listen", "127.0.0.1:0", cwd=project)
    assert ended.returncode == 1
    assert "listening" not in ended.stderr
    for word in words:
        assert word.lower() in ended.stderr.lower(), ended.stderr
    assert "panicked" not in ended.stderr


def test_a_port_in_use_is_told_before_the_application_is_imported(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        ended = run("run", "broken", "--listen", f"127.0.0.1:{port}", cwd=project)
    assert ended.returncode == 1
    assert str(port) in ended.stderr
    assert "in use" in ended.stderr
    assert "shelf" not in ended.stderr


def test_mistakes_in_the_file_are_all_told_with_their_places(project: Path) -> None:
    (project / "hawksbill.toml").write_text("lisen = ':80'\n\n[apps.small]\nwsgi = 'small'\nthreds = 4\n")
    ended = run("check", cwd=project)
    assert ended.returncode == 1
    assert "hawksbill.toml:1:1: unknown key 'lisen'" in ended.stderr
    assert "did you mean 'listen'?" in ended.stderr
    assert "hawksbill.toml:5:1: unknown key 'threds' in [apps.small]; did you mean 'threads'?" in ended.stderr


def test_keys_that_are_not_built_are_refused_by_name(project: Path) -> None:
    (project / "hawksbill.toml").write_text("tls = 'auto'\n[apps.small]\nwsgi = 'small'\nphp = true\n")
    ended = run("check", cwd=project)
    assert ended.returncode == 1
    assert "'tls' is designed but not built yet" in ended.stderr
    assert "'php' in [apps.small] is designed but not built yet" in ended.stderr


def test_a_flag_that_does_not_exist_is_told(project: Path) -> None:
    ended = run("run", "small", "--thread", "4", cwd=project)
    assert ended.returncode == 2
    assert "--threads" in ended.stderr


def test_without_anything_it_says_what_to_do(tmp_path: Path) -> None:
    ended = run("run", cwd=tmp_path)
    assert ended.returncode == 1
    assert "hawksbill.toml" in ended.stderr
    assert "module:attribute" in ended.stderr


def test_a_directory_that_cannot_be_served_is_told(project: Path) -> None:
    (project / "hawksbill.toml").write_text("[sites.'*']\n'/' = { files = 'absent' }\n")
    ended = run("run", "--listen", "127.0.0.1:0", cwd=project)
    assert ended.returncode == 1
    assert "hawksbill.toml:2:1" in ended.stderr
    assert str(project / "absent") in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_zero(
    start: Callable[..., Server], project: Path, number: signal.Signals
) -> None:
    server = start("run", "small", "--listen", "127.0.0.1:0", cwd=project)
    server.process.send_signal(number)
    assert server.ended() == 0
    assert "Traceback" not in server.output()
