"""Checks of file names at the door, and files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError


def require_file(path: str | Path, what: str) -> Path:
    """The path of an existing, readable, non-empty regular file.

    A name is always a local file: FFmpeg would also open URLs, pipes and playlists, so a name that is not a file
    on this disk never reaches it.

    Raises:
        InputError: anything else.
    """
    text = str(path)
    if not text or "\0" in text:
        raise InputError(f"{what}: {text!r} is not a file name; give the path of a file")
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{what}: {path} is a folder; give the path of a file")
        if not path.is_file():
            raise InputError(f"{what}: no file at {path}; check the path")
        if path.stat().st_size == 0:
            raise InputError(f"{what}: {path} is empty (0 bytes); export it again")
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InputError(f"{what}: can't read {path} ({error.strerror}); check the name and its rights") from None
    return path.absolute()


def open_media(path: Path):
    """PyAV's input container of a file whose tags may be in any encoding."""
    import av

    # before 19, PyAV refuses tags that aren't UTF-8 unless told otherwise; 19 keeps them and has no such argument
    options = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    return av.open(str(path), **options)


def require_output(path: str | Path, what: str = "output", suffixes: tuple[str, ...] = ()) -> Path:
    """The path of a file that can be written: its folder exists and is writable, its ending is one of `suffixes`.

    Raises:
        InputError: anything else.
    """
    text = str(path)
    if not text or "\0" in text:
        raise InputError(f"{what}: {text!r} is not a file name; give the path of a file to write")
    path = Path(path).absolute()
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{what}: {path.name} must end in {' or '.join(suffixes)}")
    try:
        if path.is_dir():
            raise InputError(f"{what}: {path} is a folder; give the path of a file to write")
        if not path.parent.is_dir():
            raise InputError(f"{what}: there is no folder {path.parent}; create it or choose another")
    except OSError as error:
        raise InputError(f"{what}: can't write {path} ({error.strerror}); choose another name") from None
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{what}: the folder {path.parent} is not writable; choose another")
    return path


@contextmanager
def atomic_path(path: str | Path, suffixes: tuple[str, ...] = ()) -> Iterator[Path]:
    """A temporary name beside `path` to write to; becomes `path` when the block ends well, and is removed otherwise.

    Raises:
        InputError: the folder can't be written or the disk is full.
    """
    path = require_output(path, suffixes=suffixes)
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"output: can't write {path} ({error.strerror or error}); free some space or choose another folder"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
