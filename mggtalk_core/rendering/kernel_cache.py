"""Where compiled kernels are kept between runs.

numba checks only the file a function is written in, so its own cache would keep running old machine code after a
change in simd.py, and it would fail to see an upgrade of numba's code generator hooks. Here the folder's name carries
a digest of all the kernel sources, the versions of numba and llvmlite, and the name this package was imported under
(numba's files name the module they belong to, and ComfyUI imports us under another name than the command line does):
another version simply has another folder.
It lies beside this file (as Python's own byte code does), or in the user's cache folder when the installation is
read-only; with neither writable the kernels are compiled anew in every process. Never in a shared temporary folder:
numba's cache files are trusted code.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from functools import cache, partial
from pathlib import Path

import llvmlite
import numba

SOURCES = ("simd.py", "kernels.py", "semantics.py", "kernel_cache.py")


def _user_cache() -> Path:
    """The platform's per-user cache folder."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@cache
def cache_folder() -> Path | None:
    """The folder of this version's compiled kernels, or None when nothing is writable."""
    here = Path(__file__).resolve().parent
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {__package__}".encode())
    for name in SOURCES:
        digest.update((here / name).read_bytes())
    name = f"kernels-{digest.hexdigest()[:16]}"
    for parent in (here / "__pycache__", _user_cache() / "mggtalk"):
        if _writable(parent / name):
            return parent / name
    return None


def kernel(function=None, *, fastmath: bool = False):
    """`numba.njit` as all our kernels want it: the GIL released, C division, compiled once per version.

    numba reads its cache folder from a global setting when a function is decorated, hence the exchange around it.
    """
    if function is None:
        return partial(kernel, fastmath=fastmath)
    dispatcher = numba.njit(nogil=True, error_model="numpy", fastmath=fastmath)(function)
    folder = cache_folder()
    if folder is not None:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(folder)
        try:
            dispatcher.enable_caching()
        finally:
            numba.config.CACHE_DIR = before
    return dispatcher
