"""The Python API: the same words as in the file, live objects, sockets handed in, and clean ends."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import pytest
from harness import COMMAND, fetch
from hawksbill import ConfigError, Gateway, StartError


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Say who answers and where."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"hello {environ['SCRIPT_NAME']}|{environ['PATH_INFO']}".encode("latin-1")]


async def asynchronous(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer the same over ASGI."""
    assert scope["type"] == "http"
    body = f"asynchronous {scope['root_path']}|{scope['path']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def get(port: int, path: str, host: str = "a.test") -> httpx.Response:
    """Ask without a proxy."""
    return fetch(f"http://127.0.0.1:{port}{path}", headers={"Host": host})


def test_live_objects_are_hosted_in_this_process(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a file\n")
    gateway = Gateway(listen="127.0.0.1:0", dir=tmp_path)
    gateway.app("named", hello)
    site = gateway.site("a.test", max_body="1KB")
    site.route("/", "named").route("/live", asynchronous).route("/mounted", mount="named").route(
        "/files", files="."
    )
    with gateway.start() as running:
        assert get(running.port, "/x").text == "hello |/x"
        assert get(running.port, "/live/x").text == "asynchronous |/live/x"
        assert get(running.port, "/mounted/x").text == "hello /mounted|/x"
        assert get(running.port, "/files/a.txt").text == "a file\n"
        assert get(running.port, "/", host="b.test").status_code == 421
        address = ("127.0.0.1", running.port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


def test_a_socket_can_be_handed_in() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        gateway = Gateway(listen=listener)
        gateway.site("*").route("/", hello)
        with gateway.start() as running:
            assert running.port == port
            assert get(port, "/").text == "hello |/"


def test_sockets_can_be_handed_in_again_and_again() -> None:
    for _ in range(3):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            gateway = Gateway(listen=listener)
            gateway.site("*").route("/", hello)
            for _ in range(2):
                with gateway.start() as running:
                    assert get(running.port, "/").text == "hello |/"


def test_an_event_loop_goes_on_while_the_gateway_starts_and_stops() -> None:
    async def scenario() -> str:
        gateway = Gateway(listen="127.0.0.1:0")
        gateway.site("*").route("/", asynchronous)
        async with gateway as running, httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"http://127.0.0.1:{running.port}/")).text

    assert asyncio.run(scenario()) == "asynchronous |/"


def test_mistakes_name_the_call_that_made_them() -> None:
    gateway = Gateway(listen="127.0.0.1:0", drian="1s")
    gateway.app("shop", wsgi="shop.wsgi", threds=4)
    gateway.site("a.test").route("/", "shpo")
    with pytest.raises(ConfigError) as raised:
        gateway.tree()
    message = str(raised.value)
    assert "Gateway(drian=...): unknown key 'drian'" in message
    assert "did you mean 'drain'?" in message
    assert 'app("shop", threds=...)' in message
    assert "there is no application 'shpo'; did you mean 'shop'?" in message


def test_what_cannot_start_raises_and_leaves_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        gateway = Gateway(listen=f"127.0.0.1:{held.getsockname()[1]}")
        gateway.site("*").route("/", hello)
        with pytest.raises(StartError, match="in use"):
            gateway.start()
    gateway = Gateway(listen="127.0.0.1:0")
    gateway.app("absent", wsgi="a_module_that_is_not_there")
    gateway.site("*").route("/", "absent")
    with pytest.raises(StartError, match="a_module_that_is_not_there"):
        gateway.start()


def test_run_ends_at_a_signal_and_python_goes_on(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        dedent("""
            import os, signal, threading, time
            from hawksbill import Gateway

            def hello(environ, start_response):
                start_response("200 OK", [])
                return [b"hello"]

            before = signal.getsignal(signal.SIGINT)
            gateway = Gateway(listen="127.0.0.1:0")
            gateway.site("*").route("/", hello)

            def interrupt():
                # As soon as it is the gateway's signal.
                while signal.getsignal(signal.SIGINT) is before:
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGINT)

            threading.Thread(target=interrupt).start()
            gateway.run()
            print("after", signal.getsignal(signal.SIGINT) is before)
            """)
    )
    ended = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "after True\n", "")


GOLDEN = Path(__file__).with_name("golden")


def test_every_spelling_makes_the_same_tree() -> None:
    """TOML, flags and Python; a test in Rust compares the same file with what the Rust builder makes."""
    expected = (GOLDEN / "shop.tree").read_text()
    flags = [
        "shop.wsgi:application",
        "--wsgi",
        "--dir",
        "shop",
        "--threads",
        "6",
        "--listen",
        "127.0.0.1:8000",
    ]
    flags += ["--log", "-", "--drain", "5s", "--workers", "1"]

    def check(*arguments: str) -> str:
        command = [*COMMAND, "check", *arguments]
        checked = subprocess.run(command, cwd=GOLDEN, capture_output=True, text=True, timeout=60)
        assert checked.returncode == 0, checked.stderr
        # The command line goes on to say which processes there will be.
        tree, _, processes = checked.stdout.partition("processes ")
        assert processes.startswith("shop: workers=1 (")
        return tree

    gateway = Gateway("127.0.0.1:8000", drain="5s", log="-")
    gateway.app("shop", wsgi="shop.wsgi:application", dir="shop", threads=6)
    gateway.site("*").route("/", "shop")
    assert check("-c", "shop.toml") == expected
    assert check(*flags) == expected
    assert gateway.tree() == expected
