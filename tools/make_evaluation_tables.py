"""Measures again what docs/evaluation.md shows and writes it there: every table between its markers, date and commit.

    python tools/make_evaluation_tables.py --dev CLIPS --grid CLIPS --source PHOTO [--only NAME ...]

Folders of clips: the development clips (v01_... to v09_...) and a GRID subset; the photo is for cross-reenactment.
docs/evaluation.json gets the full reports, clip by clip.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mggtalk_core.errors import InputError  # noqa: E402
from mggtalk_core.evaluation import protocols  # noqa: E402
from mggtalk_core.evaluation.clips import find_clips  # noqa: E402
from mggtalk_core.evaluation.tables import finite, markdown  # noqa: E402
from mggtalk_core.media.audio import read_audio  # noqa: E402

PAGE, DATA = ROOT / "docs" / "evaluation.md", ROOT / "docs" / "evaluation.json"
ABLATIONS = ("geo-refine", "symmetry", "filter", "gaussian-decoder", "sym-decoder", "densify", "deformation")
TURNING = ("v01", "v02", "v04")
"""Clips whose heads move most, for cross-reenactment."""


def with_sound(clips: list[Path]) -> list[Path]:
    """The clips that have any."""
    found = []
    for clip in clips:
        try:
            read_audio(clip, sample_rate=16_000, channels=1)
        except InputError:
            continue
        found.append(clip)
    return found


def measurements(dev: list[Path], grid: list[Path], source: Path) -> dict[str, Callable[[], dict]]:
    """Table name -> what makes its report."""
    turning = [clip for clip in dev if clip.name.startswith(TURNING)]
    return {
        "hdtf": lambda: protocols.self_reenactment(dev[:1], every=4, ablate=ABLATIONS),
        "dev": lambda: protocols.self_reenactment(dev, every=10, ablate=("symmetry", "sym-decoder", "alignment")),
        "grid": lambda: protocols.self_reenactment(grid, every=10),
        "cross": lambda: protocols.cross_reenactment(source, turning, every=8),
        "sync": lambda: protocols.audio_driven(with_sound(dev), source=protocols.FIRST_FRAME),
        "sync-grid": lambda: protocols.audio_driven(grid),
    }


def clip_table(report: dict) -> str:
    """Face PSNR clip by clip."""
    names = list(report["variants"])
    lines = ["| clip | frames | " + " | ".join(names) + " | lip corr (full) |", "| --- " * (len(names) + 3) + "|"]
    for clip in report["clips"]:
        cells = [f"{clip['variants'][name]['psnr_face']:.2f}" for name in names]
        lip = clip["variants"]["full"]["lip_corr"]
        lines.append(f"| {clip['clip']} | {clip['frames']} | " + " | ".join(cells) + f" | {lip:.3f} |")
    return "Face PSNR clip by clip:\n\n" + "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--grid", required=True)
    parser.add_argument("--source", required=True, type=Path)
    parser.add_argument("--only", nargs="*", help="names of tables")
    options = parser.parse_args()
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    today = datetime.date.today().isoformat()
    stored = json.loads(DATA.read_text(encoding="utf-8"))
    for name, measure in measurements(find_clips([options.dev]), find_clips([options.grid]), options.source).items():
        if options.only and name not in options.only:
            continue
        report = measure()
        text = markdown(report) + ("\n\n" + clip_table(report) if name == "dev" else "")
        block = f"<!-- {name} -->\nMeasured on {today} at commit {commit}: {text}\n<!-- end -->"
        page = PAGE.read_text(encoding="utf-8")
        page, count = re.subn(rf"<!-- {name} -->.*?<!-- end -->", lambda _: block, page, flags=re.DOTALL)  # noqa: B023
        assert count == 1, f"{PAGE} has no place for {name}"
        PAGE.write_text(page, encoding="utf-8")
        stored[name] = {"date": today, "commit": commit, **finite(report)}
        DATA.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        print(name, flush=True)


if __name__ == "__main__":
    main()
