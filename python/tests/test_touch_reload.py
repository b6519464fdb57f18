"""`touch_reload`: a reload that a file asks for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from harness import Server
from watching import until

pytestmark = pytest.mark.once

APP = """
import os

def application(environ, start_response):
    start_response("200 OK", [("X-Pid", str(os.getpid()))])
    return [b"{version}"]
"""

CONFIG = """
listen = "127.0.0.1:0"
touch_reload = "all"
[apps.shop]
wsgi = "main"
dir = "shop"
touch_reload = ["shop/touched", "shop/other"]
[apps.blog]
wsgi = "main"
dir = "blog"
[sites."*"]
"/" = "shop"
"/blog" = "blog"
"""


def write(project: Path, version: int) -> None:
    for name in ("shop", "blog"):
        (project / name).mkdir(exist_ok=True)
        (project / name / "main.py").write_text(APP.format(version=version))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two applications, and files beside them of which one is there."""
    write(tmp_path, 0)
    (tmp_path / "hawksbill.toml").write_text(CONFIG)
    (tmp_path / "all").touch()
    return tmp_path


def touch(path: Path) -> None:
    """As a minute later, so that no clock is too coarse to tell, and at once, so that it is one change."""
    new = path.with_name("new name")
    new.touch()
    later = (path if path.exists() else new).stat().st_mtime_ns + 60_000_000_000
    os.utime(new, ns=(later, later))
    new.replace(path)


def answer(server: Server, path: str) -> tuple[str, str]:
    """The version that answers, and its process."""
    with server.client() as client:
        found = client.get(path)
    return found.text, found.headers["x-pid"]


def test_a_touch_loads_everything_again(project: Path) -> None:
    with Server("run", cwd=project) as server:
        write(project, 1)
        touch(project / "all")
        until(lambda: {answer(server, path)[0] for path in ("/", "/blog")} == {"1"})
        server.wait_for(f"{re.escape(str(project / 'all'))} was touched: loading")
        # It need not stay.
        (project / "all").unlink()
        write(project, 2)
        touch(project / "all")
        until(lambda: {answer(server, path)[0] for path in ("/", "/blog")} == {"2"})
        server.wait_for("(?s)was touched.*was touched")
        assert server.output().count("was touched") == 2


def test_a_file_that_appears_loads_its_application_again(project: Path) -> None:
    with Server("run", cwd=project) as server:
        blog = answer(server, "/blog")
        write(project, 1)
        (project / "shop/other").touch()
        until(lambda: answer(server, "/")[0] == "1")
        server.wait_for("the new generation serves")
        assert answer(server, "/blog") == blog
        write(project, 2)
        touch(project / "shop/other")
        until(lambda: answer(server, "/")[0] == "2")
        assert answer(server, "/blog") == blog


def test_a_touch_that_fails_leaves_the_old(project: Path) -> None:
    with Server("run", cwd=project) as server:
        (project / "shop/main.py").write_text("raise RuntimeError('no shelf')\n")
        touch(project / "shop/touched")
        server.wait_for("the old generation goes on(?s:.)*no shelf")
        assert answer(server, "/")[0] == "0"
        write(project, 1)
        touch(project / "shop/touched")
        until(lambda: answer(server, "/")[0] == "1")


def test_one_application_without_a_file_has_it_as_a_flag(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP.format(version=0))
    with Server("run", "main", "--listen", "127.0.0.1:0", "--touch-reload", "here", cwd=tmp_path) as server:
        (tmp_path / "main.py").write_text(APP.format(version=1))
        (tmp_path / "here").touch()
        until(lambda: answer(server, "/")[0] == "1")


def test_files_that_are_named_later_count(project: Path) -> None:
    with Server("run", cwd=project) as server:
        config = project / "hawksbill.toml"
        config.write_text(CONFIG.replace('touch_reload = "all"', 'touch_reload = "new"'))
        touch(project / "all")
        server.wait_for("the new generation serves")
        write(project, 1)
        touch(project / "new")
        until(lambda: answer(server, "/blog")[0] == "1")
