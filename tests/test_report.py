"""The HTML page about a run: complete, self-contained, and safe with any name."""

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from dimenet_tf.commands import program
from dimenet_tf.data import ethanol_xtb
from dimenet_tf.report import charts
from dimenet_tf.report.markup import tag

HOSTILE = "<script>alert('x')</script>"
SECTIONS = ["errors", "learning", "parity", "groups", "outliers", "domain", "certificate", "configuration"]
CHROMIUM = shutil.which("chromium")
EMPTY = {"meta"}
LINKS = ("src", "href", "data", "action", "poster", "srcset", "xlink:href")


class Page(HTMLParser):
    """Elements of a page, and its texts outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text, self.open, self.styles, self.scripts = "", [], "", []
        self.feed(text)
        self.close()
        assert self.open == [], "an element is not closed"

    def handle_starttag(self, name: str, attributes: list) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in EMPTY:
            self.open.append(name)
        if name == "script":
            self.scripts.append("")

    def handle_startendtag(self, name: str, attributes: list) -> None:
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["style"]:
            self.styles += data
        elif self.open[-1:] == ["script"]:
            self.scripts[-1] += data
        else:
            self.text += data

    def ids(self) -> list[str]:
        return [attributes["id"] for name, attributes in self.elements if name == "section"]


def run(*arguments, code: int = 0) -> str:
    result = CliRunner().invoke(program, [*map(str, arguments)], prog_name="dimenet-tf")
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A short run on frames of ethanol, with forces, whose molecules have hostile names."""
    folder = tmp_path_factory.mktemp("report")
    frames = ethanol_xtb()[:40].to_atoms()
    for number, atoms in enumerate(frames):
        atoms.info["id"] = f"{number} {HOSTILE}"
    import ase.io

    ase.io.write(folder / "frames.extxyz", frames)
    sizes = "model.emb_size=8 model.int_emb_size=8 model.out_emb_size=8 model.num_blocks=1 training.batch_size=4"
    sizes += " training.num_steps=4 training.warmup_steps=2 training.evaluation_interval=2"
    sizes += " data.num_train=20 data.num_valid=8"
    data = [f"data.path={folder / 'frames.extxyz'}", "data.name=null", "data.target=energy,forces"]
    run("train", "dimenet_pp_forces", *sizes.split(), *data, f"run={folder / 'run'}")
    return folder / "run"


@pytest.fixture(scope="module")
def page(trained) -> Path:
    assert run("report", trained, "--limit", 6) == f"written to {trained / 'report.html'}\n"
    return trained / "report.html"


def test_the_page_is_complete(page):
    parsed = Page(page.read_text())
    assert parsed.ids() == SECTIONS
    table = json.loads((page.parent / "test.json").read_text())["targets"]
    assert set(table) == {"energy", "forces"} and "6 test molecules, taken evenly from 12" in parsed.text
    assert "predicted energy / eV" in parsed.text and "predicted forces / eV/Ang" in parsed.text
    assert "All test molecules have 9 atoms" in parsed.text and "C2H6O" in parsed.text
    assert f"dimenet-tf certify {page.parent}" in parsed.text and "num_steps: 4" in parsed.text
    molecules = json.loads(parsed.scripts[0])
    assert len(molecules) == 6 and all(m["xyz"].startswith("9\n\n") and m["arrows"] for m in molecules.values())


def test_nothing_is_loaded_from_the_network(page):
    parsed = Page(page.read_text())
    links = [value for _, attributes in parsed.elements for key, value in attributes.items() if key in LINKS]
    assert links and all(link.startswith("#") for link in links)
    assert "url(" not in parsed.styles and "@import" not in parsed.styles
    assert not {"link", "iframe", "img", "object", "embed", "base"} & {name for name, _ in parsed.elements}
    policies = [a["content"] for _, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'") and "http" not in policies[0]


def test_hostile_names_are_text(page):
    text = page.read_text()
    assert HOSTILE not in text and len(Page(text).scripts) == 3


def test_the_certificate_of_other_weights_is_marked(trained, tmp_path):
    measured = {"drift": {"value": 2.0, "bound": 1.0, "unit": "meV", "passed": False}}
    certificate = {"weights": "others", "frames": HOSTILE, "measured": measured}
    (trained / "certificate.json").write_text(json.dumps(certificate))
    try:
        run("report", trained, tmp_path / "page.html", "--limit", 2)
    finally:
        (trained / "certificate.json").unlink()
    parsed = Page((tmp_path / "page.html").read_text())
    assert "FAILED" in parsed.text and "made of other weights" in parsed.text and HOSTILE in parsed.text


def test_a_run_without_validation_is_reported(trained, tmp_path):
    shutil.copy(trained / "config.yaml", tmp_path)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["data"]["path"] = HOSTILE
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert "note: this run has not been validated yet" in run("report", tmp_path)
    parsed = Page((tmp_path / "report.html").read_text())
    assert parsed.ids() == SECTIONS and HOSTILE in parsed.text and parsed.scripts == []


def test_an_unfinished_run_is_reported(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run/test.json").unlink()
    assert "note: this run has not finished (step 4)" in run("report", tmp_path / "run", "--limit", 2)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    assert f"error: {tmp_path} is no run folder" in run("report", tmp_path, code=2)


def test_texts_are_escaped():
    assert tag("p", "<b>", title='"') == '<p title="&quot;">&lt;b&gt;</p>'
    assert "<x>" not in charts.bars({"<x>": (1.0, 2)}, "<x>", "<x>", "<x>")


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser Chromium")
def test_a_browser_draws_the_molecule(page, tmp_path):
    flags = "--headless=new --no-sandbox --enable-unsafe-swiftshader --virtual-time-budget=5000 --enable-logging=stderr"
    profile = f"--user-data-dir={tmp_path}"
    command = [CHROMIUM, *flags.split(), profile, "--dump-dom", page.resolve().as_uri()]
    done = subprocess.run(command, text=True, capture_output=True, check=True)
    viewer = done.stdout.partition('id="viewer"')[2].partition('id="shown"')[0]
    assert "<canvas" in viewer
    errors = [
        line for line in done.stderr.splitlines() if "CONSOLE" in line and ("Uncaught" in line or "Refused" in line)
    ]
    assert errors == []
