"""What a newcomer reads when something is not as it should be: whole screens, compared with `golden/screens`.

`UPDATE_GOLDEN=1` writes them anew; read the difference before you keep it.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from harness import COMMAND, TESTS

SCREENS = TESTS / "golden" / "screens"
APP = "def app(environ, start_response): ...\n"

CASES: dict[str, tuple[dict[str, str], list[str]]] = {
    "nothing": ({}, ["run"]),
    "no_application": ({"main.py": "def main(): ...\n"}, ["run"]),
    "two_candidates": ({"app.py": APP, "main.py": APP}, ["run"]),
    "module_missing": ({"app.py": APP}, ["run", "shop:app"]),
    "attribute_missing": ({"app.py": APP}, ["run", "app:application"]),
    "import_error": ({"app.py": "import a_module_that_is_not_there\n\n" + APP}, ["run"]),
    "unknown_key": ({"hawksbill.toml": "[apps.shop]\nwsgi = 'app:app'\nthread = 4\n"}, ["run"]),
    "env_file": ({"app.py": APP, ".env": "DEBUG=1\nSECRET\n"}, ["run"]),
}


def screen(directory: Path, arguments: list[str], port: int = 0) -> str:
    """What is on the screen of a command that fails, without what differs between machines."""
    own = ("HAWKSBILL_", "VIRTUAL_ENV", "DJANGO_SETTINGS_MODULE")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    ended = subprocess.run(
        [*COMMAND, *arguments, "--listen", f"127.0.0.1:{port}"],
        cwd=directory,
        env={**environ, "HAWKSBILL_LOG_FORMAT": "text"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1, ended.stdout
    text = ended.stdout.replace(str(directory), "DIR").replace(sys.prefix, "PREFIX")
    text = re.sub(r"^\S*\d\d:\d\d:\d\d\S*", "TIME", text, flags=re.MULTILINE)
    text = re.sub(r"gateway\[\d+\] ", "gateway[PID] ", text)
    return text.replace(f":{port}", ":PORT") if port else text


def compare(name: str, text: str) -> None:
    golden = SCREENS / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("name", CASES)
def test_a_screen_says_what_is_wrong_and_what_to_do(tmp_path: Path, name: str) -> None:
    files, arguments = CASES[name]
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    compare(name, screen(tmp_path, arguments))


def test_a_port_in_use(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as held:
        compare("port_in_use", screen(tmp_path, ["run", "app:app"], held.getsockname()[1]))
