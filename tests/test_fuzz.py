"""Every door takes hostile files: the answer is a result or one clear line, never a traceback, a hang or a flood."""

import json
import os
import resource
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hostile import BAD_NAMES, Case, cases

from mggtalk_core.errors import InputError

SECONDS, MEGABYTES = 20, 1500


def open_photo(path):
    from mggtalk_core.media.image import read_photo

    assert np.isfinite(read_photo(path)).all()


def open_audio(path):
    from mggtalk_core.media.audio import read_audio

    assert np.isfinite(read_audio(path, sample_rate=16_000, channels=1).waveform).all()


def open_video(path):
    from mggtalk_core.media.video_reader import VideoReader

    for index, frame in enumerate(VideoReader(path).frames(25)):
        assert frame.rgb.ndim == 3
        if index > 500:
            break


def open_csv(path):
    from mggtalk_core.motion.blendshape_csv import read_motion_csv

    motion = read_motion_csv(path)
    assert np.isfinite(motion.expression).all() and motion.fps > 0


def open_head(path):
    from mggtalk_core.gaussians.head import GaussianHead

    head = GaussianHead.load(path)
    assert len(head) > 0 and head.faces.max() < len(head.triangles) and head.triangles.max() < len(head.vertices)


def open_splat(path):
    from mggtalk_core.gaussians.splat_io import read_splat_file

    assert len(read_splat_file(path).means) > 0


def open_checkpoint(path):
    from mggtalk_core.weights import load_model

    load_model(path)


def open_value(value):
    """A frame rate, a sample rate and a colour as workflows and command lines give them."""
    from mggtalk_core.cli import _background
    from mggtalk_core.media.audio import check_audio
    from mggtalk_core.media.timing import exact_fps

    doors = [exact_fps]
    if isinstance(value, str):
        doors.append(_background)
    if isinstance(value, int):
        doors.append(lambda rate: check_audio(np.zeros(10, np.float32), rate))
    for door in doors:
        try:
            door(value)
        except InputError:
            pass


def open_array(array):
    from mggtalk_core.media.audio import check_audio
    from mggtalk_core.media.image import check_photo

    for check in (check_photo, lambda wave: check_audio(wave, 16_000)):
        try:
            check(array)
        except InputError:
            pass


DOORS = {"photo": open_photo, "audio": open_audio, "video": open_video, "csv": open_csv, "head": open_head,
         "splat": open_splat, "checkpoint": open_checkpoint, "value": open_value, "array": open_array}  # fmt: skip


@contextmanager
def within(seconds: int):
    """A hang becomes a failure."""

    def late(*_):
        raise TimeoutError(f"no answer within {seconds} s")

    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def peak_megabytes() -> float:
    """The most memory this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def answer(case: Case) -> str:
    """What a door says to a case: accepted, refused, or what went wrong."""
    before = peak_megabytes()
    try:
        with within(SECONDS):
            DOORS[case.door](case.path)
        outcome = "accepted"
    except InputError as error:
        message = str(error).replace(str(case.path), "")
        outcome = "refused" if message.strip() and "\n" not in message else f"message {message!r}"
    except Exception as error:  # whatever else a door raises is the finding of this test
        return f"{type(error).__name__}: {error}"[:200]
    grown = peak_megabytes() - before
    return outcome if grown < MEGABYTES else f"took {grown:.0f} MB"


def fuzz(folder: Path, count: int, seed: int) -> dict:
    """Figures of a run; `failures` names each case that was not answered properly."""
    start, answers, failures = time.perf_counter(), Counter(), []
    for case in cases(folder, count, seed):
        outcome = answer(case)
        answers[outcome if outcome in ("accepted", "refused") else "failed"] += 1
        if outcome not in ("accepted", "refused"):
            failures.append(f"{case.door}, {case.name}: {outcome}")
        elif isinstance(case.path, Path):
            case.path.unlink(missing_ok=True)
    return {"cases": sum(answers.values()), **answers, "seconds": round(time.perf_counter() - start, 1),
            "failures": failures}  # fmt: skip


def test_two_hundred_hostile_files(tmp_path):
    report = fuzz(tmp_path, 200, seed=int(os.environ.get("MGGTALK_FUZZ_SEED", 1)))
    assert report["failures"] == [] and report["cases"] == 200
    assert report["refused"] > 100


@pytest.mark.slow
def test_thousands_of_hostile_files(tmp_path, capsys):
    count, seed = int(os.environ.get("MGGTALK_FUZZ_CASES", 2500)), int(os.environ.get("MGGTALK_FUZZ_SEED", 2))
    report = fuzz(tmp_path, count, seed=seed)
    with capsys.disabled():
        print(json.dumps(report))
    assert report["failures"] == []


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_output_names_are_refused_before_any_work(name, tmp_path, monkeypatch):
    from mggtalk_core.media.files import require_output

    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        require_output(name, suffixes=(".mp4",))
    assert list(tmp_path.iterdir()) == []


def test_good_files_are_accepted(tmp_path):
    """The fuzz run means something only if undamaged files get through."""
    from hostile import good_files

    for door, files in good_files().items():
        for suffix, data in files:
            path = tmp_path / f"good.{suffix}"
            path.write_bytes(data)
            if door != "checkpoint":  # a made-up checkpoint is rightly refused
                assert answer(Case(door, "good", path)) == "accepted", (door, suffix)
