"""Development as people see it: a headless Chromium shows a page while its source is edited."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import Server
from playwright.sync_api import Page, expect
from test_browser import browser, page
from watching import PATIENCE

__all__ = ["browser", "page"]

pytestmark = pytest.mark.browser

DJANGO_URLS = """
from django.urls import path

from site1 import views

urlpatterns = [path("", views.index)]
"""

DJANGO = """
from django.http import HttpResponse


def index(request):
    return HttpResponse("<h1>{text}</h1>")
"""

FLASK = """
from flask import Flask

app = Flask(__name__)


@app.get("/")
def index():
    return "<h1>{text}</h1>"
"""

FASTAPI = """
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

app = FastAPI()


@app.get("/")
async def index():
    return HTMLResponse("<h1>{text}</h1>")
"""


@dataclass
class Project:
    """A project as a newcomer has it, and the file with its one view."""

    dir: Path
    file: Path
    source: str

    def save(self, text: str) -> None:
        self.file.write_text(self.source.format(text=text))


@pytest.fixture(params=["django", "flask", "fastapi"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    if request.param == "django":
        django = [sys.executable, "-m", "django", "startproject", "site1", str(tmp_path)]
        subprocess.run(django, check=True, timeout=60)
        (tmp_path / "site1/urls.py").write_text(DJANGO_URLS)
        found = Project(tmp_path, tmp_path / "site1/views.py", DJANGO)
    else:
        source = FLASK if request.param == "flask" else FASTAPI
        found = Project(tmp_path, tmp_path / "app.py", source)
    found.save("first")
    return found


def reload_until(page: Page, text: str) -> None:
    """Loads the page again, as whoever has saved does, until it has this heading."""
    deadline = time.monotonic() + PATIENCE
    while page.locator("h1").text_content() != text:
        assert time.monotonic() < deadline, page.content()
        page.reload()


def test_a_page_is_edited_broken_and_mended(project: Project, page: Page) -> None:
    heading = page.locator("h1")
    with Server("run", "--reload", "--listen", "127.0.0.1:0", cwd=project.dir) as server:
        page.goto(server.base)
        expect(heading).to_have_text("first")

        project.save("second")
        reload_until(page, "second")

        broken = project.source.format(text="never seen") + "\nraise LookupError('<no shell>')\n"
        project.file.write_text(broken)
        reload_until(page, "LookupError: <no shell>")
        line = broken.count("\n")
        expect(page.locator(".place")).to_have_text(f"{project.file.relative_to(project.dir)}:{line}")
        expect(page.locator(".to-blame")).to_contain_text("raise LookupError('<no shell>')")
        expect(page.locator(".traceback")).to_contain_text("Traceback (most recent call last):")

        # Another mistake takes the place of the first by itself.
        project.file.write_text("import nothing_of_this_name\n")
        expect(heading).to_contain_text("No module named 'nothing_of_this_name'")
        expect(page.locator(".place")).to_contain_text(f"{project.file.name}:1")

        project.save("mended")
        expect(heading).to_have_text("mended")


def test_a_page_of_djangos_own_comes_back_as_well(tmp_path: Path, page: Page) -> None:
    """The application starts, and Django itself tells what is wrong with a view."""
    admin = [sys.executable, "-m", "django", "startproject", "site1", str(tmp_path)]
    subprocess.run(admin, check=True, timeout=60)
    (tmp_path / "site1/urls.py").write_text(DJANGO_URLS)
    views = tmp_path / "site1/views.py"
    views.write_text("def index(request):\n    import nothing_of_this_name\n")
    application = ("site1.wsgi:application", "--wsgi")
    with Server("run", *application, "--reload", "--listen", "127.0.0.1:0", cwd=tmp_path) as server:
        page.goto(server.base)
        expect(page.locator("h1")).to_contain_text("ModuleNotFoundError")
        expect(page).to_have_title(re.compile("ModuleNotFoundError at /"))
        views.write_text(DJANGO.format(text="mended"))
        expect(page.locator("h1")).to_have_text("mended", timeout=1000 * PATIENCE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable_by_day_and_by_night(tmp_path: Path, page: Page, scheme: str) -> None:
    (tmp_path / "app.py").write_text("app = 1 / 0\n")
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    with Server("run", "--reload", "--listen", "127.0.0.1:0", cwd=tmp_path) as server:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.base)
        expect(page.locator("h1")).to_have_text("ZeroDivisionError: division by zero")
        for element in ("h1", ".to-blame", ".traceback", "p"):
            assert contrast(page, element) >= 4.5, element
        assert all(url.startswith(server.base) for url in asked), "it needs nothing from elsewhere"


def contrast(page: Page, selector: str) -> float:
    """The contrast between a text and what it stands on, as WCAG 2 counts it: from 1 to 21."""
    colours: list[list[float]] = page.locator(selector).first.evaluate(
        """element => {
            const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
            let ground = element;
            while (numbers(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
            return [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(numbers);
        }"""
    )

    def luminance(colour: list[float]) -> float:
        parts = [value / 255 for value in colour[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)
