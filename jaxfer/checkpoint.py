"""Checkpoints of a run: the only home of Orbax.

Two managers, since one that keeps the best forgets the newest: `checkpoints/last` holds
the two newest states and `checkpoints/best` the two newest of those that were the best
by then. A checkpoint is complete or is not there, whenever the process dies.
"""

import copy
import threading
from pathlib import Path
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp

from jaxfer.types import TrainState

Kind = Literal["last", "best"]
_KEPT = 2
_KINDS: tuple[Kind, ...] = ("last", "best")
# Orbax signals the progress of a save by names that all threads of a process share.
_SAVING = threading.Lock()


class Checkpoints:
    """The checkpoints under a run's folder; a context that waits for writes at its end.

    Args:
        workdir: the run's folder.
    """

    def __init__(self, workdir: str | Path) -> None:
        """Open, and remove what an unfinished save left behind."""
        self._root = Path(workdir).absolute() / "checkpoints"
        self._managers = {
            kind: ocp.CheckpointManager(
                self._root / kind,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=_KEPT,
                    # Orbax cleans up in a thread that it does not wait for at its end:
                    # a new folder may be gone by then, and holds nothing to remove.
                    cleanup_tmp_directories=(self._root / kind).exists(),
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
        """Save a state, in the background, under a number.

        Outside the main thread it waits until the state is saved, so that the saves of
        several threads do not mix.

        A step that is saved already is left as it is. The newest state is written only
        once the best one is, so that what its meta says of the best one is there.

        Args:
            step: of the run, which counts on where a phase of it begins anew.
            train_state: may be donated to the next step at once.
            meta: what else the run has to know, as JSON; copied at once.
            kind: 'last' or 'best'.
        """
        manager = self._managers[kind]
        if step in manager.all_steps():
            return
        if kind == "last":
            self._managers["best"].wait_until_finished()
        args = ocp.args.Composite(
            train_state=ocp.args.StandardSave(train_state),
            # Written later, by another thread.
            meta=ocp.args.JsonSave(
                {"run": copy.deepcopy(meta or {}), "is": _shapes(train_state)}
            ),
        )
        with _SAVING:
            manager.save(step, args=args)
            if threading.current_thread() is not threading.main_thread():
                manager.wait_until_finished()

    def meta(self) -> dict[str, Any] | None:
        """What was saved beside the newest state, or None where nothing is saved."""
        step = self.latest_step()
        return None if step is None else self._meta("last", step)["run"]

    def restore(
        self, like: TrainState, *, kind: Kind = "last", step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest state of a kind and its meta, or None where nothing is saved.

        Args:
            like: a state of the same shapes, placed as the restored one is to be.
            kind: 'last' or 'best'.
            step: another than the newest.

        Raises:
            ValueError: a state of other shapes, as of another network.
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
        """Remove best states of a future that is about to be made again."""
        manager = self._managers["best"]
        for later in [s for s in manager.all_steps() if s > step]:
            manager.delete(later)

    def latest_step(self) -> int | None:
        """The step of the newest state, None before the first save."""
        return self._managers["last"].latest_step()

    def __enter__(self) -> "Checkpoints":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the saves under way."""
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
        f"{name} (there {found.get(name)}, here {needed.get(name)})"
        for name in sorted(found.keys() | needed.keys())
        if found.get(name) != needed.get(name)
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ValueError(
            f"the checkpoint {where} is of another network: "
            f"{', '.join(differing[:3])}{more}"
        )
