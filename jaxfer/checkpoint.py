"""Checkpoints of a run: the only module that uses Orbax.

There are two managers, because one that keeps the best states drops the newest:
`checkpoints/last` holds the two newest states, and `checkpoints/best` the two newest
states that were the best when they were saved. A checkpoint is either complete or
absent, even if the process is killed.
"""

import contextlib
import copy
import hashlib
import json
import logging
import shutil
import threading
import traceback
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from jaxfer import distributed, sharding
from jaxfer.echoes import first_line
from jaxfer.tensors import json_digest, retried, without
from jaxfer.types import TrainState

Kind = Literal["last", "best"]
_KEPT = 2
_KINDS: tuple[Kind, ...] = ("last", "best")
# Orbax reports the progress of a save under names that all threads of a process share.
_SAVING = threading.Lock()


_OF_ORBAX = "orbax/checkpoint/"


def _is_shown(record: logging.LogRecord) -> bool:
    """False for errors of Orbax that are logged with their traceback, and raised too.

    Orbax logs some itself, and asyncio those of writes after the first that failed.
    """
    if not record.exc_info:
        return True
    frames = traceback.extract_tb(record.exc_info[2])
    places = [record.pathname, *(frame.filename for frame in frames)]
    # The error of a write that was never begun names the folder it was to write to.
    places.append(f"{record.exc_info[1]}".replace("orbax-checkpoint-tmp", _OF_ORBAX))
    return not any(_OF_ORBAX in place for place in places)


for _logger in ("absl", "asyncio"):
    logging.getLogger(_logger).addFilter(_is_shown)


class Checkpoints:
    """The checkpoints under a run's folder; as a context, it waits for saves on exit.

    Args:
        workdir: the run's folder.
    """

    def __init__(self, workdir: str | Path) -> None:
        """Open the folders, and remove the files of an unfinished save."""
        self._root = Path(workdir).absolute() / "checkpoints"
        self._known: dict[tuple[Kind, int], tuple[dict, dict]] = {}
        self._managers = {
            kind: ocp.CheckpointManager(
                self._root / kind,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=_KEPT,
                    # Orbax cleans up in a background thread, and `close` does not wait
                    # for it. A new folder is empty, so it needs no cleanup, and it may
                    # be deleted before the thread runs.
                    cleanup_tmp_directories=distributed.on_first(
                        (self._root / kind).exists
                    ),
                ),
            )
            for kind in _KINDS
        }

    def save(
        self,
        step: int,
        train_state: TrainState,
        meta: dict[str, Any] | None = None,
        *,
        kind: Kind = "last",
    ) -> None:
        """Save a state in the background, under the number of its step.

        Outside the main thread it waits until the state is saved, so that the saves of
        several threads do not mix.

        A step that is already saved is not saved again. The newest state is written
        only after the best one, so that the best state its meta names exists.

        Args:
            step: the step of the run, counted over all phases.
            train_state: the state; it may be donated to the next step at once.
            meta: other values the run needs, as JSON; copied at once.
            kind: 'last' or 'best'.
        """
        manager = self._managers[kind]
        if step in manager.all_steps():
            return
        if kind == "last":
            self._managers["best"].wait_until_finished()
        args = ocp.args.Composite(
            train_state=ocp.args.StandardSave(train_state),
            # Another thread writes it later.
            meta=ocp.args.JsonSave(_described(train_state, copy.deepcopy(meta or {}))),
        )
        with _SAVING:
            manager.save(step, args=args)
            if threading.current_thread() is not threading.main_thread():
                manager.wait_until_finished()

    def meta(self) -> dict[str, Any] | None:
        """The meta saved with the newest intact state, or None where nothing is saved.

        Raises:
            ValueError: no saved state is intact.
        """
        step = self._intact(self.latest_step())
        return None if step is None else self._read("last", step)[0]["run"]

    def check_best(self) -> None:
        """Read the newest best state, which a run tests at its end.

        Raises:
            ValueError: it is damaged.
        """
        manager = self._managers["best"]
        manager.wait_until_finished()
        if (step := manager.latest_step()) is not None:
            distributed.on_first(lambda: bool(self._read("best", step)))
            self._known.clear()

    def restore(
        self, like: TrainState, *, kind: Kind = "last", step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """An intact state and its meta, or None where nothing is saved.

        Every array is compared with the checksum of what was saved. A damaged newest
        state of kind 'last' is named and moved to `checkpoints/damaged`, and the one
        before it is restored.

        Args:
            like: a state with the same shapes and the wanted placement on devices.
            kind: 'last' or 'best'.
            step: the step to restore; default: the newest.

        Raises:
            ValueError: no saved state is intact, or the one that is asked for is not;
                or it has other shapes, such as those of another network.
        """
        if step is None:
            step = self._managers[kind].latest_step()
            step = self._intact(step) if kind == "last" else step
        if step is None:
            return None
        meta, arrays = self._read(kind, step)
        # Read again if needed again: another state may be saved under this number.
        self._known.clear()
        _check_shapes(meta["is"], _shapes(like), f"{self._root / kind / str(step)}")
        leaves, tree = jax.tree_util.tree_flatten_with_path(like)
        host = tree.unflatten([arrays[_name(path)] for path, _ in leaves])
        shardings = tree.unflatten([x.sharding for _, x in leaves])
        return sharding.place_as(host, shardings), meta["run"]

    def _intact(self, step: int | None) -> int | None:
        """The last intact step up to a given one; damaged ones are moved away."""
        if step is None:
            return None
        self._managers["last"].wait_until_finished()
        found = distributed.on_first(lambda: self._find_intact(step))
        if found != step:
            self._managers["last"].reload()
        return found

    def _find_intact(self, step: int) -> int:
        damaged: dict[Path, str] = {}
        steps = {one for one in self._managers["last"].all_steps() if one <= step}
        for one in sorted(steps, reverse=True):
            try:
                self._read("last", one)
            except Damaged as e:
                damaged[self._root / "last" / str(one)] = str(e)
                continue
            for place, text in damaged.items():
                aside = self._set_aside(place)
                print(f"{text}; going back to step {one}, and keeping it in {aside}")
            return one
        raise ValueError(
            f"expected an intact checkpoint, got none: {'; '.join(damaged.values())}; "
            "choose another --workdir to start again"
        )

    def _set_aside(self, place: Path) -> Path:
        """Move a damaged checkpoint away, and return its new place."""
        aside = self._root / "damaged" / place.name
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        place.rename(aside)
        return aside

    def _read(self, kind: Kind, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The description and the arrays of a checkpoint, verified.

        Raises:
            Damaged: what was read is not what was saved.
        """
        if (kind, step) not in self._known:
            place = self._root / kind / str(step)
            try:
                meta = _read_meta(place / "meta" / "metadata")
                arrays = _read_arrays(place / "train_state", meta)
            except Damaged as e:
                raise Damaged(f"the checkpoint {place} is damaged: {e}") from e
            self._known = {(kind, step): (meta, arrays)}
        return self._known[kind, step]

    def drop_best_after(self, step: int) -> None:
        """Remove best states of later steps, which are about to run again."""
        manager = self._managers["best"]
        for later in [s for s in manager.all_steps() if s > step]:
            manager.delete(later)

    def latest_step(self) -> int | None:
        """The step of the newest state; None before the first save."""
        return self._managers["last"].latest_step()

    def __enter__(self) -> "Checkpoints":
        """Return this object."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for unfinished saves."""
        with contextlib.ExitStack() as stack:
            for manager in self._managers.values():
                stack.callback(manager.close)


class Damaged(ValueError):
    """A checkpoint that is not what was saved."""


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _shapes(train_state: TrainState) -> dict[str, str]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(train_state)
    return {_name(path): f"{x.dtype}{[*x.shape]}" for path, x in leaves}


def _described(train_state: TrainState, run: dict[str, Any]) -> dict[str, Any]:
    """What is saved beside a state: shapes and checksums, with a checksum of it all."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(sharding.local(train_state))
    sums = {_name(path): _sum(x) for path, x in leaves}
    meta = {"run": run, "is": _shapes(train_state), "sums": sums}
    return {**meta, "sha256": json_digest(meta)}


def _sum(x: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(x)).hexdigest()[:16]


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(retried(path.read_bytes))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as e:
        raise Damaged(f"its description cannot be read ({e})") from e
    keys = {*meta} if isinstance(meta, dict) else set()
    # Versions before 0.2 saved no checksums.
    if keys != {"run", "is"} and (
        not keys >= {"run", "is", "sums", "sha256"}
        or meta["sha256"] != json_digest(without(meta, "sha256"))
    ):
        raise Damaged("its description differs from what was saved")
    return meta


def _read_arrays(place: Path, meta: dict[str, Any]) -> dict[str, np.ndarray]:
    # Orbax would read them too, and leave errors of its event loop behind.
    opened = {name: _array_file(place, name) for name in meta["is"]}
    try:
        arrays = {name: file.result().read().result() for name, file in opened.items()}
    except (ValueError, OSError, RuntimeError) as e:
        text = first_line(e)[:200]
        if text.startswith(_PASSING):
            raise ValueError(f"{place} cannot be read: {text}") from e
        raise Damaged(f"its arrays cannot be read ({text})") from e
    for name, known in meta.get("sums", {}).items():
        if _sum(arrays[name]) != known:
            raise Damaged(f"the array {name} differs from what was saved")
    return arrays


# What TensorStore says of errors that are none of the files.
_PASSING = (
    *("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "PERMISSION_DENIED"),
    *("RESOURCE_EXHAUSTED", "UNAVAILABLE"),
)


def _array_file(place: Path, name: str) -> Any:
    """An array in the folder that Orbax wrote, which is being opened."""
    folder = {"driver": "file", "path": f"{place}/"}
    kvstore = {"driver": "ocdbt", "base": folder, "path": f"{name.replace('/', '.')}/"}
    return ts.open({"driver": "zarr", "kvstore": kvstore}, read=True)


def _check_shapes(found: dict[str, str], needed: dict[str, str], where: str) -> None:
    differing = [
        f"{name} (expected {needed.get(name)}, got {found.get(name)})"
        for name in sorted(found.keys() | needed.keys())
        if found.get(name) != needed.get(name)
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ValueError(
            f"the checkpoint {where} is of another network: "
            f"{', '.join(differing[:3])}{more}"
        )
