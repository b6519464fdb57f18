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
from harness import COMMAND, TESTS, Server, fetch

pytestmark = pytest.mark.once

SCREENS = TESTS / "golden" / "screens"
APP = "def app(environ, start_response): ...\n"

SHOP = "[apps.shop]\nwsgi = 'app:app'\n"

CASES: dict[str, tuple[dict[str, str], list[str]]] = {
    "nothing": ({}, ["run"]),
    "no_application": ({"main.py": "def main(): ...\n"}, ["run"]),
    "two_candidates": ({"app.py": APP, "main.py": APP}, ["run"]),
    "module_missing": ({"app.py": APP}, ["run", "shop:app"]),
    "attribute_missing": ({"app.py": APP}, ["run", "app:application"]),
    "import_error": ({"app.py": "import a_module_that_is_not_there\n\n" + APP}, ["run"]),
    "unknown_key": ({"hawksbill.toml": "[apps.shop]\nwsgi = 'app:app'\nthread = 4\n"}, ["run"]),
    "venv_missing": (
        {"app.py": APP, "hawksbill.toml": SHOP + "venv = 'absent'\n"},
        ["run"],
    ),
    "venv_of_something_else": (
        {"app.py": APP, "hawksbill.toml": SHOP + "venv = '.'\n"},
        ["check"],
    ),
    "crash": (
        {"app.py": "import os\nos.write(2, b'out of luck\\n')\nos._exit(3)\n", "hawksbill.toml": SHOP},
        ["run"],
    ),
    "syntax_error": ({"app.py": "def app(environ, start_response):\n    return [\n"}, ["run", "app:app"]),
    "a_file_is_named": ({"app.py": APP}, ["run", "app.py"]),
    "file_missing": ({"app.py": APP}, ["run", "-c", "site.toml"]),
    "no_toml": ({"hawksbill.toml": "[apps.shop\nwsgi = 'app:app'\n"}, ["run"]),
    "application_unknown": (
        {"app.py": APP, "hawksbill.toml": SHOP + "[sites.'*']\n'/' = 'shpo'\n"},
        ["run"],
    ),
    "env_file": ({"app.py": APP, ".env": "DEBUG=1\nSECRET\n"}, ["run"]),
}


WITH_LOOPBACK = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket() as one:
    fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", IFF_UP, b""))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def screen(
    directory: Path, arguments: list[str], port: int = 0, through: list[str] | None = None, status: int = 1
) -> str:
    """What is on the screen of a command that fails, without what differs between machines."""
    own = ("HAWKSBILL_", "VIRTUAL_ENV", "DJANGO_SETTINGS_MODULE")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    ended = subprocess.run(
        [*(through or []), *COMMAND, *arguments, "--listen", f"127.0.0.1:{port}"],
        cwd=directory,
        env={**environ, "HAWKSBILL_LOG_FORMAT": "text"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert ended.returncode == status, ended.stdout
    return alike(ended.stdout, directory, port)


def alike(text: str, directory: Path, port: int = 0) -> str:
    """The same on all machines."""
    text = text.replace(str(directory), "DIR").replace(sys.prefix, "PREFIX")
    text = re.sub(r"^\S*\d\d:\d\d:\d\d\S*", "TIME", text, flags=re.MULTILINE)
    text = re.sub(r"(gateway|shop|app)\[\d+\]", r"\1[PID]", text)
    text = re.sub(r"process \d+ ended", "process PID ended", text)
    # One that a test chose for itself is the same everywhere.
    return text.replace(f":{port}", ":PORT") if port >= 1024 else text


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


def test_a_port_that_is_not_for_everybody(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    # Root has all capabilities, unless they are taken from what it starts.
    without = ["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"]
    through = without if os.geteuid() == 0 else []
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first <= 80:
        # Everybody may listen there, as in many containers; a network of its own begins with the usual bound.
        through = ["unshare", "--net", sys.executable, "-c", WITH_LOOPBACK, *through]
    compare("no_permission", screen(tmp_path, ["run", "app:app"], 80, through))


SERVES = """def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"it serves"]
"""

FIRST_RUNS: dict[str, tuple[dict[str, str], list[str]]] = {
    "first_run": ({"app.py": SERVES}, []),
    "first_run_named": ({"app.py": SERVES}, ["app:app"]),
    "first_run_file": (
        {
            "app.py": SERVES,
            "hawksbill.toml": SHOP
            + "[sites.'example.com www.example.com']\n'/' = 'shop'\n"
            + "'/static' = { files = '.' }\n[sites.'*']\nlog = '-'\n'/up' = { respond = 'yes' }\n",
        },
        [],
    ),
}


@pytest.mark.parametrize("name", FIRST_RUNS)
def test_a_first_run_says_what_is_served_where(tmp_path: Path, name: str) -> None:
    files, arguments = FIRST_RUNS[name]
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    with Server("run", *arguments, "--listen", "127.0.0.1:0", cwd=tmp_path) as server:
        port = server.port
        path = "/up" if "hawksbill.toml" in files else "/"
        assert fetch(server.base + path).status_code == 200
        assert server.stop() == 0
        text = server.output()
    # The site that logs its requests does so on the same terminal.
    lines = [line for line in text.splitlines(keepends=True) if f"GET {path} HTTP/1.1" not in line]
    compare(name, alike("".join(lines), tmp_path, port))


def test_a_virtual_environment_without_hawksbill(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=60)
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "hawksbill.toml").write_text(SHOP + "venv = 'venv'\n")
    compare("venv_without_hawksbill", screen(tmp_path, ["run"]))


def test_a_virtual_environment_that_does_not_start(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/no/such/python\n")
    python.chmod(0o755)
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "hawksbill.toml").write_text(SHOP + "venv = 'venv'\n")
    compare("venv_broken", screen(tmp_path, ["run"]))
