"""The trials of tools/faults.py find what is bad."""

import random
from collections import Counter

import pytest

from tools import faults
from tools.faulting import lab as labs


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return labs.Lab(tmp_path_factory.mktemp("lab"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", faults.KINDS)
def test_nothing_is_lost(lab, kind):
    rng = random.Random(1)
    for name, one in faults.KINDS[kind](lab, 2, rng):
        assert one() not in labs.BAD, (name, lab.last)


@pytest.mark.slow
def test_other_bits_and_tracebacks_are_bad(lab, tmp_path):
    other = tmp_path / "other"
    ended = lab.run(other, "--seed", "1")
    assert lab.judged(ended, other) == labs.LOST
    assert lab.judged(ended._replace(shown="Traceback"), other) == labs.TRACE
    assert lab.judged(ended._replace(code=1), other) == labs.SILENT
    assert lab.judged(ended, other, "testing on") == labs.LOST
    assert lab.judged(ended, lab.whole, "testing on") == labs.NAMED
    refused = labs.Ended(2, "error: a\n")
    assert lab.judged(refused, other) == labs.SAID
    assert lab.judged(refused._replace(shown="error: a\nerror: b\n"), other) in labs.BAD


def test_the_table_has_a_row_per_fault_and_a_column_per_end():
    counts = {
        "kill": Counter({labs.SAME: 3}),
        "disk": Counter({labs.SAID: 1, labs.TRACE: 1}),
    }
    head, _, kill, disk = faults.table(counts).splitlines()
    assert head.split(" | ")[2:] == [labs.SAME, labs.SAID, f"{labs.TRACE} |"]
    assert kill == "| kill | 3 | 3 |  |  |" and disk == "| disk | 2 |  | 1 | 1 |"
