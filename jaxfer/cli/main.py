"""The parser of the command line; a command's module is loaded when it runs."""

import argparse
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxfer.config import clean_errors

_WEIGHTS = (
    "installed weights, such as efficientnet_lite0 (`python -m jaxfer nets` lists "
    "them), or a model.safetensors"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit code."""
    args = vars(make_parser().parse_args(argv))
    with clean_errors():
        command = importlib.import_module(f"jaxfer.cli.{args.pop('command')}")
        command.run(**args)
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        "jaxfer", description="Transfer and few-shot learning in JAX."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, add) in _COMMANDS.items():
        one = commands.add_parser(name, help=text, description=f"{text}.")
        add(one)
    return parser


def _nets(parser: Any) -> None:
    parser.add_argument("names", nargs="*", metavar="NET", help="default: all")
    parser.add_argument(
        "--side", type=int, default=224, help="image side in pixels; default: 224"
    )
    _table(parser)


def _embed(parser: Any) -> None:
    _folder(parser, "one folder per class, or images without classes")
    _to(parser, "FILE", "the bank: a path that ends in .npz or .safetensors")


def _fit(parser: Any) -> None:
    _folder(parser, "one folder per class, or train/ and test/ with such")
    _to(parser, "FILE", "the classifier: a path that ends in .safetensors")
    parser.add_argument(
        "--head",
        default="lda",
        choices=("prototype", "imprint", "matching", "nearest", "linear", "lda"),
        help="default: lda; see `jaxfer.FewShotClassifier`",
    )
    parser.add_argument(
        "--unknown",
        type=float,
        metavar="SHARE",
        help="share of pictures of known classes, in (0, 1), that may be called "
        "unknown; default: nothing is",
    )
    parser.add_argument(
        "--bank", type=Path, metavar="FILE", help="keep the embeddings in this bank"
    )


def _predict(parser: Any) -> None:
    _classifier(parser)
    parser.add_argument(
        "files", type=Path, nargs="+", help="pictures, and folders of pictures"
    )
    parser.add_argument(
        "--csv", type=Path, dest="csv_to", metavar="FILE", help="write a table as CSV"
    )
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="write an HTML page with every picture beside its most similar example",
    )
    parser.add_argument(
        "--support",
        type=Path,
        metavar="FOLDER",
        help="the folder that was fitted, to show its pictures on the page",
    )
    _table(parser)


def _serve(parser: Any) -> None:
    _classifier(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; default: 127.0.0.1, for this machine alone",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=8000,
        help="port to listen on; 0 selects a free one; default: 8000",
    )
    parser.add_argument(
        "--to",
        type=Path,
        metavar="FILE",
        help="save the classifier here after every change of its classes; default: "
        "changes last until the service stops",
    )
    parser.add_argument(
        "--name", help="host name under which others reach it, such as a proxy's"
    )
    parser.add_argument(
        "--read-only", action="store_true", help="refuse changes of the classes"
    )


def _export(parser: Any) -> None:
    _classifier(parser)
    _to(parser, "DIR", "the folder to write")
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=("stablehlo", "onnx"),
        default=["stablehlo"],
        help="default: stablehlo",
    )


def _info(parser: Any) -> None:
    parser.add_argument(
        "path", type=Path, help="a model, a classifier, a feature bank or a workdir"
    )
    _table(parser)


def _prepare(parser: Any) -> None:
    parser.add_argument("name", help="such as cifar100, miniimagenet or folder")
    _to(parser, "DIR", "data directory")
    parser.add_argument(
        "--source",
        type=Path,
        metavar="DIR",
        help="TFDS data directory, or the folder of images; default: that of --to",
    )
    parser.add_argument(
        "--lists",
        type=Path,
        metavar="DIR",
        help="lists of the classes or images of each part, train.txt, val.txt and "
        "test.txt (or .json or .csv), for miniimagenet, tieredimagenet, cifar_fs, "
        "fc100, cub_fewshot and folder",
    )
    parser.add_argument(
        "--side",
        type=int,
        help="side of photographs in pixels; default: 84 for few-shot benchmarks, 256 "
        "for others",
    )
    parser.add_argument(
        "--exclude", type=Path, metavar="FILE", help="list of photographs to leave out"
    )


def _folder(parser: Any, text: str) -> None:
    """Add a folder of photographs, the model that embeds them, and its threads."""
    parser.add_argument("folder", type=Path, help=text)
    parser.add_argument("--model", default="efficientnet_lite0", help=_WEIGHTS)
    parser.add_argument(
        "--workers", type=int, default=2, help="threads that decode; default: 2"
    )


def _classifier(parser: Any) -> None:
    parser.add_argument("model", type=Path, help="a classifier that `fit` wrote")


def _to(parser: Any, metavar: str, text: str) -> None:
    parser.add_argument("--to", type=Path, required=True, metavar=metavar, help=text)


def _table(parser: Any) -> None:
    parser.add_argument(
        "--json",
        action="store_true",
        dest="as_json",
        help="print JSON in place of a table",
    )


# The description of each command, and the function that adds its arguments.
_COMMANDS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "fit": ("Fit a classifier to a folder of photographs", _fit),
    "predict": ("Classify photographs with a fitted classifier", _predict),
    "serve": ("Serve a classifier over HTTP, with a page for the browser", _serve),
    "export": ("Write a classifier as StableHLO or ONNX", _export),
    "info": ("Say what a model, classifier, feature bank or workdir is", _info),
    "prepare": ("Write a data set as an array cache, which loads fast", _prepare),
    "embed": ("Write the embeddings of a folder of images to a feature bank", _embed),
    "nets": ("List the networks and the weights at hand", _nets),
}
