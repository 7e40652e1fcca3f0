"""Gradient times input against a closed form, autograd by hand and finite differences."""

import pytest
import torch
from torch import nn

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier, Hidden
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import adapters
from training.evaluation.attribution import attribute, log_odds, pieces
from training.flags.method import MethodArgs
from training.model.methods import apply_method

TOKENS = [464, 3807, 373, 6635, 3807, 13]
CLASSES = 3


class Bag(nn.Module):
    """Class logits that are linear in the sum of the token embeddings."""

    def __init__(self, classes):
        super().__init__()
        self.transformer = nn.Module()
        self.transformer.wte = nn.Embedding(50257, 4)
        self.transformer.first_blocks = lambda tokens, layout, blocks: Hidden(
            self.transformer.wte(tokens) + 0.5, blocks
        )
        self.score = nn.Linear(4, classes)

    def forward(self, tokens, lengths, hidden):
        return self.score(hidden.states.sum(0, keepdim=True))


@pytest.fixture(scope="module")
def classifier():
    """In double precision, with LoRA adapters that do something and a head large enough to tell classes apart."""
    torch.manual_seed(0)
    model = Classifier(GPT2Config(width=16, blocks=2, heads=2, context=32), CLASSES)
    apply_method(model, MethodArgs(), seed=0)
    with torch.no_grad():
        for _, adapter in adapters(model):
            adapter.low_rank.B.normal_(0, 0.3)
        model.score.weight.normal_(0, 1)
    return model.double().eval()


def hooked(model, tokens, change):
    """Log-odds of each class, with `change` applied to the token embeddings, by nothing but the model's forward."""
    handle = model.transformer.wte.register_forward_hook(lambda module, inputs, output: change(output))
    try:
        probabilities = model(torch.tensor(tokens), torch.tensor([len(tokens)]))[0].softmax(0)
    finally:
        handle.remove()
    return (probabilities / (1 - probabilities)).log()


def test_of_two_linear_classes_each_weight_is_exactly_what_the_token_adds_to_the_log_odds():
    torch.manual_seed(1)
    model = Bag(2).double().eval()
    found = attribute(model, TOKENS, 2)
    rows = model.score.weight
    direction = rows[found.explained] - rows[1 - found.explained]  # (C,)
    expected = model.transformer.wte(torch.tensor(TOKENS)) @ direction
    assert torch.allclose(torch.tensor(found.weights, dtype=torch.double), expected, atol=1e-12)


def test_weights_are_those_of_autograd_by_hand(classifier):
    embeddings = []

    def keep(output):
        embeddings.append(output.detach().requires_grad_())
        return embeddings[0]

    odds = hooked(classifier, TOKENS, keep)
    (gradient,) = torch.autograd.grad(odds.max(), embeddings[0])
    expected = (gradient * embeddings[0]).sum(1)
    found = torch.tensor(attribute(classifier, TOKENS, CLASSES).weights, dtype=torch.double)
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert expected.abs().max() > 0.01


def test_a_weight_is_the_slope_of_the_log_odds_as_the_token_fades(classifier):
    found, step = attribute(classifier, TOKENS, CLASSES), 1e-5
    for place, weight in enumerate(found.weights):

        def scaled(by, place=place):
            factor = torch.ones(len(TOKENS), 1, dtype=torch.double)
            factor[place] = by
            return lambda output: output * factor

        with torch.no_grad():
            up, down = (hooked(classifier, TOKENS, scaled(1 + s))[found.explained] for s in (step, -step))
        assert float(up - down) / (2 * step) == pytest.approx(weight, rel=1e-6, abs=1e-9)


def test_probabilities_and_class_are_those_of_the_model_and_nothing_is_left_behind(classifier):
    found = attribute(classifier, TOKENS, CLASSES)
    expected = classifier(torch.tensor(TOKENS), torch.tensor([len(TOKENS)]))[0].softmax(0)
    assert found.probabilities == pytest.approx(expected.tolist(), abs=1e-6)
    assert found.explained == int(expected.argmax())
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_of_a_vocabulary_of_classes_only_those_with_a_name_are_explained(classifier):
    assert attribute(classifier, TOKENS, 1).explained == 0
    assert len(attribute(classifier, TOKENS, 2).probabilities) == 2


def test_log_odds_are_those_of_the_probability_and_do_not_know_a_shift_of_all_logits():
    logits = torch.tensor([0.3, -1.0, 2.0, 0.1], dtype=torch.double)
    for chosen, p in enumerate(logits.softmax(0)):
        assert log_odds(logits, chosen) == pytest.approx(float((p / (1 - p)).log()))
        assert log_odds(logits + 7, chosen) == pytest.approx(float(log_odds(logits, chosen)))


def test_pieces_are_whole_characters_with_the_weights_of_all_their_tokens():
    tokens = GPT2.encode("naïve 🦙 mail")
    weights = [float(i + 1) for i in range(len(tokens))]
    found = pieces(tokens, weights, GPT2)
    assert "".join(piece.text for piece in found) == "naïve 🦙 mail"
    assert sum(piece.weight for piece in found) == sum(weights)
    assert any("🦙" in piece.text for piece in found) and len(found) < len(tokens)


def test_half_a_character_at_the_end_of_a_cut_text_is_shown_as_such():
    tokens = GPT2.encode("🦙")[:-1]
    assert "".join(piece.text for piece in pieces(tokens, [1.0] * len(tokens), GPT2)) == GPT2.decode(tokens)
