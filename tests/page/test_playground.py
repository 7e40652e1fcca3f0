"""The playground: its parts, its refusals, and the page itself in a real browser."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from helpers import ROOT, command, run_in_process

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.generate import Sampling, generate
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import adapters, set_strength
from page.html import card, coloured, listed
from page.models import Answerer, Reader, Written, heaviest, names_of, read, share_frozen, shown, side_by_side
from tasks import Classification, Instruction, find
from training.data.batches import encode_prompt
from training.evaluation.attribution import Piece
from training.flags.method import MethodArgs
from training.flags.task import TextArgs
from training.model.methods import apply_method

# Not imported yet, which takes seconds: every process of a test run reads this file.
pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason='the extra "playground" is not installed')
CONFIG = GPT2Config(width=16, blocks=2, heads=2, context=128)
BAIT = "<img src=x onerror=\"document.title='caught'\"><b>bold</b> ${1+1} {{value}} @children &amp;"
SAMPLED = Sampling(0.9, seed=2)


def language_model():
    model = LanguageModel(CONFIG)
    initialise(model, torch.Generator().manual_seed(0), std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def trio():
    """A base, another model in the place of the fully tuned one, and the base with adapters that do something."""
    base, full, adapted = (language_model() for _ in range(3))
    apply_method(adapted, MethodArgs(), seed=0)
    with torch.no_grad():
        full.transformer.wpe.weight.add_(0.5)
        for _, adapter in adapters(adapted):
            adapter.low_rank.B.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
    names = {"Base model": base, "Full": full, "LoRA": adapted.eval()}
    return [Answerer(name, name[0].lower(), model, GPT2) for name, model in names.items()]


def last(rounds):
    return list(rounds)[-1]


def ask(trio, strength=1.0, new_tokens=12, sampling=SAMPLED, instruction="Name a bird.", about=""):
    return side_by_side(trio, instruction, about, strength, new_tokens, sampling)


def test_every_answer_is_what_its_model_generates(trio):
    prompt = encode_prompt(GPT2, Instruction(0, "Name a bird.", "of prey"), CONFIG.context)
    for answerer, written in zip(trio, last(ask(trio, about=" of prey ")), strict=True):
        set_strength(answerer.model, 1.0)
        (expected,) = generate(answerer.model, [prompt], GPT2.vocabulary, 12, SAMPLED)
        assert written.text == GPT2.decode(expected.tokens)
        assert (written.tokens, written.state == "ended") == (len(expected.tokens), expected.stopped)


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=str)
def test_at_strength_0_the_adapter_answers_as_the_base_and_at_1_it_does_not(trio, sampling):
    base, _, none = last(ask(trio, 0.0, sampling=sampling))
    _, _, whole = last(ask(trio, 1.0, sampling=sampling))
    assert none == base
    assert whole != base


def test_a_model_that_was_trained_besides_its_adapters_answers_at_full_strength_whatever_the_slider(trio):
    besides = [*trio[:2], replace(trio[2], adapters_alone=False)]
    assert not besides[2].adapts and last(ask(besides, 0.0)) == last(ask(besides, 1.0)) == last(ask(trio, 1.0))


def test_answers_grow_together_a_token_at_a_time(trio):
    rounds = list(ask(trio))
    assert [w.tokens for w in rounds[0]] == [1, 1, 1]
    assert all(w.state == "writing" for w in rounds[0])
    assert [w.state for w in rounds[-1]] == ["full"] * 3
    assert len(rounds) == 12


def test_two_people_who_take_turns_do_not_change_each_others_strength(trio):
    alone = [list(ask(trio, strength)) for strength in (0.0, 1.5)]
    assert alone[0][-1] != alone[1][-1]
    both = list(zip(ask(trio, 0.0), ask(trio, 1.5), strict=True))
    assert [list(column) for column in zip(*both, strict=True)] == alone


def test_a_token_is_computed_only_by_who_holds_the_models_lock(trio):
    held = []
    answerer = trio[2]
    handle = answerer.model.lm_head.register_forward_hook(lambda *_: held.append(answerer.lock.locked()))
    try:
        last(ask(trio))
    finally:
        handle.remove()
    assert held == [True] * 12
    assert not answerer.lock.locked()


def test_matrices_that_are_the_bases_are_in_memory_once_and_change_no_answer(trio):
    base, adapted = language_model(), trio[2].model
    before = last(ask([trio[2]]))
    share_frozen(adapted, base)
    assert (
        adapted.transformer.h[0].attn.c_attn.linear.weight.data_ptr()
        == base.transformer.h[0].attn.c_attn.weight.data_ptr()
    )
    assert adapted.lm_head.weight.data_ptr() == base.transformer.wte.weight.data_ptr()
    assert last(ask([trio[2]])) == before


def test_a_prompt_too_long_for_the_answer_is_refused_with_the_numbers_and_not_cut(trio):
    with pytest.raises(ValueError, match=r"prompt has 1\d\d tokens and 12 .* room for 128"):
        ask(trio, about="a word " * 60)


@pytest.mark.parametrize("instruction", ["", " \n"])
def test_an_empty_instruction_is_refused(trio, instruction):
    with pytest.raises(ValueError, match="Write an instruction"):
        ask(trio, instruction=instruction)


def test_half_a_surrogate_in_what_is_typed_does_no_harm(trio):
    assert last(ask(trio, instruction="Name \ud800 a bird"))[0].tokens == 12


def test_a_header_that_the_model_writes_itself_is_not_shown_not_even_in_part():
    tokens = GPT2.encode("\n\n### Response:\nA wren. 🦙")
    texts = [shown(GPT2, tokens[:n]) for n in range(len(tokens) + 1)]
    assert texts[-1] == "A wren. 🦙"
    assert not any("#" in text or "\ufffd" in text for text in texts)


def reader(task=None, max_length=64, labels=("ham", "spam"), **text):
    torch.manual_seed(0)
    model = Classifier(CONFIG, len(labels)).eval()
    task = task or Classification("mine", ())
    return Reader("r", model, list(labels), task, TextArgs(**text), max_length, GPT2)


def test_what_a_classifier_reads_is_the_whole_text_or_says_that_it_is_cut():
    whole, cut = read(reader(), "Dear friend, a prize"), read(reader(max_length=2), "Dear friend, a prize")
    assert "".join(p.text for p in whole.pieces) == "Dear friend, a prize" and not whole.cut
    assert "".join(p.text for p in cut.pieces) == "Dear friend" and cut.cut
    assert sum(whole.attribution.probabilities) == pytest.approx(1)


def test_a_pair_of_sentences_is_read_in_the_form_it_was_trained_in():
    pairs = reader(find("nli_med", Classification), labels=("entailment", "contradiction", "neutral"))
    assert pairs.inputs == ("sentence1", "sentence2")
    text = "".join(p.text for p in read(pairs, "A man sleeps.", "He rests.").pieces)
    assert text == "\n\n### Premise:\nA man sleeps.\n\n### hypothesis:\nHe rests."


def test_folders_are_told_apart_by_as_many_names_as_that_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(names_of([Path("."), Path("full")]).values()) == [tmp_path.name, "full"]
    assert list(names_of([Path("a/lora"), Path("b/lora"), Path("c/full")]).values()) == ["a/lora", "b/lora", "c/full"]
    assert list(names_of([Path("x/a/lora"), Path("y/a/lora")]).values()) == ["x/a/lora", "y/a/lora"]
    assert names_of([]) == {}


def test_an_empty_text_is_refused():
    with pytest.raises(ValueError, match="Paste a text first"):
        read(reader(), "  ")


def test_the_heaviest_tokens_are_summed_by_their_text_and_parted_by_their_sign():
    found = [Piece("a", 1.0), Piece("b", -3.0), Piece("a", 0.5), Piece("c", 2.0), Piece("d", 0.0)]
    assert heaviest(found, 2) == ([("c", 1, 2.0), ("a", 2, 1.5)], [("b", 1, -3.0)])
    assert heaviest(found, 1)[0] == [("c", 1, 2.0)]


def test_no_text_of_a_person_a_model_or_a_label_becomes_markup():
    pieces = [Piece(BAIT, 1.0), Piece(BAIT, -1.0)]
    whole = card(0, BAIT, BAIT, Written(BAIT, 3, "full"), 0.5) + coloured(BAIT, pieces, True) + listed(BAIT, pieces)
    for sign in ("<img", "<b>", "${", "{{", "@children"):
        assert sign not in whole
    assert "&lt;img" in whole and "&amp;amp;" in whole


# --- what a click does ---


def page_answers(trio, turns, again, strength, seed=0):
    from page.layout import answers

    return answers(trio, turns, again, strength, "Name a bird.", "", 0.9, 12, seed)


def states(columns):
    return [re.search(r'data-state="(\w+)"', c)[1] if isinstance(c, str) else "kept" for c in columns]


def test_moving_the_slider_answers_anew_with_adapters_alone_as_long_as_the_rest_is_complete(trio):
    from page.layout import Turns

    turns = Turns()
    assert list(page_answers(trio, turns, True, 0.5)) == []  # nobody has asked yet
    assert states(last(page_answers(trio, turns, False, 1.0))) == ["full"] * 3
    moved = page_answers(trio, turns, True, 0.5)
    assert states(next(moved)) == ["kept", "kept", "writing"]  # and is not even done when it moves on:
    assert states(last(page_answers(trio, turns, True, 0.2))) == ["kept", "kept", "full"]
    assert states(last(page_answers(trio, turns, True, 0.2, seed=1))) == ["full"] * 3  # another question


def test_a_newer_request_ends_the_one_before(trio):
    from page.layout import Turns

    turns = Turns()
    older = page_answers(trio, turns, False, 1.0)
    next(older), next(older)
    newer = page_answers(trio, turns, False, 0.5)
    next(newer)
    assert list(older) == []
    assert states(last(newer)) == ["full"] * 3


def test_stop_leaves_what_is_written_and_the_next_request_is_a_new_one(trio):
    from page.layout import Turns

    turns = Turns()
    rounds = page_answers(trio, turns, False, 1.0)
    next(rounds), next(rounds)
    turns.stop()
    (rest,) = list(rounds)
    assert states(rest) == ["stopped"] * 3 and "2 tokens" in rest[0]
    assert states(last(page_answers(trio, turns, True, 0.5))) == ["full"] * 3  # the base had not finished


STRANGE = [(6, -1), (5, 10_000), (1, 9), (4, None), (5, "x"), (6, [])]  # (input, value)


@pytest.mark.parametrize(("place", "value"), STRANGE, ids=str)
def test_what_the_page_never_sends_is_refused_without_a_traceback_in_the_terminal(place, value, trio):
    import gradio

    from page.layout import build

    page, inputs = build(trio, []), [None, 1.0, "Name a bird.", "", 0.0, 12, 0]
    (asking, *_) = [fn for fn in page.fns.values() if len(fn.inputs) == len(inputs)]
    asyncio.run(page.preprocess_data(asking, inputs, None))
    inputs[place] = value
    with pytest.raises(gradio.Error) as raised:
        asyncio.run(page.preprocess_data(asking, inputs, None))
    assert not raised.value.print_exception


def test_a_classifier_is_asked_without_its_number_or_a_text_too():
    from page.layout import build

    page = build([], [reader()])
    (classify,) = [fn.fn for fn in page.fns.values() if len(fn.inputs) == 3]
    assert classify(None, "a prize", "") == classify(0.0, "a prize", None) == classify(0, "a prize", "")


# --- what a user can get wrong ---


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_model, question_file, mail_file):
    """(full, LoRA, classifier): finished runs; for a picture of real ones, the three folders in PLAYGROUND_RUNS."""
    if os.environ.get("PLAYGROUND_RUNS"):
        return tuple(Path(name).resolve() for name in os.environ["PLAYGROUND_RUNS"].split())
    folder = tmp_path_factory.mktemp("runs")
    common = ("--model", tiny_model, "--batch-size", 8, "--max-length", 128, "--eval-every", 100)
    asked = (
        "--data",
        question_file,
        "--prompt-column",
        "instruction",
        "--response-column",
        "response",
        "--new-tokens",
        0,
    )
    mails = ("--data", mail_file, "--text-column", "text", "--label-column", "label")
    made = [
        ("finetune_ift", *asked, "--method", "full", "--lr", 0.01, "--max-steps", 12, "--output-dir", folder / "full"),
        ("finetune_ift", *asked, "--lr", 0.05, "--max-steps", 12, "--output-dir", folder / "lora"),
        ("finetune_cls", *mails, "--lr", 0.02, "--max-steps", 40, "--output-dir", folder / "mail"),
    ]
    for script, *flags in made:
        done = run_in_process(script, *flags, *common)
        assert done.returncode == 0, done.stderr
    return folder / "full", folder / "lora", folder / "mail"


def refusal(*flags):
    done = run_in_process("playground", *flags)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_nothing_to_show_a_strange_host_and_port_are_refused():
    assert "--instructions, --classifiers or --model: give at least one" in refusal()
    message = refusal("--model", "gpt2-nano", "--port", 70000, "--host", "example.org")
    assert "--port 70000: must be 0 to 65535" in message and "--host example.org: must be an address" in message


def test_folders_that_are_no_fitting_run_are_refused_together(tmp_path, runs):
    full, lora, mail = runs
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / "results.json").write_text(
        '{"schema": 1, "script": "pretrain", "args": {}, "data": {"sha256": ""}, "model": {"sha256": ""}}'
    )
    message = refusal("--instructions", mail, tmp_path, tmp_path / "pretrained", "--classifiers", lora)
    assert f"--instructions {tmp_path}/pretrained: is not a run of fine-tuning" in message
    assert f"--instructions {mail}: is a classifier; give it to --classifiers" in message
    assert f"--instructions {tmp_path}: holds no finished run" in message
    assert f"--classifiers {lora}: classifies nothing; give it to --instructions" in message


def test_a_port_in_use_is_refused_and_so_is_an_address_of_another_machine(runs):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port}: cannot be served at" in refusal("--instructions", runs[1], "--port", port)
    assert "--host 192.0.2.1" in refusal("--instructions", runs[1], "--host", "192.0.2.1")


def test_a_run_of_another_base_is_refused(runs):
    message = refusal("--instructions", runs[0], "--model", "gpt2-nano", "--port", 0)
    assert "was trained on other weights than gpt2-nano" in message


# --- the page ---


GUARD = """
import socket

def recorded(act):
    def wrapper(*args, **named):
        address = args[1] if act.__name__ == 'connect' else args
        if isinstance(address, tuple) and str(address[0]) not in ('127.0.0.1', '::1', 'localhost', 'None', ''):
            open({log!r}, 'a').write(f'{{address}}\\n')
        return act(*args, **named)
    return wrapper

socket.getaddrinfo = recorded(socket.getaddrinfo)
connect = recorded(socket.socket.connect)
socket.socket.connect = lambda self, address: connect(self, address)
"""


@pytest.fixture(scope="module")
def reached(tmp_path_factory):
    """File to which the server writes whom, beyond this machine, it tried to reach; beside what makes it do so."""
    log = tmp_path_factory.mktemp("guard") / "reached.txt"
    (log.parent / "sitecustomize.py").write_text(GUARD.format(log=str(log)))
    log.write_text("")
    return log


# The page sends nothing anywhere and keeps no files, so that none of these matters.
OF_NO_USE = {"ALL_PROXY": "socks5://127.0.0.1:1", "https_proxy": "socks://127.0.0.1:1", "no_proxy": ""}
OF_NO_USE |= {"SSL_CERT_FILE": "/nowhere.pem", "GRADIO_TEMP_DIR": "/proc/nowhere"}


@pytest.fixture(scope="module")
def server(runs, reached):
    """(process, address) of the playground as a user starts it, on a free port."""
    full, lora, mail = runs
    words = command("playground", "--instructions", full, lora, "--classifiers", mail, "--port", 0)
    settings = os.environ | {"PYTHONPATH": f"{reached.parent}{os.pathsep}{ROOT}"} | OF_NO_USE
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings)
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:"), line + process.stderr.read()
    yield process, line.split()[0]
    process.kill()
    process.wait()


def test_the_record_of_whom_the_server_reaches_would_show_it(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(GUARD.format(log=str(tmp_path / "log")))
    code = "import socket; socket.getaddrinfo('192.0.2.1', 1); socket.create_server(('127.0.0.1', 0))"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(tmp_path)}, check=True)
    assert (tmp_path / "log").read_text() == "('192.0.2.1', 1)\n"


def fetch(address, host=None, data=None):
    """(status, headers, text)."""
    request = urllib.request.Request(address, data, headers={"Host": host} if host else {})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, ""


def test_the_page_answers_to_this_machines_names_alone_and_forbids_what_is_not_its_own(server):
    _, address = server
    port = address.rpartition(":")[2]
    assert fetch(address, f"rebound.example.org:{port}")[0] == 400
    assert fetch(address, f"localhost:{port}")[0] == 200
    status, headers, text = fetch(address)
    assert status == 200
    assert headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"'](?:https?:)?//", text)


def test_the_page_is_served_whatever_proxies_certificates_and_folder_the_environment_names(server):
    assert fetch(server[1])[0] == 200


def test_nothing_can_be_uploaded(server):
    assert fetch(f"{server[1]}/gradio_api/upload", data=b"a file")[0] == 404


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("there is no Chromium with a chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    only_loopback = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server", only_loopback):
        options.add_argument(flag)
    options.add_argument("--window-size=1280,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(driver)
    chrome = webdriver.Chrome(options, service)
    yield chrome
    chrome.quit()


class Page:
    """What a person does on the page, and what that person sees."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)
        self.find("#instruction textarea")

    def find(self, selector):
        return self.until(lambda: next((e for e in self.all(selector) if e.is_displayed()), None))

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def until(self, seen, seconds=60):
        """The first value of `seen` that counts as true."""
        end = time.monotonic() + seconds
        while not (value := seen()):
            assert time.monotonic() < end, self.browser.find_element("css selector", "body").text
            time.sleep(0.05)
        return value

    def type(self, selector, text):
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def click(self, selector):
        self.find(selector).click()

    def replies(self):
        return [e.get_property("textContent") for e in self.all(".reply .text")]

    def finished(self):
        """The answers, once none of them grows; None before."""
        done = self.all(".reply[data-state=ended], .reply[data-state=full]")
        return self.replies() if len(done) == len(self.all(".reply")) else None

    def drag_to_the_left(self, selector):
        from selenium.webdriver import ActionChains

        slider = self.find(selector)
        ActionChains(self.browser).drag_and_drop_by_offset(slider, -slider.size["width"], 0).perform()

    def picture(self, ending=""):
        if os.environ.get("SCREENSHOT"):
            path = Path(os.environ["SCREENSHOT"])
            self.browser.save_screenshot(str(path.with_stem(path.stem + ending)))

    def logged(self, kind):
        return self.browser.get_log(kind)


@pytest.fixture
def page(server, browser):
    """The page, freshly loaded; afterwards: no error in the console, nothing asked of anybody but the server."""
    page = Page(browser, server[1])
    yield page
    assert not [entry for entry in page.logged("browser") if entry["level"] == "SEVERE"]
    messages = [json.loads(entry["message"])["message"] for entry in page.logged("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 10
    assert not [url for url in asked if not url.startswith((server[1], "data:", "blob:"))]


WATCH = """
window.seen = [];
new MutationObserver(() => {
  const texts = [...document.querySelectorAll('.reply .text')];
  window.seen.push(texts.map(e => e.classList.contains('writing') ? e.textContent.length : -1));
}).observe(document.querySelector('.replies'), {subtree: true, childList: true, characterData: true});
"""


def test_a_person_asks_sees_three_answers_stream_and_turns_the_adapter_off(page):
    page.type("#instruction textarea", "What is the opposite of 'early'?")
    page.browser.execute_script(WATCH)
    page.click("#answer")
    base, full, lora = page.until(page.finished)
    seen = page.browser.execute_script("return window.seen")
    assert any(min(lengths) > 0 for lengths in seen), "all three were being written at the same time"
    for column in range(3):  # as many as fit between two looks: the browser may draw several tokens at once
        assert len({lengths[column] for lengths in seen if lengths[column] > 0}) > 3
    assert len({base, full, lora}) == 3 and all((base, full, lora))
    assert [e.text for e in page.all(".reply h3")] == ["Base model", "Full fine-tuning", "strength 1\nLoRA, rank 16"]
    page.picture()

    page.drag_to_the_left("#strength input[type=range]")
    page.until(lambda: "strength 0" in page.find("#answer-2").text and page.finished())
    assert page.replies() == [base, full, base]


def test_a_person_stops_an_answer_and_is_told_what_is_missing(page):
    page.click("#answer")
    assert "Write an instruction first." in page.until(lambda: page.find(".toast-body").text)
    page.type("#instruction textarea", "Count to a hundred.")
    page.type("#tokens input[type=number]", "256")
    page.click("#answer")
    page.click("#stop")
    page.until(lambda: not page.all(".reply .writing"))
    assert page.all(".reply[data-state=stopped]")


def test_a_person_classifies_a_mail_and_sees_the_tokens_that_weighed_most(page):
    title = page.browser.title
    page.find("button[role=tab]:nth-of-type(2)").click()
    page.type("#text textarea", BAIT)
    page.click("#classify")
    page.until(lambda: page.all(".read"))
    assert page.find(".read").get_property("textContent") == BAIT
    assert not page.all(".read img, .read b") and page.browser.title == title

    mail = "You have won a prize\n\nDear friend, congratulations. Claim your free prize now: cheap pills, buy today!"
    page.type("#text textarea", mail)
    page.click("#classify")
    page.until(lambda: page.find(".read").get_property("textContent") == mail)
    label, probability = re.fullmatch(r"(\w+), probability (0\.\d{3})", page.find(".verdict").text).groups()
    assert label in ("ham", "spam") and float(probability) >= 0.5
    assert sum(float(e.text.rstrip("%")) for e in page.all(".bar .value")) == pytest.approx(100, abs=0.2)
    spans = {e.get_property("textContent").strip(): e.get_attribute("title") for e in page.all(".read span")}
    rows = [
        [cell.text.strip() for cell in row.find_elements("css selector", "td")] for row in page.all(".sides tbody tr")
    ]
    assert "".join(e.get_property("textContent") for e in page.all(".read span")) == mail
    once = {token: weight for token, weight in rows if "×" not in token and mail.count(token) == 1}
    assert len(rows) > 5 and len(once) > 3
    assert once.items() <= spans.items()
    page.picture("-classify")


LONG_NAME = """
const name = 'a'.repeat(300);
const shown = `<p class=verdict>${name}</p><p class=legend>${name}`;
document.querySelector('.replies').insertAdjacentHTML('beforebegin', shown);
return ['.verdict', '.legend'].map(s => document.querySelector(s)).every(e => e.scrollWidth <= e.clientWidth);
"""


def test_on_a_narrow_screen_answers_stand_below_each_other_and_a_long_name_is_broken(page):
    size = page.browser.get_window_size()
    wide = {e.rect["y"] for e in page.all(".reply")}
    try:
        page.browser.set_window_size(500, 900)
        page.until(lambda: len({e.rect["y"] for e in page.all(".reply")}) == 3)
        assert all(e.rect["width"] > 280 for e in page.all(".reply"))
        assert page.browser.execute_script(LONG_NAME)
    finally:
        page.browser.set_window_size(size["width"], size["height"])
    assert len(wide) == 1


def test_control_c_ends_the_server_without_a_traceback_though_an_answer_is_being_written(server, browser, reached):
    process, address = server
    page = Page(browser, address)
    page.type("#instruction textarea", "Count to a hundred.")
    page.type("#tokens input[type=number]", "256")
    page.click("#answer")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors + output
    assert reached.read_text() == "", "whom the server tried to reach, from its start to its end"
