"""Static files and uploads of Django projects that `hawksbill run` finds by looking."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from harness import COMMAND, Ask, Server

MORE = """
STATIC_ROOT = BASE_DIR / "collected"
MEDIA_URL = "/uploads/"
MEDIA_ROOT = BASE_DIR / "media"
INSTALLED_APPS += ["goods"]
"""
"""What a project adds to the settings that `startproject` writes."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("VIRTUAL_ENV", "DJANGO_SETTINGS_MODULE", "HAWKSBILL_CONFIG", "HAWKSBILL_RELOAD"):
        monkeypatch.delenv(name, raising=False)
    manage(tmp_path, "-m", "django", "startproject", "shop", ".")
    (tmp_path / "goods/static/goods").mkdir(parents=True)
    (tmp_path / "goods/__init__.py").touch()
    (tmp_path / "goods/static/goods/a.css").write_text("a {}\n")
    (tmp_path / "media").mkdir()
    (tmp_path / "media/cat.txt").write_text("a cat\n")
    add(tmp_path, MORE)
    return tmp_path


def add(project: Path, settings: str) -> None:
    with (project / "shop/settings.py").open("a") as file:
        file.write(settings)


def manage(project: Path, *words: str) -> None:
    subprocess.run([sys.executable, *words], cwd=project, check=True, timeout=60, capture_output=True)


def run(start: Callable[..., Server], project: Path, *flags: str) -> Server:
    return start("run", "--listen", "127.0.0.1:0", *flags, cwd=project)


def got(server: Server, path: str) -> httpx.Response:
    with server.client() as client:
        return client.get(path)


def checked(project: Path) -> str:
    """What `hawksbill check` prints of the project."""
    done = subprocess.run([*COMMAND, "check"], cwd=project, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_was_collected_is_served_by_the_gateway(start: Callable[..., Server], project: Path) -> None:
    manage(project, "manage.py", "collectstatic", "--noinput")
    server = run(start, project)
    answer = got(server, "/static/goods/a.css")
    assert (answer.status_code, answer.text) == (200, "a {}\n")
    assert answer.headers["etag"]
    assert got(server, "/uploads/cat.txt").text == "a cat\n"
    assert got(server, "/uploads/").status_code == 404
    for route in ("/static files", "/uploads files", "/ shop"):
        assert route in server.output()
    assert "nothing is served" not in server.output()
    # Nothing that was not collected.
    (project / "goods/static/goods/b.css").write_text("b {}\n")
    assert got(server, "/static/goods/b.css").status_code == 404


def test_what_was_not_collected_is_told_once(start: Callable[..., Server], project: Path) -> None:
    server = run(start, project)
    assert got(server, "/static/goods/a.css").status_code == 404
    assert server.output().count("manage.py collectstatic") == 1
    assert f"{project / 'collected'}, is not there" in server.output()


def test_what_is_collected_later_is_there_after_a_reload(
    start: Callable[..., Server], project: Path, ask: Ask, runtime: Path
) -> None:
    server = start("run", "--listen", "127.0.0.1:0", cwd=project, env={"XDG_RUNTIME_DIR": str(runtime)})
    assert got(server, "/static/goods/a.css").status_code == 404
    manage(project, "manage.py", "collectstatic", "--noinput")
    done = ask("reload")
    assert done.returncode == 0, done.stderr
    assert got(server, "/static/goods/a.css").text == "a {}\n"


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_in_development_a_new_file_is_there_at_once(
    start: Callable[..., Server], project: Path, interface: str
) -> None:
    if interface == "asgi":
        add(project, 'ASGI_APPLICATION = "shop.own.application"\n')
        (project / "shop/own.py").write_text(
            "from shop.asgi import application as django\n\n\n"
            "async def application(scope, receive, send):\n    await django(scope, receive, send)\n"
        )
    server = run(start, project, "--reload")
    assert got(server, "/static/goods/a.css").text == "a {}\n"
    (project / "goods/static/goods/b.css").write_text("b {}\n")
    assert got(server, "/static/goods/b.css").text == "b {}\n"
    assert got(server, "/uploads/cat.txt").text == "a cat\n"
    assert got(server, "/").status_code == 200
    assert "/static static files by their finders" in server.output()
    assert "collectstatic" not in server.output()


@pytest.mark.parametrize("flags", [[], ["--reload"]])
@pytest.mark.parametrize("url", ["https://cdn.example/s/", "//cdn.example/s/", "/"])
def test_urls_that_are_not_its_own_are_left_alone(
    start: Callable[..., Server], project: Path, url: str, flags: list[str]
) -> None:
    add(project, f"STATIC_URL = {url!r}\nMEDIA_URL = '' if {url!r} == '/' else {url!r} + 'media/'\n")
    (project / "collected").mkdir()
    server = run(start, project, *flags)
    assert "The install worked successfully" in got(server, "/").text
    assert got(server, "/uploads/cat.txt").status_code == 404
    assert " files" not in server.output()


def test_a_view_of_the_projects_own_guards_its_uploads(start: Callable[..., Server], project: Path) -> None:
    (project / "shop/urls.py").write_text(
        "from django.http import HttpResponse\nfrom django.urls import path\n\n"
        "urlpatterns = [path('uploads/<path:name>', lambda request, name: HttpResponse('guarded'))]\n"
    )
    server = run(start, project)
    assert got(server, "/uploads/cat.txt").text == "guarded"
    assert "has a view of the project's own" in server.output()


def test_the_view_that_serves_uploads_in_development_is_no_guard(project: Path) -> None:
    (project / "shop/urls.py").write_text(
        "from django.conf import settings\nfrom django.conf.urls.static import static\n\n"
        "urlpatterns = static(settings.MEDIA_URL, document_root=settings.MEDIA_ROOT)\n"
    )
    assert "/uploads" in checked(project)


@pytest.mark.parametrize("root", ["BASE_DIR", "BASE_DIR.parent"])
def test_a_directory_with_the_project_in_it_is_not_served(
    start: Callable[..., Server], project: Path, root: str
) -> None:
    add(project, f"MEDIA_ROOT = {root}\n")
    server = run(start, project)
    assert got(server, "/uploads/manage.py").status_code == 404
    assert "has the project itself in it" in server.output()


def test_a_project_that_prints_is_understood(project: Path) -> None:
    add(project, "print('loading {')\n")
    assert "/uploads" in checked(project)


def test_a_project_that_does_not_load_says_why(project: Path) -> None:
    add(project, "import nothing_of_this_name\n")
    ended = subprocess.run([*COMMAND, "run"], cwd=project, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "the project does not load: ModuleNotFoundError" in ended.stderr
