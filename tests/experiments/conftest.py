"""Fixtures that tests of experiments share."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def kill_imprinting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run an imprinting study up to a call of its training steps, which fails."""
    from experiments.imprinting.run import run
    from jaxfer.models import batches

    real, calls = batches.make_step, []

    def kill(config: Any, workdir: Path, *, call: int) -> None:
        def dying(program: Any) -> Callable[..., Any]:
            step = real(program)

            def counted(*args: Any, **how: Any) -> Any:
                calls.append(1)
                if len(calls) == call:
                    raise MemoryError("killed")
                return step(*args, **how)

            return counted

        with monkeypatch.context() as patch:
            patch.setattr(batches, "make_step", dying)
            with pytest.raises(MemoryError):
                run(dataclasses.replace(config, threads=1), workdir)

    return kill


@pytest.fixture
def in_style():
    """Draw in the style of the project's figures."""
    plots = pytest.importorskip("experiments.plots")
    with plots.style():
        yield
