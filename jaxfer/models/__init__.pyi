from .banks import embed_folder, model_side, read_folder
from .batches import train_batches, train_population
from .classes import with_classes, with_prototypes
from .episode_step import EpisodeShape, centred_window
from .episodic import train_episodes
from .files import FILE, load_model, model_hash, save_model
from .inference import (
    embed,
    embed_blocks,
    embed_on_host,
    predict,
    predict_labels,
)
from .measure import embed_classes, measure_episodes
from .model import (
    Model,
    Pixels,
    Trained,
    embedding_dim,
    prepare,
    with_about,
)
from .options import Options
from .passes import adapted_logits, embed_together
from .recipe import Examples, Recipe, steps_of
from .running import open_run
from .starts import init_model, init_transfer

__all__ = [
    "FILE",
    "EpisodeShape",
    "Examples",
    "Model",
    "Options",
    "Pixels",
    "Recipe",
    "Trained",
    "adapted_logits",
    "centred_window",
    "embed",
    "embed_blocks",
    "embed_classes",
    "embed_folder",
    "embed_on_host",
    "embed_together",
    "embedding_dim",
    "init_model",
    "init_transfer",
    "load_model",
    "measure_episodes",
    "model_hash",
    "model_side",
    "open_run",
    "predict",
    "predict_labels",
    "prepare",
    "read_folder",
    "save_model",
    "steps_of",
    "train_batches",
    "train_episodes",
    "train_population",
    "with_about",
    "with_classes",
    "with_prototypes",
]
