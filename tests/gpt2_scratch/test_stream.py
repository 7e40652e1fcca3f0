"""Tokens one by one: the same as all at once."""

import pytest
import torch

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.generate import Sampling, generate, stream
from gpt2_scratch.model import LanguageModel, initialise
from gpt2_scratch.tokenizer import END_OF_TEXT, GPT2

PROMPTS = [[5, 17, 300], [7], [9, 9, 2, 50_000]]
SAMPLINGS = [Sampling(), Sampling(1.0, seed=3), Sampling(0.8, top_k=40), Sampling(1.2, top_p=0.9)]


@pytest.fixture(scope="module")
def model():
    model = LanguageModel(GPT2Config(width=16, blocks=2, heads=2, context=64))
    initialise(model, torch.Generator().manual_seed(0), std=0.3)
    return model.eval()


class Countdown(torch.nn.Module):
    """Continues a prompt by counting down from its last token to the end of text, and counts how often it is asked."""

    def __init__(self, like):
        super().__init__()
        self.transformer, self.config, self.asked = like.transformer, like.config, 0

    def next_logits(self, tokens, layout, cache):
        self.asked += 1
        last = tokens[layout.last]
        following = torch.where(last == 0, END_OF_TEXT, last - 1)
        return torch.nn.functional.one_hot(following, self.config.vocabulary).float()


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("prompt", PROMPTS, ids=str)
def test_a_stream_gives_the_tokens_that_generation_gives(model, prompt, sampling):
    (whole,) = generate(model, [prompt], GPT2.vocabulary, 20, sampling)
    assert list(stream(model, prompt, GPT2.vocabulary, 20, sampling)) == whole.tokens + [END_OF_TEXT] * whole.stopped
    assert len(whole.tokens) > 2


def test_a_stream_ends_with_the_end_of_text_when_the_model_ends_and_without_it_when_the_limit_does(model):
    assert list(stream(Countdown(model).eval(), [3], GPT2.vocabulary, 9)) == [2, 1, 0, END_OF_TEXT]
    assert list(stream(Countdown(model).eval(), [3], GPT2.vocabulary, 3)) == [2, 1, 0]


def test_a_stream_ends_at_the_end_of_the_context(model):
    assert len(list(stream(Countdown(model).eval(), [60] * 62, GPT2.vocabulary, 10))) == 2


def test_a_token_is_computed_when_it_is_asked_for_and_not_before(model):
    counting = Countdown(model).eval()
    tokens = stream(counting, [30], GPT2.vocabulary, 20)
    assert counting.asked == 0
    assert [next(tokens), next(tokens)] == [29, 28]
    assert counting.asked == 2


def test_streams_drawn_from_by_turns_are_each_what_they_are_alone(model):
    alone = [list(stream(model, prompt, GPT2.vocabulary, 8, Sampling(1.0))) for prompt in PROMPTS]
    streams = [stream(model, prompt, GPT2.vocabulary, 8, Sampling(1.0)) for prompt in PROMPTS]
    rounds = [[next(s, None) for s in streams] for _ in range(9)]
    by_turns = [[t for t in column if t is not None] for column in zip(*rounds, strict=True)]
    assert by_turns == alone


def test_between_two_tokens_gradients_are_as_the_caller_has_them(model):
    tokens = stream(model, [5], GPT2.vocabulary, 4)
    next(tokens)
    assert torch.is_grad_enabled()
    tokens.close()


@pytest.mark.parametrize("length", [0, 64])
def test_a_prompt_that_leaves_no_room_is_refused_before_the_first_token(model, length):
    with pytest.raises(ValueError, match=f"has {length} tokens"):
        stream(model, [1] * length, GPT2.vocabulary, 1)
