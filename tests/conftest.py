"""A strict bench: eight CPU devices, no silent rank promotion, checked shapes."""

import gc
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
_FLAGS = ["--xla_force_host_platform_device_count=8"]
if os.environ["JAX_PLATFORMS"] == "cpu":
    # Tests compile much and run little: a third less time than with optimised code.
    _FLAGS.append("--xla_backend_optimization_level=0")
    _FLAGS.append("--xla_llvm_disable_expensive_passes=true")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS])

import jaxtyping

# Before anything imports jaxfer: its annotations are checked here and nowhere else.
jaxtyping.install_import_hook("jaxfer", "beartype.beartype")

import jax
import numpy as np
import pytest

from jaxfer import Net
from jaxfer.data import Images, glyphs, write_cache

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests of experiments and tools as "once", except those of a whole run."""
    for item in items:
        folder, name = item.path.parent.name, item.path.name
        if folder in ("experiments", "tools") and name != "test_prototypes.py":
            item.add_marker(pytest.mark.once)


@pytest.fixture(scope="module", autouse=True)
def _few_programs() -> Iterator[None]:
    """Forget compiled programs before there are too many for one process.

    Each of them has memory maps, and Linux allows a process 65,530: the next program
    would crash it.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def drawn() -> Callable[..., tuple[dict, dict]]:
    """Draws a network's parameters without compiling, where it does not matter how."""

    def draw(
        net: Net, image_shape: tuple[int, ...], seed: int = 0
    ) -> tuple[dict, dict]:
        rng = np.random.default_rng(seed)

        def leaf(path, like):
            name = path[-1].key
            if name in ("scale", "var"):
                return jax.numpy.ones(like.shape)
            fan_in = max(1, like.size // like.shape[-1])
            values = rng.normal(size=like.shape) * (2 / fan_in) ** 0.5
            return jax.numpy.asarray(values, like.dtype) * (name != "mean")

        shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), image_shape))
        return jax.tree_util.tree_map_with_path(leaf, shapes)

    return draw


@pytest.fixture
def collectives() -> Callable[[Any], list[str]]:
    """What a compiled function has its devices say to each other."""
    words = "all-reduce|all-gather|all-to-all|collective|reduce-scatter"
    # Operations only: names of tests are in the text too.
    operation = re.compile(rf" (?:{words})[\w-]*\(")
    return lambda compiled: operation.findall(compiled.as_text())


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Where the real data lie: $JAXFER_TEST_DATA, else beside the project."""
    told = os.environ.get("JAXFER_TEST_DATA")
    folder = Path(told) if told else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: point $JAXFER_TEST_DATA at them")
    return folder


@pytest.fixture(scope="session")
def omniglot_images(real_data: Path) -> Images:
    pytest.importorskip("tensorflow_datasets")
    from jaxfer.data import omniglot

    # 32460 drawings, each with its annotations checked, would take twice as long.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        return omniglot(real_data / "tfds").in_memory()
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve JPEGs of different shapes for each of three classes."""
    image = pytest.importorskip("PIL.Image")
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for number, name in enumerate(("kite", "robin", "wren")):
        (folder / name).mkdir()
        for i in range(12):
            width, height = rng.integers(20, 60, 2)
            pixels = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
            pixels[..., number] += 120
            image.fromarray(pixels).save(folder / name / f"{name}{i:02d}.jpg")
    return folder


@pytest.fixture(scope="session")
def parted(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, six of each class to train on, under train/ and test/."""
    path = tmp_path_factory.mktemp("parted")
    for own in sorted(photographs.iterdir()):
        for i, file in enumerate(sorted(own.iterdir())):
            place = path / ("train" if i < 6 else "test") / own.name / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    return path


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without checked annotations, as users run: for what the code itself refuses."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def _few_glyphs() -> Images:
    return glyphs(alphabets=20, characters=10, drawers=20)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory, _few_glyphs: Images) -> Path:
    """A data directory with those few, for processes of their own."""
    directory = tmp_path_factory.mktemp("data")
    write_cache(_few_glyphs, directory / "glyphs.cache")
    return directory


@pytest.fixture(scope="module")
def small_glyphs(_few_glyphs: Images) -> Iterator[None]:
    """Fewer glyphs, drawn once, where experiments load the data set by name."""
    with pytest.MonkeyPatch.context() as patch:
        sources = sys.modules["jaxfer.data.sources"]
        patch.setattr(sources, "glyphs", lambda: _few_glyphs)
        yield


@pytest.fixture
def blobs(rng: np.random.Generator) -> Images:
    """30 classes of 12 noisy 16x16 images each: easy, tiny, and not glyphs."""
    centres = rng.integers(0, 200, (30, 1, 16, 16, 1))
    noise = rng.integers(0, 56, (30, 12, 16, 16, 1))
    return Images(
        name="blobs",
        images=(centres + noise).astype(np.uint8).reshape(-1, 16, 16, 1),
        labels=np.repeat(np.arange(30, dtype=np.int32), 12),
        class_names=tuple(f"blob{i:02d}" for i in range(30)),
    )
