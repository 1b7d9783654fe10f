import pytest

from jaxfer.cli.main import main
from jaxfer.data import image_folder, load_all, read_cache


@pytest.mark.slow
def test_it_writes_a_cache_of_any_source(tmp_path, capsys):
    assert main(["prepare", "glyphs", "--to", str(tmp_path)]) == 0
    cached = read_cache(tmp_path / "glyphs.cache")
    assert cached.fingerprint in capsys.readouterr().out
    assert cached.fingerprint == load_all("glyphs").fingerprint


def test_it_reads_a_folder_of_photographs(tmp_path, photographs, capsys):
    out = tmp_path / "out.txt"
    out.write_text("kite/kite03.jpg\n")
    line = ["folder", "--source", photographs, "--to", tmp_path, "--side", 12]
    assert main(["prepare", *map(str, [*line, "--exclude", out])]) == 0
    cached = load_all("folder", tmp_path, side=12)
    assert cached.images.shape == (35, 12, 12, 3)
    expected = image_folder(photographs, 12, ["kite03.jpg"])
    assert cached.fingerprint == expected.fingerprint
    with pytest.raises(SystemExit, match="2"):
        main(["prepare", "glyphs", "--to", str(tmp_path), "--side", "7"])
    assert "got side = 7 and exclude = None for glyphs" in capsys.readouterr().err


@pytest.mark.slow
def test_it_reads_a_tfds_data_set(tmp_path, real_data, omniglot_images):
    line = ["omniglot", "--to", tmp_path, "--source", real_data / "tfds"]
    assert main(["prepare", *map(str, line)]) == 0
    assert load_all("omniglot", tmp_path).fingerprint == omniglot_images.fingerprint


def test_it_says_what_it_needs(tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(SystemExit, match="2"):
        main(["prepare", "omniglott", "--to", str(tmp_path)])
    assert "did you mean 'omniglot'" in capsys.readouterr().err
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        with pytest.raises(SystemExit, match="2"):
            main(["prepare", "omniglot", "--to", str(tmp_path)])
        error = capsys.readouterr().err
        assert "needs TensorFlow: pip install tensorflow-cpu" in error
