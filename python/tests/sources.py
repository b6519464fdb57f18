"""Source archives of the frameworks, for the test suites and examples that only they carry."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path

from harness import TESTS

CACHE = TESTS.parent.parent / ".cache" / "sdists"
DOWNLOAD_SECONDS = 240.0


def unpack(project: str, into: Path, version: str | None = None) -> Path:
    """The source tree of `project`, unpacked below `into`: of the very version that is installed, if none is
    named.

    It is fetched with pip once and kept in the checkout's `.cache`. Without a package index to fetch it from,
    the test that needs it fails and says so.
    """
    version = version or metadata.version(project)
    archive = _archive(project, version)
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    (tree,) = into.glob(f"{project}-{version}")
    return tree


def _archive(project: str, version: str) -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    archive = CACHE / f"{project}-{version}.tar.gz"
    with (CACHE / "lock").open("w") as lock:
        # Two test processes may want the same archive at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as directory:
                _download(f"{project}=={version}", Path(directory))
                (found,) = Path(directory).glob("*.tar.gz")
                found.replace(archive)
    return archive


def _download(requirement: str, directory: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    sdist = ["--no-deps", "--no-binary", ":all:", "--dest", str(directory), requirement]
    why = ""
    try:
        done = subprocess.run([*pip, *sdist], capture_output=True, text=True, timeout=DOWNLOAD_SECONDS)
        if done.returncode == 0:
            return
        why = done.stderr
    except subprocess.TimeoutExpired:
        why = f"pip did not finish within {DOWNLOAD_SECONDS:.0f} s"
    raise AssertionError(
        f"this test needs the source archive of {requirement}, and pip could not download it; make a package "
        f"index reachable, or put the archive into {CACHE}:\n{why}"
    )
