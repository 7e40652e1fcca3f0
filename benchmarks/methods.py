"""What each method reaches, forgets and costs on gpt2-nano: mail and reviews, three seeds, as tables and a picture.

    DATA_DIR=data python benchmarks/methods.py

Every run is one of scripts/finetune_cls.py in a process of its own; finished ones are not repeated (and refused if they
had other flags), interrupted ones go on. `--datasets spamassassin` and `--datasets imdb` can run beside each other. The
reviews are not bundled.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from _flags import none_named
from _runs import finish_runs
from compare_runs import accuracy, compare, forgetting
from training.flags.cli import run
from training.flags.command_line import typed
from training.storage.files import replace_file

METHODS = ("lora", "dora", "pissa", "full", "bitfit", "head")
TITLES = {"spamassassin": "mail", "imdb": "reviews"}
FLAGS = {
    "spamassassin": "--max-length 256 --epochs 1 --eval-every 162",
    "imdb": "--max-length 256 --epochs 1 --eval-every 84 --train-examples 2000 --val-examples 500 --test-examples 1000",
}


@dataclass(frozen=True)
class Args:
    datasets: tuple[str, ...] = tuple(TITLES)
    """datasets of tasks/, one table each"""
    methods: tuple[str, ...] = METHODS
    """methods of finetune_cls; the others are compared with the first"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """seeds of initialisation and order; the split is the same for all"""
    model: str = "gpt2-nano"
    """base model"""
    flags: str | None = None
    """flags of every run; None: those chosen for mail and reviews, the script's defaults for another dataset"""
    folder: Path = Path("runs/methods")
    """where the runs are kept"""
    picture: Path | None = None
    """file for the picture; None: methods.png in the folder"""

    def problems(self) -> list[str]:
        found = none_named(self, "datasets", "methods", "seeds")
        if typed(shlex.split(self.flags or ""), "--forgetting-data") == "none":
            found.append("--flags --forgetting-data none: the picture shows forgetting; leave it out")
        return found


def main(args: Args) -> None:
    runs = [(dataset, method, seed) for dataset in args.datasets for seed in args.seeds for method in args.methods]
    finish_runs({place(args, *run): command(args, *run) for run in runs})
    for dataset in args.datasets:
        flags = f"--dataset {dataset} --model {args.model} {flags_of(args, dataset)}"
        print(f"\n{dataset}: `{flags} --method lora --seed 0`, and so on\n")
        compare([place(args, dataset, method, seed) for method in args.methods for seed in args.seeds])
    draw(args, args.picture or args.folder / "methods.png")


def flags_of(args: Args, dataset: str) -> str:
    return FLAGS.get(dataset, "") if args.flags is None else args.flags


def place(args: Args, dataset: str, method: str, seed: int) -> Path:
    return args.folder / f"{dataset}-{method}-seed{seed}"


def command(args: Args, dataset: str, method: str, seed: int) -> list[str]:
    words = ["scripts/finetune_cls.py", "--dataset", dataset, "--model", args.model, "--method", method]
    return [*words, *shlex.split(flags_of(args, dataset)), "--seed", str(seed)]


def draw(args: Args, path: Path) -> None:
    """Plots accuracy against forgetting, one panel per dataset, with both intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from evidence.pictures import METHODS as COLOURS
    from evidence.pictures import OTHER

    figure, panels = plt.subplots(1, len(args.datasets), figsize=(4.6 * len(args.datasets), 4), squeeze=False)
    for axes, dataset in zip(panels[0], args.datasets, strict=True):
        for i, method in enumerate(args.methods):
            runs = [place(args, dataset, method, seed) for seed in args.seeds]
            right, lost = accuracy(runs), forgetting(runs)
            if lost is None:
                raise ValueError(f"{dataset}, {method}: no forgetting was measured, which the picture shows")
            x, y = (((value - low,), (high - value,)) for value, low, high in (lost[:3], right[:3]))
            name, colour = COLOURS.get(method, (method, OTHER))
            marker = {"marker": "osD^vP"[i % 6], "color": colour, "label": name}
            axes.errorbar(lost.value, right.value, xerr=x, yerr=y, capsize=2, linestyle="none", **marker)
        axes.set_title(TITLES.get(dataset, dataset), fontsize=10)
        axes.set_xlabel("forgetting: rise of the loss on general text (nats)")
        axes.set_ylabel("test accuracy")
        axes.grid(alpha=0.25)
    panels[0][-1].legend(fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda new: figure.savefig(new, dpi=120, format="png"))
    print(f"\npicture {path}")


if __name__ == "__main__":
    run(main, Args, __doc__)
