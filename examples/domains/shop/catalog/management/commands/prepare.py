"""`python manage.py prepare`: everything the shop needs before it can be served."""

import os
import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import BaseCommand, call_command

NAME = "admin"


class Command(BaseCommand):
    """Safe to run again: what is there stays as it is."""

    help = (
        "Migrates the database, collects static files, and makes the user 'admin' with "
        "the password in SHOP_ADMIN_PASSWORD or a random one, which is printed."
    )

    def handle(self, *_: Any, **options: Any) -> None:
        """Runs the three steps."""
        quiet = {"verbosity": min(options["verbosity"], 1) - 1, "interactive": False}
        call_command("migrate", **quiet)
        settings.MEDIA_ROOT.mkdir(parents=True, exist_ok=True)
        call_command("collectstatic", **quiet)
        self._make_admin()

    def _make_admin(self) -> None:
        if User.objects.filter(username=NAME).exists():
            return
        given = os.environ.get("SHOP_ADMIN_PASSWORD")
        password = given or secrets.token_urlsafe(9)
        User.objects.create_superuser(NAME, password=password)
        shown = "the password in SHOP_ADMIN_PASSWORD" if given else f"password {password}"
        self.stdout.write(f"shop: made the user '{NAME}', {shown}")
