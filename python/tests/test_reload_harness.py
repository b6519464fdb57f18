"""Clients of all kinds lose nothing while the code changes under load, and with a worker only what it had.

With the clients of `benches/reload`, in its short form; `make bench-reload` is the long one.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.suite

BENCHES = Path(__file__).resolve().parents[2] / "benches"
sys.path.insert(0, str(BENCHES))

from load import sections  # noqa: E402 - from the directory just named
from reload import changes, deaths  # noqa: E402
from reload.gateway import KINDS, Kind  # noqa: E402
from reload.plan import Plan  # noqa: E402
from reload.tally import CLOSED_1012, GOODBYE, STREAM_ENDED, Versions, Wrong, lost, who  # noqa: E402

PROGRAM = Path(sys.executable).parent / "hawksbill"
PATIENCE = 60.0
"""A machine that has other things to do answers late; what never comes is to be found."""


@pytest.fixture
def root() -> Iterator[Path]:
    """The path of a socket has to be short."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Fused, and behind a front."""
    found: Kind = request.param
    return found


def test_changes_lose_nothing(kind: Kind, root: Path) -> None:
    plan = Plan(reloads=2, deploys=1, rollbacks=1, upgrades=1, drain=4.0, patience=PATIENCE)
    result = changes.run(PROGRAM, kind, root, plan)
    assert lost(result.tallies) == []
    assert {name: len(took) for name, took in result.took.items()} == {
        "reload": 2,
        "deploy": 1,
        "rollback": 1,
        "upgrade": 1,
    }
    # Each of them was really there, and those that last were told of the end.
    assert all(tally.ok for tally in result.tallies)
    told = sum((tally.apart for tally in result.tallies), start=Counter[str]())
    assert told[CLOSED_1012] > 0
    assert told[STREAM_ENDED] > 0


def test_a_death_costs_what_the_worker_had(kind: Kind, root: Path) -> None:
    result = deaths.run(PROGRAM, kind, root, Plan(kills=3, patience=PATIENCE))
    assert result.others == []
    assert [kill.whole is not None for kill in result.kills] == [True] * 3
    assert not [loss for loss in result.own if loss.category == "hung"]
    assert all(tally.ok for tally in result.tallies)
    if not kind.fronted:
        # Whoever had connections is known, so nobody was spared.
        assert all(kill.ports for kill in result.kills)
        assert result.own


def test_an_answer_of_former_code_is_found() -> None:
    versions = Versions(1, drain=10.0)
    assert who("1 1 4711", versions, opened=0.0).pid == 4711
    versions.begin(2)
    assert versions.allowed(opened=0.0) == {1, 2}
    versions.settle()
    # A connection that is older may still be the former's, one that is opened now may not.
    assert versions.allowed(opened=0.0) == {1, 2}
    later = float("inf")
    assert versions.allowed(opened=later) == {2}
    assert not versions.is_due(opened=0.0)
    with pytest.raises(Wrong, match="of version 1"):
        who("1 1 4711", versions, opened=later)
    with pytest.raises(Wrong, match="two versions"):
        who("1 2 4711", versions, opened=0.0)
    with pytest.raises(Wrong, match="something else"):
        who("Bad Gateway", versions, opened=0.0)
    assert GOODBYE < 10.0


def test_each_program_replaces_its_own_section(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    sections.replace(path, "load", "# Load\n\nfirst")
    sections.replace(path, "reload", "# Reload\n\nfirst\n")
    before = path.read_text()
    sections.replace(path, "load", "# Load\n\nsecond")
    assert path.read_text() == before.replace("# Load\n\nfirst", "# Load\n\nsecond")
    sections.replace(path, "reload", "# Reload\n\nfirst")
    sections.replace(path, "load", "# Load\n\nfirst")
    assert path.read_text() == before
