"""The kind `django`: real projects, of which some is served through WSGI and some through ASGI."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from harness import COMMAND, Server
from websockets.sync.client import connect

SETTINGS = """
SECRET_KEY = "for these tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "site_urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
"""

VIEWS = """
import asyncio
import threading
from pathlib import Path
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path, re_path
from django.views import View

def told(request, **_):
    return HttpResponse(type(request).__name__)

async def told_async(request, **_):
    return HttpResponse(type(request).__name__)

class Told(View):
    async def post(self, request, **_):
        return HttpResponse(type(request).__name__ + " " + request.body.decode())

async def events(request):
    async def ticks():
        for number in range(10_000):
            yield f"data: {number}\\n\\n"
            await asyncio.sleep(0.05)
    return StreamingHttpResponse(ticks(), content_type="text/event-stream")

def threads(request):
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    return HttpResponse(",".join(names))

def ident(request):
    return HttpResponse(str(threading.get_ident()))
"""

PLAIN = "urlpatterns = [path('', told), path('threads', threads), path('ident', ident)]\n"
MIXED = """
urlpatterns = [
    path("", told),
    path("live/fixed", told),
    path("live/<slug:name>", told_async),
    path("class/", Told.as_view()),
    path("events", events),
    path("threads", threads),
    re_path(r"^old/([0-9]+)$", lambda request, number: told(request)),
]
"""

NAMED = """
from django.conf import settings
urlpatterns = [re_path("", lambda request: HttpResponse(settings.NAME))]
"""

ROUTER = """
from channels.generic.websocket import WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

class Echo(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data="echo " + text_data)

async def custom(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"custom"})

websocket = URLRouter([path("ws", Echo.as_asgi())])
plain = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": websocket})
bare = ProtocolTypeRouter({"websocket": websocket})
other = ProtocolTypeRouter({"http": custom, "websocket": websocket})
"""

Start = Callable[..., Server]


@pytest.fixture
def project(tmp_path: Path, start: Start) -> Start:
    """Starts a project out of the texts of its settings and its views, with these keys."""

    def begin(urls: str, settings: str = "", keys: str = "", env: dict[str, str] | None = None) -> Server:
        (tmp_path / "site_settings.py").write_text(SETTINGS + dedent(settings))
        (tmp_path / "site_urls.py").write_text(VIEWS + urls)
        (tmp_path / "site_asgi.py").write_text(ROUTER)
        config = tmp_path / "hawksbill.toml"
        config.write_text(
            "listen = '127.0.0.1:0'\n[apps.shop]\ndjango = 'site_settings'\n"
            f"{keys}\n[sites.'*']\n'/' = 'shop'\n"
        )
        return start("run", "-c", config, env=env, cwd=tmp_path)

    return begin


def get(server: Server, path: str) -> str:
    with server.client() as client:
        return client.get(path).text


def test_a_project_in_which_nothing_is_asynchronous_has_no_event_loop(project: Start) -> None:
    server = project(PLAIN)
    server.wait_for(r"Django: HTTP by WSGI \(no view is asynchronous\); no WebSockets, so no event loop")
    assert get(server, "/") == "WSGIRequest"
    assert "asgi-loop" not in get(server, "/threads")


def test_asynchronous_views_go_by_asgi(project: Start) -> None:
    server = project(MIXED)
    server.wait_for(
        r"HTTP by WSGI, but asynchronous views by ASGI \(site_urls\.told_async, site_urls\.Told, "
    )
    for _ in range(2):
        assert get(server, "/") == "WSGIRequest"
        assert get(server, "/live/fixed") == "WSGIRequest"
        assert get(server, "/live/other") == "ASGIRequest"
        assert get(server, "/old/12") == "WSGIRequest"
    assert "asgi-loop" in get(server, "/threads")
    with server.client() as client:
        assert client.post("/class/", content=b"x" * 300_000).text == "ASGIRequest " + "x" * 300_000
        assert client.get("/live/").status_code == 404


def test_events_arrive_one_by_one(project: Start) -> None:
    server = project(MIXED)
    with server.client() as client, client.stream("GET", "/events") as response:
        # Long before the last of them has happened.
        lines = [line for _, line in zip(range(6), response.iter_lines(), strict=False)]
    assert lines == ["data: 0", "", "data: 1", "", "data: 2", ""]


@pytest.mark.parametrize("router", ["plain", "bare"])
def test_websockets_go_by_asgi_and_pages_by_wsgi(project: Start, router: str) -> None:
    server = project(MIXED, f"ASGI_APPLICATION = 'site_asgi.{router}'")
    server.wait_for(rf"; WebSockets by ASGI \('site_asgi\.{router}'\)")
    with connect(f"ws://127.0.0.1:{server.port}/ws", proxy=None) as socket:
        socket.send("turtle")
        assert socket.recv() == "echo turtle"
        assert get(server, "/") == "WSGIRequest"
        assert get(server, "/live/other") == "ASGIRequest"


def test_a_route_of_the_projects_own_takes_all_of_http(project: Start) -> None:
    server = project(PLAIN, "ASGI_APPLICATION = 'site_asgi.other'")
    server.wait_for(
        r"HTTP by ASGI \(the 'http' route of ASGI_APPLICATION 'site_asgi\.other' is not Django's own"
    )
    assert get(server, "/") == "custom"


def test_what_is_configured_wins(project: Start) -> None:
    server = project(MIXED, keys="http = 'asgi'")
    server.wait_for(r'HTTP by ASGI \(http = "asgi"\)')
    assert get(server, "/") == "ASGIRequest"
    assert get(server, "/live/other") == "ASGIRequest"


def test_what_is_configured_wins_over_a_route(project: Start) -> None:
    server = project(MIXED, "ASGI_APPLICATION = 'site_asgi.other'", "http = 'wsgi'")
    assert get(server, "/live/other") == "WSGIRequest"
    with connect(f"ws://127.0.0.1:{server.port}/ws", proxy=None) as socket:
        socket.send("x")
        assert socket.recv() == "echo x"


def test_a_middleware_that_chooses_another_urlconf_is_seen(project: Start) -> None:
    middleware = """
    class Hosts:
        def __init__(self, get_response):
            self.get_response = get_response
        def __call__(self, request):
            if request.headers.get("X-Other"):
                request.urlconf = "site_urls"
            return self.get_response(request)
    MIDDLEWARE = ["site_settings.Hosts"]
    """
    server = project(MIXED, middleware)
    server.wait_for(r"HTTP by ASGI \(the middleware site_settings\.Hosts may choose another URLconf")
    assert get(server, "/") == "ASGIRequest"


def test_the_configuration_wins_over_the_environment(project: Start) -> None:
    server = project(PLAIN, env={"DJANGO_SETTINGS_MODULE": "elsewhere"})
    server.wait_for(
        r"settings are 'site_settings', as configured, and not 'elsewhere' of DJANGO_SETTINGS_MODULE"
    )
    assert get(server, "/") == "WSGIRequest"


def test_threads_of_asgi_requests_are_kept(project: Start) -> None:
    server = project(PLAIN, keys="http = 'asgi'")
    # One that has just answered may not be ready for the next request yet; then another one is.
    assert len({get(server, "/ident") for _ in range(20)}) <= 3


@pytest.mark.parametrize(
    ("urls", "settings", "expected"),
    [
        (PLAIN, "INSTALLED_APPS = ['no_such_app']", r"ModuleNotFoundError: No module named 'no_such_app'"),
        (
            PLAIN,
            "WSGI_APPLICATION = 'site_urls.absent'",
            r"ImproperlyConfigured: WSGI application 'site_urls.absent'",
        ),
        (
            PLAIN,
            "ASGI_APPLICATION = 'site_asgi.absent'",
            r"ImproperlyConfigured: ASGI application 'site_asgi.absent'",
        ),
        (
            PLAIN,
            "import no_such_module",
            r"it imports the module 'no_such_module', which is not installed here",
        ),
        ("urlpatterns = [1 / 0]", "", r"ZeroDivisionError"),
    ],
)
def test_a_project_that_does_not_start_is_told_once(
    project: Start, urls: str, settings: str, expected: str
) -> None:
    with pytest.raises(
        AssertionError, match=r"hawksbill\.toml:2:7: apps\.shop: (?s:.*)" + expected
    ) as failed:
        project(urls, settings)
    assert "Traceback (most recent call last)" in str(failed.value)
    assert str(failed.value).count("apps.shop: ") == 1


def check(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "check", "-c", str(config)], cwd=config.parent, capture_output=True, text=True, timeout=60
    )


def test_check_shows_the_kind(tmp_path: Path) -> None:
    config = tmp_path / "hawksbill.toml"
    config.write_text("[apps.a]\ndjango = 'a.settings'\nthreads = 2\n[sites.'*']\n'/' = 'a'\n")
    shown = check(config)
    assert shown.returncode == 0, shown.stderr
    assert (
        'app a: django(django="a.settings", http="auto", lifespan="auto", queue=1024, threads=2'
        in shown.stdout
    )


def test_projects_with_settings_of_their_own_are_beside_each_other(tmp_path: Path, start: Start) -> None:
    keys = ""
    for name in ("shop", "blog"):
        package = tmp_path / name / name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        settings = SETTINGS.replace("site_urls", f"{name}.urls")
        (package / "settings.py").write_text(f"{settings}NAME = '{name}'\n")
        (package / "urls.py").write_text(VIEWS + NAMED)
        keys += f"[apps.{name}]\ndjango = '{name}.settings'\ndir = '{name}'\n"
    config = tmp_path / "hawksbill.toml"
    config.write_text(f"listen = '127.0.0.1:0'\n{keys}[sites.'*']\n'/' = 'shop'\n'/blog' = 'blog'\n")
    shown = check(config)
    assert shown.returncode == 0, shown.stderr
    assert "processes shop: workers=1 (behind the front)" in shown.stdout
    server = start("run", "-c", config, cwd=tmp_path)
    assert [get(server, "/"), get(server, "/blog/")] == ["shop", "blog"]


def test_projects_in_one_process_are_refused(tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text(
        "from hawksbill import Gateway\n"
        "gateway = Gateway(listen='127.0.0.1:0')\n"
        "gateway.app('a', django='a.settings')\n"
        "gateway.app('b', django='b.settings')\n"
        "gateway.site('*').route('/', 'a')\n"
        "gateway.run()\n"
    )
    refused = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 1
    assert "apps.b: 'b.settings' is a second Django project beside 'a.settings'" in refused.stderr
    assert "'hawksbill run' gives each processes of its own" in refused.stderr


def test_a_settings_module_that_is_not_there(tmp_path: Path) -> None:
    command = [*COMMAND, "run", "absent.settings", "--django", "--listen", "127.0.0.1:0"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert f"there is no module 'absent' in {tmp_path}" in ended.stderr
    assert sys.executable not in ended.stderr
