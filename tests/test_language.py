"""The language of the project: each phrase on the list is found, and the texts are free of them."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "tools/check_language.py"
spec = importlib.util.spec_from_file_location("check_language", PATH)
check_language = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_language)

SENTENCES = {
    ".md": [
        "# What a model is",
        "## Who may use it",
        "### Where files are",
        "aggregation is none of a, b",
        "it goes on with the next",
        "resumes by going on from step 3",
        "two runs beside the tests",
        "zeros behind the atoms",
        "an idea of theirs",
        "at most so many atoms",
        "where the system says so",
        "if it differs, say so",
        "do as it says",
        "vectors, which the model has not.",
        "a key that they have not, as above",
        "What users hold is a predictor",
        "it returns what is left",
        "it is told of errors",
        "what molecules are held to",
        "the mean is taken off",
        "refused without a word",
        "equal number for number",
        "the addresses could not be tried",
        "not tried where this was written",
        "None for not at all",
        "it is a dimenet, here is a painn",
        "tables are made anew",
        "the error says why",
        "10 %, give or take",
    ],
    ".py": [
        '"""What is minimized."""',
        'def f():\n    """Who is first."""',
        '    """Where it is."""',
        '    """Of one molecule."""',
        '"""Return what is left."""',
        "# which is\n# none of them",
    ],
    ".yaml": ["# steps behind the first"],
}
FINE = {
    ".md": ["It has not been reproduced.", "Besides, it is fast.", "```\n$ what\n```", "at most 3 atoms", "hindsight"],
    ".py": ['"""Whether it is one."""', "# what to do", "print('of one')", "def besides(): ..."],
    ".yaml": ["name: what"],
}


def pairs(texts: dict[str, list[str]]) -> list[tuple[str, str]]:
    """List texts with the type of their file."""
    return [(text, suffix) for suffix, of_type in texts.items() for text in of_type]


@pytest.mark.parametrize("text, suffix", pairs(SENTENCES))
def test_finds_the_phrase(text, suffix):
    assert len(list(check_language.findings(text, suffix))) == 1


def test_every_expression_has_a_sentence():
    listed = [*check_language.EVERYWHERE, *check_language.IN_PYTHON, *check_language.IN_MARKDOWN]
    sentences = [text for text, _ in pairs(SENTENCES)]
    assert [rule.pattern for rule, _ in listed if not any(map(rule.search, sentences))] == []


@pytest.mark.parametrize("text, suffix", pairs(FINE))
def test_has_no_false_alarms(text, suffix):
    assert list(check_language.findings(text, suffix)) == []


def test_reports_the_line():
    assert [line for line, _, _ in check_language.findings('x = 1\n"""Who."""\n\n# a zero behind\n', ".py")] == [4, 2]


def test_allows_a_literal_meaning():
    assert not list(check_language.findings("x = 1  # atoms behind the wall; language: allow", ".py"))


@pytest.mark.skipif(not (PATH.parents[1] / ".git").exists(), reason="lists the files by git")
def test_the_project_is_free_of_them(capsys):
    status = check_language.main()
    assert (capsys.readouterr().out, status) == ("", 0)
