"""Flags for learning from preferences. Nothing heavy is imported."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tasks import Columns, Preferences, Ratings, Unpaired, find_or_own, preference_forms, rating_forms
from training.flags.common import MethodArgs, ModelArgs
from training.flags.compute import ComputeArgs
from training.flags.fields import AsPublished, Rare
from training.flags.sharding import launch_problems
from training.flags.task import named_columns, twice_or_nothing
from training.storage.run_folder import unwritable

# The default epochs for preferences have no floor of updates, since more did harm: training on 101 bundled pairs (DPO,
# LoRA, seed 0) gave a loss on 12 test pairs of 0.42 after 39 updates, and of 0.90 at the best validation loss of 208.
FEWEST_UPDATES = 1


@dataclass(frozen=True)
class PairArgs:
    """Columns and prompt"""

    prompt_column: str | None = None
    """column of the prompt; None: one with a usual name. It may be missing where both answers begin with the prompt
    (docs/chat.md)"""
    chosen_column: str | None = None
    """column of the answer that is preferred; None: chosen"""
    rejected_column: str | None = None
    """column of the other answer; None: rejected"""
    response_header: AsPublished[bool] = True
    """end the prompt with '### Response:'; off: both answers begin with it (as the report's authors had it)"""

    def task(self, dataset: str | None, data: Path | None) -> Preferences:
        """Returns the dataset's task, or that of `data`, with the columns that the flags name."""
        forms = preference_forms(self.prompt_column, self.chosen_column, self.rejected_column)
        task = find_or_own(dataset, data, Preferences, forms)
        if task.columns is forms:
            return replace(task, usual_columns=True)
        return replace(task, columns=tuple(self._columns(columns) for columns in task.columns))

    def _columns(self, known: Columns) -> Columns:
        prompt, rejected, *about = known.inputs
        inputs = (self.prompt_column or prompt, self.rejected_column or rejected, *about)
        return known._replace(inputs=inputs, target=self.chosen_column or known.target)

    def problems(self) -> list[str]:
        named = [n for n in (self.prompt_column, self.chosen_column, self.rejected_column) if n is not None]
        return twice_or_nothing("--prompt-column, --chosen-column and --rejected-column", named)


@dataclass(frozen=True)
class RatingArgs:
    """Columns and prompt"""

    prompt_column: str | None = None
    """column of the prompt. None: one with a usual name; it may hold conversations (docs/chat.md)"""
    input_column: Rare[str | None] = None
    """column of the prompt's input. None: input, context or passage, if there is one; '': none"""
    response_column: str | None = None
    """column of the answer. None: one with a usual name, such as completion, response, output or answer"""
    label_column: str | None = None
    """column that says whether an answer is good. Its cells are true or false, 1 or 0 or -1, good or bad, thumbs up or
    down; None: one with a usual name, such as label, good, thumbs or kto_tag"""
    response_header: AsPublished[bool] = True
    """end the prompt with '### Response:'; off: every answer begins with it (as the report's authors had it)"""

    @property
    def _named(self) -> list[str]:
        every = (self.prompt_column, self.input_column or None, self.response_column, self.label_column)
        return [name for name in every if name is not None]

    def task(self, dataset: str | None, data: Path | None) -> Ratings | Unpaired:
        """Returns the dataset's task, possibly of pairs, or that of `data`, with the columns that the flags name."""
        forms = rating_forms(self.prompt_column, self.response_column, self.label_column)
        task = find_or_own(dataset, data, Ratings, forms, Preferences)
        if isinstance(task, Preferences):
            if self._named:
                raise ValueError(f"--dataset {dataset}: is read as pairs with columns of its own; name no columns")
            return Unpaired(**vars(task))
        assert isinstance(task, Ratings), "find_or_own gives one of these two"
        columns = (named_columns(known, self)._replace(mark=self.label_column or known.mark) for known in task.columns)
        return replace(task, columns=tuple(columns), usual_columns=True, about=self.input_column is None)

    def problems(self) -> list[str]:
        return twice_or_nothing("--prompt-column, --input-column, --response-column and --label-column", self._named)


@dataclass(frozen=True)
class ReferenceArgs:
    """Learning from preferences"""

    start_from: Path | None = None
    """a finished run of finetune_ift or of this script, or the folder of an adapter. An adapter is ours or PEFT's,
    trained on --model, or where that is not given the base; training goes on from there, and that model is the
    reference; None: from --model itself"""
    beta: float = 0.1
    """how strongly the model is held to the reference"""
    reference: Rare[Literal["adapter-off", "cached"] | None] = None
    """adapter-off: a pass without adapters before each update; cached: log-probabilities computed once and kept in
    --cache-dir, a file for each set of texts and base; None: adapter-off where untrained adapters change nothing, else
    cached (--lora-init loftq: with the untrained adapters)"""

    def problems(self) -> list[str]:
        found = launch_problems(shardable=False)
        if not 0 < self.beta < math.inf:
            found.append(f"--beta {self.beta}: must be above 0 and finite")
        if self.start_from is not None and not self.start_from.is_dir():
            found.append(f"--start-from {self.start_from}: no such folder")
        return found

    def problems_given(self, method: MethodArgs, model: ModelArgs, compute: ComputeArgs) -> list[str]:
        found = []
        found += unwritable("--cache-dir", compute.cache_dir) if self.caches(method) else []
        if method.method == "head" and not model.untie_head:
            found.append("--method head: the LM head is the token embedding; add --untie-head to train it apart")
        if self.reference == "adapter-off" and not method.trains_adapters_alone:
            why = "trains more than adapters" if method.adapts else "has no adapters to switch off"
            found.append(
                f"--reference adapter-off: --method {method.method}{' --train-embedding' * method.adapts} {why}; use "
                "--reference cached, or leave it out"
            )
        if self.reference == "adapter-off" and not method.starts_at_frozen:
            found.append(
                f"--reference adapter-off: training starts with the adapters of --lora-init {method.lora_init}, not "
                "without; use --reference cached, or leave it out"
            )
        if self.start_from is not None and model.base_bits is not None:
            found.append(
                f"--start-from {self.start_from}: is merged into the weights, which --base-bits {model.base_bits} does "
                "not allow; merge it with scripts/merge_lora.py and give the folder as --model"
            )
        return found

    def caches(self, method: MethodArgs) -> bool:
        """Returns whether the reference's log-probabilities are computed once, instead of before each update."""
        if self.reference is None:
            return not (method.trains_adapters_alone and method.starts_at_frozen)
        return self.reference == "cached"


@dataclass(frozen=True)
class PreferenceArgs(ReferenceArgs):
    """Learning from preferences"""

    dpo_loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """sigmoid: DPO's own; ipo: a squared distance, which does not widen margins without end. It aims at a margin of
    1/(2 beta) nats a token"""
    label_smoothing: Rare[float] = 0.0
    """probability that a preference is the wrong way round, 0 to below 0.5; sigmoid only"""

    def problems(self) -> list[str]:
        found = super().problems()
        if not 0 <= self.label_smoothing < 0.5:
            found.append(f"--label-smoothing {self.label_smoothing}: must be at least 0 and below 0.5")
        if self.label_smoothing and self.dpo_loss == "ipo":
            found.append(f"--label-smoothing {self.label_smoothing}: --dpo-loss ipo has none; leave it out")
        return found


@dataclass(frozen=True)
class KtoArgs(ReferenceArgs):
    """Learning from rated answers"""

    desirable_weight: float = 1.0
    """weight of the loss of good answers. Raise the weight of the rarer kind"""
    undesirable_weight: float = 1.0
    """weight of the loss of bad answers"""

    def problems(self) -> list[str]:
        weights = {"desirable": self.desirable_weight, "undesirable": self.undesirable_weight}
        wrong = [
            f"--{name}-weight {weight}: must be above 0 and finite"
            for name, weight in weights.items()
            if not 0 < weight < math.inf
        ]
        return super().problems() + wrong
