"""A secret that is made once and then kept in a file."""

import os
import secrets
import tempfile
from pathlib import Path


def kept_secret(path: Path) -> str:
    """The secret in the file, which is made, readable by its owner alone, if missing.

    Several processes may come at once: all of them get the same secret, because the file
    appears under its name only when it is complete, and only once.
    """
    if not path.exists():
        descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(50))
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(fresh)
    return path.read_text()
