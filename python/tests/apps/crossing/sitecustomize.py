"""On `PYTHONPATH`, puts what makes Django under ASGI cheaper into every Python that starts.

Django's handlers tell what was done with them in the file that `CROSSING_LOG` names.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).resolve().parents[4]
sys.path.append(str(HOUSE / "crates" / "python" / "src" / "django"))

from django.core.handlers.asgi import ASGIHandler  # noqa: E402

crossing: Any = importlib.import_module("crossing")
project: Any = importlib.import_module("project")

assert crossing.install()
usual = ASGIHandler.__init__


def begin(handler: Any) -> None:
    usual(handler)
    hindrance = project.ease(handler)
    with Path(os.environ["CROSSING_LOG"]).open("a") as log:
        log.write(f"{hindrance or 'eased'}\n")


ASGIHandler.__init__ = begin
