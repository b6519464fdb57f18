"""Little applications and projects that several tests serve."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

from harness import Server
from watching import until

VERSION = """
import os

VERSION = {version}

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))])
    return [f"{{VERSION}}".encode()]
"""


def write(directory: Path, version: int, more: str = "") -> None:
    """Writes a WSGI application, `site_app`, that says which version it is."""
    (directory / "site_app.py").write_text(VERSION.format(version=version) + dedent(more))


WHO_SETTINGS = """
SECRET_KEY = "only for these tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
WSGI_APPLICATION = "wsgi.application"
STATIC_URL = "/static/"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}}
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
"""

WHO_URLS = """
import os
import random

from django.contrib import admin
from django.http import HttpResponse
from django.urls import path

IMPORTED_BY = os.getpid()

def who(request):
    said = f"{IMPORTED_BY} {os.getpid()} {os.getppid()} {random.random()}"
    return HttpResponse(said, headers={"X-Version": "VERSION"})

urlpatterns = [path("", who), path("admin/", admin.site.urls)]
"""

WHO_WSGI = """
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
import urls
"""


def write_who(project: Path, version: int = 0) -> None:
    """Writes a Django project that says who answers; see `Answers`."""
    (project / "settings.py").write_text(WHO_SETTINGS)
    (project / "wsgi.py").write_text(WHO_WSGI)
    (project / "urls.py").write_text(WHO_URLS.replace("VERSION", str(version)))


class Answers:
    """Who has answered so far, each connection by whoever accepts it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.importers: set[int] = set()
        self.workers: set[int] = set()
        self.parents: dict[int, int] = {}
        """Whose child each worker was when it answered last."""
        self.numbers: list[str] = []

    def ask(self) -> str:
        with self._server.client() as client:
            answer = client.get("/")
        assert answer.status_code == 200, answer.text
        importer, worker, parent, number = answer.text.split()
        self.importers.add(int(importer))
        self.workers.add(int(worker))
        self.parents[int(worker)] = int(parent)
        self.numbers.append(number)
        return str(answer.headers["x-version"])

    def until_all(self, workers: set[int]) -> None:
        def complete() -> bool:
            self.ask()
            return self.workers >= workers

        until(complete)

    def until_children_of(self, parent: int) -> None:
        """Waits until whoever forked them has ended, and they are this one's children."""

        def adopted() -> bool:
            self.ask()
            return set(self.parents.values()) == {parent}

        until(adopted)


PAUSING = """
import os, sys, time
from urllib.parse import unquote

print("NAME has opened", file=sys.stderr, flush=True)

def application(environ, start_response):
    status = unquote(environ["QUERY_STRING"]) or "200 OK"
    time.sleep(PAUSE)
    start_response(status, [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))])
    return [b"NAME"]
"""

SHOP_AND_BLOG = """
listen = "127.0.0.1:0"

[apps.shop]
wsgi = "shop"
workers = 2
threads = 4

[apps.blog]
wsgi = "blog"

[sites."*"]
"/" = "shop"
"/blog" = "blog"

[sites."static.example"]
"/" = { respond = "still" }
"""

PAUSE = 0.04
"""How long a request to the shop takes: much longer than what is around it."""


def write_pausing(project: Path, name: str, pause: float) -> None:
    """Writes a WSGI application that takes so many seconds for each request."""
    text = PAUSING.replace("NAME", name).replace("PAUSE", str(pause))
    (project / f"{name}.py").write_text(text)


def write_shop_and_blog(directory: Path) -> Path:
    """Makes a project of a shop, which takes its time, and a blog, which takes none."""
    project = directory / "project"
    project.mkdir()
    write_pausing(project, "shop", PAUSE)
    write_pausing(project, "blog", 0)
    return project
