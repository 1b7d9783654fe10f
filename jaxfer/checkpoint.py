"""Checkpoints of a run: the only module that uses Orbax.

There are two managers, because one that keeps the best states drops the newest:
`checkpoints/last` holds the two newest states, and `checkpoints/best` the two newest
states that were the best when they were saved. A checkpoint is either complete or
absent, even if the process is killed.
"""

import copy
import threading
from pathlib import Path
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp

from jaxfer import distributed
from jaxfer.types import TrainState

Kind = Literal["last", "best"]
_KEPT = 2
_KINDS: tuple[Kind, ...] = ("last", "best")
# Orbax reports the progress of a save under names that all threads of a process share.
_SAVING = threading.Lock()


class Checkpoints:
    """The checkpoints under a run's folder; as a context, it waits for saves on exit.

    Args:
        workdir: the run's folder.
    """

    def __init__(self, workdir: str | Path) -> None:
        """Open the folders, and remove the files of an unfinished save."""
        self._root = Path(workdir).absolute() / "checkpoints"
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
            meta=ocp.args.JsonSave(
                {"run": copy.deepcopy(meta or {}), "is": _shapes(train_state)}
            ),
        )
        with _SAVING:
            manager.save(step, args=args)
            if threading.current_thread() is not threading.main_thread():
                manager.wait_until_finished()

    def meta(self) -> dict[str, Any] | None:
        """The meta saved with the newest state, or None where nothing is saved."""
        step = self.latest_step()
        return None if step is None else self._meta("last", step)["run"]

    def restore(
        self, like: TrainState, *, kind: Kind = "last", step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest state of a kind and its meta, or None where nothing is saved.

        Args:
            like: a state with the same shapes and the wanted placement on devices.
            kind: 'last' or 'best'.
            step: the step to restore; default: the newest.

        Raises:
            ValueError: the saved state has other shapes, such as those of another
                network.
        """
        manager = self._managers[kind]
        step = manager.latest_step() if step is None else step
        if step is None:
            return None
        meta = self._meta(kind, step)
        _check_shapes(meta["is"], _shapes(like), f"{self._root / kind / str(step)}")
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        restored = manager.restore(
            step,
            args=ocp.args.Composite(train_state=ocp.args.StandardRestore(abstract)),
        )
        return restored["train_state"], meta["run"]

    def _meta(self, kind: Kind, step: int) -> dict[str, Any]:
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        return self._managers[kind].restore(step, args=args)["meta"]

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
        for manager in self._managers.values():
            manager.close()


def _shapes(train_state: TrainState) -> dict[str, str]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(train_state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype}{[*x.shape]}"
        for path, x in leaves
    }


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
