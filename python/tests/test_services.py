"""Services: programs beside the applications, in their order, and back whenever they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import COMMAND, Ask, Server, bad, fetch, good, runs
from sites import write
from watching import free_port, pids, report, until, until_whole_again

pytestmark = pytest.mark.once

CONFIG = """
listen = "127.0.0.1:0"

[apps.shop]
wsgi = "site_app"
{app}

[sites."*"]
"/" = "shop"
{services}
"""

NAP = "trap 'exit 0' TERM; sleep 60 & wait"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(tmp_path, 1)
    return tmp_path


Run = Callable[..., Server]


@pytest.fixture
def run(project: Path, runtime: Path) -> Iterator[Run]:
    """Starts a gateway with these services."""
    running: list[Server] = []

    def run(services: str, app: str = "") -> Server:
        configure(project, services, app)
        server = Server("run", cwd=project, env={"XDG_RUNTIME_DIR": str(runtime)})
        running.append(server.__enter__())
        return server

    yield run
    for server in running:
        server.stop()


def configure(project: Path, services: str, app: str = "") -> None:
    (project / "hawksbill.toml").write_text(CONFIG.format(services=services, app=app))


def service(name: str, script: str, *more: str) -> str:
    """A table whose command is a shell script."""
    return "\n".join([f"[services.{name}]", f"command = {json.dumps(['sh', '-c', script])}", *more, ""])


def pid(ask: Ask, name: str) -> int:
    """The one process of a service that serves."""
    (found,) = pids(ask, name)
    return found


def serves(ask: Ask, name: str) -> bool:
    """Whether it does, and no other process of it is there."""
    return [process["state"] for process in report(ask)["pools"][name]["processes"]] == ["serving"]


def restarts(ask: Ask, name: str) -> int:
    count: int = report(ask)["pools"][name]["restarts"]
    return count


def test_a_service_runs_beside_the_application(run: Run, ask: Ask, project: Path) -> None:
    script = (
        "echo hello from $WHO in $PWD with $(ulimit -n); echo oops >&2; printf '%070000d' 0; echo; " + NAP
    )
    (project / "work").mkdir()
    server = run(service("nap", script, 'dir = "work"', 'env = { WHO = "nap" }', "limits = { files = 77 }"))
    server.wait_for(rf"STDOUT nap\[\d+\]: hello from nap in {project}/work with 77$")
    server.wait_for(r"STDERR nap\[\d+\]: oops$")
    # A long line is cut.
    server.wait_for(r"nap\[\d+\]: 0{60000,65536} … \(cut\)$")
    shown = good(ask("status"))
    assert "nap " in shown
    assert "shop " in shown
    nap = pid(ask, "nap")
    assert b"HAWKSBILL_DESCRIPTORS" not in Path(f"/proc/{nap}/environ").read_bytes()
    assert server.stop() == 0
    assert not runs(nap)


def test_one_that_is_killed_comes_back_and_leaves_nothing(run: Run, ask: Ask) -> None:
    server = run(service("nap", "sleep 1000 & echo child $!; wait"))
    first, child = pid(ask, "nap"), int(server.wait_for(r"nap\[\d+\]: child (\d+)$")[1])
    os.kill(first, signal.SIGKILL)
    until_whole_again(ask, {first}, "nap", workers=1)
    until(lambda: not runs(child))
    assert restarts(ask, "nap") == 1
    assert fetch(server.base).text == "1"


def test_one_that_fails_waits_longer_each_time(run: Run, ask: Ask) -> None:
    server = run(service("broken", "echo no luck; exit 7"), 'after = ["broken"]')
    assert fetch(server.base).text == "1"
    server.wait_for(r"broken: its processes keep ending; the next one starts in 0\.25 s")
    server.wait_for(r"broken: its processes keep ending; the next one starts in 1 s")

    def is_told() -> bool:
        # It runs for a moment now and then.
        shown = good(ask("status"))
        return "exit code 7" in shown and "the next one starts in" in shown

    until(is_told)


def test_who_ended_well_stays_away(run: Run, ask: Ask) -> None:
    server = run(service("once", "echo done", 'restart = "on-failure"'))
    server.wait_for(r"once: it ended with exit code 0 and is not started again")
    assert "once: it ended with exit code 0" in good(ask("status"))
    good(ask("reload", "once"))
    until(lambda: server.output().count("]: done") == 2)


def test_they_start_and_end_in_their_order(run: Run, project: Path) -> None:
    """The store is ready when it says so, the queue after it, the application last; and back again."""
    (project / "site_app.py").write_text(
        "print('shop begins', flush=True)\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'1']\n"
    )
    store = "trap 'echo store ends; exit 0' TERM; read _ <go; echo store is open; sleep 60 & wait"
    queue = "echo queue begins; trap 'echo queue ends; exit 0' TERM; sleep 60 & wait"
    os.mkfifo(project / "go")
    tables = service("store", store, 'ready = { line = "is op.n$" }')
    tables += service("queue", queue, 'after = ["store"]', 'ready = { line = "^queue begins$" }')

    opener = subprocess.Popen(["sh", "-c", f"echo go >{project}/go"])
    server = run(tables, 'after = ["queue"]')
    opener.wait(60)
    assert server.stop() == 0
    said = server.output()
    # What the gateway says itself need not be in order with what it hears from an application.
    for begins in ("shop begins", "listening on"):
        order = ["store is open", "queue begins", begins, "queue ends", "store ends"]
        places = [said.index(words) for words in order]
        assert places == sorted(places), said


@pytest.mark.parametrize("kind", ["tcp", "unix", "http"])
def test_it_is_ready_when_it_answers(run: Run, ask: Ask, project: Path, kind: str) -> None:
    port = free_port()
    if kind == "unix":
        # Relative to the configuration.
        where = "unix:s"
        listen = "s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen()"
    else:
        where = f"127.0.0.1:{port}" if kind == "tcp" else f"http://127.0.0.1:{port}/health"
        listen = f"s = socket.create_server(('127.0.0.1', {port}))"
    # Who only looks whether there is somebody leaves at once.
    answer = "c, _ = s.accept()\n    with suppress(OSError): c.recv(9999); "
    answer += "c.send(b'HTTP/1.1 %b\\r\\n\\r\\n' % status)"
    (project / "server.py").write_text(
        "import itertools, socket\n"
        "from contextlib import suppress\n"
        f"{listen}\n"
        "print('listens', flush=True)\n"
        "for status in itertools.chain([b'503 No', b'503 No'], itertools.repeat(b'204 No Content')):\n"
        f"    {answer}\n"
        "    print('answered', status, flush=True)\n"
    )
    command = json.dumps([*COMMAND[:1], "server.py"])
    server = run(f'[services.web]\ncommand = {command}\nready = "{where}"\n', 'after = ["web"]')
    server.wait_for("]: listens")
    if kind == "http":
        server.wait_for(r"(?s)503 No.*503 No.*204 No")
        assert server.output().count("503 No") == 2
    until(lambda: serves(ask, "web"))


def test_one_that_is_never_ready_is_tried_again(run: Run, ask: Ask) -> None:
    never = service("never", NAP, 'ready = { line = "x" }', 'start_timeout = "300ms"')
    server = run(never, 'after = ["never"]')
    assert fetch(server.base).text == "1"
    server.wait_for("never: process .* did not end in time and was killed")
    until(lambda: restarts(ask, "never") > 1)


def test_a_reload_changes_only_what_changed(run: Run, ask: Ask, project: Path) -> None:
    tables = {name: service(name, NAP) for name in ("same", "other", "gone")}
    server = run("".join(tables.values()))
    before = {name: pid(ask, name) for name in tables}
    tables["other"] = service("other", "echo changed; " + NAP)
    tables["new"] = service("new", NAP)
    del tables["gone"]
    configure(project, "".join(tables.values()))
    assert "serves: shop, new, other" in good(ask("reload"))
    server.wait_for(r"other\[\d+\]: changed")
    assert pid(ask, "same") == before["same"]
    assert pid(ask, "other") != before["other"]
    assert serves(ask, "new")
    until(lambda: not runs(before["gone"]) and not runs(before["other"]))
    # By its name, although nothing changed.
    good(ask("reload", "same"))
    assert pid(ask, "same") != before["same"]
    # What is wrong with the new table harms nobody.
    kept = {name: pid(ask, name) for name in tables}
    configure(project, '[services.same]\ncommand = "no-such-program"\n')
    assert "there is no program 'no-such-program'" in bad(ask("reload"))
    assert {name: pid(ask, name) for name in tables} == kept
    # A failing one is told.
    configure(project, "".join({**tables, "new": service("new", "exit 3")}.values()))
    assert "new fails, and is tried again: process" in bad(ask("reload"))
    assert fetch(server.base).text == "1"


def test_its_own_signal_then_force(run: Run, ask: Ask) -> None:
    script = "trap 'echo interrupted' INT; trap '' TERM; setsid sleep 1000 & echo child $!; "
    script += "while :; do wait; sleep 0.1; done"
    server = run(service("stubborn", script, 'stop_signal = "INT"', 'stop_timeout = "500ms"'))
    child, main = int(server.wait_for(r"stubborn\[\d+\]: child (\d+)$")[1]), pid(ask, "stubborn")
    assert "the gateway has ended" in good(ask("stop"))
    server.ended()
    said = server.output()
    assert "]: interrupted" in said
    assert "did not end in time and was killed" in said
    until(lambda: not runs(child) and not runs(main))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('command = "no-such-program -x"', "services.bad: command: there is no program 'no-such-program'"),
        ('command = "./missing.sh"', "there is no file"),
        ('command = "sh \'x"', "a quote is not closed"),
        ('command = ""', "it is empty"),
        ('command = "sh"\ndir = "nowhere"', "there is no directory"),
        ('command = "sh"\nafter = ["bda"]', "there is no service 'bda'; did you mean 'bad'?"),
        ('command = "sh"\nafter = ["bad"]', "comes after itself"),
        ('command = "sh"\nready = { line = "(" }', "services.bad: ready:"),
        ('command = "sh"\nready = "6379"', "an address such as"),
        ('command = "sh"\nrestart = "sometimes"', "always"),
        ('comand = "sh"', "did you mean 'command'?"),
    ],
)
def test_what_cannot_run_is_told_before_anything_starts(project: Path, table: str, said: str) -> None:
    configure(project, f"[services.bad]\n{table}\n")
    done = subprocess.run([*COMMAND, "check"], cwd=project, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert said in done.stderr
    assert "hawksbill.toml:" in done.stderr


def test_check_shows_them_without_their_secrets(project: Path) -> None:
    tables = service("nap", NAP, 'env = { KEY = "secret" }')
    tables += '[cron.tidy]\nschedule = "@daily"\ncommand = "true"\nlock = "redis://u:secret@localhost/0"\n'
    configure(project, tables)
    done = subprocess.run([*COMMAND, "check"], cwd=project, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "service nap(command=" in done.stdout
    assert 'lock="redis://***@localhost/0"' in done.stdout
    assert "secret" not in done.stdout
