"""The command line's contract: what goes to stdout and stderr, exit codes, and one-line errors."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from mggtalk_core import cli
from mggtalk_core.errors import InputError


def run(*arguments, **options) -> subprocess.CompletedProcess:
    """`mggtalk ARGUMENTS` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "mggtalk_core", *map(str, arguments)], capture_output=True, text=True, **options
    )


def report_of(monkeypatch, report: dict) -> None:
    monkeypatch.setattr(cli, "_animate", lambda options: report)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ([], "COMMAND"), (["sing"], "sing"), (["animate", "--image", "a.png"], "--audio"),
        (["animate", "--image", "a", "--audio", "b", "-o", "c.mp4", "--size", "big"], "big"),
        (["evaluate"], "--video"), (["benchmark", "everything"], "everything"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line_and_exit_2(capsys, arguments, reason):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    written = capsys.readouterr()
    assert exit_.value.code == 2 and written.out == ""
    assert written.err.count("\n") == 1 and "error:" in written.err and reason in written.err


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--help"])
    assert exit_.value.code == 0
    written = capsys.readouterr().out
    for name in ("demo", "animate", "reenact", "drive", "evaluate", "benchmark", "preprocess", "train", "export",
                 "doctor"):  # fmt: skip
        assert name in written


def test_json_is_alone_on_stdout(capsys, monkeypatch):
    def noisy(options):
        print("a library talks")
        return {"frames": np.int64(3), "fps": np.float32(25), "psnr": float("nan"), "seconds": {"track": 0.5}}

    monkeypatch.setattr(cli, "_animate", noisy)
    assert cli.main(["animate", "--image", "a", "--audio", "b", "-o", "c.mp4", "--json"]) == 0
    written = capsys.readouterr()
    assert json.loads(written.out) == {"frames": 3, "fps": 25.0, "psnr": None, "seconds": {"track": 0.5}}
    assert "a library talks" in written.err


def test_without_json_the_report_is_readable(capsys, monkeypatch):
    report_of(monkeypatch, {"frames": 3, "seconds": {"track": 0.5}, "warnings": ["small face"]})
    assert cli.main(["animate", "--image", "a", "--audio", "b", "-o", "c.mp4"]) == 0
    assert capsys.readouterr().out.splitlines() == ["frames: 3", "seconds:", "  track: 0.5", "warnings: small face"]


@pytest.mark.parametrize(
    "failure, code", [(InputError("the photo\nis broken"), 2), (KeyboardInterrupt(), 130)]
)
def test_failures_are_one_line(capsys, monkeypatch, failure, code):
    def fail(options):
        raise failure

    monkeypatch.setattr(cli, "_animate", fail)
    assert cli.main(["animate", "--image", "a", "--audio", "b", "-o", "c.mp4", "--json"]) == code
    written = capsys.readouterr()
    assert written.out == "" and written.err.count("\n") == 1


def test_a_bug_is_not_hidden(monkeypatch):
    monkeypatch.setattr(cli, "_animate", lambda options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["animate", "--image", "a", "--audio", "b", "-o", "c.mp4"])


@pytest.mark.parametrize("text, value", [("photo", "photo"), ("#ff0000", (1, 0, 0)), ("00ff00", (0, 1, 0))])
def test_backgrounds(text, value):
    assert cli._background(text) == value


@pytest.mark.parametrize("text", ["", "red", "#12", "#gggggg", "../../etc/passwd"])
def test_bad_backgrounds(text):
    with pytest.raises(InputError, match="background"):
        cli._background(text)


def test_doctor_finds_everything_a_fresh_install_has():
    result = run("doctor", "--json")
    report = json.loads(result.stdout)
    assert result.returncode == 0 and report["problems"] == []
    assert report["libraries"]["numpy"] == np.__version__ and report["h264_encoder"] == "libx264"


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["animate", "--image", "absent.png", "--audio", "absent.wav", "-o", "o.mp4"], "absent"),
        (["animate", "--image", "green.png", "--audio", "green.png", "-o", "o.avi"], ".mp4"),
        (["drive", "--audio", "green.png", "-o", "m.csv"], "sound"),
        (["drive", "--audio", "green.png", "-o", "m.txt"], ".csv"),
        (["reenact", "--image", "green.png", "--video", "green.txt", "-o", "o.mp4"], "no file"),
        (["export", "--image", "green.png", "-o", "head.obj"], ".ply"),
        (["evaluate", "--video", "."], "no videos"),
    ],
)  # fmt: skip
def test_bad_files_exit_2_with_one_line(tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (200, 200), "green").save("green.png")
    assert cli.main(arguments) == 2
    written = capsys.readouterr()
    assert written.out == "" and written.err.count("\n") == 1 and reason in written.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["green.png"]


def test_a_photo_without_a_face_is_one_line_also_on_the_real_stderr(tmp_path):
    Image.new("RGB", (200, 200), "green").save(tmp_path / "green.png")
    result = run("export", "--image", tmp_path / "green.png", "-o", tmp_path / "head.ply")
    assert result.returncode == 2 and result.stdout == ""
    assert "no face" in result.stderr.splitlines()[-1]
    assert all(line.startswith("mggtalk: ") for line in result.stderr.splitlines())  # no traceback, no native logs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["green.png"]


@pytest.mark.parametrize(
    "sent",
    [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM,
     pytest.param(signal.SIGKILL, marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_killed_run_leaves_nothing_under_the_final_name(tmp_path, sent):
    from mggtalk_core.assets import DEMO_PORTRAIT, DEMO_SPEECH

    process = subprocess.Popen(
        [sys.executable, "-m", "mggtalk_core", "animate", "--image", str(DEMO_PORTRAIT), "--audio", str(DEMO_SPEECH),
         "-o", str(tmp_path / "o.mp4"), "--size", "256"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not list(tmp_path.iterdir()):
        time.sleep(0.05)  # until the unfinished file is there: the run is in its middle
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    if sent == signal.SIGKILL:  # nobody can clean up, but nobody can take the rest for a video either
        assert all(path.name.startswith(".") and ".partial" in path.name for path in tmp_path.iterdir())
        return
    assert process.returncode == cli.INTERRUPTED, stderr
    assert "interrupted" in stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_still_is_transparent_and_says_what_it_is(tmp_path):
    from mggtalk_core.assets import DEMO_PORTRAIT
    from mggtalk_core.media.provenance import GENERATED

    path = tmp_path / "still.png"
    assert cli.main(["export", "--image", str(DEMO_PORTRAIT), "-o", str(path), "--size", "128"]) == 0
    with Image.open(path) as still:
        pixels = np.asarray(still)
        assert still.mode == "RGBA" and pixels.shape == (128, 128, 4)
        assert GENERATED in still.text["XML:com.adobe.xmp"]
    assert pixels[2, 2, 3] == 0 and pixels[64, 64, 3] > 240  # corner and nose
    assert json.loads((tmp_path / "still.png.provenance.json").read_text())["digital_source_type"] == GENERATED


def test_a_console_without_unicode_does_not_break_the_report(tmp_path):
    """As on Windows, where a pipe has the code page's letters only."""
    from mggtalk_core.assets import DEMO_SPEECH

    target = tmp_path / "\u0142\u2191.csv"
    done = run("drive", "--audio", DEMO_SPEECH, "-o", target, env={**os.environ, "PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0, done.stderr
    assert "??.csv" in done.stdout and target.exists()
