"""Check the project's texts for phrases that plain technical English avoids: `python tools/check_language.py`.

Prints file, line, phrase and suggestion, and exits with 1 if there are any. Write `language: allow` into a comment on
the line where a phrase is meant literally.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A regular expression and what to write instead. A space also matches the end of a line and the start of a comment.
PHRASES = {
    r"\b(?:is|are) none of\b": "must be one of ...; got ..., or: is not one of",
    r"\b(?:go|goes|going|gone|went) on (?:with|from|where)\b": "continue, resume",
    r"\bbeside\b": "next to, in addition to, besides, with",
    r"\bbehind\b": "after, at the end of, concatenated",
    r"\bof theirs\b": "their",
    r"\bso many\b": "a number: at most N atoms, num_atoms",
    r"\bsays so\b": "name what is reported or specified",
    r"\bsay so\b": "name the option to set",
    r"\bit says\b": "it reports, it specifies",
    r"\b(?:has|have) not(?= ?[.,;:)\"'`])": "lacks, has no",
    r"\bwhat users hold\b": "a noun that names the object",
    r"\breturns? what\b": "a noun phrase that names the value",
    r"\b(?:is|are|be|was|were) told of\b": "is notified of, receives",
    r"\b(?:is|are|be|was|were) held to\b": "is checked for, must satisfy",
    r"\b(?:is|are|be|was|were) taken off\b": "is subtracted",
    r"\bwithout a word\b": "silently",
    r"\bnumber for number\b": "to within floating-point error",
    r"\bcould not be tried\b": "untested, in a table of support levels",
    r"\btried where this was written\b": "untested, in a table of support levels",
    r"\b(?:None|0|1) for not(?: at all)?(?=[\s.,;)]|$)": "None disables it, 1 disables it",
    r"\bit is an? [^\s,]+, here is\b": "expected ..., got ...",
    r"\b(?:made|download|downloaded) (?:it )?anew\b": "again",
    r"\bsays? (?:why|how far|where|which|nothing)\b": "gives the reason, names, reports",
    r"\bgive or take\b": "within, about",
}
OPENINGS = {
    r"^ *r?\"\"\"(?:What|Who|Where)\b": "open with a noun phrase or an imperative",
    r"^ *r?\"\"\"Of ": "open with a noun phrase or an imperative",
}
TITLES = {r"^#+ (?:What|Who|Where)\b": "title with a noun phrase or an imperative"}

# The list above and its test.
OWN = ("tools/check_language.py", "tests/test_language.py")
ALLOWED = "language: allow"


def compiled(phrases: dict[str, str], flags: int = 0) -> list[tuple[re.Pattern, str]]:
    """Compile expressions whose spaces match any white space and the `#` of a comment that goes on in the next line."""
    space = r"(?:[ \t]+|[ \t]*\n[ \t]*(?:#+ )?)"
    return [(re.compile(phrase.replace(" ", space), flags), advice) for phrase, advice in phrases.items()]


EVERYWHERE = compiled(PHRASES, re.IGNORECASE)
IN_PYTHON = [(re.compile(phrase, re.MULTILINE), advice) for phrase, advice in OPENINGS.items()]
IN_MARKDOWN = [(re.compile(phrase, re.MULTILINE), advice) for phrase, advice in TITLES.items()]


def findings(text: str, suffix: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, phrase and suggestion for each phrase to avoid.

    Parameters
    ----------
    text : content of a file
    suffix : its type, ".py", ".md" or ".yaml"

    Examples
    --------
    >>> list(findings("name is none of a, b", ".md"))
    [(1, 'is none of', 'must be one of ...; got ..., or: is not one of')]
    """
    lines = text.splitlines()
    for expression, advice in EVERYWHERE + {".py": IN_PYTHON, ".md": IN_MARKDOWN}.get(suffix, []):
        for match in expression.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            if ALLOWED not in lines[line - 1]:
                yield line, " ".join(match.group().split()), advice


def checked_files() -> list[str]:
    """List the tracked Python, Markdown and YAML files whose language is checked."""
    patterns = ["*.py", "*.md", "*.yaml", "*.yml"]
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for path in listed.stdout.splitlines() if path not in OWN]


def main() -> int:
    """Print all findings, and return the exit status."""
    found = False
    for path in checked_files():
        for line, phrase, advice in sorted(findings((ROOT / path).read_text(encoding="utf-8"), Path(path).suffix)):
            print(f"{path}:{line}: '{phrase}': write {advice}")
            found = True
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
