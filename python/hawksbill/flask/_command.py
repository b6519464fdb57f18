"""The command, which Flask finds by the entry point ``flask.commands``."""

from __future__ import annotations

import copy
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

import click
from flask.cli import ScriptInfo, pass_script_info, run_command, show_server_banner
from flask.helpers import get_debug_flag

from hawksbill import ConfigError, Gateway, StartError, _again

from . import _served

BACKLOG = 1024
"""Connections that wait while the application is loaded again."""
SERVED = "hawksbill.flask.served:application"
SHARED = ("debug", "cert", "key", "extra_files", "exclude_patterns")
"""Options of `flask run` that are taken as they are; older releases of Flask have not all of them."""


@click.command("hawksbill", short_help="Run a development server by Hawksbill.")
@click.option(
    "--host",
    "-h",
    default="127.0.0.1",
    envvar="FLASK_RUN_HOST",
    help="The interface to bind to.",
    show_default=True,
)
@click.option(
    "--port",
    "-p",
    default=5000,
    type=click.IntRange(0, 65535),
    envvar="FLASK_RUN_PORT",
    help="The port to bind to; 0 takes a free one.",
    show_default=True,
)
@click.option(
    "--reload/--no-reload",
    default=None,
    envvar="FLASK_RUN_RELOAD",
    help="Load the application again when a file was saved. By default as debug mode is.",
)
@click.option(
    "--debugger/--no-debugger",
    default=None,
    envvar="FLASK_RUN_DEBUGGER",
    help="Show Werkzeug's debugger where a request fails. By default as debug mode is.",
)
@click.option(
    "--with-threads/--without-threads",
    default=True,
    envvar="FLASK_RUN_WITH_THREADS",
    help="Serve requests on several threads.",
)
@pass_script_info
def command(
    info: ScriptInfo,
    host: str,
    port: int,
    reload: bool | None,
    debugger: bool | None,
    with_threads: bool,
    cert: Any = None,
    extra_files: Sequence[str] | None = None,
    exclude_patterns: Sequence[str] | None = None,
) -> None:
    """Run Hawksbill as the server for development.

    The reloader and the debugger are on with '--debug'. To put the application on the internet, use
    'hawksbill run'.
    """
    if cert is not None:
        raise click.UsageError(
            "--cert: Hawksbill has no TLS yet. Leave --cert and --key (FLASK_RUN_CERT, FLASK_RUN_KEY) out, "
            "use 'flask run' for https, or put something that ends TLS in front"
        )
    debug = get_debug_flag()
    reload = debug if reload is None else reload
    debugger = debug if debugger is None else debugger
    if reload and info.create_app is not None:
        raise click.UsageError(
            "the application is made by the program that was called, and no other process can make it: "
            "use --no-reload, or name it with --app"
        )
    # Without the reloader, what is broken ends the command, before anything is bound.
    application = None if reload else info.load_app()
    bound = _bind(host, port)
    show_server_banner(debug, info.app_import_path)
    click.echo(f" * Running on http://{_shown(bound)}\nPress CTRL+C to quit")
    sys.stdout.flush()
    if reload:
        changes = [word for path in extra_files or () for word in ("--reload-extra", path)]
        changes += [word for one in exclude_patterns or () for word in ("--reload-exclude", one)]
        _become_the_server(bound, info, host, debugger, with_threads, changes)
    _serve_here(bound, _served.dressed(application, host, debugger), with_threads)


def _shared() -> list[click.Parameter]:
    """Give the very options of ``flask run``, with its variables.

    Its ``--debug`` is what sets debug mode before anything is loaded.
    """
    options = [copy.copy(one) for one in run_command.params if one.name in SHARED]
    for one in options:
        if one.name != "debug":
            one.envvar = f"FLASK_RUN_{str(one.name).upper()}"
    return options


command.params += _shared()


def _bind(host: str, port: int) -> socket.socket:
    if host.startswith("unix://"):
        raise click.UsageError(f"--host {host}: use 'hawksbill run --listen unix:PATH' for a Unix socket")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise click.ClickException(
            f"cannot listen on {host} port {port}: {reason}. Choose another with --host and --port."
        ) from None
    return bound


def _shown(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _become_the_server(
    bound: socket.socket,
    info: ScriptInfo,
    host: str,
    debugger: bool,
    with_threads: bool,
    changes: Sequence[str],
) -> None:
    """Give this process to ``hawksbill run --reload``, which has the watcher."""
    bound.set_inheritable(True)
    _served.tell(info.app_import_path, host, debugger)
    arguments = ["run", SERVED, "--wsgi", "--reload", "--quiet", "--dir", os.getcwd(), *changes]
    arguments += ["--listen", f"fd:{bound.fileno()}"]
    # What is wrong is for a person, also where an editor shows it and no terminal.
    arguments += ["--log-level", "warn", "--log-format", "text"]
    if not with_threads:
        arguments += ["--threads", "1"]
    _again.become(arguments)


def _serve_here(bound: socket.socket, application: Any, with_threads: bool) -> None:
    """Serve without another process, which debuggers of editors can follow."""
    _served.prepared = application
    gateway = Gateway(bound, drain="1s")
    threads = {} if with_threads else {"threads": 1}
    # Nothing is too late: somebody may sit in a debugger.
    gateway.app("flask", wsgi=SERVED, timeout=0, **threads)
    gateway.site("*").route("/", "flask")
    try:
        gateway.run()
    except (ConfigError, StartError) as error:
        raise click.ClickException(str(error)) from None
