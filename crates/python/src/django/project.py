"""Looks at a Django project: what of it is served through WSGI, what through ASGI, and why."""

from __future__ import annotations

import dis
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any

ENVIRONMENT = "DJANGO_SETTINGS_MODULE"
OLDEST = (4, 2)
SHOWN = 3
"""So many asynchronous views are named at the start; of more, their number is told."""

PASSING = {
    "channels.auth.AuthMiddleware",
    "channels.sessions.CookieMiddleware",
    "channels.sessions.SessionMiddleware",
}
"""ASGI middlewares that add to the scope what Django's own handler does not read."""


class Refused(Exception):
    """What a person has to change; the message says all."""


@dataclass
class Project:
    """What is served how."""

    http: str
    """``wsgi``, ``asgi``, or ``each``: asynchronous views by ASGI, the others by WSGI."""
    websocket: bool
    said: str
    wsgi: Callable[..., Any] | None = None
    asgi: Callable[..., Any] | None = None
    handler: Callable[..., Any] | None = None
    """What of the ASGI application answers HTTP."""
    lifespan: bool = False
    """Whether the ASGI application may know what a lifespan is."""
    prefixes: list[str] = field(default_factory=list)
    """Each asynchronous view's path begins with one of these."""
    steady: bool = False
    """Whether a path always leads to the same view."""


@dataclass
class Views:
    """The asynchronous views of a URLconf."""

    names: list[str] = field(default_factory=list)
    prefixes: set[str] = field(default_factory=set)
    steady: bool = True
    unknown: str = ""
    """Why a request's view cannot be known before its middleware has run."""


def set_up(module: str) -> str:
    """Set Django up with this settings module; returns what there is to say about it."""
    from django.conf import settings

    if settings.configured:
        loaded = getattr(settings, "SETTINGS_MODULE", None)
        if loaded != module:
            other = f"with '{loaded}'" if loaded else "by a call of settings.configure()"
            raise Refused(
                f"Django is set up {other} already, and one process has one set of settings; "
                f"'hawksbill run' gives the project with '{module}' processes of its own"
            )
    before = os.environ.get(ENVIRONMENT)
    os.environ[ENVIRONMENT] = module
    import django

    if django.VERSION < OLDEST:
        raise Refused(
            f"this is Django {django.get_version()}; the kind 'django' needs 4.2 or later. "
            "Use wsgi = or asgi = for this project"
        )
    django.setup()
    if before not in (None, "", module):
        return f"settings are '{module}', as configured, and not '{before}' of {ENVIRONMENT}"
    return ""


def look(wanted: str, finders: bool = False) -> Project:
    """Decide what is served how; ``wanted`` is ``auto``, ``wsgi`` or ``asgi``.

    With ``finders`` static files are served from where they are written.
    """
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.core.servers.basehttp import get_internal_wsgi_application

    name = getattr(settings, "ASGI_APPLICATION", None)
    asgi = load_asgi(name) if name else None
    routes = protocols(asgi)
    own = asgi is not None and routes is None and not is_plain(asgi)
    websocket = own or (routes is not None and "websocket" in routes)
    plain_http = not own and (routes is None or "http" not in routes or is_plain(routes["http"]))

    views = Views()
    if wanted != "auto":
        http, why = wanted, f'http = "{wanted}"'
    elif own:
        http, why = "asgi", f"ASGI_APPLICATION '{name}' is not Django's own handler"
    elif not plain_http:
        http, why = "asgi", f"the 'http' route of ASGI_APPLICATION '{name}' is not Django's own handler"
    else:
        views = find_views()
        http, why = choose(views, asgi is not None)

    project = Project(http=http, websocket=websocket, said="")
    if http != "asgi":
        project.wsgi = get_internal_wsgi_application()
    if http == "each":
        project.prefixes, project.steady = sorted(views.prefixes), views.steady
    if asgi is None or (routes is not None and "http" not in routes):
        # What answers HTTP where the project names nothing for it.
        handler = get_asgi_application() if http != "wsgi" else None
    else:
        handler = asgi
    if websocket and handler is not asgi:
        assert asgi is not None
        project.asgi = beside(handler, asgi) if handler is not None else asgi
    elif websocket or http != "wsgi":
        project.asgi = handler
    project.handler = handler if http != "wsgi" else None
    project.lifespan = own or (routes is not None and "lifespan" in routes)
    project.said = say(http, why, websocket, name)
    if finders:
        with_finders(project)
    return project


def with_finders(project: Project) -> None:
    """Have Django's own handlers answer beneath STATIC_URL, as ``manage.py runserver`` has them."""
    from django.apps import apps
    from django.conf import settings

    # A whole URL is another server's, and without a path everything would be a static file.
    url = str(settings.STATIC_URL or "")
    own = url.startswith("/") and not url.startswith("//") and url != "/"
    if not own or not apps.is_installed("django.contrib.staticfiles"):
        return
    from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler, StaticFilesHandler

    if project.wsgi is not None:
        project.wsgi = StaticFilesHandler(project.wsgi)
    if project.asgi is not None and project.http != "wsgi":
        project.asgi = ASGIStaticFilesHandler(project.asgi)
    project.said += f"; {url} by the finders of static files"


def load_asgi(name: str) -> Callable[..., Any]:
    """Import what ASGI_APPLICATION names, as Django imports WSGI_APPLICATION."""
    from django.core.exceptions import ImproperlyConfigured
    from django.utils.module_loading import import_string

    try:
        application: Callable[..., Any] = import_string(name)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"ASGI application '{name}' could not be loaded; error importing module"
        ) from error
    return application


def protocols(application: object) -> dict[str, Any] | None:
    """The routes of Channels' ProtocolTypeRouter; None of anything else."""
    routing = sys.modules.get("channels.routing")
    if routing is None or not isinstance(application, routing.ProtocolTypeRouter):
        return None
    mapping: dict[str, Any] = application.application_mapping
    return mapping


def is_plain(application: object) -> bool:
    """Whether this answers HTTP as Django's WSGI handler does."""
    from django.core.handlers.asgi import ASGIHandler

    while f"{type(application).__module__}.{type(application).__qualname__}" in PASSING:
        application = getattr(application, "inner", None)
    # A subclass may do more, as that of django.contrib.staticfiles does.
    return type(application) is ASGIHandler


def beside(http: Callable[..., Any], others: Callable[..., Any]) -> Callable[..., Any]:
    """One ASGI application out of that for HTTP and that for everything else."""

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await (http if scope["type"] == "http" else others)(scope, receive, send)

    return application


def choose(views: Views, has_asgi: bool) -> tuple[str, str]:
    """How HTTP is served, and why."""
    if views.unknown and (views.names or has_asgi):
        return "asgi", f"{views.unknown}, so that which views are asynchronous cannot be known"
    if views.unknown:
        return "wsgi", f"no view of ROOT_URLCONF is asynchronous; {views.unknown}"
    if not views.names:
        return "wsgi", "no view is asynchronous"
    shown = ", ".join(views.names[:SHOWN])
    more = f" and {len(views.names) - SHOWN} more" if len(views.names) > SHOWN else ""
    return "each", f"{shown}{more}"


def say(http: str, why: str, websocket: bool, name: str | None) -> str:
    """The line for the log."""
    if http == "each":
        said = f"HTTP by WSGI, but asynchronous views by ASGI ({why})"
    else:
        said = f"HTTP by {http.upper()} ({why})"
    if websocket:
        return f"{said}; WebSockets by ASGI ('{name}')"
    if http == "wsgi":
        return f"{said}; no WebSockets, so no event loop"
    return f"{said}; no WebSockets"


def find_views() -> Views:
    """Walk the URLconf, and look at the middleware that could choose another one."""
    from django.conf import settings
    from django.urls import get_resolver
    from django.utils.module_loading import import_string

    views = Views()
    walk(get_resolver().url_patterns, "/", True, views)
    for path in settings.MIDDLEWARE:
        middleware = import_string(path)
        if not getattr(middleware, "sync_capable", True):
            views.unknown = f"the middleware {path} is asynchronous"
        elif sets_urlconf(middleware):
            views.unknown = f"the middleware {path} may choose another URLconf"
    return views


def walk(patterns: list[Any], prefix: str, literal: bool, views: Views) -> None:
    """Collect the asynchronous views beneath a prefix; ``literal``: all of the path so far is in it."""
    from asgiref.sync import iscoroutinefunction

    for node in patterns:
        text, whole = beginning(node.pattern, views) if literal else ("", False)
        path = prefix + text
        if hasattr(node, "url_patterns"):
            walk(node.url_patterns, path, literal and whole, views)
        elif iscoroutinefunction(node.callback):
            views.names.append(view_name(node.callback))
            views.prefixes.add(path)
        converters = getattr(node.pattern, "converters", {}).values()
        views.steady &= all(
            type(converter).__module__ == "django.urls.converters" for converter in converters
        )


def beginning(pattern: Any, views: Views) -> tuple[str, bool]:
    """What every path of a pattern begins with, and whether that is all of it."""
    from django.urls.resolvers import RegexPattern, RoutePattern

    if type(pattern) is RoutePattern and isinstance(pattern._route, str):
        text, parameter, _ = pattern._route.partition("<")
        return text, not parameter
    if type(pattern) is RegexPattern and isinstance(pattern._regex, str):
        return beginning_of_regex(pattern._regex), False
    # Prefixes of languages, translated routes, patterns of the project's own.
    views.steady = False
    if isinstance(getattr(pattern, "_route", getattr(pattern, "_regex", "")), str):
        return "", False
    views.unknown = "URLs are translated"
    return "", False


def beginning_of_regex(regex: str) -> str:
    """The plain characters that a regular expression demands first."""
    if not regex.startswith("^") or "|" in regex or "(?" in regex.replace("(?P<", ""):
        return ""
    text = ""
    for character in regex[1:]:
        if character in "?*{":
            return text[:-1]
        if not (character.isascii() and (character.isalnum() or character in "/_-")):
            break
        text += character
    return text


def view_name(callback: Any) -> str:
    """A view as messages call it."""
    view = getattr(callback, "view_class", callback)
    return f"{view.__module__}.{getattr(view, '__qualname__', type(view).__qualname__)}"


def sets_urlconf(middleware: Any) -> bool:
    """Whether code of a middleware's module sets an attribute ``urlconf``."""
    if str(middleware.__module__).partition(".")[0] == "django":
        return False
    functions: list[Any] = [middleware]
    for owner in (*getattr(middleware, "__mro__", ()), inspect.getmodule(middleware)):
        home = str(getattr(owner, "__module__", None) or getattr(owner, "__name__", ""))
        if owner is not None and home.partition(".")[0] not in ("django", "builtins"):
            functions += [item for item in vars(owner).values() if isinstance(item, FunctionType)]
    codes = [function.__code__ for function in functions if isinstance(function, FunctionType)]
    if not codes:
        # Compiled: nobody can look into it.
        return True
    return any(stores_urlconf(code) for code in codes)


def stores_urlconf(code: CodeType) -> bool:
    """Whether ``x.urlconf = ...`` or ``setattr(x, "urlconf", ...)`` may happen in this code."""
    return any(
        "urlconf" in inner.co_consts
        or any(
            step.opname == "STORE_ATTR" and step.argval == "urlconf" for step in dis.get_instructions(inner)
        )
        for inner in nested(code)
    )


def nested(code: CodeType) -> Iterator[CodeType]:
    """A code object with those in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from nested(constant)


def is_asynchronous(path: str) -> bool:
    """Whether the view of a path is asynchronous, as Django itself will find."""
    from asgiref.sync import iscoroutinefunction
    from django.conf import settings
    from django.urls import get_resolver
    from django.utils import translation

    try:
        if not settings.USE_I18N:
            match = get_resolver().resolve(path)
        else:
            # What LocaleMiddleware will do for a path that begins with a language.
            language = translation.get_language_from_path(path) or settings.LANGUAGE_CODE
            with translation.override(language):
                match = get_resolver().resolve(path)
    except Exception:
        # Django will come to the same, and has a page for it.
        return False
    return bool(iscoroutinefunction(match.func))


def ease(application: object) -> str:
    """Have Django's ASGI handler cross to a thread once for a synchronous request, if nothing else changes.

    With synchronous middleware the handler crosses to the request's thread and back for each hook of each
    middleware, and once more for the view, though nothing between these would need the event loop. Where that
    is so, the synchronous chain of the same middleware does the whole, on the same thread and in the same
    context. Returns what stands against it.
    """
    from django.core.handlers.asgi import ASGIHandler

    handler = application
    routes = protocols(handler)
    if routes is not None:
        handler = routes.get("http")
    while f"{type(handler).__module__}.{type(handler).__qualname__}" in PASSING:
        handler = getattr(handler, "inner", None)
    if type(handler) is not ASGIHandler:
        return "not Django's own handler"
    if "get_response_async" in vars(handler):
        return "done already"
    hindrance = hindrance_in_middleware()
    if hindrance:
        return hindrance
    views = find_views()
    if views.unknown:
        return views.unknown
    shorten(handler, tuple(views.prefixes))
    return ""


def hindrance_in_middleware() -> str:
    """Why the synchronous chain would not do the same as the asynchronous one; empty if it does."""
    from django.conf import settings
    from django.core.handlers.base import BaseHandler
    from django.utils.deprecation import MiddlewareMixin
    from django.utils.module_loading import import_string

    known = {"get_response_async", "_get_response_async", "get_response", "_get_response", "load_middleware"}
    if not known <= set(dir(BaseHandler)):
        return "this Django is not known"
    for path in settings.MIDDLEWARE:
        middleware = import_string(path)
        if not getattr(middleware, "sync_capable", True):
            return f"the middleware {path} is asynchronous"
        if not getattr(middleware, "async_capable", False):
            # Django itself runs it synchronously.
            continue
        usual = isinstance(middleware, type) and issubclass(middleware, MiddlewareMixin)
        if not usual or any(
            getattr(middleware, name) is not getattr(MiddlewareMixin, name)
            for name in ("__call__", "__acall__")
        ):
            return f"the middleware {path} has an asynchronous way of its own"
    return ""


def shorten(handler: Any, prefixes: tuple[str, ...]) -> None:
    """Lead requests for synchronous views through the synchronous chain."""
    from asgiref.sync import sync_to_async
    from django.core.handlers.base import BaseHandler

    synchronous = BaseHandler()
    synchronous.load_middleware(is_async=False)
    get_response = sync_to_async(synchronous.get_response, thread_sensitive=True)
    get_response_async = handler.get_response_async

    async def chosen(request: Any) -> Any:
        path = request.path_info
        if prefixes and path.startswith(prefixes) and is_asynchronous(path):
            return await get_response_async(request)
        return await get_response(request)

    handler.get_response_async = chosen
