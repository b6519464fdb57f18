"""Pools behind a front: who gets a request, who gets none, how many there are, and whose they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import httpx
import pytest
from harness import COMMAND, Server, runs
from watching import Load, until

APP = """
import os
import sys
import time
from pathlib import Path

GATE = Path(__file__).with_name("gate")

def application(environ, start_response):
    path = environ["PATH_INFO"]
    pid = str(os.getpid())
    if path == "/held":
        Path(__file__).with_name("held").write_text(pid)
        while not GATE.exists():
            time.sleep(0.01)
    elif path == "/brief":
        time.sleep(0.05)
    shown = [pid, str(os.getuid()), str(os.getgid()), str(os.getgroups()), sys.prefix, sys.version]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["\\n".join(shown).encode()]
"""

DJANGO_SETTINGS = """
SECRET_KEY = "only for these tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
NAME = {name!r}
"""

DJANGO_WSGI = """
import os
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
application = get_wsgi_application()
"""

DJANGO_URLS = """
import os
import sys
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

def show(request):
    module = os.environ["DJANGO_SETTINGS_MODULE"]
    shown = [settings.NAME, module, os.environ.get("COLOUR", ""), request.path, sys.prefix, sys.version]
    return HttpResponse("\\n".join(shown))

urlpatterns = [path("shown/", show)]
"""

NOBODY = "nobody"


def configure(directory: Path, keys: str) -> Path:
    """One application behind a front, with these keys."""
    (directory / "main.py").write_text(APP)
    head = 'listen = "127.0.0.1:0"\ndrain = "5s"\nfront = true\n'
    app = f"[apps.one]\nwsgi = 'main'\n{dedent(keys)}\n"
    config = directory / "hawksbill.toml"
    config.write_text(f"{head}{app}[sites.'*']\n'/' = 'one'\n")
    return config


def lines(server: Server, path: str = "/") -> list[str]:
    """What an application shows."""
    with server.client() as client:
        answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text.split("\n")


class Held:
    """Requests that the application does not answer until they are let go."""

    def __init__(self, server: Server, directory: Path) -> None:
        self._server, self._directory = server, directory
        self._asking = ThreadPoolExecutor(32)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        self._asking.shutdown()

    def ask(self, count: int = 1) -> list[httpx.Response]:
        """The answers, filled in as they come."""
        answers: list[httpx.Response] = []

        def one() -> None:
            with self._server.client() as client:
                answers.append(client.get("/held"))

        for _ in range(count):
            self._asking.submit(one)
        until(self._marker.exists)
        return answers

    @property
    def _marker(self) -> Path:
        return self._directory / "held"

    def by(self) -> str:
        """Who has one: the process that began last."""
        until(lambda: self._marker.exists() and self._marker.read_text() != "")
        return self._marker.read_text()

    def let_go(self) -> None:
        (self._directory / "gate").touch()


def test_a_full_queue_is_said_with_when_to_come_again(tmp_path: Path) -> None:
    config = configure(tmp_path, "workers = 1\nthreads = 1\nqueue = 2")
    with Server("run", "-c", config, cwd=tmp_path) as server, Held(server, tmp_path) as held:
        answers = held.ask(12)
        # Those that are refused are refused at once, while everything else still waits.
        until(lambda: len(answers) >= 7)
        assert {answer.status_code for answer in answers} == {503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
        held.let_go()
        until(lambda: len(answers) == 12)
        served = [answer for answer in answers if answer.status_code == 200]
        # One at work, and what waits for it: nobody who was let in is lost.
        assert 3 <= len(served) <= 5
        # There is room again.
        assert lines(server)[0] == served[0].text.split("\n")[0]


def test_who_has_room_gets_the_request(tmp_path: Path) -> None:
    config = configure(tmp_path, "workers = 2\nthreads = 4")
    with Server("run", "-c", config, cwd=tmp_path) as server:
        both: set[str] = set()

        def seen() -> bool:
            both.add(lines(server)[0])
            return len(both) == 2

        until(seen)
        with Held(server, tmp_path) as held:
            held.ask()
            slow = held.by()
            # One of four threads of the one is taken: in turn it would get every second of these.
            assert {lines(server)[0] for _ in range(20)} == both - {slow}


def test_a_pool_grows_under_load_and_shrinks_after_it(tmp_path: Path) -> None:
    keys = "threads = 1\nworkers = { min = 1, max = 3, idle = '1s' }"
    config = configure(tmp_path, keys)

    def who(answers: list[str]) -> set[str]:
        return {answer.split("\n")[0] for answer in answers}

    with Server("run", "-c", config, cwd=tmp_path) as server:
        with Load(server, 8, ("/brief",), keep=True) as crowd:
            until(lambda: len(who(crowd.answers[-60:])) == 3)
        grown = who(crowd.answers)
        assert len(grown) == 3

        # Somebody still asks, one request after the other: one process is enough for that.
        def shrunk() -> bool:
            assert lines(server)[0] in grown
            return sum(runs(int(pid)) for pid in grown) == 1

        until(shrunk)
        assert lines(server)[0] in grown
    assert crowd.failures == []


def interpreters() -> list[Path]:
    """Environments with Hawksbill and Django: those of other Pythons beside this one, where there are any."""
    ours = Path(sys.prefix)
    beside = sorted(ours.parent.glob("*/lib/python3.*/site-packages/hawksbill/_core.*.so"))
    found = {path.parents[3].name: path.parents[4] for path in beside if path.parents[4] != ours}
    own = f"python{sysconfig.get_python_version()}"
    return [venv for python, venv in sorted(found.items()) if python != own] or [ours]


def test_projects_with_the_same_names_and_other_pythons(tmp_path: Path) -> None:
    other = interpreters()[0]
    for name in ("shop", "blog"):
        package = tmp_path / name / "project"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "settings.py").write_text(DJANGO_SETTINGS.format(name=name))
        (package / "urls.py").write_text(DJANGO_URLS)
        (package / "wsgi.py").write_text(DJANGO_WSGI)
    config = f"""
        listen = "127.0.0.1:0"
        [apps.shop]
        django = "project.settings"
        dir = "shop"
        env = {{ COLOUR = "green" }}
        [apps.blog]
        django = "project.settings"
        dir = "blog"
        venv = "{other}"
        [sites."*"]
        "/" = "shop"
        "/blog" = {{ mount = "blog" }}
        """
    (tmp_path / "hawksbill.toml").write_text(dedent(config))
    with Server("run", cwd=tmp_path) as server:
        shop, blog = lines(server, "/shown/"), lines(server, "/blog/shown/")
    assert shop[:5] == ["shop", "project.settings", "green", "/shown/", sys.prefix]
    assert blog[:5] == ["blog", "project.settings", "", "/blog/shown/", str(other)]
    asked = [str(other / "bin/python"), "-c", "import sys; print(sys.version)"]
    version = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout
    assert (shop[5:], blog[5:]) == (sys.version.split("\n"), version.rstrip("\n").split("\n"))


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that everybody can read."""
    directory = Path(tempfile.mkdtemp(prefix="hawksbill-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def readable_python(directory: Path) -> Path:
    """An environment for any user: this one's Python may be where root alone can go."""
    home, version = directory / "python", f"python{sysconfig.get_python_version()}"
    library = Path(sysconfig.get_path("stdlib"))
    left_out = shutil.ignore_patterns("test", "site-packages", "config-*", "__pycache__", "idlelib", "*.a")
    shutil.copytree(library, home / "lib" / version, ignore=left_out, symlinks=True)
    (home / "bin").mkdir()
    shutil.copy(Path(sys.executable).resolve(), home / "bin" / "python")
    for shared in Path(sys.base_prefix, "lib").glob("libpython3*.so*"):
        shutil.copy(shared, home / "lib")
    # Beside the library: an interpreter that was moved need not look for packages of its own.
    packages = Path(sysconfig.get_path("purelib"))
    shutil.copytree(packages / "hawksbill", home / "lib" / version / "hawksbill")
    return home


def test_an_application_of_another_user(public: Path) -> None:
    home = readable_python(public)
    # An interpreter may look for its library where it was built.
    where = f"env = {{ LD_LIBRARY_PATH = '{home}/lib' }}"
    keys = f"user = '{NOBODY}'\nworkers = 2\nvenv = '{home}'\n{where}"
    config = configure(public, keys)
    if os.geteuid() != 0:
        command = [*COMMAND, "run", "-c", str(config)]
        ended = subprocess.run(command, cwd=public, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 1
        assert "cannot" in ended.stderr
        return
    import grp
    import pwd

    account = pwd.getpwnam(NOBODY)
    with Server("run", "-c", config, cwd=public) as server:
        pid, uid, gid, groups, *_ = lines(server)
        assert (int(uid), int(gid)) == (account.pw_uid, account.pw_gid)
        # None of root's groups stays.
        assert groups == str([account.pw_gid])
        # Nobody else can go where its socket is, and its user cannot go where others' are.
        place = Path("/run", f"hawksbill-{server.process.pid}")
        assert place.stat().st_mode & 0o777 == 0o711
        assert place.stat().st_uid == 0
        private = next(iter(place.iterdir()))
        assert private.stat().st_mode & 0o777 == 0o700
        assert (private.stat().st_uid, private.stat().st_gid) == (account.pw_uid, account.pw_gid)
        before = set(private.glob("*.sock"))
        assert len(before) == 2
        # What replaces a dead one has its user too. Until the front knows, requests may reach the dead one.
        os.kill(int(pid), 9)
        until(lambda: len(set(private.glob("*.sock")) - before) == 1)
        assert {lines(server)[1] for _ in range(8)} == {uid}
    daemon = grp.getgrnam("daemon")
    config = configure(public, f"group = 'daemon'\n{keys}")
    with Server("run", "-c", config, cwd=public) as server:
        shown = lines(server)
    assert [int(shown[1]), int(shown[2])] == [account.pw_uid, daemon.gr_gid]
