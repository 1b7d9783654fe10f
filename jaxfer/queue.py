"""The members of a study on disk: their records, their locks, and their groups."""

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxfer.runlog import plain, read_json, write_json
from jaxfer.tensors import json_digest

Record = dict[str, Any]

_RECORD, _GROUP, _LOCK = "record.json", "group.json", "lock"
# The files and folders that a member needs only while it trains.
_SCRATCH = ("checkpoints", "prefix", _GROUP)


@dataclass(frozen=True)
class Member:
    """One training of a study.

    Attributes:
        name: unique within the study; names its folder.
        spec: everything that its result depends on, including the data, as plain values
            that JSON can hold. It is in the record: a record of another specification
            is refused. A value of None is the same as no value.
        needs: names of the members that must be done before it.
        work: relative cost, for the estimate of the time left.
    """

    name: str
    spec: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    work: float = 1.0


def member_folder(workdir: str | Path, name: str) -> Path:
    """The folder of a member, with its record, its log and its model.

    Example:
        >>> member_folder("runs/study", "base").as_posix()
        'runs/study/members/base'
    """
    return Path(workdir) / "members" / name


def recorded(workdir: str | Path, members: Sequence[Member]) -> dict[str, Record]:
    """The records of the members that are done.

    Args:
        workdir: the folder of the study.
        members: the members whose records are read.

    Raises:
        ValueError: a record that is damaged or has another specification.
    """
    queue = Queue(Path(workdir), members, lambda member: member.name, 1, False)
    queue.left()
    return queue.records


class Queue:
    """The members of a study on disk."""

    def __init__(
        self,
        workdir: Path,
        members: Sequence[Member],
        program: Callable[[Member], Hashable],
        at_once: int,
        redo: bool,
    ) -> None:
        """Store the arguments of `study.run_members`."""
        self.workdir, self.members = workdir, members
        self.program, self.at_once, self.redo = program, at_once, redo
        self.records: dict[str, Record] = {}
        self.by_name = {member.name: member for member in members}

    def check(self) -> None:
        """Refuse a queue that cannot be trained, before anything trains."""
        if len(self.by_name) < len(self.members):
            names = [member.name for member in self.members]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(
                f"expected members with different names, got {twice} more than once"
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
        """The members without a record, after reading records of other processes."""
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
        """The record of a member, after verifying it; None where there is none yet."""
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
        theirs, ours = spec, plain(member.spec)
        # A record of an earlier version lacks later options, whose default is None.
        names = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
        if names:
            shown = ", ".join(
                f"{k} = {theirs.get(k)!r} (got {ours.get(k)!r})" for k in names[:3]
            )
            raise ValueError(
                f"{path.parent} was trained with {shown}; choose another --workdir, or "
                "use the options and data that it was trained with"
            )
        return record

    def write(self, member: Member, record: Record) -> None:
        """Write the record of a member, which is done from then on."""
        record, spec = plain(record), plain(member.spec)
        write_json(
            member_folder(self.workdir, member.name) / _RECORD,
            {"digest": _hash([record, spec]), "spec": spec, "record": record},
        )
        self.records[member.name] = record

    def claim(
        self, left: Sequence[Member], locks: contextlib.ExitStack
    ) -> list[Member]:
        """Lock the members to train now: an unfinished group, else a new one."""
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

        The list is empty if there is no group, if its file is damaged by a kill, or if
        it names members that are not in this study.
        """
        try:
            names = read_json(member_folder(self.workdir, member.name) / _GROUP)
            group = [self.by_name[name] for name in names]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return group if member in group else []

    def _resume(self, group: Sequence[Member], locks: contextlib.ExitStack) -> bool:
        """Lock all members of a group, unless another process finished it meanwhile."""
        with contextlib.ExitStack() as held:
            if not all(self.lock(member.name, held) for member in group):
                return False
            if all(self._done_meanwhile(member) for member in group):
                return False
            locks.enter_context(held.pop_all())
        return True

    def _take(self, member: Member, locks: contextlib.ExitStack) -> bool:
        """Lock a member that is in no group, and remove its files of a killed run."""
        with contextlib.ExitStack() as held:
            if not self.lock(member.name, held):
                return False
            # Read it again: it may have changed before the lock was taken.
            if self._done_meanwhile(member) or self._begun(member):
                return False
            self.clean([member])
            locks.enter_context(held.pop_all())
        return True

    def lock(self, name: str, locks: contextlib.ExitStack) -> bool:
        """Try to lock a member; the kernel releases the lock when the process ends."""
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
        """Remove the files that finished members needed only while they trained."""
        for member in group:
            for name in _SCRATCH:
                path = member_folder(self.workdir, member.name) / name
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _hash(content: Any) -> str:
    return json_digest(plain(content))
