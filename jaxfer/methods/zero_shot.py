"""Zero-shot classification: prototypes from attributes of the classes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxfer import heads
from jaxfer.heads import normalize
from jaxfer.heads.vectors import HIGHEST, wide
from jaxfer.keys import stable_draws
from jaxfer.methods.method import Divisor, Method, Temperature
from jaxfer.types import AnyArray, Episode, Params


def zero_shot(
    attributes: Float[AnyArray, "classes dim_a"],
    *,
    unit: bool = True,
    bias: bool = True,
    temperature: Temperature = 1.0,
    learn_temperature: bool = False,
) -> Method:
    """Prototypes that a linear map makes from attributes (Snell et al. 2017, 2.7).

    `p(k | x) = softmax_k(-|f(x) - c_k|^2 / T)` with `c_k = g(a_k)`, where a_k are the
    attributes of class k and `g(a) = W a + b`, scaled to length 1. Support examples are
    not used: episodes have shot = 0, and `episode.classes` says which attributes belong
    to them.

    Args:
        attributes: `[classes, dim_a]`, one row per class of the data set, in the order
            of its classes. The parameters do not depend on the classes: trained ones
            also serve the attributes of other classes.
        unit: whether prototypes are scaled to length 1, as in the paper. The image
            embedding f is not.
        bias: whether g has a bias b; the paper does not say.
        temperature: see `prototypes`.
        learn_temperature: see `prototypes`.

    Raises:
        ValueError: attributes that are not `[classes, dim_a]`, or a temperature that is
            not above 0.

    Example:
        >>> method = zero_shot(jnp.eye(3))
        >>> params = method.init(jax.random.key(0), 2)
        >>> query = jnp.zeros((3, 4, 2))
        >>> episode = Episode(query[:, :0], query, jnp.arange(3))
        >>> method.logits(params, episode).shape
        (3, 4, 3)
    """
    divisor = Divisor(temperature, learn_temperature)
    if jnp.ndim(attributes) != 2:
        raise ValueError(
            f"expected attributes [classes, dim_a], got shape {jnp.shape(attributes)}"
        )
    known = wide(jnp.asarray(attributes))

    def init(key: PRNGKeyArray, dim: int) -> Params:
        # As in a dense layer of Flax: variance 1 / fan_in.
        draw = jax.nn.initializers.lecun_normal()
        with stable_draws():
            kernel = draw(key, (known.shape[1], dim), jnp.float32)
        own = {"kernel": kernel} | ({"bias": jnp.zeros((dim,))} if bias else {})
        return {"attributes": own} | divisor.init(dim)

    def logits(params: Params, episode: Episode) -> Array:
        own = params["attributes"]
        rows = known[jnp.asarray(episode.classes)]
        made = jnp.matmul(rows, own["kernel"], precision=HIGHEST)
        if bias:
            made = made + own["bias"][None]
        if unit:
            made = normalize(made)
        sums = heads.support_sums(made[:, None])
        scale = divisor.of(params, made.shape[1])
        query = wide(jnp.asarray(episode.query))
        return heads.head_logits(heads.prototype_head(sums, temperature=scale), query)

    about = (("temperature", temperature), ("unit", unit), ("bias", bias))
    classes = len(known)
    return Method("zero_shot", logits, init, about, 0, num_classes=classes)
