"""The settings of `django_page`."""

from __future__ import annotations

import os

PAGE = """<!doctype html>
<title>Groups</title>
<h1>Hello, {{ user.username }}</h1>
<form method="post">{% csrf_token %}<input name="name"><button>Add</button></form>
<ul>{% for group in groups %}
<li class="{% cycle 'odd' 'even' %}">
  <a href="/groups/{{ group.pk }}/">{{ group.name|title }}</a>
</li>{% endfor %}
</ul>
"""

SECRET_KEY = "for measurements alone"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "django_page"
WSGI_APPLICATION = "django_page.wsgi"
ASGI_APPLICATION = "django_page.asgi"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [("django.template.loaders.locmem.Loader", {"page.html": PAGE})],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ],
        },
    }
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["LOAD_DATABASE"]}}
