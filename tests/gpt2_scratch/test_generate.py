"""Generation against Hugging Face's, and independence of the batch."""

import collections

import pytest
import torch
import transformers

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.generate import Sampling, generate, pick
from gpt2_scratch.model import LanguageModel, initialise
from gpt2_scratch.pretrained import load_weights, without_storage
from gpt2_scratch.sources import load_config, resolve
from gpt2_scratch.tokenizer import END_OF_TEXT, GPT2, Vocabulary

TEXTS = ["The movie was", "I", "My fellow citizens, we have come to this place to", "Call me", "It was the worst film"]
SAMPLINGS = [Sampling(), Sampling(1.0), Sampling(0.8, top_k=40), Sampling(1.2, top_p=0.9), Sampling(0.7, 50, 0.8, 3)]


@pytest.fixture(scope="module")
def nano():
    folder = resolve("gpt2-nano")
    model = without_storage(LanguageModel, load_config(folder))
    load_weights(model, folder)
    return model.eval()


def test_greedy_text_equals_hugging_faces_token_for_token(nano):
    hf = transformers.GPT2LMHeadModel.from_pretrained(resolve("gpt2-nano"), dtype=torch.float32).eval()
    prompts = [GPT2.encode(text) for text in TEXTS]
    for prompt, ours in zip(prompts, generate(nano, prompts, GPT2.vocabulary, 20), strict=True):
        theirs = hf.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False, pad_token_id=END_OF_TEXT)
        assert ours.tokens == theirs[0, len(prompt) :].tolist()


@pytest.fixture(scope="module")
def small():
    """A random model of few tokens, prompts of different lengths, and its vocabulary."""
    model, generator = LanguageModel(GPT2Config(width=32, blocks=2, heads=2, vocabulary=300)), torch.Generator()
    initialise(model, generator.manual_seed(0), std=0.3)
    prompts = [torch.randint(299, (length,), generator=generator).tolist() for length in (3, 1, 11, 2, 6)]
    return model.eval(), prompts, Vocabulary(300, 299)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_a_batch_of_prompts_equals_one_at_a_time_in_any_order(small, sampling):
    model, prompts, vocabulary = small
    together = generate(model, prompts, vocabulary, 12, sampling)
    assert len({tuple(text.tokens) for text in together}) == 5
    assert together == [generate(model, [prompt], vocabulary, 12, sampling)[0] for prompt in prompts]
    assert together == generate(model, prompts[::-1], vocabulary, 12, sampling, rows=2)[::-1]


def test_the_seed_decides_a_sampled_text(small):
    first, same, other = (generate(*small, 20, Sampling(1.0, seed=seed)) for seed in (1, 1, 2))
    assert first == same
    assert first != other


class Scripted(torch.nn.Module):
    """A language model that continues a prompt by counting down from its last token to the end of text."""

    def __init__(self, like):
        super().__init__()
        self.transformer, self.config = like.transformer, like.config

    def next_logits(self, tokens, layout, cache):
        last = tokens[layout.last]
        following = torch.where(last == 0, END_OF_TEXT, last - 1)
        return torch.nn.functional.one_hot(following, self.config.vocabulary).float()


def test_a_text_stops_at_its_own_end_while_others_go_on(nano):
    shortest, longer, cut = generate(Scripted(nano), [[7, 0], [3], [9]], GPT2.vocabulary, 5)
    assert (shortest.tokens, shortest.stopped) == ([], True)
    assert (longer.tokens, longer.stopped) == ([2, 1, 0], True)
    assert (cut.tokens, cut.stopped) == ([8, 7, 6, 5, 4], False)


def test_generation_stops_at_the_end_of_the_context(nano):
    prompt = [1000] * (nano.config.context - 3)
    found, _ = generate(nano, [prompt, [5]], GPT2.vocabulary, 6)
    assert len(found.tokens) == 3 or found.stopped
    (cut,) = generate(Scripted(nano), [prompt], GPT2.vocabulary, 6)
    assert (cut.tokens, cut.stopped) == ([999, 998, 997], False)


@pytest.mark.parametrize("length", [0, 1024])
def test_a_prompt_that_leaves_no_room_is_refused(nano, length):
    with pytest.raises(ValueError, match="prompt 0"):
        generate(nano, [[1] * length], GPT2.vocabulary, 1)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(1.0), [0.5, 0.25, 0.15, 0.1]),
        (Sampling(1.0, top_k=2), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(1.0, top_p=0.7), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(1.0, top_p=0.5), [1, 0, 0, 0]),
        (Sampling(1.0, top_k=3, top_p=0.9), [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0]),
        (Sampling(0.5), [0.25 / 0.345, 0.0625 / 0.345, 0.0225 / 0.345, 0.01 / 0.345]),
        (Sampling(0.0), [1, 0, 0, 0]),
    ],
    ids=str,
)
def test_tokens_are_drawn_with_their_probabilities(sampling, expected):
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log().repeat(4000, 1)
    generators = [torch.Generator().manual_seed(i) for i in range(4000)]
    counts = collections.Counter(pick(logits, sampling, generators).tolist())
    for token, probability in enumerate(expected):
        assert abs(counts[token] / 4000 - probability) <= 4 * (probability * (1 - probability) / 4000) ** 0.5


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_sampling_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="--" + next(iter(wrong)).replace("_", "-")):
        Sampling(**wrong)


def test_generation_leaves_the_model_in_the_mode_it_was_in(nano):
    nano.train()
    generate(nano, [[5]], GPT2.vocabulary, 1)
    assert nano.training
    nano.eval()


def test_at_least_one_token_is_written(nano):
    with pytest.raises(ValueError, match="0 new tokens: at least one"):
        generate(nano, [[1, 2]], GPT2.vocabulary, 0)


@pytest.mark.parametrize("temperature", [1e-3, 1e-7, 1e-38, 1e-45])
def test_the_coldest_draw_is_the_largest_logit(temperature):
    logits = torch.tensor([[-30.0, -20.0, -25.0]])
    assert pick(logits, Sampling(temperature), [torch.Generator().manual_seed(0)]).item() == 1
