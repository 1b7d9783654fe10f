"""The streamed pipeline: data too large for a device are read ahead of the step.

The row numbers of a batch come from the same sampler as in the resident pipeline. A
separate thread samples them on the CPU, for a block of batches at a time. Grain's
threads only read those rows, and their code does not need JAX.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Integer

from jaxfer.data.images import Images
from jaxfer.data.resident import table_of
from jaxfer.data.view import View
from jaxfer.episodes import ClassTable, check_episode, numbered_episode
from jaxfer.types import Episode

# Episodes sampled per call; batches read, and moved to the device, ahead of use.
_DRAWN = 256
_READ = 8
_PUT = 2
_DRAWER = "drawer"


def stream(
    data: Images,
    seed: int,
    split: str,
    *,
    way: int,
    shot: int,
    n_query: int,
    least_shot: int | None = None,
    per_step: int = 1,
    workers: int = 2,
    share: tuple[int, int] = (0, 1),
    put: Callable[[Any], Any] = jax.device_put,
) -> Callable[[int], Iterator[Episode]]:
    """Numbered episodes of images, read ahead of their use.

    Step s has the episodes `s * per_step` to `(s + 1) * per_step - 1` of the seed and
    the split. They are identical to those of `draw`, whatever the number of workers and
    the first step, so a checkpoint needs only the number of the step.

    Args:
        data: data set, whose images may be a view of files on disk.
        seed: seed of the run.
        split: name of the split.
        way: classes per episode.
        shot: support examples per class.
        n_query: queries per class.
        least_shot: see `sample_episode`.
        per_step: episodes per step.
        workers: number of threads that read.
        share: (index, count): this process reads share `index` of `count` equal shares
            of the episodes of each step.
        put: function that moves a batch to the devices, such as `sharding.from_host`.

    Returns:
        A function from a step to an endless iterator over the batches from that step
        on: episodes with a leading axis of `per_step`, uint8 as stored (see `floats`),
        on the device.

    Raises:
        ValueError: Grain is not installed, `share` is invalid, or the data have too few
            classes or images; during iteration, any error of the source.

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
            f"expected an index from 0 and equal shares of per_step = {per_step} "
            f"episodes, got share = ({index}, {count})"
        )
    _grain()
    shape: Any = dict(way=way, shot=shot, n_query=n_query, least_shot=least_shot)
    table = table_of(data)
    check_episode(table, data.class_names, where=data.name, **shape)
    mine = per_step // count
    images = View.of(data.images)

    def draw(table: ClassTable, step: Integer[Array, ""]) -> Episode:
        numbers = step * np.uint32(per_step) + np.arange(
            index * mine, (index + 1) * mine, dtype=np.uint32
        )
        return jax.vmap(lambda k: numbered_episode(table, seed, split, k, **shape))(
            numbers
        )

    def read(rows: Episode) -> Episode:
        support, query = images[rows.support], images[rows.query]
        return rows._replace(support=support, query=query)

    num_steps = (2**32 - 1) // per_step
    drawn = Drawn(draw, table, num_steps, block=max(1, _DRAWN // mine))
    return lambda step: read_ahead(drawn, read, first=step, workers=workers, put=put)


class Drawn:
    """The rows of each step, sampled in blocks: items for `read_ahead`.

    A separate thread samples one block ahead.

    Args:
        draw: function of `given` and the step number that returns the rows of the step;
            a pure JAX function, run under `jit` and `vmap` on the CPU.
        given: data shared by all steps.
        num_steps: number of steps.
        block: steps sampled per call.

    Example:
        >>> tens = Drawn(lambda ten, step: ten * step, np.uint32(10), 5, block=2)
        >>> len(tens), int(tens[3])
        (5, 30)
    """

    def __init__(
        self,
        draw: Callable[[Any, Array], Any],
        given: Any,
        num_steps: int,
        *,
        block: int = _DRAWN,
    ) -> None:
        """Move `given` to the CPU."""
        self._draw = jax.jit(jax.vmap(draw, in_axes=(None, 0)))
        self._cpu = _cpu()
        self._given = jax.device_put(given, self._cpu)
        self._num_steps = num_steps
        self._size = block
        self._thread = ThreadPoolExecutor(1, _DRAWER)
        self._lock = Lock()
        self._blocks: dict[int, Future[Any]] = {}

    def _block(self, number: int) -> Any:
        first = number * self._size
        steps = np.arange(first, first + self._size, dtype=np.uint32)
        return jax.device_get(self._draw(self._given, jax.device_put(steps, self._cpu)))

    def __len__(self) -> int:
        """Number of steps."""
        return self._num_steps

    def __getitem__(self, step: int) -> Any:
        """The rows of a step."""
        block, within = divmod(int(step), self._size)
        with self._lock:
            # Keep the previous block: readers enter the next one at different times.
            kept = range(block - 1, block + 2)
            self._blocks = {k: x for k, x in self._blocks.items() if k in kept}
            for number in (block, block + 1):
                if number not in self._blocks:
                    drawing = self._thread.submit(self._block, number)
                    self._blocks[number] = drawing
            drawn = self._blocks[block]
        return jax.tree.map(lambda x: x[within], drawn.result())


def read_ahead(
    items: Sequence[Any] | Drawn,
    read: Callable[[Any], Any],
    *,
    first: int = 0,
    workers: int = 2,
    put: Callable[[Any], Any] = jax.device_put,
) -> Iterator[Any]:
    """Read each item ahead of its use, and yield the results in order.

    Args:
        items: sequence of items, such as the rows of each batch.
        read: function from an item to a batch; runs in Grain's threads.
        first: number of the first item.
        workers: number of threads that read.
        put: function that moves a batch to the devices.

    Raises:
        ValueError: Grain is not installed; during iteration, any error of `read`.

    Example:
        >>> [int(x) for x in read_ahead([1, 2, 3], lambda x: np.int32(x * x))]
        [1, 4, 9]
    """
    grain = _grain()
    batches = grain.MapDataset.source(items)[first:].map(read)
    options = grain.ReadOptions(
        num_threads=workers, prefetch_buffer_size=max(_READ, workers)
    )
    return _ahead(iter(batches.to_iter_dataset(options)), put)


def _ahead(batches: Iterator[Any], put: Callable[[Any], Any]) -> Iterator[Any]:
    """Batches on the device; the transfer of the next ones has already started."""
    flying: deque[Any] = deque()
    for batch in batches:
        flying.append(put(batch))
        if len(flying) > _PUT:
            yield flying.popleft()
    yield from flying


def _cpu() -> Any:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names only an accelerator.
        return jax.local_devices()[0]


def _grain() -> Any:
    try:
        # An optional dependency, which is slow to import.
        import grain
    except ImportError as e:
        raise ValueError(
            f"expected grain to stream a data set, got an import error ({e}): pip "
            "install 'jaxfer[data]', or raise the limit of data kept on the device"
        ) from e
    return grain
