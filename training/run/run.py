"""The record of one run, which opens it, decides when things are due, and finishes it.

It never runs forward, backward or a step: those stand in the loop of each script.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from gpt2_scratch.model import Model
from gpt2_scratch.tokenizer import Tokenizer
from tasks import Splits
from training.data.batches import Plan
from training.data.examples import Data
from training.data.trained_on import write_trained_on
from training.flags.config_file import write_config
from training.flags.fields import resolved
from training.flags.finetuning import FineTuneArgs
from training.flags.sharding import launched_sharded
from training.flags.update import UpdateArgs
from training.model.facts import Facts, base_facts
from training.model.methods import parameter_counts
from training.model.saved import Best
from training.run.checkpoint import load_checkpoint, save_checkpoint
from training.run.plots import plot_curves, plot_forgetting
from training.run.printed import outcome_notes, print_outcome
from training.run.progress import ProgressLine
from training.run.publish import publish_run
from training.run.record import Intervals, Record, What
from training.run.results import Results, environment, peak_memory_mib, write_results
from training.run.trackers import close_trackers, log_values, open_trackers
from training.step.processes import check_same, check_seen, part
from training.step.sharding import gather, is_sharded
from training.step.update import diverged
from training.storage.files import alone, write_lines
from training.storage.run_folder import CONFIG, GENERATIONS, prepare_folder


class Due(Protocol):
    """Decides when things are due, in steps (record.Intervals) or in shares of a budget (scripts/pretrain.py)."""

    unit: str

    def advance(self, record: Record) -> None: ...
    def over(self, record: Record) -> bool: ...
    def is_time_for(self, what: What, record: Record) -> bool: ...
    def progress(self, record: Record) -> int: ...


@dataclass
class Run:
    """A run of training. A resumed run reads its checkpoint, and raises the errors of `load_checkpoint`."""

    accelerator: Accelerator
    folder: Path
    resuming: bool
    model: nn.Module
    optimizer: AcceleratedOptimizer
    due: Due
    per_epoch: int  # steps per epoch
    total: int  # what the progress line counts up to
    flags: dict[str, Any]  # resolved
    identity: dict[str, str]  # must be the same in a checkpoint and on all processes
    described: dict[str, Any]  # fields of Results known before the training
    record: Record = field(default_factory=Record)
    before: Any = None  # what was measured before the training
    held: ExitStack = field(default_factory=ExitStack, repr=False)  # keeps other runs out of the folder

    def __post_init__(self) -> None:
        check_same(self.accelerator, self.identity)
        if self.resuming:
            load_checkpoint(self)
        self.due.advance(self.record)

    @property
    def step(self) -> int:
        return self.record.step

    def begin(self, measure: Callable[[], Any] = lambda: None) -> Any:
        """Makes the folder and opens trackers; returns what `measure` finds, or found before the run was resumed."""
        if self.accelerator.is_main_process:
            self.held.enter_context(alone(self.folder, "--output-dir", "another run"))
        trackers = self.accelerator, self.flags["report_to"], self.folder, self.step, self.flags
        open_trackers(*trackers, in_folder=False)  # before anything of an earlier run is cleared
        if self.before is None:  # it may also be left over from a run with --score validation
            self.before = measure()
        if self.accelerator.is_main_process:
            prepare_folder(self.folder, self.resuming)
            write_config(self.folder / CONFIG, self.flags)
        if is_sharded(self.model):
            check_seen(self.accelerator, self.folder)
        open_trackers(*trackers, in_folder=True)
        shown, unit = self.accelerator.is_main_process, self.due.unit
        self.line = ProgressLine(self.total, self.due.progress(self.record), shown, unit)
        return self.before

    def goes_on(self) -> bool:
        """Returns whether to make another step; the training time runs from here to `stepped`."""
        self.updated, self.point, self.clock = False, dict[str, float](), time.perf_counter()
        over = self.due.over(self.record)
        if over:
            self.line.close()
        return not over

    def _seconds(self) -> float:
        """Returns the seconds since the clock was last read."""
        before, self.clock = self.clock, time.perf_counter()
        return self.clock - before

    def stepped(
        self, norm: float | None, loss_sum: float | Tensor, count: int, lr: float, tokens: int, examples: int = 0
    ) -> None:
        """Counts a step. If `norm` is None, an fp16 overflow made it void: it is tried again, and nothing is due.

        `loss_sum` is read where a point is added to the curve, so that a GPU need not be waited for at every step."""
        if norm is None:
            self.record.add_overflow()
            return
        before = self.due.progress(self.record)
        self.record.add_step(loss_sum, count, examples, tokens, self._seconds())
        self.due.advance(self.record)
        self.line.show(self.due.progress(self.record) - before, lr, self.record.last)
        self.updated, self.point = True, {"lr": lr, "grad_norm": norm}

    @property
    def evaluates(self) -> bool:
        """Whether an evaluation on the validation examples is due."""
        return self.updated and self.due.is_time_for("evaluate", self.record)

    def evaluated(self, val_loss: float, **scores: float) -> None:
        """Records what was measured on the validation examples."""
        self.point |= {"val_loss": val_loss, **scores}

    def check_last(self) -> None:
        """Raises ValueError when the last validation loss is not finite: of the last weights no gradient was taken."""
        loss = self.record.last("val_loss")
        if loss is not None and not math.isfinite(loss):
            raise diverged("the validation loss", loss)

    def remember(self) -> None:
        """Adds a point to the curve and writes a checkpoint, each when it is due."""
        if not self.updated:
            return
        if self.due.is_time_for("log", self.record) or "val_loss" in self.point:
            point = self.record.add_point(self.per_epoch, **self.point)
            log_values(self.accelerator, {name: value for name, value in point.items() if name != "step"}, self.step)
        self.record.eval_seconds += self._seconds()
        if self.due.is_time_for("save", self.record):
            save_checkpoint(self)

    @property
    def peak_memory_mib(self) -> float:
        return max(self.record.peak_memory_mib, peak_memory_mib(self.accelerator))

    def closes(self, prepared: nn.Module) -> bool:
        """Parts the processes, after which `prepared` is trained no more.

        Returns whether this is the main process, which goes on to write the results.
        """
        gather(self.accelerator, self.model)
        part(self.accelerator, prepared)
        return self.accelerator.is_main_process

    def write(self, results: Results, answers: Sequence[Mapping[str, Any]] = ()) -> None:
        """Writes results.json, last of all files, and hands the metrics and some `answers` to the trackers."""
        if left := self.flags.get("score") == "validation":
            save_checkpoint(self, trained=True)
        write_results(self.folder, results, keep_checkpoint=left)
        close_trackers(self.accelerator, self.step, results, answers)
        self.held.close()

    def results(self, **measured: Any) -> Results:
        """Returns the content of results.json: what every run has, and what was `measured` in this one."""
        record = self.record
        return Results(
            script=Path(sys.argv[0]).stem,
            args=self.flags,
            environment=environment(self.accelerator),
            parameters=parameter_counts(self.model),
            best_step=record.best_step if record.best_step >= 0 else record.step,
            seconds={"train": record.train_seconds, "eval": record.eval_seconds},
            tokens_per_second=record.tokens / record.train_seconds,
            peak_memory_mib=self.peak_memory_mib,
            overflows=record.overflows,
            curve=record.curve,
            **self.described,
            **measured,
        )


@dataclass
class FineTuning(Run):
    """A run of fine-tuning, which keeps its best weights and leaves an adapter or a whole model."""

    best: Best = field(kw_only=True)
    splits: Splits[Any] = field(kw_only=True)

    def evaluated(self, val_loss: float, **scores: float) -> None:
        """Records what was measured, and keeps the weights if they are the best so far."""
        super().evaluated(val_loss, **scores)
        if self.record.improved(val_loss):
            self.best.save(self.accelerator)

    def load_best(self, keep: str) -> None:
        """Loads the weights to keep into the model: the best ones, or the last if `keep` says so."""
        if self.record.best_step < 0 or (keep == "last" and self.record.best_step != self.step):
            self.check_last()
            self.record.best_step = self.step
            self.best.save(self.accelerator)
        self.best.load(self.accelerator)

    def finish(
        self,
        rows: Mapping[str, list[dict[str, Any]]],
        shown: Sequence[str],
        task_metric: str,
        untrained: str = "",
        **measured: Any,
    ) -> None:
        """Writes all that the run leaves, results.json last, prints the outcome, and uploads it if asked to.

        `rows`: lines of JSON by file; `shown`: test metrics to print; `task_metric`: its name in the picture of
        forgetting; `untrained`: a remark on the metrics before the training; `measured`: fields of Results.
        """
        self.best.export()
        for name, lines in rows.items():
            write_lines(self.folder / name, lines)
        write_trained_on(self.folder, self.splits)
        results = self.results(**measured)
        plot_curves(self.folder / "curves.png", results.curve, self.folder.name)
        plot_forgetting(self.folder / "forgetting.png", results.forgetting, self.folder.name, task_metric)
        results = replace(results, notes=outcome_notes(results))
        self.write(results, rows.get(GENERATIONS, ()))
        print_outcome(self.folder, results, shown, untrained)
        if self.flags["score"] != "validation":  # of which --resume --score all is the end
            publish_run(self.folder, self.flags["push_to_hub"])


def identity_of(accelerator: Accelerator, data: str, base: str, tokenizer: Tokenizer) -> dict[str, str]:
    """Returns what must be the same in a checkpoint: hashes of data and base, precision, and the number of processes,
    unless they share the weights, which any number of them can take over."""
    found = {"data": data, "base": base}
    found |= {"sharding": "fsdp2"} if launched_sharded() else {"processes": str(accelerator.num_processes)}
    found["precision"] = accelerator.mixed_precision
    return found | ({"tokenizer": tokenizer.sha256} if tokenizer.sha256 else {})


def open_finetuning(
    accelerator: Accelerator,
    folder: Path,
    resuming: bool,
    args: FineTuneArgs,
    update: UpdateArgs,
    data: Data[Any],
    model: Model,
    optimizer: AcceleratedOptimizer,
    due: Intervals,
    plan: Plan,
    kept: Callable[..., Best] = Best,
) -> FineTuning:
    """Opens a run of fine-tuning, from its checkpoint if it is resumed.

    `update` has its defaults filled in; `kept` makes the object that keeps the best weights.
    """
    flags, labels, tokenizer = resolved(args) | resolved(update), data.facts.labels, data.inputs.tokenizer
    base = base_facts(args.model.model, data.inputs.model_folder, tokenizer)
    facts = Facts(flags, base, labels, tokenizer.pad if labels else None)
    best = kept(folder, model, args.method.method, facts, tokenizer)
    more = {"general text": data.general.sha256} | ({"labels": repr(tuple(labels))} if labels else {})
    identity = identity_of(accelerator, data.facts.sha256, best.frozen, tokenizer) | more
    described = {"model": base.entry(), "data": data.facts, "frozen_activations": data.cache}
    described["micro_batch"] = {"asked": args.update.micro_batch_size, "used": update.micro_batch_size}
    setting = accelerator, folder, resuming, model, optimizer, due, plan.per_epoch, plan.examples_in(due.steps)
    return FineTuning(*setting, flags, identity, described, best=best, splits=data.inputs.splits)
