import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.inputs import Data, Network
from experiments.layer_transfer.config import Config
from jaxfer.data import Images
from jaxfer.models import EpisodeShape
from tools import bench, bench_compile, bench_imprint, bench_search, bench_transfer


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 28, 28, 1), dtype=np.uint8)
    labels = np.repeat(np.arange(6, dtype=np.int32), 10)
    return Images("six", pixels, labels, tuple("abcdef"))


def test_contenders_take_turns_and_times_are_for_one_episode():
    order = []

    def contender(name, seconds, per_call=1):
        def run(n):
            order.append((name, n))
            return n * seconds

        return bench.Contender(run, per_call)

    contenders = {"slow": contender("slow", 0.5), "quick": contender("quick", 1e-3, 10)}
    times = bench.race("work", contenders, bench.Options(turns=3, seconds=2.0))
    assert order[:4] == [("slow", 1), ("slow", 2), ("quick", 10), ("quick", 20)]
    assert order[4:] == [("slow", 4), ("quick", 2000)] * 3
    np.testing.assert_allclose(times["slow"], [0.5] * 3)
    np.testing.assert_allclose(times["quick"], [1e-3] * 3)


def test_rows_have_medians_and_ratios_within_a_turn():
    contenders = {
        "jaxfer resident float32": bench.Contender(len, about={"compile_s": 2.0}),
        "torch nchw": bench.Contender(len),
    }
    times = {"jaxfer resident float32": [0.1, 0.4, 0.2], "torch nchw": [0.3, 0.4, 0.2]}
    ours, theirs = bench.rows_of("train", contenders, times)
    assert ours["episodes_per_s"] == pytest.approx(5)
    assert ours["ms_lowest"] == pytest.approx(100)
    # Ratios are 3, 1 and 1 within their turns; the ratio of the medians would be 1.5.
    assert ours["faster_than"] == {"torch nchw": pytest.approx(1)}
    cached = {"jaxfer cached float32": [0.1] * 3, "torch nchw": times["torch nchw"]}
    contenders["jaxfer cached float32"] = bench.Contender(len)
    assert not next(bench.rows_of("eval", contenders, cached))["faster_than"]
    assert theirs["faster_than"] == {} and ours["compile_s"] == 2.0
    head, first, second = bench.table([ours, theirs]).splitlines()
    assert head.split()[-3:] == ["/", "torch", "nchw"] and first.endswith("1.00")
    assert "torch nchw" in second


@pytest.mark.slow
def test_every_kind_of_work_runs(images):
    pytest.importorskip("grain")
    ours = bench.Ours(images, EpisodeShape(3, 1, 2), "bfloat16")
    for path in ("resident", "streamed"):
        for contender in (ours.train(path), ours.embed_anew(path)):
            assert contender.run(2) > 0
            assert contender.about["compile_s"] > 0
            assert contender.about["memory_mb"] > 0.1
    cached = ours.classify()
    assert cached.per_call == 100 and 0 < cached.run(100) < 60


def test_a_python_without_the_peer_is_refused():
    with pytest.raises(ValueError, match="import torch, got /bin/true .*--torch-pyt"):
        bench.Peer("torch", "/bin/true")
    with pytest.raises(ValueError, match="a Python for easyfsl at /no/where, got none"):
        bench.Peer("easyfsl", "/no/where")


def test_the_whole_test_is_timed_in_proportion(monkeypatch, images):
    """Ten of 200 episodes per setting are embedded anew and count twenty times."""
    monkeypatch.setattr(bench, "TESTS", [(3, 1)])
    monkeypatch.setattr(bench, "TEST_QUERY", 2)
    monkeypatch.setattr(bench, "TEST_EPISODES", 200)
    asked = []
    real = bench.Ours.embed_anew

    def watched(self, *args):
        contender = real(self, *args)

        def run(n):
            asked.append(n)
            contender.run(n)
            return 0.5

        return contender._replace(run=run)

    monkeypatch.setattr(bench.Ours, "embed_anew", watched)
    measured = bench.whole_test(images, bench.Options(turns=3))
    assert asked == [10] * 4 and measured["images"] == 60
    assert measured["anew_s"] == pytest.approx(10)
    assert measured["ratio"] == pytest.approx(10 / measured["once_s"], rel=0.5)


@pytest.mark.slow
def test_steps_of_layer_transfer_are_timed_against_the_full_one(monkeypatch, capsys):
    monkeypatch.setattr(bench_transfer, "N", 128)
    monkeypatch.setattr(bench_transfer, "TOGETHER", 2)
    small = Config(data=Data(side=8), net=Network(width=2, dense=4), batch=8)
    monkeypatch.setattr(bench_transfer, "preset", lambda: small)
    real = bench_transfer.contenders
    monkeypatch.setattr(bench_transfer, "contenders", lambda c: real(c, [6]))
    content = bench.transfer(bench.Options(work="transfer", turns=1, seconds=0.01))
    assert [*content["step"]] == ["full", "frozen n=6", "cached n=6", "masked n=6"]
    assert content["step"]["full"]["ratio"] == 1
    assert all(row["ms"] > 0 for row in content["population"].values())
    assert "times the time of full" in capsys.readouterr().out


def test_the_study_that_is_timed_is_the_preset():
    config = bench_transfer.preset()
    assert (config.data.side, config.batch) == (16, 128)
    assert config.net.name == "AlexNetSmall"


def test_imprinting_is_timed_against_a_copy(monkeypatch, capsys):
    monkeypatch.setattr(bench_imprint, "CLASSES", 7)
    content = bench.imprint(bench.Options(work="imprint", turns=1, seconds=0.001))
    assert content["copy"]["ratio"] == 1
    assert len(content) == 3 and all(row["ms"] > 0 for row in content.values())
    moved = bench_imprint.contenders()["imprint, any order"].nbytes
    assert moved == 7 * 21 * 256 * 4
    assert "of a copy's rate" in capsys.readouterr().out


def test_a_search_is_timed_beside_a_peer(monkeypatch, capsys):
    class Index:
        def __init__(self, dim):
            assert dim == 256

        def add(self, rows):
            self.rows = rows

        def search(self, z, k):
            distances = ((z[:, None] - self.rows) ** 2).sum(-1)
            return None, distances.argsort(axis=1)[:, :k]

    peer = types.SimpleNamespace(IndexFlatL2=Index)
    monkeypatch.setattr(bench_search, "_faiss", lambda: peer)
    monkeypatch.setattr(bench_search, "ROWS", 50)
    content = bench.search(bench.Options(work="search", turns=1, seconds=0.001))
    assert len(content) == 3 and content["faiss"]["ratio"] == 1
    assert all(row["s"] > 0 for row in content.values())
    assert "times the time of faiss" in capsys.readouterr().out
    monkeypatch.setattr(Index, "search", lambda self, z, k: (None, np.zeros((64, k))))
    with pytest.raises(ValueError, match="expected the rows that faiss finds"):
        bench_search.contenders()


@pytest.mark.slow
def test_ways_to_compile_a_step_are_timed_against_ours(monkeypatch, capsys):
    small = {"tiny": (16, 1, EpisodeShape(2, 1, 1))}
    monkeypatch.setattr(bench_compile, "SETTINGS", small)
    content = bench.compile_steps(bench.Options(work="compile", turns=1, seconds=0.01))
    assert [*content["tiny"]] == ["jaxfer", "XLA's options", "JAX's gradient"]
    assert content["tiny"]["jaxfer"]["ratio"] == 1
    assert all(row["s"] > 0 for row in content["tiny"].values())
    # Each is traced anew: a memoised step would be the same program three times.
    memory = [row["memory_mb"] for row in content["tiny"].values()]
    assert memory[0] != memory[2]
    assert "tiny, XLA's options: " in capsys.readouterr().out


def test_the_plain_pool_is_the_pool(rng):
    x = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    scale, bias = np.array([1.0, -0.5, 2.0]), np.array([0.1, 0.2, -0.3])
    args = [jnp.asarray(a, jnp.float32) for a in (x, scale, bias)]
    ours = bench_compile.pool.batch_norm_pool(*args)
    for a, b in zip(bench_compile.plain_pool(*args), ours, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_the_peer_answers():
    pytest.importorskip("torch")
    peer = bench.Peer("torch", sys.executable)
    try:
        for what in ("train", "eval"):
            shape = EpisodeShape(3, 1, 2)
            assert peer.contender(what, shape, 6, "channels_last").run(2) > 0
    finally:
        peer.close()
