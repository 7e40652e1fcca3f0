"""What a person wrote in Markdown as HTML, and text that must not become markup."""

import pytest

from evidence.markdown import escaped, paragraphs


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("run `*.csv` and `*.tsv`", "run <code>*.csv</code> and <code>*.tsv</code>"),
        ("**as `a*b` does**", "<strong>as <code>a*b</code> does</strong>"),
        ("[`page`](page.md) *now*", '<a href="page.md"><code>page</code></a> <em>now</em>'),
        ("`[x](y)` < 3", "<code>[x](y)</code> &lt; 3"),
    ],
)
def test_nothing_is_markup_inside_code(text, html):
    assert paragraphs(text) == f"<p>{html}</p>"


def test_an_entity_in_a_text_stays_as_it_was_written():
    assert escaped("a &lt; b") == r"a \&lt; b"
