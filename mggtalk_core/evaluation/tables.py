"""Evaluation reports as markdown and JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

from ..media.files import atomic_path, require_output

LABELS = {
    "psnr": ("PSNR", 2, "up"), "ssim": ("SSIM", 3, "up"), "psnr_face": ("face PSNR", 2, "up"),
    "psnr_mouth": ("mouth PSNR", 2, "up"), "psnr_head": ("head PSNR", 2, "up"), "lmd": ("LMD", 4, "down"),
    "psnr_face_soft": ("face, equal blur", 2, "up"), "psnr_mouth_soft": ("mouth, equal blur", 2, "up"),
    "psnr_hidden": ("hidden side PSNR", 2, "up"), "psnr_hidden_soft": ("hidden side, equal blur", 2, "up"),
    "depth_mm": ("depth error mm", 2, "down"), "skin_depth_mm": ("on skin mm", 2, "down"),
    "grid": ("grid at 3x / truth", 2, "down"),
    "akd": ("AKD px", 2, "down"), "aed": ("AED", 3, "down"), "apd": ("APD deg", 2, "down"),
    "csim": ("CSIM", 3, "up"), "lpips": ("LPIPS", 3, "down"), "fid": ("FID", 1, "down"),
    "lip_corr": ("lip corr", 3, "up"), "eye_corr": ("eye corr", 3, "up"), "sync_ms": ("sync ms", 0, ""),
    "found": ("found", 2, "up"), "width_corr": ("width corr", 3, "up"), "pucker_corr": ("pucker corr", 3, "up"),
    "closure_f1": ("closure F1", 2, "up"), "silence_opening": ("opening in silence", 2, "down"),
    "offset_ms": ("offset ms", 0, ""), "jitter_ratio": ("jitter", 2, ""), "range_ratio": ("range", 2, ""),
}  # fmt: skip
"""Metric -> heading, decimals, which way is better."""

PAPER_NOTE = {
    "self-reenactment": (
        "For orientation, the paper's own figures (its protocol, crops and hardware; not comparable one to one): "
        "HDTF self-reenactment PSNR 32.40, FID 18.95; CelebV-HQ PSNR 30.84; NeRSemble-Mono PSNR 31.98."
    ),
    "cross-reenactment": "For orientation, the paper reports FID 27.85 on HDTF cross-reenactment.",
}


def markdown(report: dict) -> str:
    """A report of `protocols` as a table: one row per variant, 95 % intervals over clips in brackets."""
    variants = report["variants"]
    measured = {name for row in variants.values() for name, value in row.items() if math.isfinite(value["mean"])}
    metrics = [name for name in LABELS if name in measured]
    arrows = {"up": " ↑", "down": " ↓", "": ""}
    head = ["variant", *(LABELS[name][0] + arrows[LABELS[name][2]] for name in metrics)]
    lines = [_row(head), _row(["---"] * len(head))]
    for name, row in variants.items():
        lines.append(_row([name, *(_cell(row[metric], LABELS[metric][1]) for metric in metrics)]))
    clips, frames = report["clips"], sum(clip["frames"] for clip in report["clips"])
    settings = ", ".join(f"{key} {value}" for key, value in report["settings"].items())
    title = f"{report['protocol']}: {len(clips)} clip(s), {frames} frames ({settings})"
    notes = [PAPER_NOTE[report["protocol"]]] if report["protocol"] in PAPER_NOTE else []
    notes += [f"Not measured: {'; '.join(report['not_measured'])}."] if report.get("not_measured") else []
    return "\n\n".join([title, "\n".join(lines), *notes])


def write_table(report: dict, path: str | Path) -> None:
    """Writes a report as .md or .json.

    Raises:
        InputError: another ending, or the file can't be written.
    """
    path = require_output(path, suffixes=(".md", ".json"))
    if path.suffix.lower() == ".json":
        text = json.dumps(finite(report), indent=2)
    else:
        text = markdown(report)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: dict[str, float], decimals: int) -> str:
    if not math.isfinite(value["mean"]):
        return "-"
    text = f"{value['mean']:.{decimals}f}"
    if math.isfinite(value["low"]):
        text += f" [{value['low']:.{decimals}f}, {value['high']:.{decimals}f}]"
    return text


def finite(value):
    """NaN is not JSON: it becomes null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
