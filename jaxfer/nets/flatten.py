"""Pixels as embeddings, the simplest baseline."""

from dataclasses import dataclass

from jaxtyping import Array, PRNGKeyArray

from jaxfer.nets.chain import chain
from jaxfer.nets.layers import Linear
from jaxfer.types import Modes, Net, Params, State


@dataclass(frozen=True)
class Flatten:
    """Images as vectors, with a linear layer on top if a dimension is given.

    With a linear head this is logistic regression on pixels.

    Attributes:
        dim: dimensions of a linear layer `embedding`; None for the pixels themselves.

    Example:
        >>> Flatten().build().layers
        ()
    """

    dim: int | None = None

    def build(self) -> Net:
        """The network."""
        if self.dim is not None:
            return chain([("embedding", Linear(self.dim))], spec=self)

        def init(
            key: PRNGKeyArray, image_shape: tuple[int, ...]
        ) -> tuple[Params, State]:
            del key, image_shape
            return {}, {}

        def apply(
            params: Params,
            state: State,
            x: Array,
            *,
            mode: Modes | None = None,
            rng: PRNGKeyArray | None = None,
            first: str | None = None,
            last: str | None = None,
        ) -> tuple[Array, State]:
            del params, mode, rng
            if first is not None or last is not None:
                raise ValueError("expected no layer names: flat pixels have no layers")
            return x.reshape(x.shape[0], -1), state

        return Net(init, apply, (), spec=self)
