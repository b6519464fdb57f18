"""The control socket, and the commands that use it, against real gateways."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from harness import COMMAND, Ask, Server, bad, fetch, good
from sites import write
from watching import Load, control, pids, report, socket_of, until

CONFIG = """
listen = "127.0.0.1:0"

[apps.shop]
wsgi = "site_app"
dir = "one"

[sites."*"]
"/" = "shop"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A configuration with two versions of its application."""
    project = tmp_path / "project"
    for version, name in enumerate(["one", "two"], start=1):
        (project / name).mkdir(parents=True)
        write(project / name, version)
    (project / "hawksbill.toml").write_text(CONFIG)
    return project


Run = Callable[..., Server]


@pytest.fixture
def run(start: Callable[..., Server], project: Path, runtime: Path) -> Run:
    """Starts a gateway of the project."""

    def run(*arguments: str, cwd: Path = project) -> Server:
        return start("run", *arguments, cwd=cwd, env={"XDG_RUNTIME_DIR": str(runtime)})

    return run


def said(server: Server) -> str:
    return fetch(server.base).text


def test_status_shows_what_runs(run: Run, ask: Ask, project: Path) -> None:
    server = run()
    shown = good(ask("status"))
    assert f"pid {server.process.pid}, serving" in shown
    assert f"listening on http://127.0.0.1:{server.port}" in shown
    assert str(project / "hawksbill.toml") in shown
    shown = json.loads(good(ask("status", "--json", "-c", project / "hawksbill.toml", cwd=Path("/"))))
    (process,) = shown["pools"]["shop"]["processes"]
    assert process["state"] == "serving"
    assert str(process["pid"]) == fetch(server.base).headers["x-pid"]
    assert process["rss"] > 1_000_000


def test_the_socket_is_for_its_owner(run: Run, runtime: Path) -> None:
    server = run()
    path = socket_of(runtime)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    server.stop()
    assert not path.exists()


def test_somebody_else_is_refused(run: Run, runtime: Path) -> None:
    """Even where the permissions of the file have been opened."""
    run()
    path = socket_of(runtime)
    if os.getuid() != 0:
        # Only root can become somebody else; the permissions are all there is to see.
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        return
    for open_to_all in (path, path.parent, runtime):
        open_to_all.chmod(0o777)
    question = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n');"
        "print(s.makefile().read())"
    )
    asked = subprocess.run(
        ["/usr/bin/python3", "-c", question, path],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert asked.stdout.startswith("HTTP/1.1 403"), asked
    assert "only the user who runs the gateway" in asked.stdout


def test_reload_returns_when_the_new_generation_serves(run: Run, ask: Ask, project: Path) -> None:
    server = run()
    with Load(server, clients=2) as load:
        for version in (5, 6):
            write(project / "one", version)
            assert "serves: shop" in good(ask("reload", *(["shop"] if version == 6 else [])))
            assert said(server) == str(version)
    assert load.failures == []


def test_reload_reads_the_file_again(run: Run, ask: Ask, project: Path) -> None:
    server = run()
    (project / "hawksbill.toml").write_text(CONFIG.replace('"one"', '"two"'))
    good(ask("reload"))
    assert said(server) == "2"
    (project / "hawksbill.toml").write_text(CONFIG.replace("wsgi", "wsgy"))
    message = bad(ask("reload"))
    assert "did you mean 'wsgi'" in message
    assert "hawksbill.toml:5:1" in message
    assert said(server) == "2"


def test_a_reload_that_fails_prints_the_traceback(run: Run, ask: Ask, project: Path) -> None:
    server = run()
    with Load(server, clients=2) as load:
        write(project / "one", 5, "raise RuntimeError('no shelf')\n")
        message = bad(ask("reload"))
        assert "Traceback" in message
        assert "no shelf" in message
        assert "site_app.py" in message
        assert said(server) == "1"
    assert load.failures == []
    assert set(load.answers) == {"1"}


def test_deploy_and_rollback_lose_nothing(run: Run, ask: Ask, project: Path) -> None:
    server = run()
    with Load(server, clients=2) as load:
        for _ in range(2):
            shown = good(ask("deploy", "shop", "--dir", "two", "--probation", "0.2s"))
            assert "hawksbill rollback shop" in shown
            assert said(server) == "2"
            load.goes_on()
            assert "back to it: hawksbill rollback shop" in good(ask("status"))
            # What was deployed stays when everything is loaded again.
            assert "serves again" in good(ask("rollback", "shop"))
            # Nothing is started and nobody waited for: whoever serves hears of it at about this time.
            until(lambda: said(server) == "1")
        good(ask("reload"))
        assert said(server) == "1"
        good(ask("deploy", "shop", "--dir", project / "two", "--probation", "0.2s"))
        good(ask("reload"))
        assert said(server) == "2"
    assert load.failures == []
    assert set(load.answers) == {"1", "2"}
    assert "no former generation is kept" in bad(ask("rollback", "shop"))


def test_a_deploy_that_dies_soon_is_returned_from(run: Run, ask: Ask, project: Path) -> None:
    server = run()
    dies = """
        import threading
        threading.Timer(1, os._exit, [3]).start()
        """
    write(project / "two", 2, dies)
    message = bad(ask("deploy", "shop", "--dir", "two", "--probation", "20s"))
    assert "exit code 3" in message
    until(lambda: said(server) == "1")
    good(ask("reload"))
    assert said(server) == "1"


def test_what_is_asked_for_has_to_exist(run: Run, ask: Ask) -> None:
    run()
    assert "did you mean 'shop'?" in bad(ask("reload", "shpo"))
    assert "did you mean 'shop'?" in bad(ask("rollback", "shpo"))
    assert "did you mean 'shop'?" in bad(ask("scale", "shpo", "2"))
    assert "did you mean 'shop'?" in bad(ask("stacks", "shpo"))
    assert "there is no directory" in bad(ask("deploy", "shop", "--dir", "three"))


def test_scale(run: Run, ask: Ask) -> None:
    server = run()

    assert "2 workers" in good(ask("scale", "shop", "2"))
    until(lambda: len(pids(ask)) == 2)
    good(ask("scale", "shop", "1"))
    until(lambda: len(pids(ask)) == 1)
    assert said(server) == "1"


def test_log_level(run: Run, ask: Ask) -> None:
    server = run()
    good(ask("log-level", "error"))
    good(ask("reload"))
    assert "the new generation serves" not in server.output()
    good(ask("log-level", "info"))
    good(ask("reload"))
    server.wait_for("the new generation serves")


@pytest.mark.parametrize("how", [(), ("--now",)], ids=["drain", "now"])
def test_stop_returns_when_the_gateway_has_ended(run: Run, ask: Ask, how: tuple[str, ...]) -> None:
    server = run()
    assert f"pid {server.process.pid}" in good(ask("stop", *how))
    assert server.ended() == 0


def test_no_gateway_is_running_here(ask: Ask, project: Path) -> None:
    message = bad(ask("status"))
    assert f"no gateway of this user is running in {project}" in message
    assert "hawksbill run" in message
    assert "there is no control socket" in bad(ask("status", "--control", "none.sock"))


def test_two_gateways_in_one_directory(run: Run, ask: Ask, runtime: Path) -> None:
    one, two = run(), run()
    message = bad(ask("status"))
    assert "choose one with --control PATH" in message
    assert str(one.port) in message
    assert str(two.port) in message
    (path,) = (runtime / "hawksbill").glob(f"*-{two.process.pid}.sock")
    assert f"pid {two.process.pid}" in good(ask("status", "--control", path))
    one.stop()
    assert f"pid {two.process.pid}" in good(ask("status"))


def test_an_application_without_a_file_is_found_by_its_directory(run: Run, ask: Ask, project: Path) -> None:
    server = run("site_app", "--listen", "127.0.0.1:0", cwd=project / "one")
    shown = good(ask("status", cwd=project / "one"))
    assert f"pid {server.process.pid}" in shown
    write(project / "one", 7)
    good(ask("reload", cwd=project / "one"))
    assert said(server) == "7"


def test_a_socket_of_a_killed_gateway_is_no_obstacle(run: Run, ask: Ask, project: Path) -> None:
    (project / "hawksbill.toml").write_text('control = "here.sock"\n' + CONFIG)
    killed = run()
    path = project / "here.sock"
    second = subprocess.run([*COMMAND, "run"], cwd=project, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert f"already running with the control socket {path} (pid {killed.process.pid})" in second.stderr
    killed.process.kill()
    killed.process.wait(10)
    assert "nobody listens" in bad(ask("status"))
    server = run()
    assert f"pid {server.process.pid}" in good(ask("status"))


def test_it_can_be_switched_off(run: Run, ask: Ask, runtime: Path) -> None:
    run("--control", "false")
    assert not list(runtime.glob("hawksbill/*"))
    assert "no gateway of this user is running" in bad(ask("status"))


def test_stacks_are_asked_of_the_workers(run: Run, ask: Ask) -> None:
    run()
    assert "== shop: process" in good(ask("stacks", "shop"))


def test_the_interface_refuses_what_it_does_not_know(run: Run, runtime: Path) -> None:
    run()
    with control(socket_of(runtime)) as http:

        def refused(method: str, path: str, content: str | None = None) -> tuple[int, str]:
            answer = http.request(method, path, content=content)
            body: dict[str, Any] = answer.json()
            return answer.status_code, body["error"]

        assert refused("GET", "/v2/status")[0] == 404
        assert refused("POST", "/v1/status")[0] == 405
        assert refused("GET", "/v1/reload") == (405, "/v1/reload takes POST, not GET")
        assert refused("POST", "/v1/reload", "{")[0] == 400
        assert "unknown field" in refused("POST", "/v1/reload", '{"app": "shop"}')[1]
        assert refused("POST", "/v1/scale", "")[0] == 400
        assert refused("POST", "/v1/scale", '{"app": "shop", "workers": 0}')[0] == 422
        assert refused("POST", "/v1/deploy", '{"app": "shop", "dir": "two"}')[0] == 400
        assert refused("POST", "/v1/deploy", '{"app": "shop", "dir": "/", "keep": -1}')[0] == 400
        assert refused("POST", "/v1/log-level", '{"level": "loud"}')[0] == 400
        assert refused("POST", "/v1/rollback", '{"app": "shop"}')[0] == 409
        assert refused("POST", "/v1/reload", " " * 100_000)[0] == 413
        assert "app shop: wsgi" in http.get("/v1/config").text


def test_events_are_told_as_they_happen(run: Run, ask: Ask, runtime: Path) -> None:
    server = run()
    with control(socket_of(runtime)) as http, http.stream("GET", "/v1/events") as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        lines = stream.iter_lines()
        assert next(lines).startswith(":")
        good(ask("reload"))
        seen = []
        for line in lines:
            if line.startswith("data: "):
                seen.append(json.loads(line.removeprefix("data: "))["event"])
            if seen and seen[-1] == "applied":
                break
        assert "started" in seen
        assert "ready" in seen
        good(ask("stop"))
        # The stream has an end.
        assert any("ended" in line for line in lines)
    assert server.ended() == 0


def test_a_name_in_the_configuration_is_a_name_in_the_commands(run: Run, ask: Ask, project: Path) -> None:
    """Of two applications behind a front each is reloaded and scaled by itself."""
    more = dedent(
        """
        [apps.blog]
        wsgi = "site_app:application"
        dir = "one"

        [sites."blog.localhost"]
        "/" = "blog"
        """
    )
    (project / "hawksbill.toml").write_text(CONFIG + more)
    run()
    pools = report(ask)["pools"]
    assert sorted(pools) == ["blog", "front", "shop"]
    good(ask("reload", "blog"))
    good(ask("scale", "blog", "2"))
    after = report(ask)["pools"]
    assert after["blog"]["generation"] > pools["blog"]["generation"]
    assert after["blog"]["workers"] == 2
    assert after["shop"]["generation"] == pools["shop"]["generation"]
    assert after["front"]["generation"] == pools["front"]["generation"]
    # Where the code of one lies is nothing to the front, nor to the other one.
    good(ask("deploy", "shop", "--dir", "two", "--probation", "0s", "--keep", "1m"))
    deployed = report(ask)["pools"]
    assert deployed["shop"]["generation"] > after["shop"]["generation"]
    good(ask("rollback", "shop"))
    back = report(ask)["pools"]
    assert {name: back[name]["generation"] for name in back} == {
        name: after[name]["generation"] for name in after
    }
