"""Asks a Django project for the files that it has beneath URLs, and writes them as a line of JSON.

Runs as ``python -c`` in the project's own Python. Arguments: the settings module, the directory that it is
imported from.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

PLAIN = re.compile(r"(/[A-Za-z0-9_~.-]+)+/")
"""A URL that is a prefix of paths here: not another host's, not the whole site, nothing that is escaped."""


def main() -> None:
    """Load the project, and answer."""
    # What the project prints while it is loaded is no part of the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, directory = sys.argv[1:3]
    sys.path.insert(0, os.path.abspath(directory))
    os.environ["DJANGO_SETTINGS_MODULE"] = module
    import django

    django.setup()
    answer.write(json.dumps({"static": static(), "media": media()}) + "\n")
    answer.flush()


def static() -> dict[str, Any] | None:
    """What ``collectstatic`` has collected; None where that is not the project's way, or not served here."""
    from django.apps import apps
    from django.conf import settings

    if not apps.is_installed("django.contrib.staticfiles"):
        return None
    return place("STATIC", settings.STATIC_URL, settings.STATIC_ROOT)


def media() -> dict[str, Any] | None:
    """What users have uploaded; None where it is not served here."""
    from django.conf import settings

    if not settings.MEDIA_ROOT or settings.MEDIA_URL == settings.STATIC_URL:
        return None
    found = place("MEDIA", settings.MEDIA_URL, settings.MEDIA_ROOT)
    if found and has_view(found["url"]):
        found["left"] = f"{found['url']} has a view of the project's own, which answers there"
    return found


def place(name: str, url: Any, root: Any) -> dict[str, Any] | None:
    """One URL with its directory, and why that is not to be served, if so."""
    from django.conf import settings

    url = str(url or "")
    if not PLAIN.fullmatch(url) or "/." in url:
        return None
    if not root:
        return {"url": url, "root": None, "left": f"{name}_ROOT is not set"}
    root = os.path.realpath(root)
    left = ""
    # The settings and the code must not become public by a setting that is too wide.
    own = [os.getcwd(), sys.argv[2], str(getattr(settings, "BASE_DIR", "") or os.getcwd())]
    if any(os.path.commonpath([root, os.path.realpath(path)]) == root for path in own):
        left = f"{name}_ROOT, {root}, has the project itself in it"
    elif not os.path.isdir(root):
        left = f"{name}_ROOT, {root}, is not there"
    return {"url": url, "root": root, "left": left}


def has_view(url: str) -> bool:
    """Whether the URL configuration has something beneath this prefix but Django's view for files.

    A pattern that would take any path does not count: what is asked for is beneath the prefix by its name.
    """
    from django.urls import get_resolver
    from django.views.static import serve

    def ours(patterns: Any, before: str) -> bool:
        for node in patterns:
            text = str(node.pattern)
            path = before + text.removeprefix("^").replace("\\", "")
            begins = path.startswith(url[1:])
            if not begins and not (hasattr(node, "url_patterns") and url[1:].startswith(path)):
                continue
            if hasattr(node, "url_patterns"):
                if ours(node.url_patterns, path):
                    return True
            elif node.callback is not serve:
                return True
        return False

    return ours(get_resolver().url_patterns, "")


main()
