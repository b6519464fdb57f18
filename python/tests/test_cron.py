"""Commands that run at certain times."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from harness import COMMAND, Ask, Server, good, runs
from watching import free_port, report, until

pytestmark = pytest.mark.once

CONFIG = """
listen = "127.0.0.1:0"

[sites."*"]
"/" = { respond = "hello" }

[apps.letters]
django = "letters.settings"
dir = "site"
env = { GREETING = "good day" }

"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    site = tmp_path / "site" / "letters"
    commands = site / "management" / "commands"
    commands.mkdir(parents=True)
    for package in (site, commands.parent, commands):
        (package / "__init__.py").touch()
    (site / "settings.py").write_text(
        "SECRET_KEY = 'x'\nINSTALLED_APPS = ['letters']\nROOT_URLCONF = 'letters.urls'\n"
    )
    (site / "urls.py").write_text("urlpatterns = []\n")
    (commands / "greet.py").write_text(
        "import os\n"
        "from django.conf import settings\n"
        "from django.core.management.base import BaseCommand\n"
        "class Command(BaseCommand):\n"
        "    def add_arguments(self, parser):\n"
        "        parser.add_argument('name')\n"
        "    def handle(self, name, **options):\n"
        "        print(os.environ['GREETING'], name, settings.SETTINGS_MODULE, os.getcwd())\n"
    )
    return tmp_path


def table(name: str, *lines: str) -> str:
    return "\n".join([f"[cron.{name}]", *lines, ""])


def script(text: str) -> str:
    return f"command = {json.dumps(['sh', '-c', text])}"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """The address of a Redis."""
    program = shutil.which("redis-server")
    assert program, "no redis-server: install Debian's package 'redis-server'"
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until(answers)
        yield f"redis://127.0.0.1:{port}/0"
        process.terminate()


def known(ask: Ask, name: str) -> dict[str, Any]:
    found: dict[str, Any] = report(ask)["cron"][name]
    return found


def test_commands_run_at_their_times(project: Path, runtime: Path, ask: Ask, redis: str) -> None:
    """All that has to happen by itself, in two gateways at the same time."""
    each = 'schedule = "*/2 * * * * *"'
    tables = [
        table("hello", each, script("echo hello; echo oops >&2; exit 3")),
        table("greet", each, 'manage = "greet Ada"', 'app = "letters"'),
        table("slow", each, script("echo slow $$; sleep 1000"), 'timeout = "1s"'),
        table("long", each, script("echo long $$; exec sleep 1000")),
        table("locked", each, script("echo locked runs; sleep 0.5"), f'lock = "{redis}"'),
        table("lost", each, script("echo never"), 'lock = "redis://127.0.0.1:1/0"'),
        table("rare", 'schedule = "30 3 1 JAN *"', 'timezone = "Europe/Berlin"', script("true")),
    ]
    (project / "hawksbill.toml").write_text(CONFIG + "".join(tables))
    (project / "other.toml").write_text(CONFIG + tables[4])
    env = {"XDG_RUNTIME_DIR": str(runtime)}
    with ExitStack() as stack:
        one = stack.enter_context(Server("run", cwd=project, env=env))
        two = stack.enter_context(Server("run", "-c", "other.toml", cwd=project, env=env))
        assert known(ask, "rare")["last"] is None
        assert known(ask, "rare")["next"].endswith("-01-01T03:30:00+01:00")

        one.wait_for(r"hello: the run of \S+:\d[02468][+-]\S+ begins")
        one.wait_for(r"STDOUT cron\.hello\[\d+\]: hello$")
        one.wait_for(r"STDERR cron\.hello\[\d+\]: oops$")
        one.wait_for(r"ERROR.* hello: it ended with exit code 3 after \d")
        one.wait_for(rf"cron\.greet\[\d+\]: good day Ada letters\.settings {project}/site$")
        one.wait_for(r"greet: it ended with exit code 0")
        one.wait_for(r"lost: a run is left out: the Redis of its lock does not answer")
        one.wait_for(r"slow: it has run for 1 s, and is ended")
        one.wait_for(r"slow: it ended with SIGTERM")
        slow = int(one.wait_for(r"cron\.slow\[\d+\]: slow (\d+)$")[1])
        until(lambda: not runs(slow))

        # One of the two has run what is locked, and the other has said so.
        def said() -> list[str]:
            return [server.output() for server in (one, two)]

        until(lambda: any("locked: another gateway runs it this time" in text for text in said()))
        until(lambda: any("locked: it ended with exit code 0" in text for text in said()))
        begun = re.findall(r"locked: the run of (\S+) begins", "".join(said()))
        assert begun
        assert len(begun) == len(set(begun))

        long = int(one.wait_for(r"cron\.long\[\d+\]: long (\d+)$")[1])
        one.wait_for(r"long: a run is left out: the run before is still under way")
        assert runs(long)
        assert one.output().count("]: long ") == 1

        # It is known shortly after it has been logged.
        until(lambda: known(ask, "hello")["last"]["exit"] == "exit code 3")
        shown = good(ask("status"))
        assert "CRON" in shown
        assert "exit code 3" in shown
        assert "long: runs left out: " in shown

        # What stays the same goes on, what is gone is forgotten.
        (project / "hawksbill.toml").write_text(CONFIG + "".join(tables[3:]))
        good(ask("reload"))
        assert runs(long)
        assert "hello" not in report(ask)["cron"]
        assert known(ask, "long")["missed"] >= 1
        assert one.stop() == 0
        until(lambda: not runs(long))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['schedule = "* * * *"', script("true")], "cron.bad: schedule: '* * * *' is not understood"),
        (['schedule = "0 0 30 2 *"', script("true")], "never due"),
        (['schedule = "@daily"', 'timezone = "Europe/Berlni"', script("true")], "no time zone"),
        (['schedule = "@daily"'], "write either 'command' or 'manage'"),
        (['schedule = "@daily"', script("true"), 'manage = "x"'], "write either 'command' or 'manage'"),
        (['schedule = "@daily"', 'manage = "x"'], "say which Django project"),
        (['schedule = "@daily"', 'manage = "x"', 'app = "leters"'], "did you mean 'letters'?"),
        (['schedule = "@daily"', 'command = "no-such-program"'], "there is no program 'no-such-program'"),
        (['schedule = "@daily"', script("true"), 'lock = "x"'], "not the address of a Redis"),
        (['shedule = "@daily"', script("true")], "did you mean 'schedule'?"),
    ],
)
def test_what_cannot_run_is_told_before_anything_starts(project: Path, lines: list[str], said: str) -> None:
    (project / "hawksbill.toml").write_text(CONFIG + table("bad", *lines))
    env = {key: value for key, value in os.environ.items() if not key.startswith("HAWKSBILL_")}
    command = [*COMMAND, "check"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert said in done.stderr
    assert "hawksbill.toml:" in done.stderr


def test_what_was_due_while_no_gateway_ran_is_told_at_the_start(
    project: Path, runtime: Path, ask: Ask
) -> None:
    tables = [
        table("hello", 'schedule = "* * * * * *"', script("echo hello")),
        table("rare", 'schedule = "30 3 1 JAN *"', script("true")),
    ]
    (project / "hawksbill.toml").write_text(CONFIG + "".join(tables))
    env = {"XDG_RUNTIME_DIR": str(runtime)}
    with Server("run", cwd=project, env=env) as first:
        first.wait_for(r"hello: it ended with exit code 0")
        assert "did not run" not in first.output()
        # Whatever ends it.
        first.process.kill()
        first.process.wait()
    ended = time.time()
    until(lambda: time.time() > ended + 2)
    new = table("new", 'schedule = "* * * * * *"', script("true"))
    (project / "hawksbill.toml").write_text(CONFIG + "".join([*tables, new]))
    with Server("run", cwd=project, env=env) as second:
        second.wait_for(
            r"hello: a run is left out: \d+ runs were due while the gateway did not run, the last at \d"
        )
        assert known(ask, "hello")["missed"] >= 2
        second.wait_for(r"hello: the run of \S+ begins")
        second.wait_for(r"new: it ended with exit code 0")
        assert second.output().count("did not run") == 1
