"""The search part of tools/bench.py: exact nearest templates, beside faiss.

The floor is one pass over the templates at the memory's speed, or their products with
the embeddings at the speed of a matrix multiplication, whichever takes longer.
"""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfer import nearest_rows
from jaxfer.heads import head_logits, nearest_head
from tools.bench_contenders import Contender, timed

ROWS, DIM, QUERIES, K = 1_000_000, 256, 64, 5
PEER = "faiss"


def contenders() -> dict[str, Contender]:
    """Return the search in blocks, with all scores at once, and with faiss.

    Raises:
        ValueError: faiss is missing, or finds other rows.
    """
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(ROWS, DIM)).astype(np.float32)
    z = rng.normal(size=(QUERIES, DIM)).astype(np.float32)
    # The distance without centring, as in faiss.
    head = nearest_head(jnp.asarray(rows), jnp.arange(ROWS), num_classes=ROWS)
    blocks = jax.jit(lambda head, z: nearest_rows(head, z, K))
    whole = jax.jit(lambda head, z: jax.lax.top_k(head_logits(head, z), K))

    def ours(function: Callable[..., Any]) -> Callable[[], np.ndarray]:
        return lambda: np.asarray(function(head, z)[1])

    index = _faiss().IndexFlatL2(DIM)
    index.add(rows)
    searches = {
        "jaxfer, in blocks": ours(blocks),
        "jaxfer, all scores": ours(whole),
        PEER: lambda: index.search(z, K)[1],
    }
    expected = searches[PEER]()
    for name, search in searches.items():
        if not np.array_equal(search(), expected):
            raise ValueError(f"expected the rows that {PEER} finds, got others: {name}")
    return {
        name: timed(search, memory_mb=_peak(search))
        for name, search in searches.items()
    }


def _peak(search: Callable[[], Any]) -> float:
    """The memory in MB that a search adds to that of the process, on Linux."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        return float("nan")
    search()
    ctypes.CDLL(None).malloc_trim(0)  # Returns freed memory to the system.
    clear.write_text("5")  # The peak is measured from here on.
    before = _status("VmRSS")
    search()
    return (_status("VmHWM") - before) / 1e3


def _status(name: str) -> int:
    """A size of this process in kB."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", text)
    return int(found[1]) if found else 0


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as e:
        raise ValueError(
            f"expected faiss to compare with, got an import error ({e}): pip install "
            "'jaxfer[bench]'"
        ) from e
    return faiss
