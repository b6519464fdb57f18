"""Settings of a site without a database."""

from __future__ import annotations

import os

REDIS = f"redis://127.0.0.1:{os.environ.get('REDIS_PORT', '6390')}"

SECRET_KEY = os.environ.get("SECRET_KEY", "only an example")
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "letters.views"
MIDDLEWARE: list[str] = []
INSTALLED_APPS: list[str] = []
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"{REDIS}/1"}}
