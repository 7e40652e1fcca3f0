"""What the pictures of a study show: colours, limits, labels inside, a table of what was stopped."""

import re

import pytest
from matplotlib import colors
from scripted import Engine, studied
from test_answers import asked, many, near  # noqa: F401

from studies import page

LONG = ["full", "lora", "full-blocks", "head", "lora-embedding", "dora", "pissa", "olora", "lora-fa", "bitfit"]


def luminance(colour):
    """WCAG 2.2's relative luminance."""
    channels = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colors.to_rgb(colour))
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True))


def test_arms_have_colours_of_their_own_that_stand_out_from_both_pages():
    arms = [f"lora r{rank}" for rank in (1, 2, 4, 8, 16, 32)] + [arm for arm in LONG if arm != "lora"]
    painted = page.colours([*arms, "lora-lm-head r16"])
    assert len({*painted.values()}) == len(painted)
    for colour in [*painted.values(), *page.colours(["lora r4"]).values()]:
        assert 1.05 / (luminance(colour) + 0.05) >= 3
        assert (luminance(colour) + 0.05) / (luminance("#16181c") + 0.05) >= 3


@pytest.fixture
def panels(monkeypatch):
    """The panels that a page draws, by the words below them, while they can still be asked."""
    found, kept = {}, page.Panel.svg

    def svg(self, caption):
        self.figure.canvas.draw()
        names = [t for t in self.axes.get_yticklabels() if not t.get_text().lstrip("−").replace(".", "").isdecimal()]
        texts = [t for t in (self.axes.xaxis.label, self.axes.yaxis.label, *names) if t.get_text()]
        room = self.figure.bbox.padded(1)
        corners = {t.get_text(): t.get_window_extent().corners() for t in texts}
        outside = [text for text, four in corners.items() if not all(room.contains(*corner) for corner in four)]
        found[caption.split(",")[0]] = (outside, self.axes.get_xlim(), self.axes.lines)
        return kept(self, caption)

    monkeypatch.setattr(page.Panel, "svg", svg)
    return found


@pytest.mark.parametrize("general", [0.0, -40.0])
def test_labels_and_points_lie_inside_the_pictures(monkeypatch, asked, panels, tmp_path, general):  # noqa: F811
    engine = Engine(lambda arm, *cell: near(arm, *cell) - 0.3 * ("embedding" in arm), general=general)
    words = ["--ranks", 16, 4, "--arms", "full", "lora", "lora-embedding"]
    answer = studied(monkeypatch, engine, tmp_path / "s", *asked, *words, page=True)
    assert "use lora-embedding r16 at lr" in answer and len(panels) == 6
    for outside, (low, high), lines in panels.values():
        assert outside == []
        assert all(low <= x <= high for line in lines for x in line.get_xdata() if len(line.get_xdata()) == 1)


def test_every_run_has_its_command_the_sizes_and_pilots_too(monkeypatch, asked, tmp_path):  # noqa: F811
    engine, words = Engine(near), [*asked[:-2], "--arms", "full", "lora", "--train-sizes", 20]
    studied(monkeypatch, engine, tmp_path / "s", *words, page=True)
    html = (tmp_path / "s" / "study.html").read_text()
    said = set(re.findall(r"--max-steps (\d+) .*?--train-examples (\d+) --seed (\d)", html))
    made = [run.split("/") for run in engine.made if "timing" not in run]
    made = {(run[-4].split("-")[2], run[-4].split("-")[0], run[-1].split("-")[1]) for run in made}
    assert made <= said and len({size for _, size, _ in made}) == 2
