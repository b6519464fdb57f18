"""The system checks of `hawksbill.django`: what `manage.py check` says of real projects."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from hawksbill.django._versions import unfit

MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""

GOOD = """
from pathlib import Path
BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "for these tests"
DEBUG = False
ALLOWED_HOSTS = ["example.com", ".example.org", "[::1]"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
INSTALLED_APPS = ["hawksbill.django", "django.contrib.staticfiles"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "CONN_MAX_AGE": 60,
    },
    "second": {
        "ENGINE": "django.db.backends.dummy",
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
    },
}
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "collected"
SECURE_SSL_REDIRECT = True
CSRF_TRUSTED_ORIGINS = ["https://*.example.org", "https://pay.example.net:8443"]
LOGGING = {
    "version": 1,
    "filters": {"request_id": {"()": "hawksbill.logging.RequestId"}},
    "formatters": {"line": {"format": "{levelname} [{request_id}] {message}", "style": "{"}},
    "handlers": {
        "console": {"class": "logging.StreamHandler", "filters": ["request_id"], "formatter": "line"},
    },
    "root": {"handlers": ["console"]},
}
"""

SITES = """
trusted_proxies = ["10.0.0.0/8"]
request_id = true
[apps.shop]
django = "shop.settings"
[apps.other]
wsgi = "elsewhere.wsgi"
[sites."example.com *.example.org [::1]"]
"/" = "shop"
[sites."other.test"]
"/" = "other"
"""

Check = Callable[..., str]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Runs the checks of the good project with some settings changed, and gives what is said."""

    def run(settings: str = "", sites: str = SITES, good: str = GOOD, code: int = 0) -> str:
        package = tmp_path / "shop"
        package.mkdir(exist_ok=True)
        (tmp_path / "manage.py").write_text(MANAGE)
        (package / "__init__.py").touch()
        (package / "urls.py").write_text("urlpatterns = []\n")
        (package / "settings.py").write_text(good + dedent(settings))
        if sites:
            (tmp_path / "hawksbill.toml").write_text(sites)
        done = subprocess.run(
            [sys.executable, "manage.py", "check", "--tag", "hawksbill"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONWARNINGS": "ignore", "TENANT": "shop"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    return run


def ids(said: str) -> list[str]:
    """Give the ids of the messages, in order."""
    return re.findall(r"\(hawksbill\.(\w+)\)", said)


def test_a_good_project_is_not_spoken_of(check: Check) -> None:
    assert "System check identified no issues (0 silenced)." in check()


@pytest.mark.parametrize("application", ["hawksbill", "hawksbill.django.apps.HawksbillConfig"])
def test_other_names_of_the_application(check: Check, application: str) -> None:
    good = GOOD.replace('"hawksbill.django"', f'"{application}"')
    assert ids(check(good=good)) == []
    assert ids(check('SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")', good=good)) == ["W001"]


@pytest.mark.parametrize(
    ("settings", "expected", "part"),
    [
        (
            'SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")',
            "W001",
            "name the proxies in trusted_proxies",
        ),
        (
            'SECURE_PROXY_SSL_HEADER = ("HTTP_X_SCHEME", "https")',
            "W002",
            "HTTP_X_SCHEME, which Hawksbill lets",
        ),
        (
            'SECURE_PROXY_SSL_HEADER = ("HTTP_FORWARDED_PROTO", "https")',
            "W002",
            "HTTP_FORWARDED_PROTO, which Hawksbill lets",
        ),
        ('ALLOWED_HOSTS = ["example.com", ".example.org"]', "W003", "Add '[::1]' to ALLOWED_HOSTS"),
        (
            'ALLOWED_HOSTS = ["example.com", "*.example.org", "[::1]"]',
            "W003",
            "Add '.example.org' to ALLOWED_HOSTS",
        ),
        ("STATIC_ROOT = None", "W004", '"/static" = { files = "..." }'),
        ('CSRF_TRUSTED_ORIGINS = ["https://.example.net"]', "W005", "Write 'https://*.example.net'"),
        ('CSRF_TRUSTED_ORIGINS = ["https://example.net/"]', "W005", "Write 'https://example.net'"),
        (
            'DATABASES["second"]["CONN_MAX_AGE"] = 60\nASGI_APPLICATION = "shop.asgi.application"',
            "W008",
            "'second' is 60",
        ),
        ('DATABASES["second"]["CONN_HEALTH_CHECKS"] = False', "W009", "'second' are kept for ever"),
        ('LOGGING["handlers"]["console"]["filters"] = []', "W010", "'console' in LOGGING formats request_id"),
        (
            'LOGGING["filters"] = {}\nLOGGING["handlers"] = {"console": {"class": "logging.StreamHandler"}}',
            "I011",
            "LOGGING does not write them",
        ),
        ("INSTALLED_APPS.reverse()", "W012", "Put 'hawksbill.django' first"),
    ],
)
def test_what_does_not_fit_is_told(check: Check, settings: str, expected: str, part: str) -> None:
    said = check(settings)
    assert ids(said) == [expected], said
    assert part in " ".join(said.split())


@pytest.mark.parametrize(
    "settings",
    [
        # The gateway removes it unless a trusted proxy sent it.
        'SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_SSL", "on")',
        'ALLOWED_HOSTS = ["*"]',
        "STATIC_ROOT = None\nDEBUG = True",
        'STATIC_ROOT = None\nSTATIC_URL = "https://cdn.example.net/"',
        "STATIC_ROOT = None\n"
        'STORAGES = {"staticfiles": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}',
        'DATABASES["second"]["CONN_MAX_AGE"] = 0\nASGI_APPLICATION = "shop.asgi.application"',
    ],
)
def test_what_fits_is_not_told(check: Check, settings: str) -> None:
    assert ids(check(settings)) == []


def test_https_without_a_trusted_proxy(check: Check) -> None:
    said = check(sites=SITES.replace("trusted_proxies", "# trusted_proxies"))
    assert ids(said) == ["W006"]
    assert "SECURE_SSL_REDIRECT, CSRF_TRUSTED_ORIGINS counts on https" in " ".join(said.split())
    unix = "listen = 'unix:/run/a.sock'\ntrust_unix = true\n"
    assert ids(check(sites=unix + SITES.replace("trusted_proxies", "# trusted_proxies"))) == []


@pytest.mark.parametrize(
    "sites",
    [
        # By the settings module of the environment, by the handler's module, mounted, and on the route
        # itself.
        SITES.replace('"shop.settings"', '"${TENANT}.settings"').replace("[::1]", "new.test"),
        SITES.replace('django = "shop.settings"', 'wsgi = "shop.wsgi:application"').replace(
            "[::1]", "new.test"
        ),
        SITES.replace('"/" = "shop"', '"/" = { mount = "shop" }').replace("[::1]", "new.test"),
        SITES.replace('"/" = "shop"', '"/" = { django = "shop.settings" }').replace("[::1]", "new.test"),
    ],
)
def test_ways_to_lead_to_the_project(check: Check, sites: str) -> None:
    said = check(sites=sites)
    assert ids(said) == ["W003"], said
    assert "Add 'new.test' to ALLOWED_HOSTS" in said


def test_included_files(check: Check, tmp_path: Path) -> None:
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "a.toml").write_text("[sites.'new.test']\n'/' = 'shop'\n")
    assert ids(check(sites='include = ["sites/*.toml"]\n' + SITES)) == ["W003"]


def test_a_file_of_another_place(check: Check, tmp_path: Path) -> None:
    (tmp_path / "there.toml").write_text(SITES.replace("[::1]", "new.test"))
    assert ids(check('HAWKSBILL_CONFIG = BASE_DIR / "there.toml"', sites="")) == ["W003"]


@pytest.mark.parametrize("sites", ["", "not toml", "sites = 3", SITES.replace("shop.settings", "b.settings")])
def test_without_a_configuration_of_the_project(check: Check, sites: str) -> None:
    assert ids(check("ALLOWED_HOSTS = ['else.test']", sites=sites)) == []


def test_versions(check: Check, tmp_path: Path) -> None:
    # A package as it is installed, found before the real one.
    for name, version in [
        ("channels", "4.0.0"),
        ("daphne", "4.1.2"),
        ("redis", "5.0"),
        ("channels_redis", "3.4.1"),
    ]:
        found = tmp_path / f"{name}-{version}.dist-info"
        found.mkdir()
        (found / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    said = " ".join(check().split())
    assert "channels 4.0.0 and channels-redis 3.4.1 do not go together" in said
    assert "Install channels-redis 4.0 or later." in said


@pytest.mark.parametrize(
    ("versions", "needed"),
    [
        ({"Django": "5.1", "channels": "4.0.0"}, ["channels 4.1"]),
        ({"Django": "5.1", "channels": "4.1.0"}, []),
        ({"Django": "5.0.9", "channels": "4.0.0"}, []),
        ({"Django": "5.1rc1", "channels": "4.0.0"}, ["channels 4.1"]),
        ({"channels": "4.3.2", "asgiref": "3.8.1", "Django": "4.1"}, ["Django 4.2", "asgiref 3.9"]),
        ({"channels": "4.3.2", "asgiref": "3.10.0"}, []),
        ({"channels-redis": "4.2.0", "redis": "4.5.2"}, ["redis 4.5.3"]),
        ({"channels": "unknown", "asgiref": ""}, []),
        ({"channels": "4.3.2"}, []),
    ],
)
def test_releases_that_do_not_go_together(versions: dict[str, str], needed: list[str]) -> None:
    assert [f"{pair.other} {pair.needs}" for pair in unfit(versions)] == needed
