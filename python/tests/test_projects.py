"""Projects that `hawksbill run` finds by looking, in directories without a configuration."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import hawksbill
import pytest
from harness import COMMAND, Server

WSGI = """
    import os

    def {name}(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [os.environ.get("SAID", "nothing").encode()]
    """


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the person who runs the tests has set is no part of the project."""
    for name in ("VIRTUAL_ENV", "DJANGO_SETTINGS_MODULE", "HAWKSBILL_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def asked(server: Server) -> str:
    with server.client() as client:
        return client.get("/").text


def fails(directory: Path, command: str = "run") -> str:
    """What is said by a command that ends with 1."""
    ended = subprocess.run([*COMMAND, command], cwd=directory, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1, ended.stderr
    assert "panicked" not in ended.stderr
    return ended.stderr


@pytest.mark.parametrize("name", ["app", "main", "wsgi"])
def test_a_module_is_found_and_told(start: Callable[..., Server], tmp_path: Path, name: str) -> None:
    write(tmp_path, {f"{name}.py": WSGI.format(name="application"), ".env": "SAID='from the file'\n"})
    server = start("run", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert asked(server) == "from the file"
    assert f"found the application '{name}:application' in {name}.py" in server.output()
    assert "SAID from .env" in server.output()


def test_the_real_environment_wins(
    start: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAID", "really")
    write(tmp_path, {"app.py": WSGI.format(name="app"), ".env": "SAID='from the file'\n"})
    server = start("run", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert asked(server) == "really"


def test_a_django_project_is_found(start: Callable[..., Server], tmp_path: Path) -> None:
    admin = [sys.executable, "-m", "django", "startproject", "shop", "."]
    subprocess.run(admin, cwd=tmp_path, check=True, timeout=60)
    server = start("run", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert "The install worked successfully" in asked(server)
    assert "found the Django project 'shop.settings' in manage.py" in server.output()


@pytest.mark.parametrize("fit", [True, False])
def test_the_projects_virtual_environment_is_used(
    start: Callable[..., Server], tmp_path: Path, fit: bool
) -> None:
    app = """
        import sys

        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [sys.prefix.encode()]
        """
    write(tmp_path, {"app.py": app})
    venv = tmp_path / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    if fit:
        borrowed = next(venv.glob("lib/python*/site-packages")) / "borrowed.pth"
        borrowed.write_text(f"{Path(hawksbill.__file__).parent.parent}\n")
        (venv / "bin/hawksbill").symlink_to(Path(sys.executable).with_name("hawksbill"))
    server = start("run", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert asked(server) == (str(venv) if fit else sys.prefix)
    said = "its virtual environment .venv" if fit else ".venv/bin/python -m pip install hawksbill"
    assert said in server.output()


def test_two_candidates_are_a_question(tmp_path: Path) -> None:
    write(tmp_path, {"app.py": WSGI.format(name="app"), "main.py": WSGI.format(name="app")})
    for command in ("run", "check"):
        assert fails(tmp_path, command) == dedent("""\
            hawksbill: which application is meant? There is more than one here:
              app.py         hawksbill run app:app
              main.py        hawksbill run main:app
            name it, as in one of these commands, or in hawksbill.toml
            """)


def test_what_holds_no_application_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"main.py": "def main(): ...\n"})
    assert "no application was seen in main.py" in fails(tmp_path)


def test_a_wrong_line_of_the_env_file_is_told_without_its_text(tmp_path: Path) -> None:
    write(tmp_path, {"app.py": WSGI.format(name="app"), ".env": "A=1\nhunter2\n"})
    said = fails(tmp_path)
    assert ".env, line 2: there is no '=' here" in said
    assert "hunter2" not in said
