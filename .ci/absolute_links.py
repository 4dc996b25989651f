"""A package index has no files beside the README: its links made absolute. python .ci/absolute_links.py URL < README.md > README.absolute.md"""

from __future__ import annotations

import re
import sys

RELATIVE = re.compile(r"\]\((?!https?://|#)([^)]+)\)")


def absolute(text: str, url: str) -> str:
    """Markdown whose links to files lead below `url`, e.g. https://…/blob/v0.1.0."""
    return RELATIVE.sub(lambda link: f"]({url.rstrip('/')}/{link[1]})", text)


if __name__ == "__main__":
    sys.stdout.write(absolute(sys.stdin.read(), sys.argv[1]))
