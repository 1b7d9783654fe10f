from .batches import train_batches, train_population
from .classes import with_classes, with_prototypes
from .episodic import embed_classes, measure_episodes, train_episodes
from .files import FILE, load_model, save_model
from .inference import embed, embed_blocks, predict, predict_labels
from .methods import (
    EpisodeShape,
    Method,
    Temperature,
    embed_together,
    prototypes,
)
from .model import (
    Model,
    Pixels,
    Trained,
    embedding_dim,
    prepare,
    with_about,
)
from .options import Options
from .recipe import Examples, Recipe, steps_of
from .running import open_run
from .starts import init_model, init_transfer

__all__ = [
    "FILE",
    "EpisodeShape",
    "Examples",
    "Method",
    "Model",
    "Options",
    "Pixels",
    "Recipe",
    "Temperature",
    "Trained",
    "embed",
    "embed_blocks",
    "embed_classes",
    "embed_together",
    "embedding_dim",
    "init_model",
    "init_transfer",
    "load_model",
    "measure_episodes",
    "open_run",
    "predict",
    "predict_labels",
    "prepare",
    "prototypes",
    "save_model",
    "steps_of",
    "train_batches",
    "train_episodes",
    "train_population",
    "with_about",
    "with_classes",
    "with_prototypes",
]
