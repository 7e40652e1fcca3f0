"""Bytes between processes: those on paper are those that two processes hand to collective operations."""

import pytest
from forked import run_forked

import network
from _collectives import SHAPE
from network import Shapes, counted, sent, shapes_of


@pytest.mark.parametrize(("method", "engine"), [("lora", "fsdp2"), ("full", "ddp")])
def test_the_bytes_on_paper_are_those_of_two_processes(method, engine, monkeypatch):
    def started(words, env, **_):
        script = next(i for i, word in enumerate(words) if word.endswith("_collectives.py"))
        return run_forked(
            words[script:], processes=2, **{n: env[n] for n in env if n.startswith(("ACCELERATE", "OMP"))}
        )

    monkeypatch.setattr(network.subprocess, "run", started)  # as torchrun would start it
    found, shapes = counted(method, engine), shapes_of(SHAPE, "gpt2-nano", method, half=False)
    for kind, size in shapes.update(engine).items():
        assert found["update"][kind] == pytest.approx(size, rel=1e-3), kind  # shares are padded to equal sizes
    assert found["evaluation"]["all-gather"] == pytest.approx(shapes.evaluation(engine), rel=1e-3)
    assert not any(found["checkpoint"].values()), "each process writes what it holds"


def test_a_ring_sends_all_but_one_share():
    """A reduce-scatter of 8 bytes on 4 GPUs: three times two bytes."""
    assert sent(Shapes(0, 0, 8).update("ddp"), 4) == 2 * 6
    assert sent(Shapes(10, 4, 0).update("fsdp2"), 2) == (2 * 10 + 4) / 2
    assert sent(Shapes(10, 4, 8).update("fsdp2"), 1) == 0
