"""The queue of a study, with trainings that only write down that they ran."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from jaxfer import queue as queues
from jaxfer import study
from jaxfer.runlog import read_json, write_json
from jaxfer.signals import stop_requests
from jaxfer.study import Member, member_folder, recorded, report_lock, run_members

ROOT = Path(__file__).resolve().parents[1]


def _members(*names, **spec):
    return [Member(name, {"name": name, **spec}) for name in names]


class Training:
    """A training that writes down which members it was called with, and how often."""

    def __init__(self, die_at=None, **record):
        self.groups, self.folders = [], []
        self.die_at, self.record = die_at, record

    def __call__(self, members, folder):
        names = [member.name for member in members]
        self.groups.append(names)
        self.folders.append(folder.name)
        (folder / "checkpoints").mkdir(exist_ok=True)
        if self.die_at in names:
            raise MemoryError("killed")
        return [{"accuracy": len(m.name), **self.record} for m in members]


def _alike(member):
    return member.spec.get("program", "one")


def _run(workdir, members, train, **how):
    how = {"program": _alike, **how}
    return run_members(workdir, members, train, **how)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(study, "_POLL_S", 0.01)


def test_every_member_trains_once_and_leaves_a_record(tmp_path, capsys):
    train = Training()
    records = _run(tmp_path, _members("a", "bb"), train)
    assert train.groups == [["a"], ["bb"]] and train.folders == ["a", "bb"]
    assert records == {"a": {"accuracy": 1}, "bb": {"accuracy": 2}}
    assert recorded(tmp_path, _members("a", "bb")) == records
    # What only a training needs is gone.
    assert {p.name for p in member_folder(tmp_path, "a").iterdir()} == {
        *("record.json", "lock")
    }
    capsys.readouterr()
    again = Training()
    assert _run(tmp_path, _members("a", "bb"), again) == records
    assert not again.groups
    assert capsys.readouterr().out == "2 members, 2 of them done\n"


def test_members_wait_for_those_they_need(tmp_path):
    first = Member("base", {})
    other = Member("other", {"program": "two"}, needs=("base",))
    last = Member("last", {}, needs=("base", "other"))
    train = Training()
    _run(tmp_path, [first, other, last], train, at_once=8)
    assert train.groups == [["base"], ["other"], ["last"]]


def test_groups_share_a_program_and_are_no_larger_than_at_once(tmp_path):
    one = _members(*"abc", program="one")
    two = _members(*"xy", program="two")
    train = Training()
    _run(tmp_path, [one[0], two[0], one[1], two[1], one[2]], train, at_once=2)
    assert train.groups == [["a", "b"], ["x", "y"], ["c"]]
    assert train.folders == ["a", "x", "c"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (_members("a", "b", "a"), r"members with different names, got \['a'\] more"),
        (
            [Member("a", {}, needs=("b",)), Member("b", {})],
            r"expected \['b'\] before the member a, which needs them",
        ),
        (
            [Member("a", {}, needs=("lost",))],
            r"expected \['lost'\] before the member a",
        ),
    ],
    ids=["twice", "order", "lost"],
)
def test_a_queue_that_cannot_be_worked_on_is_refused(tmp_path, members, message):
    train = Training()
    with pytest.raises(ValueError, match=message):
        _run(tmp_path, members, train)
    assert not train.groups and not list(tmp_path.iterdir())


def _edited(path):
    kept = read_json(path)
    kept["record"]["accuracy"] = 99.0
    write_json(path, kept)


def _without_digest(path):
    kept = read_json(path)
    del kept["digest"]
    write_json(path, kept)


DAMAGE = {
    "accuracy": _edited,
    "cut": lambda path: path.write_text(path.read_text()[:40]),
    "empty": lambda path: path.write_text(""),
    "no digest": _without_digest,
    "a list": lambda path: path.write_text("[1]"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_record_is_named_and_redo_trains_it_again(tmp_path, damage):
    members = _members("a", "bb")
    records = _run(tmp_path, members, Training())
    path = member_folder(tmp_path, "a") / "record.json"
    damage(path)
    train = Training()
    for look in (
        lambda: _run(tmp_path, members, train),
        lambda: recorded(tmp_path, members),
    ):
        with pytest.raises(ValueError, match=f"record {path} is damaged.*--redo"):
            look()
    assert not train.groups
    assert _run(tmp_path, members, train, redo=True) == records
    assert train.groups == [["a"]]
    assert recorded(tmp_path, members) == records


def test_a_record_of_another_specification_is_refused_with_the_difference(tmp_path):
    _run(tmp_path, _members("a", epochs=3, data=("f", 1)), Training())
    same = _members("a", epochs=3, data=["f", 1])
    assert recorded(tmp_path, same)["a"] == {"accuracy": 1}
    for redo in (False, True):
        with pytest.raises(ValueError, match=r"with epochs = 3 \(got 4\)"):
            other = _members("a", epochs=4, data=("f", 1))
            _run(tmp_path, other, Training(), redo=redo)
    with pytest.raises(ValueError, match=r"with batch = None \(got 8\)"):
        _run(tmp_path, _members("a", epochs=3, data=("f", 1), batch=8), Training())


def test_a_record_without_an_option_has_its_default(tmp_path):
    """A version with more options goes on with the records of an earlier one."""
    _run(tmp_path, _members("a", epochs=3), Training())
    again = _members("a", epochs=3, exclude=None)
    assert recorded(tmp_path, again)["a"] == {"accuracy": 1}
    train = Training()
    _run(tmp_path, again, train)
    assert train.groups == []


def test_a_record_may_hold_arrays_and_numbers_that_json_lacks(tmp_path):
    train = Training(rate=float("nan"), losses=np.arange(2), n=np.float32(0.5))
    spec = _members("a", limit=float("inf"))
    first = _run(tmp_path, spec, train)
    assert first["a"] == {"accuracy": 1, "rate": None, "losses": [0, 1], "n": 0.5}
    assert recorded(tmp_path, spec) == first


def test_a_finished_study_trains_only_what_is_added(tmp_path):
    _run(tmp_path, _members("a", "b"), Training(), at_once=2)
    train = Training()
    records = _run(tmp_path, _members("c", "a", "b"), train, at_once=2)
    assert train.groups == [["c"]] and sorted(records) == ["a", "b", "c"]


# --- Unfinished groups.


def _stop(workdir, members, die_at, **how):
    with pytest.raises(MemoryError):
        _run(workdir, members, Training(die_at), **how)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_a_group_goes_on_as_it_was_begun(tmp_path, at_once):
    """Its checkpoints hold these members: at_once may have changed meanwhile."""
    members = _members(*"abcd")
    _stop(tmp_path, members, "a", at_once=2)
    assert (member_folder(tmp_path, "a") / "checkpoints").exists()
    train = Training()
    _run(tmp_path, members, train, at_once=at_once)
    rest = [["c", "d"]] if at_once > 1 else [["c"], ["d"]]
    assert train.groups == [["a", "b"], *rest]
    assert not list(tmp_path.glob("members/*/checkpoints"))
    assert not list(tmp_path.glob("members/*/group.json"))


def test_a_member_begun_alone_goes_on_alone(tmp_path):
    members = _members(*"abc")
    _stop(tmp_path, members, "a", at_once=1)
    train = Training()
    _run(tmp_path, members, train, at_once=2)
    assert train.groups == [["a"], ["b", "c"]]


def test_unfinished_groups_come_before_new_ones(tmp_path):
    members = _members(*"abcd")
    _run(tmp_path, members[:1], Training())
    _stop(tmp_path, members[1:], "b", at_once=2)
    train = Training()
    first = Member("first", {})
    _run(tmp_path, [first, *members], train, at_once=1)
    assert train.groups == [["b", "c"], ["first"], ["d"]]


def test_a_group_of_which_one_record_was_written_goes_on_whole(tmp_path, monkeypatch):
    members = _members(*"ab")
    real = queues.Queue.write

    def write(self, member, record):
        if member.name == "b":
            raise MemoryError("killed")
        real(self, member, record)

    with monkeypatch.context() as patch:
        patch.setattr(queues.Queue, "write", write)
        with pytest.raises(MemoryError):
            _run(tmp_path, members, Training(), at_once=2)
    assert (member_folder(tmp_path, "a") / "record.json").exists()
    train = Training()
    records = _run(tmp_path, members, train, at_once=1)
    assert train.groups == [["a", "b"]] and len(records) == 2


@pytest.mark.parametrize("content", ["", '["a", ', "[1, 2]", "7", '["a", "gone"]'])
def test_a_group_that_cannot_be_read_begins_anew(tmp_path, content):
    """With no checkpoint that other members left behind."""
    members = _members(*"ab")
    _stop(tmp_path, members, "a", at_once=2)
    for name in "ab":
        (member_folder(tmp_path, name) / "group.json").write_text(content)
    seen = []

    def train(group, folder):
        seen.append([m.name for m in group])
        assert not (folder / "checkpoints").exists()
        return [{}] * len(group)

    _run(tmp_path, members, train, at_once=1)
    assert seen == [["a"], ["b"]]


def test_a_group_cut_in_one_folder_is_known_from_the_other(tmp_path):
    members = _members(*"ab")
    _stop(tmp_path, members, "a", at_once=2)
    (member_folder(tmp_path, "b") / "group.json").write_text("[")
    train = Training()
    _run(tmp_path, members, train, at_once=1)
    assert train.groups == [["a", "b"]]


def test_a_group_of_another_process_is_left_alone(tmp_path):
    """Also where it holds members that this study does not have."""
    members = _members(*"ab")
    _stop(tmp_path, members, "a", at_once=2)
    queue = queues.Queue(tmp_path, members, _alike, 1, False)
    with contextlib.ExitStack() as locks:
        assert [m.name for m in queue.claim(members, locks)] == ["a", "b"]
        part = queues.Queue(tmp_path, members[:1], _alike, 1, False)
        with contextlib.ExitStack() as others:
            assert part.claim(members[:1], others) == []
        assert (member_folder(tmp_path, "a") / "checkpoints").exists()
        assert read_json(member_folder(tmp_path, "a") / "group.json") == ["a", "b"]


def test_a_group_that_another_process_ended_meanwhile_is_not_trained_again(tmp_path):
    members = _members(*"ab")
    _stop(tmp_path, members, "a", at_once=2)
    queue = queues.Queue(tmp_path, members, _alike, 2, False)
    left = queue.left()
    group = queue._begun(left[0])
    for member in members:
        queue.write(member, {"accuracy": 1})
    late = queues.Queue(tmp_path, members, _alike, 2, False)
    with contextlib.ExitStack() as locks:
        assert [m.name for m in group] == ["a", "b"]
        assert not late._resume(group, locks) and late.claim(left, locks) == []
    assert sorted(late.records) == ["a", "b"]


# --- The time left.


def test_the_estimate_leaves_compilation_out(tmp_path, monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(study.time, "monotonic", lambda: clock[0])

    def train(group, folder):
        clock[0] += 100.0
        return [{"compile_s": 90.0, "headline": "50.00%"}]

    members = [Member(name, {}, work=work) for name, work in (("a", 1.0), ("b", 3.0))]
    _run(tmp_path, members, train)
    out = capsys.readouterr().out
    assert "[1/2] a: 50.00%, about 30 s left\n[2/2] b: 50.00%\n" in out


def test_the_estimate_knows_programs_apart(tmp_path, monkeypatch, capsys):
    clock, seconds = [0.0], {"slow": 600.0, "fast": 6.0}
    monkeypatch.setattr(study.time, "monotonic", lambda: clock[0])

    def train(group, folder):
        clock[0] += seconds[group[0].spec["program"]]
        return [{}]

    slow, fast = (
        _members(*names, program=p) for names, p in (("ab", "slow"), ("xy", "fast"))
    )
    _run(tmp_path, [slow[0], fast[0], fast[1], slow[1]], train)
    lines = capsys.readouterr().out.splitlines()
    # A program that has not run yet is taken to be as fast as those that have.
    assert [line.partition("about ")[2] for line in lines[1:]] == [
        *("30 min left", "10 min left", "10 min left", "")
    ]


# --- Processes.

WORKER = """
import json, os, signal, sys, time
from pathlib import Path
from jaxfer.study import Member, run_members

workdir, me, seconds, die_at, at_once, workers = sys.argv[1:]
# They begin together, however long each takes to import.
Path(workdir, f"here-{me}").touch()
while len([*Path(workdir).glob("here-*")]) < int(workers):
    time.sleep(0.01)
names = [f"m{i}" for i in range(6)]
members = [Member(n, {"i": i}, ("m0",) if i else ()) for i, n in enumerate(names)]


def train(group, folder):
    for member in group:
        with open(f"{workdir}/trained", "a") as file:
            file.write(f"{me} {member.name}\\n")
    if die_at in [member.name for member in group]:
        Path(workdir, "ready").touch()
        time.sleep(60)
    time.sleep(float(seconds))
    return [{"by": me}] * len(group)


records = run_members(
    workdir, members, train, program=lambda m: 1, at_once=int(at_once)
)
print(json.dumps(records))
"""


def _worker(workdir, me, *, seconds=0.05, die_at="", at_once=1, workers=1):
    options = map(str, (workdir, me, seconds, die_at, at_once, workers))
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ended(process):
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return json.loads(out.splitlines()[-1])


def _trained(workdir):
    return [line.split() for line in (workdir / "trained").read_text().splitlines()]


def test_two_processes_share_a_queue_and_train_each_member_once(tmp_path):
    workers = [_worker(tmp_path, me, seconds=0.2, workers=2) for me in "xy"]
    one, other = map(_ended, workers)
    assert one == other and sorted(one) == [f"m{i}" for i in range(6)]
    trained = _trained(tmp_path)
    assert sorted(name for _, name in trained) == sorted(one)
    assert all(one[name]["by"] == me for me, name in trained)
    # Both worked: while one trains, the other has no reason to wait.
    assert {me for me, _ in trained} == {"x", "y"}


@pytest.mark.parametrize("at_once", [1, 2])
def test_what_a_killed_process_held_is_taken_over(tmp_path, at_once):
    killed = _worker(tmp_path, "killed", die_at="m2", at_once=at_once)
    limit = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < limit and killed.poll() is None
        time.sleep(0.02)
    heir = _worker(tmp_path, "heir", at_once=at_once)
    # The heir trains all that is free before there is anything to take over.
    done = "members/m5/record.json"
    while not (tmp_path / done).exists():
        assert time.monotonic() < limit and heir.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    records = _ended(heir)
    assert len(records) == 6 and records["m2"]["by"] == "heir"
    groups = {name for me, name in _trained(tmp_path) if me == "heir"}
    assert groups == {n for n, record in records.items() if record["by"] == "heir"}
    assert records["m0"]["by"] == "killed"
    if at_once == 2:
        # m1 and m2 were begun together, and go on together.
        assert {"m1", "m2"} <= groups
    assert not list(tmp_path.glob("members/*/group.json"))


def test_reports_are_written_in_turn(tmp_path):
    with report_lock(tmp_path / "new"):
        with (tmp_path / "new" / "report.lock").open("a") as file:
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with report_lock(tmp_path / "new"):
        pass


def test_threads_train_side_by_side(tmp_path, capsys):
    together = threading.Barrier(2, timeout=30)

    def train(members, folder):
        together.wait()
        return [{"thread": threading.current_thread().name} for _ in members]

    records = _run(tmp_path, _members("a", "b"), train, threads=2)
    assert records["a"]["thread"] != records["b"]["thread"]
    lines = capsys.readouterr().out.splitlines()
    assert [line[:5] for line in lines] == ["2 mem", "[1/2]", "[2/2]"]


def test_a_thread_waits_for_what_its_member_needs(tmp_path, capsys):
    order = []

    def train(members, folder):
        time.sleep(0.1)
        order.extend(member.name for member in members)
        return [{} for _ in members]

    members = [Member("base", {}), Member("other", {}, needs=("base",))]
    _run(tmp_path, members, train, threads=3)
    assert order == ["base", "other"]
    # Other processes have nothing to do with it.
    assert "waiting" not in capsys.readouterr().out


def test_a_failure_stops_the_other_threads_and_is_raised(tmp_path):
    failed = threading.Event()

    def train(members, folder):
        if members[0].name == "b":
            failed.set()
            raise ValueError("the loss is nan")
        assert failed.wait(30)
        with stop_requests() as stop_requested:
            for _ in range(300):
                if stop_requested.is_set():
                    raise KeyboardInterrupt("saved")
                time.sleep(0.1)
        return [{} for _ in members]

    with pytest.raises(ValueError, match="the loss is nan"):
        _run(tmp_path, _members("a", "b", "c"), train, threads=2)
    assert not recorded(tmp_path, _members("a", "b", "c"))


def test_a_signal_stops_all_threads(tmp_path):
    started = threading.Barrier(3, timeout=30)

    def train(members, folder):
        with stop_requests() as stop_requested:
            started.wait()
            while not stop_requested.is_set():
                time.sleep(0.01)
        (folder / "saved").touch()
        raise KeyboardInterrupt("stopped, saved")

    def interrupt():
        started.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="saved"):
        _run(tmp_path, _members("a", "b"), train, threads=2)
    assert signal.getsignal(signal.SIGINT) is before
    assert all((member_folder(tmp_path, name) / "saved").exists() for name in "ab")
