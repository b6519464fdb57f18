"""The test suites that Flask's tutorial, Starlette and FastAPI carry in their source archives, over sockets.

A plugin of pytest in `apps/` puts a client that speaks to a running Hawksbill in the place of each suite's
own, which calls the application in memory. A test is excluded by name where it can hold for no socket and no
server: each with its reason.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from harness import APPS
from sources import unpack

pytestmark = pytest.mark.suite

RUN_SECONDS = 280.0

FREE_HOSTS = "sends a Host that RFC 9110 and RFC 3986 forbid, which the server refuses before the application"
FUTURE_HOSTS = "sends Host: [v1.foo]; of the literals in RFC 3986 the server knows IPv6 alone"
ROOT = "root may read every directory"
CLIENT_REFUSES = "the HTTP client refuses to send this"
NO_TRAILERS = "the HTTP client shows no trailers"
OWN_HEADERS = "compares all headers of the in-memory client"
DENIED = "wants the code of a close before the accept, which goes over the wire as a 403"
MEMORY = "reaches into the test client's memory"

STARLETTE = {
    "test_requests.py::test_cookies_invalid": CLIENT_REFUSES,
    "test_requests.py::test_request_headers": OWN_HEADERS,
    "test_requests.py::test_request_send_push_promise": "HTTP/2 push, which browsers have dropped",
    "test_responses.py::test_response_phrase": "ends a response with a 1xx (RFC 9110, 15.2)",
    "test_routing.py::test_host_routing_ignores_port": FREE_HOSTS,
    "test_routing.py::test_host_routing_rejects_invalid_hosts": FREE_HOSTS,
    "test_routing.py::test_host_routing_ip_literals": FUTURE_HOSTS,
    "test_routing.py::test_websocket_route_middleware": "compares the case of a header's name",
    "test_websockets.py::test_websocket_headers": OWN_HEADERS,
    "test_websockets.py::test_receive_wrong_message_type": "sends what is no WebSocket message",
    "test_websockets.py::test_rejected_connection": DENIED,
    "middleware/test_body_limit.py::test_received_bytes_are_counted_with_unreliable_content_length": (
        CLIENT_REFUSES
    ),
    "middleware/test_gzip.py::test_gzip_trailers": NO_TRAILERS,
    "middleware/test_gzip.py::test_gzip_excluded_content_type_trailers": NO_TRAILERS,
    "middleware/test_https_redirect.py::test_https_redirect_middleware": FUTURE_HOSTS,
    "middleware/test_https_redirect.py::test_https_redirect_middleware_without_server": FREE_HOSTS,
    "middleware/test_trusted_host.py::test_trusted_host_middleware_ipv6": FREE_HOSTS,
    "test_exceptions.py::test_force_500_response": "wants the empty page that the test client makes up",
    "test_staticfiles.py::test_staticfiles_304_with_if_none_match_wildcard": CLIENT_REFUSES,
    "test_staticfiles.py::test_staticfiles_with_invalid_dir_permissions_returns_401": ROOT,
    "test_staticfiles.py::test_staticfiles_null_byte_in_path": "the server refuses a NUL in a path",
    "middleware/test_opentelemetry.py": "needs packages that this suite does not install",
}
STARLETTE_FILES = [
    "test_applications.py",
    "test_authentication.py",
    "test_background.py",
    "test_endpoints.py",
    "test_exceptions.py",
    "test_formparsers.py",
    "test_requests.py",
    "test_responses.py",
    "test_routing.py",
    "test_staticfiles.py",
    "test_websockets.py",
    "middleware",
]

FASTAPI = {
    "test_dependency_yield_scope_websockets.py": MEMORY + ": a context variable of the test",
    "test_dependency_after_yield_streaming.py::test_broken_session_stream_no_raise": (
        "wants a 200 of an application that failed before its first byte; the server answers 500"
    ),
    "test_ws_router.py::test_depend_err_handler": DENIED,
    "test_router_events.py::test_router_nested_lifespan_state_overriding_by_parent": MEMORY,
    "test_router_events.py::test_merged_mixed_state_lifespans": MEMORY,
    "test_ws_router.py::test_depend_err_middleware": DENIED,
    "test_ws_router.py::test_depend_validation": DENIED,
}
FASTAPI_FILES = [
    "test_application.py",
    "test_dependency_after_yield_raise.py",
    "test_dependency_after_yield_streaming.py",
    "test_dependency_after_yield_websockets.py",
    "test_dependency_contextmanager.py",
    "test_dependency_yield_scope.py",
    "test_exception_handlers.py",
    "test_form_limits.py",
    "test_local_docs.py",
    "test_router_events.py",
    "test_security_websockets.py",
    "test_swagger_ui_init_oauth.py",
    "test_ws_dependencies.py",
    "test_ws_router.py",
    *(
        f"test_tutorial/test_{chapter}"
        for chapter in (
            "background_tasks",
            "behind_a_proxy",
            "body",
            "cookie_params",
            "cors",
            "custom_response",
            "dependencies",
            "events",
            "extending_openapi",
            "handling_errors",
            "header_params",
            "middleware",
            "query_params",
            "request_files",
            "request_forms",
            "request_forms_and_files",
            "static_files",
            "sub_applications",
            "websockets",
        )
    ),
]


def run(tree: Path, plugin: str, arguments: Sequence[str], at_least: int) -> None:
    """Runs a suite under a plugin: all of it passes, and went over sockets."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(APPS), str(tree)])}
    env.pop("PYTEST_ADDOPTS", None)
    # The suites' own settings ask for plugins of their own.
    (tree / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", plugin, "-p", "no:xdist", "-q", "-rfE", "--tb=short"]
    ended = subprocess.run(
        [*command, *arguments], cwd=tree, env=env, capture_output=True, text=True, timeout=RUN_SECONDS
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    passed = re.search(r"^(\d+) passed", said, re.MULTILINE)
    assert passed, said
    assert int(passed[1]) >= at_least, said
    sent = re.search(r"over sockets: (\d+)", said)
    assert sent, said
    assert int(sent[1]) >= at_least, said


def without(excluded: dict[str, str]) -> list[str]:
    """The arguments that leave tests and files out."""
    return [f"--{'deselect' if '::' in name else 'ignore'}=tests/{name}" for name in excluded]


def test_the_flask_tutorial(tmp_path: Path) -> None:
    tree = unpack("flask", tmp_path) / "examples" / "tutorial"
    run(tree, "flask_sockets", [], at_least=24)


def test_starlettes_own_tests(tmp_path: Path) -> None:
    tree = unpack("starlette", tmp_path)
    # The client's event loop plays no part: one of the three is enough.
    loop = ["-k", "not trio and not uvloop"]
    run(
        tree,
        "starlette_sockets",
        [*(f"tests/{name}" for name in STARLETTE_FILES), *loop, *without(STARLETTE)],
        400,
    )


def test_fastapis_own_tests(tmp_path: Path) -> None:
    tree = unpack("fastapi", tmp_path)
    run(tree, "starlette_sockets", [*(f"tests/{name}" for name in FASTAPI_FILES), *without(FASTAPI)], 200)
