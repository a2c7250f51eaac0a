"""What the nodes need from ComfyUI: tensors in and out, progress, cancelling, folders, errors that name the node.

`comfy.*` is imported inside the functions: it raises on a machine without a GPU unless ComfyUI was started with --cpu.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..mggtalk_core.errors import InputError
from ..mggtalk_core.headmodel.arkit import ARKIT_NAMES
from ..mggtalk_core.media.audio import Audio, check_audio
from ..mggtalk_core.media.image import check_photo
from ..mggtalk_core.portrait.tracking import TrackedFace

MODELS_FOLDER = "mggtalk"
PREVIEW_SECONDS = 0.4
"""Between two preview pictures: enough to watch, too few to slow the run down."""


@contextmanager
def errors_named(node: str, name: str) -> Iterator[None]:
    """Makes a user's error say which node and which input it is about."""
    try:
        yield
    except InputError as error:
        message = str(error).removeprefix(f"{name}: ")
        raise InputError(f"{node}, input '{name}': {message}") from None


def photo_from(image: torch.Tensor, node: str, name: str = "image") -> np.ndarray:
    """The one picture of an IMAGE (1, H, W, 3|4) as (H, W, 3) float32 0..1."""
    if len(image) != 1:
        raise InputError(
            f"{node}, input '{name}': one picture is needed, this batch has {len(image)}; "
            "pick one with 'ImageFromBatch', or send a list of pictures to build one head of each"
        )
    with errors_named(node, name):
        return check_photo(image[0].cpu().numpy(), name)


def audio_from(audio: dict[str, Any], node: str, name: str = "audio") -> Audio:
    """ComfyUI's AUDIO {"waveform" (1, C, n), "sample_rate"} as Audio."""
    waveform = audio["waveform"]
    if len(waveform) != 1:
        raise InputError(f"{node}, input '{name}': one clip is needed, this batch has {len(waveform)}")
    with errors_named(node, name):
        return check_audio(waveform[0].cpu().numpy(), audio["sample_rate"], name)


def faces_from(landmarks: dict[str, Any]) -> list[list[TrackedFace]]:
    """The faces of each frame of ComfyUI's FACE_LANDMARKS, in the host's order."""
    return [
        [
            TrackedFace(
                landmarks=np.asarray(face["landmarks_xy"], np.float32),
                scores=np.array([face["blendshapes"].get(name, 0.0) for name in ARKIT_NAMES], np.float32),
                matrix=np.asarray(face["transformation_matrix"], np.float32),
            )
            for face in frame
        ]
        for frame in landmarks["frames"]
    ]


def image_from(array: np.ndarray) -> torch.Tensor:
    """A picture (H, W, 3) or a batch (B, H, W, 3), uint8 or float 0..1, as IMAGE (B, H, W, 3) float32."""
    if array.ndim == 3:
        array = array[None]
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.float().div_(255) if tensor.dtype == torch.uint8 else tensor.float()


def mask_from(array: np.ndarray) -> torch.Tensor:
    """A mask (H, W) or a batch (B, H, W), uint8 or float 0..1, as MASK (B, H, W) float32."""
    if array.ndim == 2:
        array = array[None]
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.float().div_(255) if tensor.dtype == torch.uint8 else tensor.float()


def raise_if_cancelled() -> None:
    """Ends the run when the user pressed Cancel (the exception is a BaseException, nothing here catches it)."""
    import comfy.model_management

    comfy.model_management.throw_exception_if_processing_interrupted()


def cancellable(call: Callable, *args, **kwargs):
    """The result of a call that can't be asked to stop, left behind at once when the user presses Cancel.

    It runs in a thread of its own; after a Cancel the thread ends by itself and its result is dropped.
    """
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = call(*args, **kwargs)
        except BaseException as error:  # handed to the waiting thread, whatever it is
            outcome["error"] = error

    raise_if_cancelled()
    thread = threading.Thread(target=run, name="mggtalk", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
        raise_if_cancelled()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def progress_bar(node_id: str) -> Callable[[int, int], None]:
    """A `progress(done, total)` for the core: moves the node's bar, and ends the work when the user pressed Cancel.

    May be called from the thread `cancellable` starts, which does not know by itself whose bar it is.
    """
    import comfy.utils

    bar = comfy.utils.ProgressBar(1, node_id)

    def progress(done: int, total: int) -> None:
        raise_if_cancelled()
        bar.update_absolute(done, total)

    return progress


def watched(items: Iterable, total: int, picture: Callable[[Any], np.ndarray] | None = None) -> Iterator:
    """Passes the items on while showing progress, a preview now and then, and obeying Cancel, also amid an item.

    `picture` turns an item into the (H, W, 3) uint8 preview.
    """
    import comfy.utils

    bar = comfy.utils.ProgressBar(total)
    iterator, end, shown_at = iter(items), object(), 0.0
    for index in itertools.count(1):
        item = cancellable(next, iterator, end)
        if item is end:
            return
        preview = None
        if picture is not None and time.monotonic() - shown_at > PREVIEW_SECONDS:
            preview = ("JPEG", Image.fromarray(picture(item)), 512)
            shown_at = time.monotonic()
        bar.update_absolute(index, total, preview)
        yield item


def register_models_folder() -> None:
    """Makes models/mggtalk (and what extra_model_paths.yaml adds to it) known to ComfyUI and to the core."""
    import folder_paths

    from ..mggtalk_core.model_files import set_models_folder

    default = Path(folder_paths.models_dir) / MODELS_FOLDER
    folder_paths.add_model_folder_path(MODELS_FOLDER, str(default))
    set_models_folder(folder_paths.get_folder_paths(MODELS_FOLDER)[0])


def offer_demo_files() -> None:
    """Puts the demo portrait, speech and driving clip into ComfyUI's input folder: the templates run as they open."""
    import folder_paths

    from ..mggtalk_core.assets import DEMO_PORTRAIT, DEMO_SPEECH

    for source in (DEMO_PORTRAIT, DEMO_SPEECH, Path(__file__).parent / "assets" / "demo_driving.mp4"):
        target = Path(folder_paths.get_input_directory()) / f"mggtalk_{Path(source).name}"
        if not target.exists():
            shutil.copyfile(source, target)


def model_files(*suffixes: str) -> list[str]:
    """Names of the files with these endings in models/mggtalk, as combo options."""
    import folder_paths

    return [name for name in folder_paths.get_filename_list(MODELS_FOLDER) if name.endswith(suffixes)]


def model_path(name: str) -> str:
    """The path of a file of models/mggtalk; names that leave the folder are refused by folder_paths."""
    import folder_paths

    return folder_paths.get_full_path_or_raise(MODELS_FOLDER, name)


def new_output(prefix: str, suffix: str, folder: str = "output") -> tuple[Path, str, str]:
    """A path no file has yet in ComfyUI's output or temp folder, with its file name and subfolder for the page."""
    import folder_paths

    base = folder_paths.get_directory_by_type(folder)
    directory, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, base)
    path = Path(directory) / f"{name}_{counter:05}_{suffix}"
    return path, path.name, subfolder


def show_warnings(warnings: Iterable[str], node_id: str) -> None:
    """Shows what the user should know on the node itself and in the log."""
    from server import PromptServer

    warnings = tuple(warnings)
    for warning in warnings:
        logging.warning("MGGTalk: %s", warning)
    PromptServer.instance.send_progress_text("\n".join(warnings), node_id)


def user_files(*suffixes: str) -> list[str]:
    """The user's files with these endings: in the input folder, and below the output folder marked "[output]"."""
    import folder_paths

    names = []
    for folder, mark in ((folder_paths.get_input_directory(), ""), (folder_paths.get_output_directory(), " [output]")):
        found = (path for suffix in suffixes for path in Path(folder).rglob(f"*{suffix}"))
        names += sorted(path.relative_to(folder).as_posix() + mark for path in found)
    return names


def user_file(name: str) -> str:
    """The path of a file `user_files` names.

    Raises InputError for a name that leaves the folders or has no file.
    """
    import folder_paths

    path = Path(folder_paths.get_annotated_filepath(name)).resolve()
    folders = (folder_paths.get_input_directory(), folder_paths.get_output_directory())
    if not any(path.is_relative_to(Path(folder).resolve()) for folder in folders):
        raise InputError(f"'{name}' is not in ComfyUI's input or output folder")
    if not path.is_file():
        raise InputError(f"there is no file '{name}' in ComfyUI's input or output folder")
    return str(path)


def check_user_file(name: str, *suffixes: str) -> bool | str:
    """For a node's validate_inputs: True, or what is wrong with the name."""
    if not name.removesuffix(" [output]").endswith(suffixes):
        return f"'{name}' does not end in {' or '.join(suffixes)}"
    try:
        user_file(name)
    except ValueError as error:  # InputError, or ComfyUI's own for a name that leaves its folders
        return str(error)
    return True
