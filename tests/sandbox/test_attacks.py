"""The hostile corpus: nothing gets through, and every attack is a real one."""

from __future__ import annotations

import os
import random
import sys

import pytest

from tests.sandbox.attacks.__main__ import NAIVE, excused, outcomes
from tests.sandbox.attacks.catalogue import CORPUS, Attack, attacks
from tests.sandbox.tier import MODES

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's; run the tests there"),
    pytest.mark.violent,
    pytest.mark.timeout(1800),
]
PROVE = os.environ.get("EVENTCORE_PROVE") == "1"
SEED = os.environ.get("EVENTCORE_SEED") or str(random.SystemRandom().randrange(10**9))
#: Found to get through once, and stopped since; and one of each other class. Always run.
ALWAYS = (
    "channel.dear_frame channel.hostile_log disk.fill_at_once disk.hide_open_files disk.reserve_past_the_end "
    "disk.whiteout on_import_fills files.read_a_file files.set_user_id_at_birth files.set_user_id_file "
    "kernel.io_uring limits.deep_folders limits.memory limits.compute_for_ever limits.many_files "
    "limits.fill_the_workspace network.fast_open network.unix_datagram_from_a_pair own_sdk.widen_landlock "
    "on_import_reads processes.daemon secrets.read_inherited_files"
).split()


def chosen(mode: str, share: float) -> list[Attack]:
    """All in `make prove`, a sample in `make test`."""
    found = attacks()
    if PROVE:
        return found
    print(f"EVENTCORE_SEED={SEED} repeats this choice of attacks")
    dice = random.Random(f"{SEED}:{mode}")
    return [one for one in found if one.name in ALWAYS or dice.random() < share]


def test_the_corpus_is_broad_and_says_what_stops_each_attack() -> None:
    found = attacks()
    assert len(found) >= 60
    assert len({one.name for one in found}) == len(found)
    assert [one.name for one in found if not one.stopped_by or not one.tries] == []
    assert {one.name for one in found} >= set(ALWAYS)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_gets_through(mode: str) -> None:
    given = {one.name: one for one in chosen(mode, 0.12)}
    found = list(outcomes(CORPUS, mode, given))
    assert [one["attack"] for one in found] == list(given)
    assert [one for one in found if one["outcome"] == "through" and not excused(given[one["attack"]], one)] == []


def test_the_attacks_are_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the sandbox each succeeds somewhere."""
    given = {one.name: one for one in chosen("naive", 0.0) if not one.needs}
    if not PROVE:
        dice = random.Random(f"{SEED}:naive")
        given = dict(dice.sample(sorted(given.items()), 4))
    left = set(given)
    for seconds in ("1", "10"):  # the second time those that had too little of it on a busy machine
        monkeypatch.setenv("EVENTCORE_ATTACK_TIME", seconds)
        for mode in NAIVE:
            found = outcomes(CORPUS, mode, sorted(left)) if left else ()
            left -= {one["attack"] for one in found if one["outcome"] == "through"}
    assert not left
