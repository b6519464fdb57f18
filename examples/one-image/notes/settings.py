"""The settings of both lives: one variable makes Hawksbill a development server, and Django too."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("HAWKSBILL_RELOAD", "").lower() in ("1", "true")
# Production has to name its secret; development needs none.
SECRET_KEY = "for development alone" if DEBUG else os.environ["SECRET_KEY"]
ALLOWED_HOSTS = os.environ.get("HOSTS", "localhost,127.0.0.1").split(",")

INSTALLED_APPS = ["django.contrib.staticfiles", "notes"]
ROOT_URLCONF = "notes.urls"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

STATIC_URL = "static/"
STATIC_ROOT = os.environ.get("STATIC_ROOT", BASE_DIR / "collected")
