"""``manage.py runserver``, with Hawksbill as the server: the flags and the output of Django's own command."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.management.base import CommandError

from hawksbill import ConfigError, Gateway, StartError, _again

from ... import _development

if apps.is_installed("django.contrib.staticfiles"):
    from django.contrib.staticfiles.management.commands.runserver import Command as Own
else:
    from django.core.management.commands.runserver import Command as Own

BACKLOG = 1024
"""Connections that wait while the project is loaded again."""


class Command(Own):  # type: ignore[misc]
    """Binds as Django does, then serves: in this process, or by ``hawksbill run --reload`` in its place."""

    help = "Starts Hawksbill as the server for development: HTTP, WebSockets and static files."

    def run(self, **options: Any) -> None:
        """Serve."""
        bound = self._bind()
        self.port = str(bound.getsockname()[1])
        if options["use_reloader"]:
            self._become_the_server(bound, options)
        else:
            self._serve_here(bound, options)

    def _bind(self) -> socket.socket:
        """Bind before anything is checked, as nobody wants to read checks that end in 'port in use'."""
        family = socket.AF_INET6 if self.use_ipv6 else socket.AF_INET
        try:
            # "0" is every address, for Django's command as for the C library.
            host, _, *more = socket.getaddrinfo(self.addr, None, family, socket.SOCK_STREAM)[0][4]
            bound = socket.socket(family, socket.SOCK_STREAM)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, int(self.port), *more))
            bound.listen(BACKLOG)
        except (OSError, OverflowError) as error:
            self.stderr.write(f"Error: {_development.why_not_bound(error)}")
            sys.exit(1)
        return bound

    def _become_the_server(self, bound: socket.socket, options: dict[str, Any]) -> None:
        bound.set_inheritable(True)
        given = {key: options[key] for key in _development.PASSED if key in options}
        place = {"addr": self.addr, "port": self.port, "use_ipv6": self.use_ipv6, "raw": self._raw_ipv6}
        told = {"options": given, "place": place, "path": sys.path}
        os.environ[_development.VARIABLE] = json.dumps(told)
        self.stdout.write("Watching for file changes with Hawksbill")
        self.stdout.flush()
        arguments = ["run", "hawksbill.django.served", "--reload", "--quiet", "--dir", str(_directory())]
        arguments += ["--listen", f"fd:{bound.fileno()}"]
        # What is wrong is for a person, also where an editor shows it and no terminal.
        arguments += ["--log-level", "warn", "--log-format", "text"]
        if not options["use_threading"]:
            arguments += ["--threads", "1"]
        _again.become(arguments)

    def _serve_here(self, bound: socket.socket, options: dict[str, Any]) -> None:
        """Serve without another process: debuggers of editors follow none."""
        # Before the gateway, so that what is wrong is told in Django's words.
        self.announce(options)
        _development.prepared = _development.application(options)
        gateway = Gateway(bound, drain="1s")
        threads = {} if options["use_threading"] else {"threads": 1}
        gateway.app("project", callable="hawksbill.django.served", timeout=0, **threads)
        gateway.site("*").route("/", "project")
        try:
            gateway.run()
        except (ConfigError, StartError) as error:
            raise CommandError(str(error)) from None
        message = options.get("shutdown_message", "")
        if message:
            self.stdout.write(message)

    def announce(self, options: dict[str, Any]) -> None:
        """Check the project and say where it is served, in Django's words."""
        from django.core.management.base import BaseCommand
        from django.db import connections

        if not options.get("skip_checks"):
            self.stdout.write("Performing system checks...\n\n")
            # Django's command has none, so that they run here and not before.
            kwargs = BaseCommand.get_check_kwargs(self, options)
            self.check(**{**kwargs, "display_num_errors": True})
        self.check_migrations()
        for connection in connections.all(initialized_only=True):
            connection.close()
        self.on_bind(int(self.port))
        self.stdout.flush()


def _directory() -> Path:
    """Name the directory of the project's sources: that of ``manage.py``, else the working directory."""
    script = Path(sys.argv[0]).resolve()
    return script.parent if script.name == "manage.py" else Path.cwd()
