"""A small Django project: `wsgi` and `asgi` answer `/` with a page.

The page asks the database for the session, its user and twenty rows, and renders them by a template with a
CSRF token. `python django_page.py` makes the database that `$LOAD_DATABASE` names.
"""

from __future__ import annotations

import os

import django
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

SESSION = "loadloadloadloadloadloadloadload"
ROWS = 200

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_settings")
django.setup()

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY  # noqa: E402
from django.contrib.auth.models import Group, User  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.shortcuts import render  # noqa: E402


def page(request: HttpRequest) -> HttpResponse:
    """The page."""
    return render(request, "page.html", {"groups": Group.objects.order_by("name")[:20]})


urlpatterns = [path("", page)]

wsgi = get_wsgi_application()
asgi = get_asgi_application()


def prepare() -> None:
    """Makes the tables, the rows, a user and a session."""
    call_command("migrate", verbosity=0)
    # In an order that is not that of the page.
    Group.objects.bulk_create(Group(name=f"group {number * 71 % ROWS:03}") for number in range(ROWS))
    user = User.objects.create_user("reader", password=None)
    session = SessionStore(session_key=SESSION)
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save(must_create=True)


if __name__ == "__main__":
    prepare()
