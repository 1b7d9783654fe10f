"""The service over real connections, and its page in a browser."""

import asyncio
import contextlib
import io
import pickle
import threading
import time

import numpy as np
import pytest
from PIL import Image

from jaxfer import FewShotClassifier
from jaxfer.cli import serve, service
from jaxfer.cli.service import Service

aiohttp = pytest.importorskip("aiohttp")


@pytest.fixture(scope="module")
def known(fitted):
    return FewShotClassifier.load(fitted)


@pytest.fixture(scope="module")
def files(photographs):
    return sorted(photographs.glob("*/*.jpg"))


@contextlib.asynccontextmanager
async def client(classifier, to=None, **options):
    """A client of a service on a free port."""
    from aiohttp.test_utils import TestClient, TestServer

    app = serve.make_app(Service(classifier, to), **options)
    async with TestClient(TestServer(app)) as one:
        yield one


def form(pictures, **texts):
    data = aiohttp.FormData(texts)
    for i, picture in enumerate(pictures):
        data.add_field("picture", picture, filename=f"{i}.jpg")
    return data


def ask(classifier, *requests, to=None, **options):
    """The status and the JSON of each request: method, path, form and headers."""

    async def run():
        answers = []
        async with client(classifier, to, **options) as one:
            for method, path, data, *more in requests:
                made = data() if callable(data) else data
                headers = more[0] if more else None
                async with one.request(method, path, data=made, headers=headers) as got:
                    answers.append((got.status, await got.json()))
        return answers

    return asyncio.run(run())


def jpeg(side=20, kind="JPEG"):
    file = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(file, kind)
    return file.getvalue()


def test_it_predicts_as_the_classifier_does(known, files):
    data = form([file.read_bytes() for file in files])
    ((status, answer),) = ask(known, ("POST", "/predict", data))
    assert status == 200
    rows = answer["predictions"]
    assert [row["file"] for row in rows] == [f"{i}.jpg" for i in range(len(files))]
    assert [row["label"] for row in rows] == known.predict(files).tolist()
    shares = [[*row["probabilities"].values()] for row in rows]
    np.testing.assert_allclose(shares, known.predict_proba(files), atol=1e-4)


def test_classes_are_added_saved_and_removed(known, files, tmp_path):
    teal = [jpeg(side) for side in (20, 30, 40)]
    to = tmp_path / "more.safetensors"
    before = known.classes_.tolist()
    answers = ask(
        known,
        ("POST", "/classes", form(teal[:1], label=" teal ")),
        ("POST", "/classes", form(teal[1:], label="teal")),
        ("POST", "/predict", form(teal)),
        ("DELETE", "/classes/kite", None),
        ("DELETE", "/classes/kite", None),
        ("DELETE", "/classes/robin", None),
        ("DELETE", "/classes/teal", None),
        ("GET", "/classes", None),
        to=to,
    )
    statuses = [status for status, _ in answers]
    assert statuses == [200, 200, 200, 200, 404, 200, 400, 200]
    counts = {row["label"]: row["examples"] for row in answers[1][1]["classes"]}
    assert counts == {"kite": 12, "robin": 12, "wren": 12, "teal": 3}
    assert {row["label"] for row in answers[2][1]["predictions"]} == {"teal"}
    assert "two classes" in answers[6][1]["error"]
    assert [row["label"] for row in answers[7][1]["classes"]] == ["teal", "wren"]
    assert known.classes_.tolist() == before
    saved = FewShotClassifier.load(to)
    assert saved.classes_.tolist() == ["teal", "wren"]
    assert "measured" not in saved.about_ and "weights" in saved.about_
    wrens = [file for file in files if file.parent.name == "wren"]
    pictures = [*(Image.open(io.BytesIO(x)) for x in teal)]
    z = np.concatenate([known.embed(wrens), known.embed(pictures)])
    again = FewShotClassifier(known.model, "lda", unknown=0.1)
    again.fit(z, ["wren"] * 12 + ["teal"] * 3)
    np.testing.assert_allclose(
        saved.predict_proba(z), again.predict_proba(z), atol=1e-5
    )


def test_labels_keep_their_type(known, files):
    z = known.embed(files[::6])
    classifier = FewShotClassifier(known.model).fit(z, [3, 3, 5, 5, 7, 7])
    answers = ask(
        classifier,
        ("POST", "/classes", form([jpeg()], label="11")),
        ("POST", "/classes", form([jpeg()], label="eleven")),
    )
    assert [row["label"] for row in answers[0][1]["classes"]] == ["3", "5", "7", "11"]
    assert answers[1][0] == 400 and "expected an integer" in answers[1][1]["error"]


def test_concurrent_requests_are_embedded_together(known, files, monkeypatch):
    sizes, embed = [], FewShotClassifier.embed

    def counted(self, X):
        if X.ndim == 4:
            sizes.append(len(X))
            time.sleep(0.05)
        return embed(self, X)

    monkeypatch.setattr(FewShotClassifier, "embed", counted)

    async def run():
        async with client(known) as one:
            sizes.clear()

            async def single(file):
                data = form([file.read_bytes()])
                async with one.post("/predict", data=data) as got:
                    return (await got.json())["predictions"][0]["label"]

            return await asyncio.gather(*map(single, files))

    labels = asyncio.run(run())
    assert sum(sizes) == len(files) and len(sizes) < len(files) / 2
    monkeypatch.undo()
    assert labels == known.predict(files).tolist()


def refusals():
    """What is wrong, the request, the status and a part of the message."""
    page = {"Origin": "http://example.org"}
    code = pickle.dumps(print)
    path = aiohttp.FormData({"picture": "/etc/hostname", "label": "a"})
    one = form([jpeg()])
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\nshowpage\n"
    long = form([jpeg()], label="a" * 101)
    return [
        ("no file", ("POST", "/predict", form([])), 415, "multipart"),
        ("a path", ("POST", "/predict", path), 415, "multipart"),
        ("no form", ("POST", "/predict", b"text"), 415, "multipart/form-data"),
        ("many", ("POST", "/predict", form([b""] * 65)), 400, "1 to 64 files"),
        ("a pickle", ("POST", "/predict", form([code])), 400, "file, got '0.jpg'"),
        ("a program", ("POST", "/predict", form([eps])), 400, "file, got '0.jpg'"),
        ("truncated", ("POST", "/predict", form([jpeg()[:300]])), 400, "decoded"),
        ("no label", ("POST", "/classes", one), 400, "expected a label"),
        ("long label", ("POST", "/classes", long), 400, "printable"),
        ("unknown", ("POST", "/classes", form([jpeg()], label="unknown")), 400, "no"),
        ("no class", ("DELETE", "/classes/owl", None), 404, "a known class"),
        ("no page", ("GET", "/owl", None), 404, "Not Found"),
        ("a method", ("PUT", "/classes", None), 405, "Not Allowed"),
        ("a site", ("DELETE", "/classes/kite", None, page), 403, "Origin"),
    ]


def test_wrong_requests_get_a_clear_answer(known):
    wrong = refusals()
    answers = ask(known, *(request for _, request, _, _ in wrong))
    for (name, _, status, text), answer in zip(wrong, answers, strict=True):
        assert answer[0] == status, (name, answer)
        assert text in answer[1]["error"], (name, answer)


def test_a_name_that_another_site_gives_to_this_machine_is_refused(known):
    def named(host, **more):
        return ("GET", "/classes", None, {"Host": host, **more})

    answers = ask(
        known,
        named("evil.example:80", Origin="http://evil.example:80"),
        named("localhost:8000", Origin="http://localhost:8000"),
        named("birds.example"),
        names=["Birds.example"],
    )
    assert [status for status, _ in answers] == [403, 200, 200]
    assert "a host name of this service" in answers[0][1]["error"]


def test_a_text_field_is_never_read_as_a_file(known):
    data = aiohttp.FormData({"picture": "/etc/hostname"})
    data.add_field("other", b"a", filename="a.txt")
    label = form([jpeg()])
    label.add_field("label", b"a", filename="a.txt")
    answers = ask(known, ("POST", "/predict", data), ("POST", "/classes", label))
    assert answers[0][0] == 400 and "got 0" in answers[0][1]["error"]
    assert answers[1][0] == 400 and "'label' as text" in answers[1][1]["error"]


def test_a_class_may_have_any_label(known):
    answers = ask(
        known,
        ("POST", "/classes", form([jpeg()], label="a/b {c}?")),
        ("DELETE", "/classes/a%2Fb%20%7Bc%7D%3F", None),
    )
    assert [status for status, _ in answers] == [200, 200]
    assert answers[0][1]["classes"][0]["label"] == "a/b {c}?"
    assert len(answers[1][1]["classes"]) == 3


def held(monkeypatch):
    """Let the next pictures wait for an event before they are embedded."""
    event, embed = threading.Event(), FewShotClassifier.embed

    def slow(self, X):
        event.wait(5)
        return embed(self, X)

    monkeypatch.setattr(FewShotClassifier, "embed", slow)
    return event


def test_a_change_that_was_given_up_is_not_made(known, monkeypatch):
    async def run():
        async with client(known) as one:
            monkeypatch.setattr(serve, "SECONDS", 0.3)
            open_now = held(monkeypatch)
            data = form([jpeg()], label="teal")
            async with one.post("/classes", data=data) as got:
                late = await got.json()
            monkeypatch.setattr(serve, "SECONDS", 30.0)
            open_now.set()
            async with one.post("/predict", data=form([jpeg()])) as got:
                assert got.status == 200
            async with one.get("/classes") as got:
                return late["error"], (await got.json())["classes"]

    error, classes = asyncio.run(run())
    assert "GET /classes says whether the change was made" in error
    assert "teal" not in [row["label"] for row in classes]


def test_sizes_are_limited(known, monkeypatch):
    monkeypatch.setattr(serve, "BODY_BYTES", 10_000)
    monkeypatch.setattr(serve, "PIXELS", 1000)
    answers = ask(
        known,
        ("POST", "/predict", form([b"0" * 20_000])),
        ("POST", "/predict", form([jpeg(40, "PNG")])),
        ("POST", "/predict", form([jpeg(30, "PNG")])),
    )
    assert [status for status, _ in answers] == [413, 400, 200]
    assert "at most 1,000 pixels, got 40 x 40" in answers[1][1]["error"]


def test_time_and_waiting_are_limited(known, monkeypatch):
    async def run():
        async with client(known) as one:
            monkeypatch.setattr(serve, "SECONDS", 0.3)
            monkeypatch.setattr(service, "_WAITING", 2)
            open_now = held(monkeypatch)

            async def single(n):
                async with one.post("/predict", data=form([jpeg()] * n)) as got:
                    return got.status, (await got.json()).get("error", "")

            late = await single(1)
            busy = await asyncio.gather(single(2), single(2))
            open_now.set()
            monkeypatch.setattr(serve, "SECONDS", 30.0)
            while one.app[serve._SERVICE].waiting:
                await asyncio.sleep(0.02)
            after = await single(2)
            assert one.app[serve._SERVICE].waiting == 0
            return late, sorted(busy), after

    late, busy, after = asyncio.run(run())
    assert late[0] == 503 and "no answer within" in late[1]
    assert [status for status, _ in busy] == [503, 503]
    assert any("pictures wait" in text for _, text in busy)
    assert after == (200, "")


def test_a_form_that_comes_too_slowly_is_given_up(known, monkeypatch):
    monkeypatch.setattr(serve, "SECONDS", 0.2)

    async def endless():
        while True:
            yield b"--x\r\n"
            await asyncio.sleep(0.05)

    async def run():
        kind = {"Content-Type": "multipart/form-data; boundary=y"}
        async with client(known) as one:
            async with one.post("/predict", data=endless(), headers=kind) as got:
                return got.status

    assert asyncio.run(run()) == 408


def test_a_failed_save_changes_nothing(known, tmp_path):
    to = tmp_path / "no" / "a.safetensors"
    to.parent.write_text("a file in place of the folder")
    answers = ask(
        known,
        ("POST", "/classes", form([jpeg()], label="teal")),
        ("GET", "/classes", None),
        to=to,
    )
    assert answers[0][0] == 400 and str(to.parent) in answers[0][1]["error"]
    assert len(answers[1][1]["classes"]) == 3


def test_a_service_can_be_read_only(known):
    answers = ask(
        known,
        ("POST", "/classes", form([jpeg()], label="teal")),
        ("DELETE", "/classes/kite", None),
        ("GET", "/classes", None),
        ("GET", "/health", None),
        read_only=True,
    )
    assert [status for status, _ in answers] == [403, 403, 200, 200]
    assert answers[2][1]["read_only"] and answers[3][1]["status"] == "ok"
