"""Several prototypes per class, by k-means."""

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.vq import kmeans2

_ROUNDS = 20


def cluster_means(
    z: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"], k: int
) -> tuple[Float[np.ndarray, "m dim"], Int[np.ndarray, " m"]]:
    """The means of up to k clusters of each class, and the class of each mean.

    Lloyd's algorithm from examples that are far apart, without randomness. A class with
    at most k different examples keeps them all.

    Args:
        z: `[n, dim]`, embeddings.
        labels: `[n]`, classes from 0.
        k: clusters per class, at least 1.

    Example:
        >>> z = np.array([[0.0], [1.0], [10.0], [11.0]])
        >>> means, owner = cluster_means(z, np.zeros(4, int), 2)
        >>> sorted(means.ravel().tolist()), owner.tolist()
        ([0.5, 10.5], [0, 0])
    """
    rows, owner = [], []
    for label in np.unique(labels):
        own = z[labels == label].astype(np.float64)
        if len(own) > k:
            different = np.unique(own, axis=0)
            own = different if len(different) <= k else own
        means = own if len(own) <= k else _clusters(own, k)
        rows.append(means)
        owner += [label] * len(means)
    return np.concatenate(rows).astype(z.dtype), np.array(owner, np.int32)


def _clusters(z: np.ndarray, k: int) -> np.ndarray:
    # Start from the most central example, then from the farthest ones in turn.
    chosen = [int(_distances(z, z.mean(0)[None])[:, 0].argmin())]
    while len(chosen) < k:
        chosen.append(int(_distances(z, z[chosen]).min(axis=1).argmax()))
    means, _ = kmeans2(z, z[chosen], iter=_ROUNDS, minit="matrix", missing="raise")
    return means


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return ((a[:, None] - b[None]) ** 2).sum(axis=2)
