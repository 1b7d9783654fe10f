"""Checkpoints of a run: the only home of Orbax.

Two managers, since one that keeps the best forgets the newest: `checkpoints/last` holds
the two newest states and `checkpoints/best` the best one. A checkpoint is complete or
is not there, whenever the process dies.
"""

from pathlib import Path
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp

from jaxfer.types import TrainState

Kind = Literal["last", "best"]
_KEPT = {"last": 2, "best": 1}


class Checkpoints:
    """The checkpoints under a run's folder; a context that waits for writes at its end.

    Args:
        workdir: the run's folder.
    """

    def __init__(self, workdir: str | Path) -> None:
        """Open, and remove what an unfinished save left behind."""
        root = Path(workdir).absolute() / "checkpoints"
        self._managers = {
            kind: ocp.CheckpointManager(
                root / kind,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=kept, cleanup_tmp_directories=True
                ),
            )
            for kind, kept in _KEPT.items()
        }

    def save(
        self,
        train_state: TrainState,
        meta: dict[str, Any] | None = None,
        *,
        kind: Kind = "last",
    ) -> None:
        """Save a state, in the background, under the number of its step.

        A step that is saved already is left as it is.

        Args:
            train_state: may be donated to the next step at once.
            meta: what else the run has to know, as JSON.
            kind: 'last' or 'best'.
        """
        manager, step = self._managers[kind], int(train_state.step)
        if step in manager.all_steps():
            return
        manager.save(
            step,
            args=ocp.args.Composite(
                train_state=ocp.args.StandardSave(train_state),
                meta=ocp.args.JsonSave(meta or {}),
            ),
        )

    def restore(
        self, like: TrainState, *, kind: Kind = "last"
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest state of a kind and its meta, or None where nothing is saved.

        Args:
            like: a state of the same shapes, placed as the restored one is to be.
            kind: 'last' or 'best'.
        """
        manager = self._managers[kind]
        step = manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        restored = manager.restore(
            step,
            args=ocp.args.Composite(
                train_state=ocp.args.StandardRestore(abstract),
                meta=ocp.args.JsonRestore(),
            ),
        )
        return restored["train_state"], restored["meta"]

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
