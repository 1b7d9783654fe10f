"""The classifiers of episodes: the one that is trained, and others to compare with."""

import jax.numpy as jnp
import numpy as np

from experiments.prototypes.config import TRAINED, Config
from jaxfer import methods, models
from jaxfer.data import Images, Resident
from jaxfer.heads import normalize
from jaxfer.methods import Method
from jaxfer.models import Model

# Training images whose mean embedding is the centre of SimpleShot.
_MOST = 6000


def method(config: Config) -> Method:
    """Return the classifier that is trained and tested."""
    found = _shared(config)
    return methods.with_support_encoder(found) if config.separate else found


def _shared(config: Config) -> Method:
    how = {
        "temperature": config.temperature,
        "learn_temperature": config.learn_temperature,
    }
    if config.method == "gaussians":
        return methods.gaussians()
    if config.method == "anil":
        return methods.anil()
    if config.method == "maml":
        return methods.maml()
    if config.method == "diagonal":
        return methods.diagonal(**how)
    if config.method == "matching_fce":
        return methods.matching_fce(config.distance, **how)
    make = {"prototypes": methods.prototypes, "matching": methods.matching}
    return make[config.method](config.distance, unit=config.unit, **how)


def trains(config: Config) -> bool:
    """Return whether the classifier has parameters of its own."""
    return config.learn_temperature or config.method in TRAINED


def transductive_name(config: Config) -> str:
    """Return the name of the method with the BatchNorm statistics of each episode."""
    return f"{config.method}_transductive"


def others(config: Config) -> dict[str, Method]:
    """Return the other classifiers that are tested on the same embeddings."""
    every = {
        "prototypes": methods.prototypes(),
        "prototypes_cosine": methods.prototypes("cosine"),
        "matching": methods.matching(),
        "nearest": methods.nearest(),
        "nearest_cosine": methods.nearest("cosine"),
        "simpleshot": methods.prototypes(),
        "ridge": methods.ridge(),
        "logistic": methods.logistic(),
        "gaussians": methods.gaussians(),
        "fine_tuning": methods.fine_tuning(),
    }
    return {name: every[name] for name in config.test.methods}


def centred(embedded: Resident, model: Model, train: Images) -> Resident:
    """Return the centred unit embeddings of SimpleShot (Wang et al. 2019, "CL2N").

    The mean embedding of the training classes is subtracted, and the result is scaled
    to length 1.
    """
    n = len(train.labels)
    rows = np.arange(0, n, -(-n // _MOST))
    mean = models.embed(model, train, rows=rows).reshape(len(rows), -1).mean(axis=0)
    z = jnp.asarray(embedded.items)
    return embedded._replace(items=normalize(z - jnp.broadcast_to(mean, z.shape)))
