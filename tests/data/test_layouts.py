"""Published layouts of image folders, written small and read again."""

import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxfer.data import image_folder, load, write_cache
from jaxfer.data.layouts import LAYOUTS, WHOLE, read_layout


def _write(directory, *names, side=4):
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (side, side + 1), len(name)).save(path)


def _text(directory, name, *lines):
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text("".join(f"{line}\n" for line in lines))


def _names(listing):
    """The files of each part and class, relative to the directory."""
    return {
        part: {
            name: [path.relative_to(listing.directory).as_posix() for path in paths]
            for name, paths in own.items()
        }
        for part, own in listing.parts.items()
    }


@pytest.fixture
def tiny_imagenet(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for wnid in ("n02", "n01"):
        names = [f"{wnid}_{i}.JPEG" for i in range(3)]
        _write(root / "train" / wnid / "images", *names)
        _text(root / "train" / wnid, f"{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t0\t9\t9")
    _write(root / "val/images", "val_0.JPEG", "val_1.JPEG", "val_2.JPEG")
    lines = [f"val_{i}.JPEG\t{x}\t0\t0\t9\t9" for i, x in enumerate(("n01", "n02"))]
    _text(root / "val", "val_annotations.txt", *lines)
    _write(root / "test/images", *(f"test_{i}.JPEG" for i in range(4)))
    _text(root, "wnids.txt", "n02", "n01")
    _text(root, "words.txt", "n01\tgoldfish, Carassius auratus", "n02\ttench")
    return root


def test_tiny_imagenet_has_its_val_annotations_and_no_test_labels(
    tiny_imagenet, capsys
):
    assert _names(read_layout(tiny_imagenet)) == {
        "train": {
            x: [f"train/{x}/images/{x}_{i}.JPEG" for i in range(3)]
            for x in ("n01", "n02")
        },
        "val": {"n01": ["val/images/val_0.JPEG"], "n02": ["val/images/val_1.JPEG"]},
    }
    said = "tiny-imagenet-200: ignored 4 images in test/ without labels\n"
    assert capsys.readouterr().out == said
    _text(
        tiny_imagenet / "val",
        "val_annotations.txt",
        *(
            "val_0.JPEG\tn01\t0",
            "val_1.JPEG\tn02",
            "val_2.JPEG\tn03",
            "val_9.JPEG\tn01",
        ),
    )
    data = image_folder(tiny_imagenet, 8)
    assert data.class_names == ("n01", "n02") and data.num_train == 6
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1, 0, 1]
    said = "ignored 2 of 4 names in val/val_annotations.txt, such as 'val_2.JPEG"
    assert said in capsys.readouterr().out


def test_classes_of_tiny_imagenet_may_be_dealt_out(tiny_imagenet):
    for wnid in ("n03", "n04"):
        _write(tiny_imagenet / "train" / wnid / "images", "a.JPEG")
    lines = [f"val_{i}.JPEG\tn0{i + 1}" for i in range(3)]
    _text(tiny_imagenet / "val", "val_annotations.txt", *lines)
    with pytest.raises(
        ValueError, match=r"\['n01', 'n02', 'n03'\] in two .* 1 class, such as .'n04'"
    ):
        load("folder", ["train"], tiny_imagenet, side=8)
    shutil.rmtree(tiny_imagenet / "train" / "n04")
    parts = load("folder", ["train", "val", "test"], tiny_imagenet, side=8)
    counts = {part.class_names: len(part.labels) for part in parts.values()}
    # Each class has its images of both parts.
    assert counts == {("n01",): 4, ("n02",): 4, ("n03",): 2}


@pytest.mark.parametrize("folder", ["", "above"])
def test_caltech_101_is_found_one_level_up(tmp_path, folder, capsys):
    above = tmp_path / "caltech-101"
    own = above / "101_ObjectCategories"
    _write(own, "accordion/image_0001.jpg", "accordion/image_0002.jpg")
    _write(own, "BACKGROUND_Google/image_0001.jpg", "airplanes/image_0001.jpg")
    _text(above, "Annotations/accordion/annotation_0001.mat", "not an image")
    _text(above, "show_annotation.m", "a program")
    _write(above, "__MACOSX/101_ObjectCategories/._accordion.jpg")
    listing = read_layout(above if folder else own)
    assert listing.directory == own.resolve()
    assert _names(listing) == {
        WHOLE: {
            "BACKGROUND_Google": ["BACKGROUND_Google/image_0001.jpg"],
            "accordion": [f"accordion/image_000{i}.jpg" for i in (1, 2)],
            "airplanes": ["airplanes/image_0001.jpg"],
        }
    }
    said = "caltech-101: reading 101_ObjectCategories/, its only folder with images\n"
    assert capsys.readouterr().out == said * bool(folder)


def test_a_level_that_is_ambiguous_is_said(tmp_path, capsys):
    for data in ("birds", "fish"):
        _write(tmp_path, f"{data}/a/1.png", f"{data}/b/1.png")
    assert [*read_layout(tmp_path).parts[WHOLE]] == ["birds", "fish"]
    said = capsys.readouterr().out
    assert re.search(f"2 classes, .* such as {tmp_path / 'birds'}", said)
    # One folder within each class, as in tiny-imagenet's train/, is another matter.
    shutil.rmtree(tmp_path)
    _write(tmp_path, "n01/images/1.png", "n02/images/1.png")
    assert [*read_layout(tmp_path).parts[WHOLE]] == ["n01", "n02"]
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("folder", "suffix", "lists"),
    [("images/", "", "meta/"), ("", ".jpg", ""), ("Images/", ".jpg", "lists/")],
    ids=["food101", "beside", "lists"],
)
def test_lists_name_the_images_of_each_part(tmp_path, folder, suffix, lists, capsys):
    names = [f"{c} pie/100{i}" for c in ("apple", "pear") for i in range(3)]
    _write(tmp_path, *(f"{folder}{name}.jpg" for name in names))
    train = [name + suffix for name in names if name[-1] != "2"]
    lost = ["apple pie/7", "apple pie/8", "fig pie/1000"]
    _text(tmp_path, f"{lists}train.txt", *train, *(x + suffix for x in lost))
    _text(tmp_path, f"{lists}test.txt", *(f"{c} pie/1002" for c in ("apple", "pear")))
    assert _names(read_layout(tmp_path)) == {
        "train": {
            f"{c} pie": [f"{folder}{c} pie/100{i}.jpg" for i in range(2)]
            for c in ("apple", "pear")
        },
        "test": {f"{c} pie": [f"{folder}{c} pie/1002.jpg"] for c in ("apple", "pear")},
    }
    assert capsys.readouterr().out == (
        f"ignored 3 of 7 names in {lists}train.txt, such as 'apple pie/7{suffix}': "
        f"expected images or class folders of {tmp_path.name}\n"
    )
    data = image_folder(tmp_path, 8)
    assert data.num_train == 4 and data.labels.tolist() == [0, 0, 1, 1, 0, 1]


@pytest.mark.parametrize("form", ["{} {}", "{}\t{}", "{},{}", "./{} {}", "/{},{}"])
def test_labels_follow_the_path(tmp_path, form):
    names = ["red kite", "wren", "red kite", "wren"]
    if " " in form:
        names = [name.replace(" ", "_") for name in names]
    _write(tmp_path, *(f"images/img {i}.png" for i in range(4)))
    for part, rows in (("train", (0, 1)), ("test", (2, 3))):
        lines = [form.format(f"img {i}.png", names[i]) for i in rows]
        _text(tmp_path, f"annotations/{part}.txt", *lines)
    found = _names(read_layout(tmp_path))
    assert found == {
        part: {names[i]: [f"images/img {i}.png"] for i in rows}
        for part, rows in (("train", (0, 1)), ("test", (2, 3)))
    }


def test_numbers_stand_for_the_folders_of_their_images(tmp_path):
    """Lists of ImageNet for Caffe: val/ has no class folders."""
    _write(tmp_path, "train/n01/a.png", "train/n02/a.png", "val/v1.png", "val/v2.png")
    _text(tmp_path, "train.txt", "n01/a.png 0", "n02/a.png 1")
    _text(tmp_path, "val.txt", "v1.png 1", "v2.png 0")
    assert _names(read_layout(tmp_path)) == {
        "train": {"n01": ["train/n01/a.png"], "n02": ["train/n02/a.png"]},
        "val": {"n01": ["val/v2.png"], "n02": ["val/v1.png"]},
    }
    # Folders that are not classes have images of several numbers.
    _text(tmp_path, "train.txt", "n01/a.png 0", "n02/a.png 0", "v1.png 1")
    found = _names(read_layout(tmp_path))
    assert found["train"] == {
        "0": ["train/n01/a.png", "train/n02/a.png"],
        "1": ["val/v1.png"],
    }


def test_lists_of_mini_imagenet_part_the_classes(tmp_path):
    """CSV files with a heading, whose parts have different classes."""
    _write(tmp_path, *(f"images/n0{i}00{k}.jpg" for i in range(4) for k in range(2)))
    for part, classes in (("train", (0, 1)), ("val", (2,)), ("test", (3,))):
        lines = [f"n0{i}00{k}.jpg,n0{i}" for i in classes for k in range(2)]
        _text(tmp_path, f"splits/{part}.csv", "filename,label", *lines)
    parts = load("folder", ["train", "trainval", "test"], tmp_path, side=8)
    assert {name: part.class_names for name, part in parts.items()} == {
        "train": ("n00", "n01"),
        "trainval": ("n00", "n01", "n02"),
        "test": ("n03",),
    }


def test_parts_with_different_classes_are_one_data_set_by_example(tmp_path, capsys):
    names = ("wren", "kite", "owl")
    _write(tmp_path, *(f"{name}/{i}.png" for name in names for i in range(5)))
    for part, name in zip(("train", "val", "test"), names, strict=True):
        _text(tmp_path, f"{part}.txt", name)
    data = image_folder(tmp_path, 8)
    assert data.class_names == ("kite", "owl", "wren") and data.num_train == 12
    assert "the parts have different classes" in capsys.readouterr().out
    splits = load("folder", ["trainval", "test"], tmp_path, side=8)
    assert [x.class_names for x in splits.values()] == [("kite", "wren"), ("owl",)]
    cache = write_cache(data, tmp_path / "cache" / "folder.cache")
    again = load("folder", ["trainval", "test"], cache.parent, side=8)
    for split, part in splits.items():
        assert again[split].fingerprint == part.fingerprint


def test_lists_without_any_image_are_refused(tmp_path):
    _write(tmp_path, "images/a.png")
    _text(tmp_path, "train.txt", "apple/1", "apple/2")
    _text(tmp_path, "test.txt", "apple/3")
    with pytest.raises(
        ValueError,
        match=r"expected images or .*; got 2 other names in train.txt, .*'ap",
    ):
        read_layout(tmp_path)
    for part in ("train", "test"):
        _text(tmp_path, f"{part}.txt", "a.png")
    with pytest.raises(ValueError, match="a label after each path in .*train.txt, got"):
        read_layout(tmp_path)


def test_the_tables_of_cub_are_read(tmp_path, capsys):
    root = tmp_path / "CUB_200_2011"
    names = [f"00{c}.Bird_{c}/Bird_{c}_{i}.jpg" for c in (1, 2) for i in range(3)]
    _write(root / "images", *(name for name in names if name != names[3]))
    numbered = [*enumerate(names, 1)]
    _text(root, "images.txt", *(f"{i} {name}" for i, name in numbered))
    _text(root, "image_class_labels.txt", *(f"{i} {(i + 2) // 3}" for i, _ in numbered))
    _text(root, "train_test_split.txt", *(f"{i} {i % 3 and 1}" for i, _ in numbered))
    _text(root, "classes.txt", "1 001.Bird_1", "2 002.Bird_2")
    _write(root, "parts/part.png")
    _text(tmp_path, "attributes.txt", "1 has_bill_shape::dagger")
    listing = read_layout(tmp_path)
    assert _names(listing) == {
        "train": {
            "001.Bird_1": [f"images/{name}" for name in names[:2]],
            "002.Bird_2": [f"images/{names[4]}"],
        },
        "test": {
            "001.Bird_1": [f"images/{names[2]}"],
            "002.Bird_2": [f"images/{names[5]}"],
        },
    }
    said = f"ignored 1 of 6 names in images.txt, such as '{names[3]}'"
    assert said in capsys.readouterr().out
    (root / "train_test_split.txt").unlink()
    assert [*read_layout(root).parts] == [WHOLE]


def test_the_real_tables_of_cub_are_read(real_data, tmp_path, capsys):
    source = real_data / "cub" / "CUB_200_2011"
    for name in ("images", "image_class_labels", "classes", "train_test_split"):
        shutil.copy(source / f"{name}.txt", tmp_path)
    with zipfile.ZipFile(
        real_data / "cub" / "cub200_2010_10classes_short160.zip"
    ) as file:
        member = file.namelist()[0]
        lines = (source / "images.txt").read_text().splitlines()
        names = [line.split()[1] for line in lines if "/Black_Footed" in line]
        for name in names:
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read(member))
    data = image_folder(tmp_path, 8)
    assert data.class_names == ("001.Black_footed_Albatross",)
    assert (data.num_train, len(data.labels)) == (30, 60)
    assert "ignored 11,728 of 11,788 names in images.txt" in capsys.readouterr().out


def test_a_test_folder_without_labels_is_ignored_and_counted(tmp_path, capsys):
    _write(tmp_path, *(f"train/{c}/{i}.png" for c in "ab" for i in range(5)))
    _write(tmp_path, "test/1.png", "test/2.png")
    assert _names(read_layout(tmp_path))[WHOLE].keys() == {"a", "b"}
    said = f"{tmp_path.name}: ignored 2 images in test/ without labels\n"
    assert capsys.readouterr().out == said
    shutil.rmtree(tmp_path / "train")
    _write(tmp_path, "train/1.png")
    with pytest.raises(
        ValueError,
        match="one folder of images per class in .*train, got no folders, 1 ",
    ):
        read_layout(tmp_path)


def test_parts_have_other_names_too(tmp_path):
    _write(tmp_path, "training/a/1.png", "valid/a/2.png", "testing/a/3.png")
    assert {part: own["a"][0].name for part, own in read_layout(tmp_path).parts.items()}
    assert [*read_layout(tmp_path).parts] == ["train", "val", "test"]


def test_what_no_class_folder_holds_is_counted(tmp_path, capsys):
    _write(tmp_path, "a/1.png", "b/1.png", "cover.png", ".thumbnails/1.png")
    (tmp_path / "c").mkdir()
    assert [*read_layout(tmp_path).parts[WHOLE]] == ["a", "b"]
    assert capsys.readouterr().out == (
        f"{tmp_path.name}: ignored 1 folder without images: ['c']\n"
        f"{tmp_path.name}: ignored 1 image in no class folder\n"
    )


def test_an_unknown_layout_is_answered_with_what_is_there(tmp_path):
    _write(tmp_path, "a.png", "b.png")
    _text(tmp_path, "labels.mat", "binary")
    message = (
        r"got no folders, 2 images, 1 other file, such as labels.mat: if this .* give "
        rf"{tmp_path.parent}; jaxfer.data.loose_images reads"
    )
    with pytest.raises(ValueError, match=message) as e:
        read_layout(tmp_path)
    for layout in LAYOUTS:
        assert layout in str(e.value)
    with pytest.raises(ValueError, match="which does not exist: set --data.dir"):
        read_layout(tmp_path / "nowhere")


def test_pixels_of_a_layout_are_those_of_its_files(tiny_imagenet):
    data = image_folder(tiny_imagenet, 4)
    listing = read_layout(tiny_imagenet)
    files: list[Path] = [
        path for own in listing.parts.values() for x in own.values() for path in x
    ]
    assert len(files) == 8
    for row, path in enumerate(files):
        with Image.open(path) as image:
            square = image.convert("RGB").resize((4, 4), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(data.images[row], np.asarray(square))
