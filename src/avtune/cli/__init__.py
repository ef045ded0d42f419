"""The command line: ``avtune COMMAND``. Errors are one line with the mend; ``--traceback`` shows the rest."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence

from avtune import __version__
from avtune.cli.memory import keep_freed_memory
from avtune.errors import AvtuneError

SETTING = re.compile(r"--\w+(\.\w+)+")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Words after ``avtune``; ``None``: those of this process.

    Returns:
        0 where all went well, 1 on an error that the user can mend, 130 when interrupted.
    """
    options, rest = _parser().parse_known_args(
        _join_settings(sys.argv[1:] if arguments is None else arguments)
    )
    if rest and not getattr(options, "takes_settings", False):
        print(
            f"avtune: {options.command} takes no {rest[0]}; see avtune {options.command} --help",
            file=sys.stderr,
        )
        return 2
    options.settings = rest
    keep_freed_memory()
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except AvtuneError as error:
        if options.traceback:
            raise
        print(f"avtune: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("avtune: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        # A full disk, a folder without permission: the system's own words say it best.
        if options.traceback:
            raise
        print(f"avtune: {error}", file=sys.stderr)
    return 1


def _join_settings(arguments: Sequence[str]) -> list[str]:
    """Write ``--data.root clips`` as ``--data.root=clips``, since the parser knows no setting and its value."""
    joined: list[str] = []
    for word in arguments:
        if joined and SETTING.fullmatch(joined[-1]) and not word.startswith("--"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avtune", description="Adapt frozen, image-pretrained vision transformers to video with sound."
    )
    parser.add_argument("--version", action="version", version=f"avtune {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_training(commands)
    _add_using(commands)
    _add_searching(commands)
    _add_looking(commands)
    return parser


Commands = argparse._SubParsersAction  # the only name that argparse gives this type


def _add_training(commands: Commands[argparse.ArgumentParser]) -> None:
    trying = _command(
        commands,
        "try",
        "generate clips, adapt the bundled backbone, look at the result (2 minutes, no network)",
    )
    trying.add_argument("--out", default="try", help="folder for clips, run and page (default: try)")
    trying.add_argument("--clips", type=int, default=None, help="clips to generate")
    trying.add_argument("--seed", type=int, default=0, help="seed of clips and training (default: 0)")
    trying.set_defaults(run=_call("trying", "try_avtune"))

    for name, module, help in (
        ("train", "training", "train a recipe, or on your own clips; the same command goes on after a stop"),
        ("pretrain", "pretraining", "pretrain a whole encoder on clips without labels; likewise"),
    ):
        train = _command(commands, name, help)
        train.add_argument("recipe", nargs="?", help="packaged recipe (see avtune list recipes) or YAML file")
        train.add_argument("--out", default=None, help="run folder (default: runs/<recipe>)")
        train.add_argument("--print_config", action="store_true", help="print all settings and stop")
        train.set_defaults(run=_call(module, name), takes_settings=True)

    compare = _command(
        commands,
        "compare",
        "several methods with several seeds under one ruler: a table, a plot, the numbers",
    )
    compare.add_argument(
        "comparison", nargs="?", help="packaged comparison (see avtune list comparisons) or YAML file"
    )
    compare.add_argument("--methods", nargs="+", default=None, metavar="METHOD",
                         help="instead of a comparison: METHOD, METHOD:PRESET or METHOD+TUNING")  # fmt: skip
    compare.add_argument("--seeds", type=int, nargs="+", default=None, help="instead of the comparison's")
    compare.add_argument("--reference", default=None, help="variant that the others are held against")
    compare.add_argument("--only", nargs="+", default=(), metavar="VARIANT", help="run these alone")
    compare.add_argument("--out", default=None, help="folder of the runs (default: runs/compare_<name>)")
    compare.set_defaults(run=_call("comparing", "compare"), takes_settings=True)

    evaluate = _command(commands, "eval", "score a run, with its floors")
    evaluate.add_argument("folder", metavar="RUN", help="run folder")
    evaluate.add_argument("--split", default="test", choices=("train", "validation", "test"))
    evaluate.add_argument(
        "--without", default=None, choices=("audio", "video"), help="take this stream away first"
    )
    evaluate.add_argument("--json", default=None, metavar="FILE", help="also write the numbers there")
    evaluate.set_defaults(run=_call("training", "evaluate"), takes_settings=True)

    report = _command(commands, "report", "write a run's page anew")
    report.add_argument("folder", metavar="RUN", help="run folder")
    report.add_argument("--clips", type=int, default=6, help="clips to show (default: 6)")
    report.set_defaults(run=_call("training", "report"), takes_settings=True)


def _add_using(commands: Commands[argparse.ArgumentParser]) -> None:
    predict = _command(commands, "predict", "a run's answer for videos: JSON and a page to look at")
    predict.add_argument("folder", metavar="RUN", help="run folder")
    predict.add_argument("files", nargs="+", metavar="VIDEO", help="videos, or folders of videos")
    predict.add_argument("--question", default=None, metavar="TEXT", help="for runs that answer questions")
    predict.add_argument("--out", default=None, help="folder for the results (default: RUN/predictions)")
    predict.set_defaults(run=_call("predicting", "predict"))

    check = _command(
        commands, "check", "walk a dataset on disk: what is missing, damaged, too short, silent or leaked"
    )
    check.add_argument("root", metavar="FOLDER", help="folder of the dataset")
    check.add_argument(
        "--name", default="folder", help="its layout (see avtune list datasets; default: folder)"
    )
    check.add_argument("--index", default=None, help="for csv: the table of file,label,start,end")
    check.add_argument("--split", default="official", help="official or clean, where a dataset has both")
    check.add_argument(
        "--manifest", default="manifest.json", metavar="FILE", help="where the list of files goes"
    )
    check.add_argument("--workers", type=int, default=2, help="processes that read files (default: 2)")
    check.set_defaults(run=_call("data", "check"))

    data = _command(commands, "data", "generate data, or pack it into shards")
    kinds = data.add_subparsers(dest="kind", required=True, metavar="KIND")
    bandstand = _command(kinds, "bandstand", "clips of instruments that are heard, seen, or both")
    bandstand.add_argument("--clips", type=int, required=True, help="how many")
    bandstand.add_argument(
        "--out", required=True, help="folder; rendering into it again goes on where it stopped"
    )
    bandstand.add_argument("--seed", type=int, default=0)
    bandstand.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    bandstand.set_defaults(run=_call("data", "bandstand"))

    shard = _command(
        kinds, "shard", "pack a dataset into WebDataset tar shards; the same command goes on after a stop"
    )
    shard.add_argument("recipe", nargs="?", help="with --prepared: of the model that will be trained")
    shard.add_argument("--out", required=True, help="folder of the shards")
    shard.add_argument(
        "--prepared",
        action="store_true",
        help="pack what the recipe's model takes of the clips, not the files",
    )
    shard.add_argument(
        "--gigabytes", type=float, default=1.0, help="most of a shard, 10^9 bytes (default: 1)"
    )
    shard.add_argument("--seed", type=int, default=0, help="of the order of the clips (default: 0)")
    shard.add_argument("--workers", type=int, default=2, help="processes that read files (default: 2)")
    shard.set_defaults(run=_call("data", "shard"), takes_settings=True)

    index = _command(kinds, "index", "find out once what lies where in tar shards that others wrote")
    index.add_argument("root", metavar="FOLDER", help="folder of .tar files")
    index.add_argument("--workers", type=int, default=2, help="processes that read (default: 2)")
    index.set_defaults(run=_call("data", "index"))


def _add_searching(commands: Commands[argparse.ArgumentParser]) -> None:
    index = _command(
        commands, "index", "make a folder of videos searchable; again: read what is new or changed"
    )
    index.add_argument("videos", metavar="VIDEOS", help="folder of videos and sounds, of any length")
    index.add_argument(
        "--run", dest="run_folder", required=True, help="run of the task retrieval, or of avtune pretrain"
    )
    index.add_argument("--out", default="index", metavar="INDEX", help="folder of the index (default: index)")
    index.set_defaults(run=_call("searching", "index"))

    search = _command(commands, "search", "find what sounds or looks like a video, sound or picture")
    search.add_argument("query", metavar="QUERY", help="a video, sound or picture")
    search.add_argument("--index", default="index", help="what avtune index wrote (default: index)")
    what = ("sound", "picture", "both")
    search.add_argument("--by", default=None, choices=what, help="what of the query (default: what it has)")
    search.add_argument(
        "--in", dest="within", default=None, choices=what, help="what of the files (default: the same)"
    )
    search.add_argument("--top", type=int, default=10, help="results (default: 10)")
    search.add_argument("--json", default=None, metavar="FILE", help="also write the results there")
    search.add_argument("--page", default=None, metavar="FILE", help="also write a page whose results play")
    search.add_argument(
        "--run", dest="run_folder", default=None, help="where the index's run is now, if it moved"
    )
    search.set_defaults(run=_call("searching", "search"))

    drawn = _command(commands, "map", "draw where sounds and pictures of an index lie (t-SNE)")
    drawn.add_argument("--index", default="index", help="what avtune index wrote (default: index)")
    drawn.add_argument("--out", default="map.png", help="the picture (default: map.png)")
    drawn.add_argument(
        "--labels", default=None, metavar="CSV", help="table of file,label (default: their folders)"
    )
    drawn.add_argument(
        "--categories", type=int, default=8, help="the most frequent ones, 1 to 8 (default: 8)"
    )
    drawn.add_argument(
        "--files", type=int, default=500, help="at most so many, drawn by the seed (default: 500)"
    )
    drawn.add_argument("--seed", type=int, default=0)
    drawn.set_defaults(run=_call("searching", "draw"))


def _add_looking(commands: Commands[argparse.ArgumentParser]) -> None:
    profile = _command(commands, "profile", "weights, multiply-adds, memory and time of a recipe, or of all")
    profile.add_argument(
        "recipe", nargs="?", help="packaged recipe or YAML file; with --all a pattern: 'ave/lavish*'"
    )
    profile.add_argument(
        "--all", action="store_true", help="every packaged recipe beside what its paper printed"
    )
    profile.add_argument("--labels", type=int, default=28, help="number of labels (default: 28, as AVE)")
    profile.add_argument(
        "--time", action="store_true", help="also time a forward and backward pass on this machine"
    )
    profile.add_argument("--json", default=None, metavar="FILE", help="also write the numbers there")
    profile.set_defaults(run=_call("looking", "profile"), takes_settings=True)

    kinds = (
        "methods",
        "tunings",
        "heads",
        "presets",
        "recipes",
        "comparisons",
        "datasets",
        "sounds",
        "towers",
    )
    listing = _command(commands, "list", f"what there is: {', '.join(kinds)}")
    listing.add_argument("what", choices=kinds)
    listing.add_argument("pattern", nargs="?", default="*", help="for towers: a pattern such as 'swinv2*'")
    listing.set_defaults(run=_call("looking", "show"))


def _command(commands: Commands[argparse.ArgumentParser], name: str, help: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
    command.add_argument("--traceback", action="store_true", help="show where an error comes from")
    return command


def _call(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        # Deferred, so that --help and a mistyped word do not wait for PyTorch.
        import importlib

        result: int = getattr(importlib.import_module(f"avtune.cli.{module}"), function)(options)
        return result

    return run
