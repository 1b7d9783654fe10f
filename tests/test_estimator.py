"""The classifier: what it learns, adds, forgets, saves and refuses."""

import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import jaxfer
from jaxfer import FewShotClassifier, init_model, load_model, support_set
from jaxfer.heads.clusters import cluster_means
from jaxfer.nets import Conv4
from jaxfer.support_set import KINDS

DIM = 6
ALL = pytest.mark.parametrize("head", KINDS)


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    labels = np.repeat(["kite", "robin", "wren"], [4, 5, 6])
    centres = {name: 3 * rng.normal(size=DIM) for name in np.unique(labels)}
    z = np.stack([centres[name] for name in labels]) + rng.normal(size=(15, DIM))
    order = rng.permutation(15)
    queries = np.stack([centres[name] for name in labels]) + rng.normal(size=(15, DIM))
    return z[order], labels[order], queries, labels


@pytest.fixture(scope="module")
def backbone():
    return init_model(Conv4(width=4), (16, 16, 3), jax.random.key(0))


@ALL
def test_it_classifies_embeddings(points, head):
    z, labels, queries, truth = points
    classifier = FewShotClassifier(head=head, normalize="none").fit(z, labels)
    assert classifier.classes_.tolist() == ["kite", "robin", "wren"]
    shares = classifier.predict_proba(queries)
    np.testing.assert_allclose(shares.sum(1), 1)
    found = classifier.predict(queries)
    assert (found == classifier.classes_[shares.argmax(1)]).all()
    assert classifier.score(queries, truth) == np.mean(found == truth) > 0.8


@ALL
def test_examples_one_by_one_equal_a_fit_at_once(points, head):
    z, labels, queries, _ = points
    whole = FewShotClassifier(head=head).fit(z, labels)
    parts = FewShotClassifier(head=head)
    for row, label in zip(z, labels, strict=True):
        parts.partial_fit(row[None], [label])
    np.testing.assert_allclose(
        parts.predict_proba(queries), whole.predict_proba(queries), atol=1e-5
    )
    assert (parts.predict(queries) == whole.predict(queries)).all()
    for name in ("total", "unit", "count"):
        ours, theirs = (getattr(x._support, name) for x in (parts, whole))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    if head in ("linear", "lda"):
        np.testing.assert_allclose(
            parts._support.gram, whole._support.gram, rtol=1e-6, atol=1e-9
        )


def test_sums_of_integers_are_exact():
    rng = np.random.default_rng(0)
    z, labels = rng.integers(-99, 99, (40, DIM)), rng.integers(0, 4, 40)
    how = {"head": "lda", "normalize": "none"}
    whole = FewShotClassifier(**how).fit(z, labels)
    parts = FewShotClassifier(**how)
    for i in rng.permutation(40):
        parts.partial_fit(z[i : i + 1], labels[i : i + 1])
    for name in ("total", "count", "gram"):
        np.testing.assert_array_equal(
            getattr(parts._support, name), getattr(whole._support, name)
        )


@ALL
def test_classes_come_and_go(points, head):
    z, labels, queries, _ = points
    two = labels != "kite"
    classifier = FewShotClassifier(head=head).fit(z[two], labels[two])
    classifier.add_classes({"kite": z[~two]})
    whole = FewShotClassifier(head=head).fit(z, labels)
    np.testing.assert_allclose(
        classifier.predict_proba(queries), whole.predict_proba(queries), atol=1e-5
    )
    classifier.remove_class("kite")
    again = FewShotClassifier(head=head).fit(z[two], labels[two])
    np.testing.assert_allclose(
        classifier.predict_proba(queries), again.predict_proba(queries), atol=1e-4
    )
    with pytest.raises(ValueError, match=r"expected new classes, got \['wren'\]"):
        classifier.add_classes({"wren": z[:1]})
    with pytest.raises(ValueError, match="expected one of at least two .*got 'kite'"):
        classifier.remove_class("kite")


def test_pictures_come_as_arrays_paths_and_pillow(backbone, photographs):
    image = pytest.importorskip("PIL.Image")
    paths = sorted(photographs.glob("*/*.jpg"))
    labels = [path.parent.name for path in paths]
    classifier = FewShotClassifier(backbone).fit(paths, labels)
    expected = classifier.predict_proba(paths)
    assert classifier.score(paths, labels) > 0.9
    pillow = [image.open(path) for path in paths]
    squares = np.stack([np.asarray(x.resize((16, 16), 2)) for x in pillow])
    kinds = {
        "text": [str(path) for path in paths],
        "an array of text": np.array([str(path) for path in paths]),
        "Pillow": pillow,
        "arrays of several sizes": [np.asarray(x) for x in pillow],
        "an array": squares,
        "floats": squares / 255,
        "embeddings": jaxfer.embed(backbone, squares).reshape(len(paths), -1),
    }
    for kind, pictures in kinds.items():
        found = classifier.predict_proba(pictures)
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=kind)
    one = classifier.predict(paths[0])
    assert one.tolist() == [labels[0]]
    grey = FewShotClassifier(backbone).fit(squares[..., :1], labels)
    np.testing.assert_allclose(
        grey.predict_proba(squares[..., 0]),
        grey.predict_proba(np.repeat(squares[..., :1], 3, -1)),
        atol=1e-5,
    )


def test_new_numbers_of_classes_and_pictures_compile_nothing(backbone):
    rng = np.random.default_rng(0)

    def task(way, shot, queries):
        pictures = rng.integers(0, 255, (way * shot, 16, 16, 3), dtype=np.uint8)
        classifier = FewShotClassifier(backbone, "lda")
        classifier.fit(pictures, np.repeat(np.arange(way), shot))
        classifier.predict(pictures[:queries])

    task(5, 5, 5)
    task(2, 1, 1)
    events = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: events.append(event)
    )
    for way, shot, queries in ((6, 5, 3), (8, 3, 8), (3, 7, 2), (4, 6, 7)):
        task(way, shot, queries)
    assert [e for e in events if "backend_compile" in e] == []


@pytest.mark.parametrize("head", ["lda", "nearest"])
def test_it_is_saved_and_loaded_in_a_new_process(head, backbone, photographs, tmp_path):
    pytest.importorskip("PIL")
    paths = sorted(photographs.glob("*/*.jpg"))
    labels = [path.parent.name for path in paths]
    classifier = FewShotClassifier(backbone, head, unknown=0.1)
    classifier.fit(paths[::2], labels[::2])
    path = classifier.save(tmp_path / "birds.safetensors")
    code = (
        "import sys, numpy as np; from jaxfer import FewShotClassifier\n"
        "c = FewShotClassifier.load(sys.argv[1])\n"
        "np.save(sys.argv[2], c.predict_proba(sys.argv[3:]))\n"
        "print(c, c.threshold_, *c.predict(sys.argv[3:]))"
    )
    out = tmp_path / "out.npy"
    command = [sys.executable, "-c", code, path, out, *paths[:5]]
    ran = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(jaxfer.__file__).parents[1],
    )
    np.testing.assert_allclose(
        np.load(out), classifier.predict_proba(paths[:5]), atol=1e-4
    )
    assert str(classifier.threshold_) in ran.stdout
    assert ran.stdout.split()[-5:] == classifier.predict(paths[:5]).tolist()
    again = FewShotClassifier.load(path)
    again.partial_fit(paths[1::2], labels[1::2])
    whole = FewShotClassifier(backbone, head, unknown=0.1).fit(
        [*paths[::2], *paths[1::2]], [*labels[::2], *labels[1::2]]
    )
    np.testing.assert_allclose(
        again.predict_proba(paths), whole.predict_proba(paths), atol=1e-4
    )


def test_a_classifier_of_embeddings_needs_no_weights(points, tmp_path):
    z, labels, queries, _ = points
    path = FewShotClassifier("resnet51").fit(z, labels).save(tmp_path / "a.safetensors")
    again = FewShotClassifier.load(path)
    assert again.model == "resnet51" and (again.predict(queries) != "").all()
    with pytest.raises(ValueError, match="got 'resnet51'"):
        again.predict(np.zeros((1, 8, 8, 3), np.uint8))


def test_changed_files_are_refused_by_name(points, tmp_path):
    z, labels, *_ = points
    path = FewShotClassifier().fit(z, labels).save(tmp_path / "a.safetensors")
    data = path.read_bytes()
    name = r"a.safetensors"
    newer = data.replace(b'\\"format\\": 1', b'\\"format\\": 2')
    assert newer != data
    changed = bytearray(data)
    changed[-5] ^= 1
    kite = data.replace(b"kite", b"kilt")
    for content, message in (
        (newer, "got 2: it was written by another version"),
        (bytes(changed), "its content differs"),
        (kite, "its content differs"),
        (data[: len(data) // 2], "damaged or of another format"),
        (b"", "damaged or of another format"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} cannot be read: .*{message}"):
            FewShotClassifier.load(path)
    with pytest.raises(ValueError, match="got no file at .*none.safetensors"):
        FewShotClassifier.load(tmp_path / "none.safetensors")
    path.write_bytes(data)
    with pytest.raises(ValueError, match="read it with FewShotClassifier.load"):
        load_model(path)


def test_pictures_unlike_all_classes_are_unknown(points):
    z, labels, queries, truth = points
    classifier = FewShotClassifier(unknown=0.05).fit(z, labels)
    far = -queries
    assert (classifier.predict(far) == "unknown").mean() > 0.5
    assert classifier.score(queries, truth) > 0.7
    found = jaxfer.measure_open_set(
        classifier.similarity(queries),
        classifier.similarity(far),
        classifier.predict(queries) == truth,
    )
    assert found.auroc > 0.9 and found.oscr <= found.auroc
    numbers = np.unique(labels, return_inverse=True)[1]
    integers = FewShotClassifier(unknown=0.05).fit(z, numbers)
    assert -1 in integers.predict(far)
    for label in (["unknown"] * 15, numbers - 1):
        with pytest.raises(ValueError, match="which means unknown"):
            FewShotClassifier(unknown=0.05).partial_fit(z, label)
    never = FewShotClassifier().fit(z, labels)
    assert never.threshold_ is None and "unknown" not in never.predict(far)


def test_the_threshold_leaves_each_example_out(points):
    z, labels, *_ = points
    classifier = FewShotClassifier(normalize="unit", unknown=0.2).fit(z, labels)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    similarities = []
    for i in range(len(z)):
        rest = np.arange(len(z)) != i
        means = [unit[rest & (labels == name)].sum(0) for name in np.unique(labels)]
        similarities.append(max(unit[i] @ m / np.linalg.norm(m) for m in means))
    expected = np.quantile(similarities, 0.2)
    assert classifier.threshold_ == pytest.approx(expected, rel=1e-5)


def test_a_given_temperature_divides_the_logits(points):
    z, labels, queries, _ = points
    one, ten = (
        np.log(
            FewShotClassifier(head="linear", temperature=t)
            .fit(z, labels)
            .predict_proba(queries)
        )
        for t in (1.0, 10.0)
    )
    differences = [x - x[:, :1] for x in (one, 10 * ten)]
    np.testing.assert_allclose(*differences, rtol=1e-3, atol=1e-4)


def test_several_prototypes_follow_classes_of_two_kinds():
    rng = np.random.default_rng(0)
    places = {0: (-4, 4), 1: (-2, 2)}
    z, labels = [], []
    for label, (low, high) in places.items():
        for centre in (low, high):
            z.append(centre + 0.3 * rng.normal(size=(10, 1)))
            labels += [label] * 10
    z = np.concatenate(z)
    how = {"normalize": "none"}
    one = FewShotClassifier(**how).fit(z, labels)
    two = FewShotClassifier(prototypes=2, **how).fit(z, labels)
    assert one.score(z, labels) < 0.8 and two.score(z, labels) == 1
    means, owner = cluster_means(z, np.array(labels), 2)
    assert owner.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(np.sort(means.ravel()), [-4, -2, 2, 4], atol=0.4)
    few = FewShotClassifier(prototypes=5, **how).fit([[0.0], [0.0], [1.0]], [0, 0, 1])
    assert few.predict([[0.1]]).tolist() == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "svm"}, "expected head of .* got 'svm'"),
        ({"normalize": "l2"}, "expected normalize none, unit or sqrt, got 'l2'"),
        ({"temperature": 0}, "expected temperature 'leave_one_out' or above 0, got 0"),
        ({"unknown": 1.5}, r"expected unknown in \(0, 1\), got 1.5"),
        ({"prototypes": 2, "head": "lda"}, "got 2 for lda"),
        ({"penalty": -1}, "expected penalty above 0, got -1"),
        ({"shrinkage": 2}, r"expected shrinkage in \[0, 1\], got 2"),
    ],
)
def test_wrong_options_are_refused(points, unchecked, options, message):
    z, labels, *_ = points
    with pytest.raises(ValueError, match=message):
        FewShotClassifier(**options).fit(z, labels)


def test_wrong_input_is_refused(points, backbone, photographs):
    z, labels, *_ = points
    classifier = FewShotClassifier(backbone)
    with pytest.raises(ValueError, match="call fit first"):
        classifier.predict(z)
    with pytest.raises(ValueError, match="got one class, .*begin with partial_fit"):
        classifier.fit(z[:2], ["a", "a"])
    with pytest.raises(ValueError, match="one label per example, got 15 .* 2 labels"):
        classifier.fit(z, labels[:2])
    classifier.fit(z, labels)
    for pictures, message in (
        (["nowhere.jpg"], "got no file at nowhere.jpg"),
        (np.full((1, 4, 4, 3), 3.0), "floating pixels from 0 to 1 .*picture 0"),
        (np.zeros((1, 4, 4, 2), np.uint8), "of shape .4, 4, 2. and type uint8"),
        (np.zeros((1, 4, 4, 3), np.int64), "and type int64"),
        ([], "at least one picture, got none|0 sample"),
    ):
        with pytest.raises(ValueError, match=message):
            classifier.predict(pictures)
    with pytest.raises(ValueError, match="X has 5 features, but FewShotClassifier"):
        classifier.predict(z[:, :5])
    text = photographs / "kite" / "kite00.jpg"
    broken = photographs.parent / "broken.jpg"
    broken.write_bytes(text.read_bytes()[:100])
    with pytest.raises(ValueError, match="broken.jpg"):
        classifier.predict([broken])


NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)
ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int32, np.uint8, np.bool_, np.float16]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)
LABELS = st.one_of(
    st.lists(st.integers(-3, 3), max_size=5),
    st.lists(st.sampled_from(["a", "b", "é", ""]), max_size=5),
    st.lists(NUMBERS, max_size=5),
    st.lists(st.one_of(st.none(), st.booleans(), st.integers()), max_size=5),
)


@given(
    X=st.one_of(ARRAYS, st.lists(NUMBERS, max_size=4), st.text(max_size=3), st.none()),
    y=LABELS,
    head=st.sampled_from(KINDS),
    normalize=st.sampled_from(["none", "unit", "sqrt"]),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_input_ends_in_an_answer_or_a_clear_error(X, y, head, normalize):
    model = init_model(Conv4(width=1), (16, 16, 3), jax.random.key(0))
    classifier = FewShotClassifier(model, head, normalize=normalize)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            classifier.fit(X, y)
        except (ValueError, TypeError) as e:
            assert len(str(e)) > 10
            return
        shares = classifier.predict_proba(X)
    assert shares.shape == (len(y), len(classifier.classes_))
    assert np.isfinite(shares).all()


def test_rooms_are_powers_of_two():
    assert [support_set.slots(n) for n in (0, 1, 8, 9, 16, 17)] == [8, 8, 8, 16, 16, 32]
