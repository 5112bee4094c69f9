"""The commands that README, documentation and bundle pages print."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "bundles").glob("*/docs/*.md")),
]


def printed(page):
    """Return the ``medssl ...`` lines of the fenced blocks of a page, continued lines joined."""
    found, fenced = [], False
    for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line.strip().startswith("```"):
            fenced = not fenced
        elif fenced and line.strip().startswith("medssl "):
            found.append(line.strip())
    return found


def mentioned(page):
    """Return what stands in the text of a page as code and begins with ``medssl``, perhaps without its arguments."""
    return [
        " ".join(span.split()) for span in re.findall(r"`(medssl [^`]+)`", page.read_text(encoding="utf-8"))
    ]
