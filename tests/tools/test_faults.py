"""The trials of tools/faults.py find what is bad."""

import random
from collections import Counter

import pytest

from tools import faults


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return faults.Lab(tmp_path_factory.mktemp("lab"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", faults.KINDS)
def test_nothing_is_lost(lab, kind):
    rng = random.Random(1)
    for name, one in faults.KINDS[kind](lab, 2, rng):
        assert one() not in faults.BAD, (name, lab.last)


@pytest.mark.slow
def test_other_bits_and_tracebacks_are_bad(lab, tmp_path):
    other = tmp_path / "other"
    ended = lab.run(other, "--seed", "1")
    assert lab.judged(ended, other) == faults.LOST
    assert lab.judged(ended._replace(shown="Traceback"), other) == faults.TRACE
    assert lab.judged(ended._replace(code=1), other) == faults.SILENT
    assert lab.judged(ended, other, "testing on") == faults.LOST
    assert lab.judged(ended, lab.whole, "testing on") == faults.NAMED
    refused = faults.Ended(2, "error: a\n")
    assert lab.judged(refused, other) == faults.SAID
    assert (
        lab.judged(refused._replace(shown="error: a\nerror: b\n"), other) in faults.BAD
    )


def test_the_table_has_a_row_per_fault_and_a_column_per_end():
    counts = {
        "kill": Counter({faults.SAME: 3}),
        "disk": Counter({faults.SAID: 1, faults.TRACE: 1}),
    }
    head, _, kill, disk = faults.table(counts).splitlines()
    assert head.split(" | ")[2:] == [faults.SAME, faults.SAID, f"{faults.TRACE} |"]
    assert kill == "| kill | 3 | 3 |  |  |" and disk == "| disk | 2 |  | 1 | 1 |"
