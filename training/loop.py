"""Everything that a training script imports once its flags are checked; the import takes seconds."""

from accelerate import Accelerator
from torch import Tensor

from evidence.intervals import shown
from gpt2_scratch.generate import Sampling
from gpt2_scratch.model import LanguageModel, initialise
from gpt2_scratch.precision import DTYPES
from gpt2_scratch.pretrained import load_weights, round_weights, save_pretrained
from gpt2_scratch.weights import weights_hash
from training.data.batches import (
    Batch,
    Plan,
    collate,
    encode_all_instructions,
    encode_all_labelled,
    with_response_labelled,
)
from training.data.corpus import Packing, encode_corpus, upto
from training.data.examples import encode_splits
from training.data.pairs import Pair, PairBatch, RatedPair, collate_pairs, collate_rated, encode_pairs, encode_rated
from training.evaluation.forgetting import forgetting, losses_at_start
from training.evaluation.inference import (
    answer,
    classify,
    generation_lines,
    loss_lines,
    prediction_lines,
    prompts_of,
    score_targets,
    score_texts,
)
from training.evaluation.metrics import (
    Row,
    accuracy,
    classification_metrics,
    mean_loss,
    perplexities,
    shown_metrics,
    text_loss,
    without_probabilities,
)
from training.evaluation.preference import (
    mean_pair_loss,
    mean_rated_loss,
    pair_lines,
    pair_metrics,
    rated_lines,
    rated_metrics,
    references,
)
from training.evaluation.reference import (
    pair_loss_as_forecast,
    rated_loss_as_forecast,
    reference_point,
    referenced,
    score_pairs,
    with_references,
)
from training.forecast import print_forecast, resolve_micro_batch, workload_of
from training.model.frozen_activations import cached
from training.model.heads import head_notes, trained_rows
from training.model.methods import apply_compute, apply_method, build_classifier, build_language_model
from training.model.start import Learnt, find_start, start_model
from training.run.launch import start
from training.run.plots import plot_curves
from training.run.printed import print_corpus, print_facts
from training.run.record import resolve_update
from training.run.run import Run, identity_of, open_finetuning
from training.step.losses import class_loss, outputs_of, pair_loss, rated_loss, token_loss
from training.step.optimizers import build_optimizer, muon_with_adamw
from training.step.processes import from_main
from training.step.seeds import generator
from training.step.sharding import prepare
from training.step.short_softmax import ShortSoftmax
from training.step.update import Schedule, accumulate, apply_update
from training.storage.files import replace_folder
