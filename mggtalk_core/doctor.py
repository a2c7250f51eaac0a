"""What is installed, found and missing: the first thing to look at when something does not work."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata

from .errors import InputError
from .model_files import MODEL_FILES, find_model_file

REQUIRED = ("torch", "numpy", "scipy", "pillow", "mediapipe", "safetensors", "numba", "av", "transformers", "kornia")
OPTIONAL = {
    "gsplat": "renders on CUDA; without it the CPU renders",
    "c2pa-python": "signs videos with your own certificate",
    "dlib-bin": "identity similarity in evaluations",
    "torchmetrics": "cross-checks the metrics",
}


def examine() -> dict:
    """The state of this install; `problems` is empty when everything needed is there."""
    problems: list[str] = []
    libraries = {name: _version(name) for name in REQUIRED}
    problems += [f"{name} is missing: pip install {name}" for name, version in libraries.items() if version is None]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "libraries": libraries,
        "optional": {name: _version(name) or f"not installed ({use})" for name, use in OPTIONAL.items()},
        "cuda": _cuda(),
        "h264_encoder": _encoder(problems),
        "model_files": {name: _model_file(name, problems) for name in MODEL_FILES},
        "free_disk_gb": round(shutil.disk_usage(os.getcwd()).free / 1e9, 1),
        "problems": problems,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cuda() -> str:
    if _version("torch") is None:
        return "no torch"
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none: the CPU renders"


def _encoder(problems: list[str]) -> str:
    if _version("av") is None:
        return "no av"
    import av

    if "libx264" in av.codecs_available:
        return "libx264"
    problems.append("this build of av has no libx264: pip install --force-reinstall av")
    return "none"


def _model_file(name: str, problems: list[str]) -> str:
    try:
        return str(find_model_file(name))
    except InputError as error:
        if MODEL_FILES[name].needed:
            problems.append(str(error))
        return "missing" if MODEL_FILES[name].needed else "not installed (only evaluation uses it)"
