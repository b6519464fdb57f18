"""What load balancers and orchestrators are told of a real gateway."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Server, fetch, unix_client
from watching import until

pytestmark = pytest.mark.once

APP = """
import os
import pathlib
import time

HERE = pathlib.Path(__file__).parent

while (HERE / "gate").exists():
    time.sleep(0.02)
if (HERE / "broken").exists():
    raise RuntimeError("it does not start any more")

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""

FUSED = """
listen = "127.0.0.1:0"
drain_delay = "{delay}"

[apps.shop]
wsgi = "main"
dir = "shop"
workers = 2

[sites."*"]
log = {log}
"/" = "shop"
"/-/health" = {{ health = true }}
"""

FRONT = """
[apps.blog]
asgi = "main"
dir = "blog"
workers = 2
"""

BLOG = """
import os
import pathlib

if (pathlib.Path(__file__).parent / "broken").exists():
    raise RuntimeError("it does not start any more")

async def application(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""

JSON = {"Accept": "application/json"}

both = pytest.mark.parametrize("front", [False, True], ids=["fused", "front"])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in (("shop", APP), ("blog", BLOG)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text(text)
    return tmp_path


def configure(project: Path, front: bool, delay: str = "0s", log: str = "false") -> None:
    text = FUSED.format(delay=delay, log=log)
    if front:
        text = text.replace("[sites", FRONT + "\n[sites") + '"/blog" = "blog"\n'
    (project / "hawksbill.toml").write_text(text)


def status(server: Server, path: str) -> int:
    """What a prober is told, which has no connection yet."""
    return fetch(server.base + path).status_code


@both
def test_a_gateway_that_serves_says_so_and_names_its_applications(
    start: Callable[..., Server], project: Path, front: bool
) -> None:
    configure(project, front)
    server = start("run", cwd=project)
    until(lambda: status(server, "/-/health/ready") == 200)
    with server.client() as client:
        assert client.get("/-/health/live").text == "live\n"
        assert client.get("/-/health").text == "ready\n"
        names = ["blog", "shop"] if front else ["shop"]
        ready = client.get("/-/health/ready", headers=JSON)
        assert ready.json() == {"status": "ready", "applications": dict.fromkeys(names, True)}
        for name in names:
            one = client.get(f"/-/health/ready/{name}")
            assert (one.status_code, one.text) == (200, "ready\n")
        assert client.get("/-/health/ready/nobody").status_code == 404
        assert client.post("/-/health/ready").status_code == 405
        assert client.get("/").text.isdigit()


@both
def test_the_first_that_a_prober_hears_is_that_it_is_ready(
    start: Callable[..., Server], project: Path, runtime: Path, front: bool
) -> None:
    configure(project, front)
    path, config = runtime / "web.sock", project / "hawksbill.toml"
    config.write_text(config.read_text().replace("127.0.0.1:0", f"unix:{path}"))
    gate = project / "shop" / "gate"
    gate.touch()
    answers: list[bytes] = []

    def connects(prober: socket.socket) -> bool:
        try:
            prober.connect(str(path))
        except OSError:
            return False
        return True

    def probe() -> None:
        with socket.socket(socket.AF_UNIX) as prober:
            until(lambda: connects(prober))
            prober.settimeout(60)
            prober.sendall(b"GET /-/health/ready HTTP/1.1\r\nHost: a\r\n\r\n")
            # It is still importing.
            gate.unlink()
            answers.append(prober.recv(4096))

    prober = threading.Thread(target=probe)
    start("run", cwd=project, wake=prober.start)
    prober.join(60)
    assert answers[0].startswith(b"HTTP/1.1 200 "), answers


@both
def test_from_sigterm_on_clients_are_sent_elsewhere_and_served_meanwhile(
    start: Callable[..., Server], project: Path, front: bool
) -> None:
    configure(project, front, delay="10m")
    server = start("run", cwd=project)
    until(lambda: status(server, "/-/health/ready") == 200)
    with server.client() as kept:
        assert kept.get("/-/health/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        until(lambda: kept.get("/-/health/ready").status_code == 503)
        # Each process is told of it by itself.
        until(lambda: {status(server, "/-/health/ready") for _ in range(20)} == {503})
        # Over connections old and new.
        for _ in range(10):
            assert status(server, "/-/health/ready") == 503
            assert status(server, "/-/health/ready/shop") == 503
            assert status(server, "/-/health/live") == 200
            assert status(server, "/") == 200
        assert kept.get("/-/health").text == "draining\n"
        assert kept.get("/-/health/ready", headers=JSON).json()["status"] == "draining"
    server.wait_for("SIGTERM: not ready any more, new connections for another 600s")
    # A second signal does not wait.
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0


@both
def test_after_the_delay_the_drain_begins(start: Callable[..., Server], project: Path, front: bool) -> None:
    configure(project, front, delay="100ms")
    server = start("run", cwd=project)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("SIGTERM: no new connections, finishing the requests under way")
    assert server.process.wait(60) == 0


def test_an_application_without_workers_is_named_and_the_others_stay(
    start: Callable[..., Server], project: Path
) -> None:
    configure(project, front=True)
    server = start("run", cwd=project)
    until(lambda: status(server, "/-/health/ready") == 200)
    (project / "blog" / "broken").touch()
    with server.client() as client:

        def is_dead() -> bool:
            """Kills whoever still answers for it."""
            answer = client.get("/blog")
            if answer.status_code == 200:
                os.kill(int(answer.text), signal.SIGKILL)
            return client.get("/-/health/ready/blog").status_code == 503

        until(is_dead)
        until(lambda: client.get("/-/health").text == "not ready: no worker of blog\n")
        whole = client.get("/-/health", headers=JSON)
        assert whole.status_code == 503
        assert whole.json() == {"status": "not ready", "applications": {"blog": False, "shop": True}}
        assert client.get("/-/health/ready/blog").headers["Retry-After"] == "1"
        assert client.get("/-/health/ready/shop").status_code == 200
        assert client.get("/-/health/live").status_code == 200
        assert client.get("/").text.isdigit()
        (project / "blog" / "broken").unlink()
        until(lambda: client.get("/-/health/ready").status_code == 200)
        assert client.get("/blog").text.isdigit()


def test_where_each_worker_is_a_gateway_the_others_answer_for_one_that_is_killed(
    start: Callable[..., Server], project: Path
) -> None:
    configure(project, front=False)
    server = start("run", cwd=project)
    for _ in range(3):
        victim = int(fetch(server.base).text)
        os.kill(victim, signal.SIGKILL)
        # Until the last of its threads has ended, it may still be given a connection.
        until(lambda victim=victim: not Path(f"/proc/{victim}").exists())  # type: ignore[misc]
        assert status(server, "/-/health/ready") == 200


@both
def test_a_reload_good_or_bad_is_no_reason_to_go_elsewhere(
    start: Callable[..., Server], project: Path, front: bool
) -> None:
    configure(project, front)
    server = start("run", cwd=project)
    until(lambda: status(server, "/-/health/ready") == 200)
    over = threading.Event()
    seen: list[int] = []

    def probe() -> None:
        while not over.is_set():
            seen.append(status(server, "/-/health/ready"))

    prober = threading.Thread(target=probe)
    prober.start()
    try:
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("the new generation serves")
        (project / "shop" / "broken").touch()
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("the old generation goes on")
    finally:
        over.set()
        prober.join(60)
    assert set(seen) == {200}


@pytest.mark.parametrize("log", ['"{path}"', '{{ path = "{path}", health = true }}'], ids=["usual", "asked"])
def test_access_logs_leave_it_out_unless_asked(start: Callable[..., Server], project: Path, log: str) -> None:
    path = project / "access.log"
    configure(project, front=False, log=log.format(path=path))
    server = start("run", cwd=project)
    for each in ("/-/health/live", "/-/health/ready", "/-/health/nothing", "/last"):
        status(server, each)
    assert server.stop() == 0
    logged = sorted(line.split()[6] for line in path.read_text().splitlines())
    # What is not there was not a prober's question.
    usual = ["/-/health/nothing", "/last"]
    assert logged == sorted([*usual, "/-/health/live", "/-/health/ready"] if "health =" in log else usual)


def test_it_can_have_a_socket_of_its_own(start: Callable[..., Server], project: Path, runtime: Path) -> None:
    configure(project, front=False)
    path, config = runtime / "health.sock", project / "hawksbill.toml"
    own = f'[sites."* health"]\nlisten = "unix:{path}"\n"/" = {{ health = true }}\n'
    text = config.read_text().replace('"/-/health" = { health = true }\n', "")
    config.write_text(text + own)
    server = start("run", cwd=project, listeners=2)
    with unix_client(path) as client:
        assert client.get("http://10.0.0.1:8081/ready").text == "ready\n"
        assert client.get("http://10.0.0.1:8081/").text == "ready\n"
    assert fetch(f"{server.base}/ready").text.isdigit()


@both
def test_an_application_that_is_written_in_a_route_has_a_name_too(
    start: Callable[..., Server], project: Path, front: bool
) -> None:
    config = [
        'listen = "127.0.0.1:0"',
        f"front = {str(front).lower()}",
        '[sites."*"]',
        '"/" = { wsgi = "main", dir = "shop" }',
        '"/-/health" = { health = true }',
    ]
    (project / "hawksbill.toml").write_text("\n".join(config))
    server = start("run", cwd=project)
    until(lambda: status(server, "/-/health/ready/*/") == 200)
    ready = fetch(f"{server.base}/-/health", headers=JSON)
    assert ready.json() == {"status": "ready", "applications": {"*/": True}}
