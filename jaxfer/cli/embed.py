"""`embed FOLDER --to FILE`: embeddings of a folder of images."""

from pathlib import Path

from jaxfer.models import embed_folder
from jaxfer.pretrained import load_pretrained


def run(folder: Path, model: str, to: Path, workers: int) -> None:
    """Embed a folder, and print what was written."""
    bank = embed_folder(load_pretrained(model), folder, to, workers=workers)
    print(f"{to}: {bank!r} by {model}")
