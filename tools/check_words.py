"""Refuses words that a reader of this field would have to learn first: `make check` runs it.

Product code, tests and documentation say what they do in the field's standard terms (docs/glossary.md). This looks for
words that have a standard term instead, and for functions whose name is a bare participle. Exit status 1 where it finds
one. A line that has to quote such a word ends with `# words: ok` (in HTML or Markdown: `<!-- words: ok -->`).
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

#: A regular expression, and what to write instead.
WORDS = {
    r"(?<![`\"'])nobody|no ?one else": "name the subject: 'no process', 'no other worker', 'the operator cannot'",
    r"whoever|whomever|whosoever": "name the subject",
    r"anew": "again",
    r"mend(?:ed|s|ing)?": "fix, correct, resolve",
    r"stumbl\w+": "fail, raise",
    r"whose fault|blame[sd]?": "classification of an error",
    r"of ours|(?:is|are) ours": "'our own', or name it",
    r"doorman|doorway": "slow-client worker",
    r"diary": "refresh log",
    r"tally|tallies": "counters",
    r"roster": "reports",
    r"vouch\w*": "write a check value",
    r"(?:un|re-?)?seal(?:ed|s|ing)?": "encrypt, decrypt, re-encrypt",
    r"condemn\w*": "pending revocation",
    r"at ease": "healthy",
    r"licen[cs]ed?(?= (?:to|for|the) )": "active, allowed",
    r"verdicts?": "classification, decision",
    r"accus\w+": "error",
    r"hubs? that (?:nobody|no one)": "name the subject",
    r"town|diaries|shelf|shelves": "name what it is",
    r"thereof|whence|hence(?!forth)|lest|betimes|forthwith|henceforth": "plain English",
    r"a word of ours|lifts? a hand|has a word in": "plain English",
}
SUFFIXES = {".py", ".md", ".html", ".js", ".css", ".yml", ".yaml", ".sql", ".toml", ".sh"}
#: What is quoted from others or is a record of the past.
SKIPPED = re.compile(
    r"CHANGELOG\.md$|LICENSE$|^requirements/|package-lock|\.schema\.json$|tools/check_words\.py$"
    r"|upgrade_from_0_1\.sql$|_0_1\.sql$"
)
ALLOWED = re.compile(r"words: ok")
WORD = re.compile("|".join(rf"(?P<w{number}>\b(?:{word})\b)" for number, word in enumerate(WORDS)), re.IGNORECASE)
ADVICE = list(WORDS.values())
PARTICIPLE = re.compile(
    r"_?(?:[a-z]{2,}ed|told|kept|seen|held|given|made|begun|taken|sent|said|found|known|shown|done|lost|gone|left|put"
    r"|drawn|written|spoken|chosen|hidden|read_by|split|let_go|heard|spread|ours|there|those)"
)
#: Adjectives and verbs that only look like a bare participle.
NOT_PARTICIPLES = {"feed", "need", "embed", "seed", "_seed", "exceed", "proceed", "succeed", "_feed", "_need"}


def main() -> int:
    paths = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")
    wanted = [Path(path) for path in paths if path and Path(path).suffix in SUFFIXES and not SKIPPED.search(path)]
    found = [line for path in wanted if path.is_file() for line in findings(path)]
    for line in found:
        print(line)
    if found:
        print(f"{len(found)} words to replace: docs/glossary.md has the terms of this project")
    return 1 if found else 0


def findings(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.split("\n"), 1):
        if ALLOWED.search(line):
            continue
        for match in WORD.finditer(line):
            advice = ADVICE[int(str(match.lastgroup)[1:])]
            yield f"{path}:{number}: '{match.group()}': write instead: {advice}"
    if path.suffix == ".py":
        yield from participles(path, text)


def participles(path: Path, text: str) -> Iterator[str]:
    """Functions and methods, but not properties: those may be adjectives."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef) or node.name in NOT_PARTICIPLES:
            continue
        is_property = any(isinstance(each, ast.Name) and each.id == "property" for each in node.decorator_list)
        if PARTICIPLE.fullmatch(node.name) and not is_property:
            yield f"{path}:{node.lineno}: function '{node.name}': begin its name with a verb"


if __name__ == "__main__":
    sys.exit(main())
