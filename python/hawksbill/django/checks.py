"""System checks: what in a project's settings does not fit a gateway in front of it.

``manage.py check --tag hawksbill`` runs these alone. ``SILENCED_SYSTEM_CHECKS`` takes their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.core import checks

from . import _sites, _versions

TAG = "hawksbill"
READ = "HTTP_X_FORWARDED_PROTO"
"""The header from which the gateway learns the scheme, where a trusted proxy sends it."""
REMOVED = "HTTP_X_FORWARDED_"
"""The gateway lets no client say a header whose name begins so."""
FILTER = "hawksbill.logging.RequestId"

Messages = Iterator[Any]


def register() -> None:
    """Have Django run all of them."""
    checks.register(check, TAG)


def check(app_configs: object = None, **_: object) -> list[Any]:
    """Run all of them on the settings of this project."""
    sites = _sites.find()
    alone: list[Callable[[], Messages]] = [
        proxy_header,
        static_root,
        origins,
        connections,
        logs,
        order,
        versions,
    ]
    found = [message for one in alone for message in one()]
    if sites is not None:
        beside = [allowed_hosts, trusted_proxies, request_ids]
        found += [message for one in beside for message in one(sites)]
    return found


def warning(number: int, message: str, hint: str) -> Any:
    """Make a warning."""
    return checks.Warning(message, hint=hint, id=f"hawksbill.W{number:03}")


def proxy_header() -> Messages:
    """Look at ``SECURE_PROXY_SSL_HEADER``: the gateway tells the scheme of a request by itself.

    Django believes the first of several values, which is what the client sent where a proxy appends its
    own. The gateway counts from the nearest proxy. Another header that begins with ``X-Forwarded-`` is
    removed unless a trusted proxy sent it, and may be meant.
    """
    header = settings.SECURE_PROXY_SSL_HEADER
    if not header:
        return
    name = str(header[0])
    if name == READ:
        yield warning(
            1,
            f"SECURE_PROXY_SSL_HEADER trusts {name}, which Hawksbill evaluates itself.",
            "Remove the setting and name the proxies in trusted_proxies: from these the header counts and "
            "becomes the request's scheme; from anybody else it is removed, and Django never sees it.",
        )
    elif not name.startswith(REMOVED):
        yield warning(
            2,
            f"SECURE_PROXY_SSL_HEADER trusts {name}, which Hawksbill lets through from any client.",
            "Have the proxy send X-Forwarded-Proto, name the proxy in trusted_proxies, and remove the "
            "setting.",
        )


def allowed_hosts(sites: _sites.Sites) -> Messages:
    """Compare ``ALLOWED_HOSTS`` with the sites that lead here. ``*`` alone promises no particular host."""
    from django.http.request import split_domain_port, validate_host

    allowed = settings.ALLOWED_HOSTS
    if settings.DEBUG and not allowed:
        # As Django itself does.
        allowed = [".localhost", "127.0.0.1", "[::1]"]
    for host in sites.hosts:
        if host == "*":
            continue
        # A name under a wildcard; none of it is in any list by itself.
        asked = "hawksbill-asks" + host[1:] if host.startswith("*.") else host
        if not validate_host(split_domain_port(asked)[0] or asked, allowed):
            needed = host[1:] if host.startswith("*.") else host
            yield warning(
                3,
                f"The site '{host}' of {sites.file} leads to this project, and ALLOWED_HOSTS refuses its "
                "requests.",
                f"Add '{needed}' to ALLOWED_HOSTS.",
            )


def static_root() -> Messages:
    """Look at ``STATIC_ROOT``: in production nothing but collected files can be served."""
    if (
        settings.DEBUG
        or not settings.STATIC_URL
        or settings.STATIC_ROOT
        or urlsplit(settings.STATIC_URL).netloc
    ):
        return
    if not apps.is_installed("django.contrib.staticfiles"):
        return
    from django.contrib.staticfiles.storage import StaticFilesStorage, staticfiles_storage

    # Another storage (S3, ...) has no use for a directory.
    if isinstance(staticfiles_storage, StaticFilesStorage):
        prefix = "/" + settings.STATIC_URL.strip("/")
        yield warning(
            4,
            f"STATIC_URL is '{settings.STATIC_URL}', DEBUG is off, and there is no STATIC_ROOT: nothing "
            "serves static files.",
            "Set STATIC_ROOT, run 'manage.py collectstatic', and serve the directory by a route: "
            f'"{prefix}" = {{ files = "..." }}.',
        )


def origins() -> Messages:
    """Look for entries of ``CSRF_TRUSTED_ORIGINS`` that no Origin header is equal to (RFC 6454, 6.2).

    Django compares the header with what stands here, as text; only ``*`` stands for something.
    """
    for origin in settings.CSRF_TRUSTED_ORIGINS:
        parts = urlsplit(str(origin))
        if not parts.netloc:
            # Django's own check 4_0.E001 tells of a missing scheme.
            continue
        better = ""
        if parts.netloc.startswith("."):
            better = f"{parts.scheme}://*{parts.netloc}"
        elif parts.path or parts.query or parts.fragment:
            better = f"{parts.scheme}://{parts.netloc}"
        if better:
            yield warning(
                5,
                f"'{origin}' in CSRF_TRUSTED_ORIGINS is equal to no browser's Origin.",
                f"Write '{better}'.",
            )


def trusted_proxies(sites: _sites.Sites) -> Messages:
    """Tell of settings that count on https while no proxy is believed when it says so."""
    if sites.trusts_proxies:
        return
    wanting = [name for name in ("SECURE_SSL_REDIRECT", "SECURE_HSTS_SECONDS") if getattr(settings, name)]
    own = {host.removeprefix("*").lstrip(".") for host in sites.hosts}
    for origin in settings.CSRF_TRUSTED_ORIGINS:
        parts = urlsplit(str(origin))
        if parts.scheme == "https" and parts.netloc.removeprefix("*").lstrip(".") in own:
            wanting.append("CSRF_TRUSTED_ORIGINS")
            break
    if wanting:
        yield warning(
            6,
            f"{', '.join(wanting)} counts on https, and {sites.file} has no trusted_proxies: every request "
            "is http here.",
            "Name the proxy that ends TLS in trusted_proxies, so that requests have the scheme which their "
            "client "
            "used. Otherwise SECURE_SSL_REDIRECT redirects for ever. The project's own https origins are "
            "then "
            "trusted without CSRF_TRUSTED_ORIGINS.",
        )


def versions() -> Messages:
    """Compare the installed releases of what Django under ASGI is made of."""
    have = _versions.installed()
    for pair in _versions.unfit(have):
        yield warning(
            7,
            f"{pair.package} {have[pair.package]} and {pair.other} {have[pair.other]} do not go together: "
            f"{pair.why}.",
            f"Install {pair.other} {pair.needs} or later.",
        )


def connections() -> Messages:
    """Look at ``CONN_MAX_AGE``, which keeps a connection for each thread.

    Django's documentation ("Databases", persistent connections) wants none under ASGI.
    """
    for alias, database in settings.DATABASES.items():
        age = database.get("CONN_MAX_AGE", 0)
        if age == 0 or database.get("ENGINE", "").endswith(".sqlite3"):
            continue
        if getattr(settings, "ASGI_APPLICATION", None):
            yield warning(
                8,
                f"CONN_MAX_AGE of the database '{alias}' is {age}, and the project has an ASGI_APPLICATION.",
                "Under ASGI a connection may outlive its request on a thread that no other request comes "
                "to. Set "
                "it to 0, and use the database's own pool (OPTIONS: pool, in Django 5.1 and later with "
                "PostgreSQL).",
            )
        elif age is None and not database.get("CONN_HEALTH_CHECKS"):
            yield warning(
                9,
                f"Connections to the database '{alias}' are kept for ever (CONN_MAX_AGE is None) and never "
                "checked.",
                "Each of the gateway's threads keeps one, also through hours without requests, and a "
                "connection "
                "that the database or a firewall has closed fails the next request. Set CONN_HEALTH_CHECKS "
                "to True.",
            )


def logs() -> Messages:
    """Find handlers whose format names the request's id while nothing gives it."""
    logging = _logging()
    for name, handler in _tables(logging, "handlers"):
        formatter = dict(_tables(logging, "formatters")).get(str(handler.get("formatter")), {})
        text = str(formatter.get("format", formatter.get("fmt", "")))
        if "request_id" in text and not handler.get("filters"):
            yield warning(
                10,
                f"The handler '{name}' in LOGGING formats request_id, and no filter gives its records one.",
                f"Add a filter {{'()': '{FILTER}'}} to 'filters', and name it in 'filters' of the handler.",
            )


def request_ids(sites: _sites.Sites) -> Messages:
    """Say that ids of requests could be in the project's own logs."""
    logging = _logging()
    filters = [one.get("()") for _, one in _tables(logging, "filters")]
    own = [name for name, _ in _tables(logging, "handlers") if name not in ("mail_admins", "null")]
    if (
        sites.request_id
        and own
        and not any(getattr(one, "__name__", one) in (FILTER, "RequestId") for one in filters)
    ):
        yield checks.Info(
            f"{sites.file} gives requests ids, and LOGGING does not write them.",
            hint=f"The filter {{'()': '{FILTER}'}} gives each record the attribute request_id.",
            id="hawksbill.I011",
        )


def order() -> Messages:
    """See that ``runserver`` is the one of this package: the first application that has one wins."""
    for config in apps.get_app_configs():
        if config.name == "hawksbill.django":
            return
        if config.name in ("django.contrib.staticfiles", "daphne"):
            yield warning(
                12,
                f"'{config.name}' stands before 'hawksbill.django' in INSTALLED_APPS, so 'manage.py "
                "runserver' is "
                "its own.",
                "Put 'hawksbill.django' first.",
            )
            return


def _logging() -> dict[str, Any]:
    config = settings.LOGGING
    return config if isinstance(config, dict) else {}


def _tables(config: dict[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    found = config.get(key)
    items = found.items() if isinstance(found, dict) else []
    return [(name, table) for name, table in items if isinstance(table, dict)]
