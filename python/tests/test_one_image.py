"""The example with two lives: the same files for production and for development, by a variable."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from harness import TESTS, Server
from watching import until

EXAMPLE = TESTS.parent.parent / "examples" / "one-image"

BROKEN = """
def page(request):
    return undefined_name
"""
"""A view that fails when it is asked."""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files as the image has them, with the static ones collected."""
    for name in ("VIRTUAL_ENV", "DJANGO_SETTINGS_MODULE", "HAWKSBILL_CONFIG", "HAWKSBILL_RELOAD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HAWKSBILL_LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("STATIC_ROOT", str(tmp_path / "static"))
    copied = tmp_path / "notes"
    shutil.copytree(EXAMPLE, copied, ignore=shutil.ignore_patterns("__pycache__", "collected"))
    monkeypatch.setenv("SECRET_KEY", "unused")
    collect = [sys.executable, "manage.py", "collectstatic", "--noinput"]
    subprocess.run(collect, cwd=copied, check=True, capture_output=True, timeout=60)
    return copied


def got(server: Server, path: str = "/") -> httpx.Response:
    with server.client() as client:
        return client.get(path, headers={"Accept": "text/html"})


def test_production(start: Callable[..., Server], files: Path) -> None:
    server = start("run", cwd=files)
    assert "This is production." in got(server).text
    assert "development" not in server.output()
    assert got(server, "/static/notes/page.css").headers["etag"]
    (files / "notes/static/notes/new.css").write_text("p {}\n")
    assert got(server, "/static/notes/new.css").status_code == 404
    (files / "notes/views.py").write_text(BROKEN)
    assert "This is production." in got(server).text


def test_production_shows_nobody_what_is_wrong(start: Callable[..., Server], files: Path) -> None:
    (files / "notes/views.py").write_text(BROKEN)
    answer = got(start("run", cwd=files))
    assert answer.status_code == 500
    for word in ("undefined_name", "Traceback", "views.py", "NameError"):
        assert word not in answer.text


def test_development(start: Callable[..., Server], files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET_KEY")
    server = start("run", cwd=files, env={"HAWKSBILL_RELOAD": "1"})
    assert "This is development." in got(server).text
    assert "development (HAWKSBILL_RELOAD)" in server.output()
    (files / "notes/static/notes/new.css").write_text("p {}\n")
    assert got(server, "/static/notes/new.css").text == "p {}\n"
    views = (files / "notes/views.py").read_text()
    (files / "notes/views.py").write_text(views.replace("This is", "Now it is"))
    until(lambda: "Now it is development." in got(server).text, 60)
    (files / "notes/views.py").write_text("undefined_name\n")
    until(lambda: "undefined_name" in got(server).text, 60)
    assert got(server).status_code == 500
