"""What applications do with the event loop, and what it does to them.

It is the gateway's own where all that is hosted is ASGI, and one on its own thread where something else is.
"""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from harness import APPS, Server
from watching import until

CONFIG = """
listen = "127.0.0.1:0"

[sites."*"]
"/" = "loop"

[apps.loop]
asgi = "asgi_loop:application"
dir = "{apps}"
"""
WSGI = """
[apps.other]
wsgi = "wsgi_probe:application"
dir = "{apps}"
"""


def configuration(directory: Path, text: str) -> Path:
    """Write a configuration file."""
    path = directory / "hawksbill.toml"
    path.write_text(text.format(apps=APPS))
    return path


@pytest.fixture(scope="module", params=["own", "front", "debug"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The application under its loop: alone, behind a front, and in debug mode."""
    text = CONFIG + (WSGI if request.param == "front" else "")
    path = configuration(tmp_path_factory.mktemp("loop"), text)
    env = {"PYTHONASYNCIODEBUG": "1"} if request.param == "debug" else {}
    with Server("run", "-c", path, env=env) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of the application."""
    with server.client() as client:
        yield client


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """The application under the gateway's own loop, for what may harm it."""
    with Server("run", "-c", configuration(tmp_path, CONFIG)) as server:
        yield server


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("timeout", "given up"),
        ("timeout_at_once", "in time"),
        ("group", [0, 1, 2, 3, 4]),
        ("group_fails", "cancelled"),
        ("same_task", [True, True, True]),
        ("late_look", [True, True, False]),
        ("cancels_itself", ["cancelled"]),
        ("cancels_itself_long", ["cancelled"]),
        ("executor", {"elsewhere": True, "context": "nobody"}),
        ("connection", True),
        ("reader", "bytes"),
        ("process", [0, "tuttle"]),
        ("context", ["nobody", "me", "me"]),
        ("order", ["soon", "sooner than timers", "early", "early too", "late"]),
        ("handles", "cancelled"),
        ("odd_times", "called"),
        ("broken_call", True),
        ("factory", ["sleep"]),
    ],
)
def test_the_loop_does_what_asyncio_says(client: httpx.Client, path: str, expected: object) -> None:
    """Everything that an application may expect of a loop."""
    response = client.get(path)
    assert response.status_code == 200, response.text
    assert response.json() == expected


def test_a_loop_knows_itself(server: Server, client: httpx.Client) -> None:
    """Which loop it is follows from what is hosted."""
    found = client.get("loop").json()
    assert found["running"] is True
    if found["loop"] == "hawksbill.EventLoop":
        assert found["selector"] is True


def test_timers_are_on_time(client: httpx.Client) -> None:
    """Never early, and late by less than a scheduler's slice."""
    slept = [client.get("sleep").json() for _ in range(20)]
    assert min(slept) >= 0.0099
    # The best of them: what else the machine does may delay any, but not all.
    assert min(slept) < 0.0135


def test_a_thread_wakes_the_loop(client: httpx.Client) -> None:
    """At once, though nothing else happens."""
    assert min(client.get("thread").json() for _ in range(20)) < 0.02


def test_what_goes_on_after_the_answer_goes_on(client: httpx.Client) -> None:
    """A task of the application's own outlives the request."""
    client.get("background")
    until(lambda: client.get("events").json() == ["happened", "over"])


def test_a_task_that_never_waits_ends_for_whoever_looked_at_it(client: httpx.Client) -> None:
    """Its callbacks are called, though it was over before it was anywhere in the loop."""
    assert client.get("never_waits").json() == "done"
    until(lambda: client.get("events").json() == ["over True"])


def test_a_task_that_ends_cancelled_fails(client: httpx.Client) -> None:
    """As a task of asyncio's does that is cancelled in its last step; what was sent is sent."""
    assert client.get("leaves_cancelled").status_code in {200, 500}
    assert client.get("sleep").status_code == 200


@pytest.mark.parametrize("path", ["exits", "exits_later"])
def test_a_task_does_not_end_the_server(server: Server, client: httpx.Client, path: str) -> None:
    """SystemExit and KeyboardInterrupt are the failures of one request."""
    assert client.get(path).status_code == 500
    assert client.get("sleep").status_code == 200


def test_a_busy_task_starves_nobody(server: Server) -> None:
    """Others are served between its steps, over connections that are there and new ones."""
    with server.client() as busy, server.client() as other:
        other.get("loop")
        thread = threading.Thread(target=lambda: busy.get("busy"))
        thread.start()
        until(lambda: other.get("events").json() == ["busy"])
        for _ in range(5):
            other.get("sleep")
            # A connection of its own, by the quickest client there is.
            new = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            new.request("GET", "/loop")
            assert new.getresponse().status == 200
            new.close()
        # It has been busy all the time: who is not served until it is over would never have said this.
        assert other.get("events").json() == ["busy"]
        assert thread.is_alive()
        assert other.get("enough").json() == "enough"
        thread.join()


def test_busy_sockets_starve_no_timer(server: Server) -> None:
    """A timer is on time while many requests are made."""
    over = threading.Event()

    def hammer() -> None:
        with server.client() as client:
            while not over.is_set():
                client.get("events")

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with server.client() as client:
            slept = sorted(client.get("sleep").json() for _ in range(20))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    # Who waits for the sockets to be done with waits for ever, and not now and then.
    assert slept[0] < 0.03


def test_the_loop_is_our_own_where_all_is_asgi(own: Server) -> None:
    """The choice is made by looking."""
    with own.client() as client:
        assert client.get("loop").json()["loop"] == "hawksbill.EventLoop"


BESIDE_WSGI = """
import sys, httpx
from hawksbill import Gateway

gateway = Gateway("127.0.0.1:0")
gateway.app("loop", asgi="asgi_loop:application", dir=sys.argv[1])
gateway.app("other", wsgi="wsgi_probe:application", dir=sys.argv[1])
gateway.site("*").route("/", "loop")
with gateway.start() as running:
    print("the loop is", httpx.get(f"http://{running.addresses[0]}/loop", trust_env=False).json()["loop"])
"""


def test_the_loop_is_apart_beside_wsgi(tmp_path: Path) -> None:
    """In one process a WSGI application's threads would wait for the loop's thread, and it for theirs."""
    command = [sys.executable, "-c", BESIDE_WSGI, str(APPS)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "the loop is " in ended.stdout, ended.stderr
    assert "hawksbill.EventLoop" not in ended.stdout


def test_a_drain_lets_long_requests_finish(own: Server) -> None:
    """SIGTERM: what is under way is answered, then the application shuts down, then the process ends well."""
    answers: list[str] = []
    with own.client() as client:
        thread = threading.Thread(target=lambda: answers.append(client.get("patient").json()))
        thread.start()
        own.wait_for("patient has begun")
        own.process.send_signal(signal.SIGTERM)
        thread.join()
    assert answers == ["patient"]
    assert own.ended() == 0
    assert "the application has shut down" in own.output()


def test_a_second_signal_cuts(own: Server) -> None:
    """What never ends is cancelled, so that it can clean up."""
    with own.connect() as connection:
        connection.sendall(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n")
        own.wait_for("stuck has begun")
        own.process.send_signal(signal.SIGTERM)
        own.wait_for("SIGTERM: no new connections")
        own.process.send_signal(signal.SIGINT)
        assert connection.recv(100) == b""
    assert own.ended() == 0
    assert "stuck was cancelled" in own.output()


def test_a_gateway_of_a_program(tmp_path: Path) -> None:
    """A live application, two gateways one after the other, an executor that Python ends."""
    program = """
import asyncio, json, sys, urllib.request
sys.path.insert(0, sys.argv[1])
from asgi_loop import application
from hawksbill import Gateway

for _ in range(2):
    gateway = Gateway(listen="127.0.0.1:0")
    gateway.site("*").route("/", application)
    with gateway.start() as running:
        for path in ("loop", "executor", "sleep"):
            with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/{path}") as answer:
                print(path, json.load(answer))
"""
    command = [sys.executable, "-c", program, str(APPS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("hawksbill.EventLoop") == 2


def test_a_gateway_within_an_application(tmp_path: Path) -> None:
    """An application starts a gateway and waits for it on a thread, while its own loop goes on."""
    program = """
import asyncio, json, sys, threading, urllib.request
sys.path.insert(0, sys.argv[1])
from asgi_loop import application
from hawksbill import Gateway

async def outer(scope, receive, send):
    assert scope["type"] == "http"
    gateway = Gateway(listen="127.0.0.1:0")
    gateway.site("*").route("/", application)
    with gateway.start() as running:
        url = f"http://127.0.0.1:{running.port}/loop"
        body = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

gateway = Gateway(listen="127.0.0.1:0")
gateway.app("outer", outer)
gateway.site("*").route("/", "outer")
with gateway.start() as running:
    print(urllib.request.urlopen(f"http://127.0.0.1:{running.port}/", timeout=20).read().decode())
"""
    command = [sys.executable, "-c", program, str(APPS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "hawksbill.EventLoop" in done.stdout
