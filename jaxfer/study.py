"""A study is a queue of members without a leader: each trains and leaves a record.

Every member has a folder with a lock of its own, and no process holds a lock on the
study: several processes may work on one folder, each takes members that are free, and a
finished study grows when members are added.
"""

import contextlib
import fcntl
import hashlib
import json
import shutil
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxfer.runlog import plain, read_json, write_json

Record = dict[str, Any]
Train = Callable[[Sequence["Member"], Path], Sequence[Record]]

_RECORD, _GROUP, _LOCK = "record.json", "group.json", "lock"
# What a member's folder holds only while it trains.
_SCRATCH = ("checkpoints", "prefix", _GROUP)
_POLL_S = 0.5


@dataclass(frozen=True)
class Member:
    """One training of a study.

    Attributes:
        name: unique within the study; names its folder.
        spec: everything that its result depends on, data included, as plain values that
            JSON can hold. Its hash is in the record: a record of another specification
            is refused.
        needs: names of the members that must be done before.
        work: relative cost, for the estimate of the time left.
    """

    name: str
    spec: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    work: float = 1.0

    @property
    def fingerprint(self) -> str:
        """The hash of the specification."""
        return _hash(self.spec)


def member_folder(workdir: str | Path, name: str) -> Path:
    """The folder of a member, with its record, its log and its model.

    Example:
        >>> member_folder("runs/study", "base").as_posix()
        'runs/study/members/base'
    """
    return Path(workdir) / "members" / name


def run_members(
    workdir: str | Path,
    members: Sequence[Member],
    train: Train,
    *,
    program: Callable[[Member], Hashable],
    at_once: int = 1,
    redo: bool = False,
) -> dict[str, Record]:
    """Train the members that have no record yet, and return the records of all.

    The same call goes on after any stop. Several processes may call it on one folder:
    each takes members that no other process holds, and all return when every member has
    a record.

    Args:
        workdir: the folder of the study.
        members: each after those it needs.
        train: `train(members, folder)` trains members that share a program and returns
            one record each; it keeps its checkpoints in the folder, from which the same
            members resume. A record may have a "headline" for the progress line and a
            "compile_s" that the estimate of the time left leaves out.
        program: members with an equal value may be trained together.
        at_once: members trained together, at most.
        redo: train members with damaged records again.

    Raises:
        ValueError: a record that is damaged or of another specification; a member that
            needs one which is not there; two members of one name.
        KeyboardInterrupt: stopped on request.

    Example:
        >>> import tempfile
        >>> members = [Member(name, {"name": name}) for name in ("one", "two")]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     records = run_members(
        ...         folder,
        ...         members,
        ...         lambda group, folder: [{"letters": len(m.name)} for m in group],
        ...         program=lambda member: None,
        ...     )
        2 members, 0 of them done
        [1/2] one: done, about 0 s left
        [2/2] two: done
        >>> records["two"]
        {'letters': 3}
    """
    queue = _Queue(Path(workdir), members, program, at_once, redo)
    queue.check()
    total, clock = len(members), _Clock(program)
    print(f"{total} members, {total - len(queue.left())} of them done")
    waiting = False
    while left := queue.left():
        with contextlib.ExitStack() as locks:
            group = queue.claim(left, locks)
            if not group:
                if not waiting:
                    print(f"waiting for {len(left)} members of other processes")
                waiting = True
                time.sleep(_POLL_S)
                continue
            waiting, began = False, time.monotonic()
            records = train(group, member_folder(workdir, group[0].name))
            for member, record in zip(group, records, strict=True):
                queue.write(member, record)
            clock.add(group, records, time.monotonic() - began)
            queue.clean(group)
        left = queue.left()
        for i, (member, record) in enumerate(zip(group, records, strict=True)):
            done = total - len(left) - len(group) + i + 1
            headline = record.get("headline", "done")
            print(f"[{done}/{total}] {member.name}: {headline}{clock.left(left)}")
    for member in members:
        with contextlib.ExitStack() as locks:
            if queue.lock(member.name, locks):
                queue.clean([member])
    return {member.name: queue.records[member.name] for member in members}


def recorded(workdir: str | Path, members: Sequence[Member]) -> dict[str, Record]:
    """The records of the members that are done.

    Args:
        workdir: the folder of the study.
        members: those looked for.

    Raises:
        ValueError: a record that is damaged or of another specification.
    """
    queue = _Queue(Path(workdir), members, lambda member: member.name, 1, False)
    queue.left()
    return queue.records


@contextlib.contextmanager
def report_lock(workdir: str | Path) -> Iterator[None]:
    """Held while a study's result is written, so that processes take turns."""
    Path(workdir).mkdir(parents=True, exist_ok=True)
    with (Path(workdir) / "report.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Queue:
    """The members of a study on disk."""

    def __init__(
        self,
        workdir: Path,
        members: Sequence[Member],
        program: Callable[[Member], Hashable],
        at_once: int,
        redo: bool,
    ) -> None:
        self.workdir, self.members = workdir, members
        self.program, self.at_once, self.redo = program, at_once, redo
        self.records: dict[str, Record] = {}
        self.by_name = {member.name: member for member in members}

    def check(self) -> None:
        """Refuse a queue that cannot be worked on, before anything trains."""
        if len(self.by_name) < len(self.members):
            names = [member.name for member in self.members]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(
                f"expected members with different names, got {twice} twice"
            )
        seen: set[str] = set()
        for member in self.members:
            if lost := [name for name in member.needs if name not in seen]:
                raise ValueError(
                    f"expected {lost} before the member {member.name}, which needs them"
                )
            seen.add(member.name)
        self.left()

    def left(self) -> list[Member]:
        """The members without a record; those of other processes are read."""
        found = []
        for member in self.members:
            if member.name not in self.records:
                record = self.read(member)
                if record is None:
                    found.append(member)
                else:
                    self.records[member.name] = record
        return found

    def read(self, member: Member) -> Record | None:
        """The record of a member, verified; None where there is none yet."""
        path = member_folder(self.workdir, member.name) / _RECORD
        if not path.exists():
            return None
        try:
            kept = read_json(path)
            record, spec = kept["record"], kept["spec"]
            intact = kept["digest"] == _hash([record, spec])
        except (ValueError, KeyError, TypeError, OSError):
            intact, record, spec = False, {}, {}
        if not intact:
            if self.redo:
                return None
            raise ValueError(
                f"the record {path} is damaged: train the member again with --redo, or "
                "remove its folder"
            )
        if _hash(spec) != member.fingerprint:
            theirs, ours = spec, plain(member.spec)
            names = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
            shown = ", ".join(
                f"{k} (there {theirs.get(k)!r}, here {ours.get(k)!r})"
                for k in names[:3]
            )
            raise ValueError(
                f"{path.parent} was trained with another {shown}; choose another "
                "--workdir, or the options and data it was trained with"
            )
        return record

    def write(self, member: Member, record: Record) -> None:
        """Record a member: it is done from here on."""
        record, spec = plain(record), plain(member.spec)
        write_json(
            member_folder(self.workdir, member.name) / _RECORD,
            {"digest": _hash([record, spec]), "spec": spec, "record": record},
        )
        self.records[member.name] = record

    def claim(
        self, left: Sequence[Member], locks: contextlib.ExitStack
    ) -> list[Member]:
        """Members to train now, locked: an unfinished group first, else a new one."""
        ready = [m for m in left if all(name in self.records for name in m.needs)]
        for member in ready:
            group = self._begun(member)
            if group and self._resume(group, locks):
                return group
        for member in ready:
            if not self._take(member, locks):
                continue
            group = [member]
            for other in ready:
                if len(group) == self.at_once:
                    break
                alike = self.program(other) == self.program(member)
                if alike and other not in group and self._take(other, locks):
                    group.append(other)
            names = [m.name for m in group]
            for m in group:
                write_json(member_folder(self.workdir, m.name) / _GROUP, names)
            return group
        return []

    def _begun(self, member: Member) -> list[Member]:
        """The group in which a member's training was begun.

        Empty where there is none, where a kill cut its file, and where it has members
        that this study no longer has.
        """
        try:
            names = read_json(member_folder(self.workdir, member.name) / _GROUP)
            group = [self.by_name[name] for name in names]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return group if member in group else []

    def _resume(self, group: Sequence[Member], locks: contextlib.ExitStack) -> bool:
        """Hold all members of a group, unless another process ended it meanwhile."""
        with contextlib.ExitStack() as held:
            if not all(self.lock(member.name, held) for member in group):
                return False
            if all(self._done_meanwhile(member) for member in group):
                return False
            locks.enter_context(held.pop_all())
        return True

    def _take(self, member: Member, locks: contextlib.ExitStack) -> bool:
        """Hold a member that is in no group, and remove what a kill left of it."""
        with contextlib.ExitStack() as held:
            if not self.lock(member.name, held):
                return False
            # Only what is read under the lock is sure to stay as it is.
            if self._done_meanwhile(member) or self._begun(member):
                return False
            self.clean([member])
            locks.enter_context(held.pop_all())
        return True

    def lock(self, name: str, locks: contextlib.ExitStack) -> bool:
        """Try to hold a member; the kernel releases it when the process ends."""
        folder = member_folder(self.workdir, name)
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        locks.enter_context(file)
        return True

    def _done_meanwhile(self, member: Member) -> bool:
        record = self.read(member)
        if record is not None:
            self.records[member.name] = record
        return record is not None

    def clean(self, group: Sequence[Member]) -> None:
        """Remove what members that are done needed only while they trained."""
        for member in group:
            for name in _SCRATCH:
                path = member_folder(self.workdir, member.name) / name
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


class _Clock:
    """Seconds per unit of work, by program and without compilation."""

    def __init__(self, program: Callable[[Member], Hashable]) -> None:
        self._program = program
        self._rates: dict[Hashable, list[float]] = {}

    def add(
        self, group: Sequence[Member], records: Sequence[Record], seconds: float
    ) -> None:
        compiling = sum(record.get("compile_s") or 0.0 for record in records)
        work = sum(member.work for member in group)
        rate = max(seconds - compiling, 0.0) / max(work, 1e-9)
        self._rates.setdefault(self._program(group[0]), []).append(rate)

    def left(self, members: Sequence[Member]) -> str:
        """The estimate of the time left, as the end of a progress line."""
        if not members:
            return ""
        every = [rate for rates in self._rates.values() for rate in rates]
        usual = statistics.median(every)
        seconds = sum(
            m.work * statistics.median(self._rates.get(self._program(m), [usual]))
            for m in members
        )
        return f", about {_spoken(seconds)} left"


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _hash(content: Any) -> str:
    text = json.dumps(plain(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
