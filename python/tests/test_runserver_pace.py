"""How soon what is saved is answered: `manage.py runserver` by Hawksbill beside Django's own."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import mean

import httpx
import pytest
from development_server import Running, runserver, start_project
from watching import PATIENCE, until

VIEWS = """
from django.http import HttpResponse

def hello(request):
    return HttpResponse("{text}")
"""
URLS = """
from django.urls import path
from . import views

urlpatterns = [path("hello/", views.hello)]
"""
PAUSES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Seconds from an answer to the next save. Django's server looks each second: it matters when it is."""
LIMIT = 5.0
"""Seconds that a save may take at most on any machine; an idle one needs a tenth of it."""
ROUNDS = 3
"""A machine that does other things may slow one of the two down, but not each time."""


class Project:
    """A new project that is served and edited."""

    def __init__(self, directory: Path, hawksbill: bool) -> None:
        directory.mkdir()
        self.directory = start_project(directory)
        if not hawksbill:
            settings = directory / "mysite/settings.py"
            settings.write_text(settings.read_text().replace('"hawksbill",', "", 1))
        (directory / "mysite/urls.py").write_text(URLS)
        self._count = 0
        self.write()

    def write(self) -> str:
        """Save the view, with a text that is new."""
        self._count += 1
        text = f"text {self._count}"
        (self.directory / "mysite/views.py").write_text(VIEWS.format(text=text))
        return text

    def answers(self, server: Running, text: str) -> bool:
        try:
            return server.get("/hello/").text == text
        except httpx.TransportError:
            # Django's server is away while it starts again.
            return False

    def save(self, server: Running) -> float:
        """Seconds from a save to the first new answer."""
        began = time.monotonic()
        text = self.write()
        until(lambda: self.answers(server, text), PATIENCE * 2)
        return time.monotonic() - began


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[tuple[Project, Running], tuple[Project, Running]]]:
    """Hawksbill's and Django's own, with a port each that stays."""
    projects = Project(tmp_path / "hawksbill", True), Project(tmp_path / "own", False)
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in projects]
        ports = [one.getsockname()[1] for one in sockets]
    with ExitStack() as stack:
        both = [
            (project, stack.enter_context(runserver(project.directory, at=f"127.0.0.1:{port}")))
            for project, port in zip(projects, ports, strict=True)
        ]
        for project, server in both:
            until(lambda project=project, server=server: project.answers(server, "text 1"))  # type: ignore[misc]
        yield both[0], both[1]


def test_what_is_saved_is_answered_sooner_than_by_djangos_own(
    servers: tuple[tuple[Project, Running], tuple[Project, Running]], capsys: pytest.CaptureFixture[str]
) -> None:
    (mine, ours), (theirs, own) = servers
    assert "Watching for file changes with Hawksbill" in ours.output()
    assert "Watching for file changes with StatReloader" in own.output()
    for _ in range(ROUNDS):
        took: dict[str, list[float]] = {"hawksbill": [], "django": []}
        for pause in PAUSES:
            for name, project, server in (("hawksbill", mine, ours), ("django", theirs, own)):
                time.sleep(pause)
                took[name].append(project.save(server))
        with capsys.disabled():
            shown = (f"{name} " + " ".join(f"{one:.2f}" for one in all) for name, all in took.items())
            print(f"\nfrom a save to its answer, in seconds: {'; '.join(shown)}")
        assert max(took["hawksbill"]) < LIMIT
        if mean(took["hawksbill"]) < mean(took["django"]):
            return
    pytest.fail(f"Django's own server is quicker: {took}")
