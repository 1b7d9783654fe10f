"""A study is a queue of members; each is trained and its result recorded.

Every member has a folder with its own lock, and no process locks the whole study.
Several processes may work on one folder: each takes members that are free. Members may
be added to a finished study.
"""

import contextlib
import fcntl
import statistics
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from tqdm.auto import tqdm

from jaxfer.queue import Member, Queue, Record, member_folder, recorded
from jaxfer.signals import stop_requests

Train = Callable[[Sequence[Member], Path], Sequence[Record]]

_POLL_S = 0.5

__all__ = [
    "Member",
    "Record",
    "Train",
    "member_folder",
    "recorded",
    "report_lock",
    "run_members",
]


def run_members(
    workdir: str | Path,
    members: Sequence[Member],
    train: Train,
    *,
    program: Callable[[Member], Hashable],
    at_once: int = 1,
    threads: int = 1,
    redo: bool = False,
) -> dict[str, Record]:
    """Train the members that have no record yet, and return the records of all.

    The same call resumes after any stop. Several processes may call it on one folder:
    each takes members that no other process has locked, and all return when every
    member has a record.

    Args:
        workdir: the folder of the study.
        members: the members, each after those it needs.
        train: `train(members, folder)` trains members that share a program and returns
            one record each; it keeps its checkpoints in the folder, from which the same
            members resume. A record may have a "headline" for the progress line and a
            "compile_s", which is excluded from the estimate of the time left.
        program: a function of a member; members with equal values may train together.
        at_once: the maximum number of members that train together.
        threads: the number of groups that train in parallel, each in a thread. A small
            network leaves CPU cores idle, which a second one can use. `train` is then
            called by several threads.
        redo: train members with damaged records again.

    Raises:
        ValueError: a record that is damaged or has another specification; a member that
            needs a missing member; two members with the same name.
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
    queue = Queue(Path(workdir), members, program, at_once, redo)
    queue.check()
    print(f"{len(members)} members, {len(members) - len(queue.left())} of them done")
    worker = _Worker(queue, train, threads)
    if threads == 1:
        worker.run()
    else:
        worker.run_threads()
    for member in members:
        with contextlib.ExitStack() as locks:
            if queue.lock(member.name, locks):
                queue.clean([member])
    return {member.name: queue.records[member.name] for member in members}


@contextlib.contextmanager
def report_lock(workdir: str | Path) -> Iterator[None]:
    """Lock a study's result while it is written, so that processes take turns."""
    Path(workdir).mkdir(parents=True, exist_ok=True)
    with (Path(workdir) / "report.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Worker:
    """A worker that trains members of the queue, in one thread or in several."""

    def __init__(self, queue: Queue, train: Train, threads: int) -> None:
        self._queue, self._train, self._threads = queue, train, threads
        self._clock = _Clock(queue.program, threads)
        # Held by the thread that reads the queue; the others wait for a change.
        self._changed = threading.Condition()
        self._training, self._waiting = 0, False
        # Programs that some thread may still be compiling.
        self._compiling: set[Hashable] = set()
        self._ended: Callable[[], bool] = lambda: False

    def run_threads(self) -> None:
        """Train in threads until no member is left; a failure stops all of them."""
        with stop_requests() as stop_requested:
            self._ended = stop_requested.is_set
            with ThreadPoolExecutor(self._threads) as pool:
                runs = [pool.submit(self.run) for _ in range(self._threads)]
                done, _ = wait(runs, return_when=FIRST_EXCEPTION)
                if any(run.exception() for run in done):
                    stop_requested.set()
        # Raise the error that made the other threads stop.
        errors = [error for run in runs if (error := run.exception())]
        for error in sorted(errors, key=lambda e: isinstance(e, KeyboardInterrupt)):
            raise error

    def run(self) -> None:
        """Train until no member is left."""
        queue = self._queue
        while True:
            with contextlib.ExitStack() as locks:
                with self._changed:
                    if not (left := queue.left()):
                        return
                    if self._ended():
                        raise KeyboardInterrupt("stopped between two members")
                    # Prefer members whose program no other thread is compiling.
                    left.sort(key=lambda m: queue.program(m) in self._compiling)
                    if not (group := queue.claim(left, locks)):
                        self._wait(len(left))
                        continue
                    self._training, self._waiting = self._training + 1, False
                    if not self._clock.knows(program := queue.program(group[0])):
                        self._compiling.add(program)
                began = time.monotonic()
                try:
                    folder = member_folder(queue.workdir, group[0].name)
                    records = self._train(group, folder)
                    with self._changed:
                        for member, record in zip(group, records, strict=True):
                            queue.write(member, record)
                        self._clock.add(group, records, time.monotonic() - began)
                        queue.clean(group)
                        self._say(group, records)
                finally:
                    with self._changed:
                        self._training -= 1
                        self._compiling.discard(program)
                        self._changed.notify_all()

    def _wait(self, left: int) -> None:
        """Wait until another thread has finished a group, or for a short time."""
        if not self._training and not self._waiting:
            print(f"waiting for {left} members of other processes")
            self._waiting = True
        self._changed.wait(_POLL_S)

    def _say(self, group: Sequence[Member], records: Sequence[Record]) -> None:
        left, total = self._queue.left(), len(self._queue.members)
        for i, (member, record) in enumerate(zip(group, records, strict=True)):
            done = total - len(left) - len(group) + i + 1
            headline = record.get("headline", "done")
            line = f"[{done}/{total}] {member.name}: {headline}{self._clock.left(left)}"
            # Print above the progress bars of other threads.
            tqdm.write(line)


class _Clock:
    """Records seconds per unit of work, by program and without compilation."""

    def __init__(self, program: Callable[[Member], Hashable], threads: int) -> None:
        self._program, self._threads = program, threads
        self._rates: dict[Hashable, list[float]] = {}

    def add(
        self, group: Sequence[Member], records: Sequence[Record], seconds: float
    ) -> None:
        compiling = sum(record.get("compile_s") or 0.0 for record in records)
        work = sum(member.work for member in group)
        rate = max(seconds - compiling, 0.0) / max(work, 1e-9)
        self._rates.setdefault(self._program(group[0]), []).append(rate)

    def knows(self, program: Hashable) -> bool:
        """Return whether a group of this program has been trained."""
        return program in self._rates

    def left(self, members: Sequence[Member]) -> str:
        """The estimate of the time left, to append to a progress line."""
        if not members:
            return ""
        every = [rate for rates in self._rates.values() for rate in rates]
        usual = statistics.median(every)
        seconds = sum(
            m.work * statistics.median(self._rates.get(self._program(m), [usual]))
            for m in members
        )
        return f", about {_spoken(seconds / self._threads)} left"


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
