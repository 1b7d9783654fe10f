"""A classifier behind a queue: concurrent requests are embedded together."""

import asyncio
import contextlib
import copy
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxfer.cli.predict import table
from jaxfer.estimator import FewShotClassifier
from jaxfer.models import model_side

# Pictures that are embedded together, and that may wait.
_TOGETHER = 64
_WAITING = 512


class BusyError(Exception):
    """Too many pictures wait."""


class Service:
    """Answers requests in the order in which they come, one batch at a time.

    While a batch is embedded, new requests wait; they are the next batch. Changes take
    effect between requests: an answer never comes from half a change.

    Attributes:
        side: side in pixels of the pictures that it takes.
        counts: the number of examples of each class, by its label as text.

    Args:
        classifier: a fitted classifier.
        to: file to which the classifier is saved after every change; None to forget
            the changes at the end.
    """

    def __init__(self, classifier: FewShotClassifier, to: Path | None = None) -> None:
        """Predict one and two pictures, to compile the programs before a request."""
        self.side = model_side(classifier.backbone())
        self._to = to
        self._queue: asyncio.Queue[_Job] = asyncio.Queue()
        self.waiting = 0
        self._use(classifier)
        for n in (1, 2):
            classifier.predict(np.zeros((n, self.side, self.side, 3), np.uint8))

    async def predict(
        self, pictures: np.ndarray, names: Sequence[str]
    ) -> list[dict[str, Any]]:
        """The rows of `predict.table` for pictures `[n, side, side, 3]`.

        Raises:
            BusyError: too many pictures wait.
        """
        return await self._answer(pictures, lambda z: table(self._classifier, z, names))

    async def add(self, label: str, pictures: np.ndarray) -> None:
        """Add examples of a new class or of a known one.

        Raises:
            ValueError: a label that does not fit.
            BusyError: too many pictures wait.
        """

        def change(z: np.ndarray) -> None:
            own = self._typed(label)
            self._changed(lambda new: new.partial_fit(z, [own] * len(z)))

        await self._answer(pictures, change)

    async def remove(self, label: str) -> None:
        """Forget a class.

        Raises:
            ValueError: an unknown class, or one of the last two.
        """

        def change(z: np.ndarray) -> None:
            del z
            if len(self.counts) < 3:
                raise ValueError("expected to keep at least two classes")
            self._changed(lambda new: new.remove_class(self._typed(label)))

        await self._answer(np.zeros((0, self.side, self.side, 3), np.uint8), change)

    def check_room(self, count: int) -> None:
        """Refuse pictures if too many wait.

        Raises:
            BusyError: too many pictures wait.
        """
        if self.waiting + count > _WAITING:
            raise BusyError(f"{self.waiting} pictures wait: try again later")

    async def work(self) -> None:
        """Answer requests until it is cancelled."""
        while True:
            jobs = [await self._queue.get()]
            size = len(jobs[0].pictures)
            while size < _TOGETHER and not self._queue.empty():
                jobs.append(self._queue.get_nowait())
                size += len(jobs[-1].pictures)
            self.waiting -= size
            # Nobody waits for the answer to a request that was given up.
            jobs = [job for job in jobs if not job.answer.cancelled()]
            for job, result in await asyncio.to_thread(self._results, jobs):
                if job.answer.cancelled():
                    continue
                if isinstance(result, Exception):
                    job.answer.set_exception(result)
                else:
                    job.answer.set_result(result)

    async def running(self, app: Any) -> AsyncIterator[None]:
        """Answer requests until aiohttp resumes the generator, at the end."""
        del app
        worker = asyncio.create_task(self.work())
        try:
            yield
        finally:
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker

    async def _answer(
        self, pictures: np.ndarray, then: Callable[[np.ndarray], Any]
    ) -> Any:
        self.check_room(len(pictures))
        job = _Job(pictures, then, asyncio.get_running_loop().create_future())
        self.waiting += len(pictures)
        self._queue.put_nowait(job)
        return await job.answer

    def _results(self, jobs: Sequence["_Job"]) -> list[tuple["_Job", Any]]:
        """The result of each request or its error; runs in a thread."""
        try:
            parts = self._embedded([job.pictures for job in jobs])
            return [(job, _tried(job, z)) for job, z in zip(jobs, parts, strict=True)]
        except Exception as e:
            return [(job, e) for job in jobs]

    def _embedded(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        together, ends = np.concatenate(pictures), np.cumsum([*map(len, pictures)])
        z = np.zeros((0, self._classifier.n_features_in_), np.float32)
        if len(together):
            z = self._classifier.embed(together)
        return np.split(z, ends[:-1])

    def _changed(self, change: Callable[[FewShotClassifier], Any]) -> None:
        """Change a copy, save it, and use it from now on."""
        new = copy.copy(self._classifier)
        change(new)
        stale = ("measured", "names", "pictures")
        new.about_ = {k: v for k, v in new.about_.items() if k not in stale}
        if self._to is not None:
            new.save(self._to)
        self._use(new)

    def _use(self, classifier: FewShotClassifier) -> None:
        self._classifier = classifier
        names = map(str, classifier.classes_.tolist())
        self.counts = dict(zip(names, classifier.class_count_.tolist(), strict=True))

    def _typed(self, label: str) -> Any:
        """A label of the type of the known ones."""
        if self._classifier.classes_.dtype.kind not in "iu":
            return label
        if not re.fullmatch(r"-?\d{1,18}", label, re.ASCII):
            raise ValueError(f"expected an integer as the label, got {label!r}")
        return int(label)


@dataclass(frozen=True, eq=False)
class _Job:
    """A request: its pictures, the function of their embeddings, and the answer."""

    pictures: np.ndarray
    then: Callable[[np.ndarray], Any]
    answer: asyncio.Future[Any]


def _tried(job: _Job, z: np.ndarray) -> Any:
    if job.answer.cancelled():
        return None  # A change that was given up is not made.
    try:
        return job.then(z)
    except Exception as e:
        return e
