"""The streamed pipeline: what does not fit a device is read ahead of the step.

The numbers of an episode's rows come from the same sampler as in the resident pipeline,
a block of steps at a time, on the CPU; Grain's threads then read those rows and nothing
else, and what they run needs no JAX.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Integer

from jaxfer.data.images import Images
from jaxfer.data.view import View
from jaxfer.episodes import ClassTable, class_table, episode_key, sample_episode
from jaxfer.types import Episode

# Steps whose rows are drawn in one call, and steps read and put ahead of their use.
_DRAWN = 64
_READ = 8
_PUT = 2


def stream(
    data: Images,
    seed: int,
    split: str,
    *,
    way: int,
    shot: int,
    n_query: int,
    per_step: int = 1,
    workers: int = 2,
    share: tuple[int, int] = (0, 1),
    put: Callable[[Any], Any] = jax.device_put,
) -> Callable[[int], Iterator[Episode]]:
    """Numbered episodes of images, read as they are needed.

    Step s has the episodes `s * per_step` to `(s + 1) * per_step - 1` of the seed and
    the split: those of `draw`, image by image, whatever the number of workers and
    wherever one begins. So the number of a step is all there is to save of a position.

    Args:
        data: its images may be a view of what lies on a disk.
        seed: of the run.
        split: its name.
        way: classes an episode.
        shot: support examples a class.
        n_query: queries a class.
        per_step: episodes a step.
        workers: threads that read.
        share: which of how many equal shares of each step's episodes is this process's.
        put: brings a batch to the devices, such as `sharding.from_host`.

    Returns:
        A function from a step to the endless batches from that step on: episodes with a
        leading axis of `per_step`, uint8 as stored (see `floats`), on the device.

    Raises:
        ValueError: no Grain, or a share that is none; on reading, what the source says.

    Example:
        >>> from jaxfer.data import from_arrays
        >>> data = from_arrays(np.zeros((40, 28, 28)), np.arange(40) // 4)
        >>> at = stream(data, 0, "train", way=5, shot=1, n_query=2, per_step=3)
        >>> next(at(0)).query.shape
        (3, 5, 2, 28, 28, 1)
    """
    index, count = share
    if not 0 <= index < count or per_step % count:
        raise ValueError(
            f"found share {index} of {count} of {per_step} episodes a step, needed "
            "equal shares, counted from 0"
        )
    grain = _grain()
    mine = per_step // count
    images = View.of(data.images)

    def draw(table: ClassTable, step: Integer[Array, ""]) -> Episode:
        numbers = step * np.uint32(per_step) + np.arange(
            index * mine, (index + 1) * mine, dtype=np.uint32
        )

        def rows(number: Integer[Array, ""]) -> Episode:
            key = episode_key(seed, split, number)
            return sample_episode(key, table, way=way, shot=shot, n_query=n_query)

        return jax.vmap(rows)(numbers)

    def read(rows: Episode) -> Episode:
        return Episode(images[rows.support], images[rows.query], rows.classes)

    drawn = _Drawn(draw, data, (2**32 - 1) // per_step)

    def at(step: int) -> Iterator[Episode]:
        batches = grain.MapDataset.source(drawn)[step:].map(read)
        options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=_READ)
        return _ahead(iter(batches.to_iter_dataset(options)), put)

    return at


class _Drawn:
    """The rows of each step's episodes, drawn block by block: a source for Grain."""

    def __init__(
        self,
        draw: Callable[[ClassTable, Array], Episode],
        data: Images,
        num_steps: int,
    ) -> None:
        cpu = _cpu()
        table = class_table(data.labels, num_classes=data.num_classes)
        table = jax.device_put(table, cpu)
        call = jax.jit(jax.vmap(draw, in_axes=(None, 0)))

        # Two, since threads cross from one block to the next at different times.
        @lru_cache(maxsize=2)
        def block(number: int) -> Episode:
            steps = np.arange(number * _DRAWN, (number + 1) * _DRAWN, dtype=np.uint32)
            return jax.device_get(call(table, jax.device_put(steps, cpu)))

        self._block = block
        self._num_steps = num_steps

    def __len__(self) -> int:
        return self._num_steps

    def __getitem__(self, step: int) -> Episode:
        block, within = divmod(int(step), _DRAWN)
        return Episode(*(x[within] for x in self._block(block)))


def _ahead(batches: Iterator[Episode], put: Callable[[Any], Any]) -> Iterator[Episode]:
    """Batches on the device, the transfer of the next ones already begun."""
    flying: deque[Episode] = deque()
    for batch in batches:
        flying.append(put(batch))
        if len(flying) > _PUT:
            yield flying.popleft()
    yield from flying


def _cpu() -> Any:
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names an accelerator alone.
        return jax.local_devices()[0]


def _grain() -> Any:
    try:
        # Optional, and slow to import.
        import grain
    except ImportError as e:
        raise ValueError(
            "found no grain to stream a data set with: pip install 'jaxfer[data]', or "
            "raise the limit up to which it is kept on the device"
        ) from e
    return grain
