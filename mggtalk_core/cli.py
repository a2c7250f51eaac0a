"""The command line, `mggtalk`: a thin layer over `pipeline.py` and its neighbours.

JSON (with --json) goes to stdout alone; everything else goes to stderr. Exit codes: 0 done, 2 bad input (one line on
stderr says what and what to do), 130 interrupted, anything else is a bug.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import __version__
from .errors import InputError

BAD_INPUT, INTERRUPTED = 2, 130


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line and the usage is left to --help."""

    def error(self, message: str):
        self.exit(BAD_INPUT, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = _Parser(prog="mggtalk", description="One photo and speech become a talking 3D Gaussian head.")
    parser.add_argument("--version", action="version", version=f"mggtalk {__version__}")
    parser.add_argument("--verbose", action="store_true", help="also show what native libraries log")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, run: Callable, summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.add_argument("--json", action="store_true", help="print the report as JSON on stdout")
        sub.set_defaults(run=run)
        return sub

    demo = command("demo", _demo, "animate the portrait and speech that come with the install")
    demo.add_argument("-o", "--output", default="mggtalk_demo.mp4", help="the video to write (%(default)s)")
    _picture_options(demo)

    animate = command("animate", _animate, "a photo speaks what is in a sound file")
    animate.add_argument("--image", required=True, help="photo of one person")
    animate.add_argument("--audio", required=True, help="speech, any common sound or video file")
    animate.add_argument("-o", "--output", required=True, help="the video to write, .mp4")
    _picture_options(animate)

    reenact = command("reenact", _reenact, "a photo moves as the person in a video does")
    reenact.add_argument("--image", required=True, help="photo of one person")
    reenact.add_argument("--video", required=True, help="video of one person, the motion to copy")
    reenact.add_argument("-o", "--output", required=True, help="the video to write, .mp4")
    reenact.add_argument(
        "--missing", choices=("interpolate", "previous", "neutral", "error"), default="interpolate",
        help="frames in which no face is found (%(default)s)",
    )  # fmt: skip
    _picture_options(reenact, fps=False, seed=False)

    drive = command("drive", _drive, "speech becomes an ARKit / Live Link Face CSV")
    drive.add_argument("--audio", required=True, help="speech, any common sound or video file")
    drive.add_argument("-o", "--output", required=True, help="the motion to write, .csv")
    drive.add_argument("--fps", type=float, default=25.0, help="frames per second (%(default)g)")
    drive.add_argument("--seed", type=int, default=0, help="of blinks and head sway (%(default)s)")

    evaluate = command("evaluate", _evaluate, "measure results against real video")
    source = evaluate.add_mutually_exclusive_group(required=True)
    source.add_argument("--video", nargs="+", help="clips (or folders of clips): first frame as source, self-driven")
    source.add_argument("--audio-video", nargs="+", help="clips: lip sync of their sound driving the head")
    source.add_argument("--synthetic", metavar="ASSETS", help="MakeHuman's asset folder: people never trained on, "
                        "their hidden sides, depth and the splats' grid")  # fmt: skip
    evaluate.add_argument("--people", type=int, default=10, help="with --synthetic: how many (%(default)s)")
    evaluate.add_argument("--source", help="photo of somebody else, for cross-reenactment; a photo or "
                          "first-frame, for lip sync measured on rendered frames too")
    evaluate.add_argument("--every", type=int, default=4, help="with --video: use every n-th frame (%(default)s)")
    evaluate.add_argument("--frames", type=int, help="use at most so many frames of each clip")
    evaluate.add_argument("--size", type=int, default=256, help="side of the compared pictures (%(default)s)")
    evaluate.add_argument("--ablate", action="append", default=[], metavar="NAME", help="also without NAME")
    evaluate.add_argument("--more-photos", type=int, default=0, metavar="N",
                          help="with --video: also a head that knows N more frames of the clip")  # fmt: skip
    evaluate.add_argument("--checkpoint", help="weights to use instead of those that ship")
    evaluate.add_argument("-o", "--output", help="also write the table here, .md or .json")

    benchmark = command("benchmark", _benchmark, "measure speed on this machine")
    benchmark.add_argument("what", nargs="?", choices=("render", "pipeline"), default="render")

    preprocess = command("preprocess", _preprocess, "track a folder of videos into a training data set")
    preprocess.add_argument("--videos", required=True, help="folder of videos")
    preprocess.add_argument("-o", "--output", required=True, help="folder to write")
    preprocess.add_argument("--size", type=int, default=256, help="side of the stored pictures (%(default)s)")

    train = command("train", _train, "train the networks, or (audio) the head that turns speech into mouth motion")
    train.add_argument("what", nargs="?", choices=("networks", "audio", "synth"), default="networks")
    train.add_argument("-o", "--output", required=True, help="networks: a folder; audio: .safetensors; synth: .png")
    train.add_argument("--config", help="networks: a recipe of the package by name, or training settings, .json")
    train.add_argument("--data", help="networks: folder of clips or samples, instead of the settings' own")
    train.add_argument("--assets", help="networks, synth: MakeHuman's asset folder (CC0), to make people from")
    train.add_argument("--photos", help="networks: folder of photos (.jpg): of people for spectacles, any for matting")
    train.add_argument("--preview", action="store_true", help="synth: write a contact sheet of synthetic people, .png")
    train.add_argument("--resume", action="store_true", help="networks: continue from the folder's last checkpoint")
    train.add_argument("--clips", nargs="*", default=[], help="audio: folders of talking clips, one per speaker")
    train.add_argument("--cache", help="audio: folder for synthetic speech, tracks and features (beside the output)")
    train.add_argument("--encoder", help="audio: folder or hub id of another speech encoder than Whisper-tiny")
    train.add_argument("--layer", type=int, help="audio: that encoder's hidden state (two thirds of the way up)")
    train.add_argument("--seed", type=int, default=0, help="audio, synth: of what is made up (%(default)s)")

    export = command("export", _export, "write a head for other programs")
    export.add_argument("--image", required=True, help="photo of one person")
    export.add_argument("-o", "--output", required=True, help=".ply .spz .splat .png, or .safetensors to animate later")
    export.add_argument("--face", type=int, default=0, help="which face, 0 is the largest (%(default)s)")
    export.add_argument("--size", type=int, default=512, help="side of the analysed crop (%(default)s)")
    export.add_argument("--checkpoint", help="weights to use instead of those that ship")

    command("doctor", _doctor, "what is installed, found and missing")
    return parser


def _picture_options(parser: argparse.ArgumentParser, fps: bool = True, seed: bool = True) -> None:
    """Options of the commands that render a video."""
    parser.add_argument("--size", type=int, default=512, help="height and width of the picture (%(default)s)")
    if fps:
        parser.add_argument("--fps", type=float, default=25.0, help="frames per second; 23.976 and 29.97 are exact")
    if seed:
        parser.add_argument("--seed", type=int, default=0, help="of blinks and head sway (%(default)s)")
    parser.add_argument("--camera", choices=("photo", "orbit"), default="photo", help="still, or around the head")
    parser.add_argument("--framing", choices=("crop", "paste"), default="crop", help="the head, or the whole photo")
    parser.add_argument("--background", default="photo", help="photo, or a colour as #rrggbb (%(default)s)")
    parser.add_argument("--face", type=int, default=0, help="which face, 0 is the largest (%(default)s)")
    parser.add_argument(
        "--more-images", nargs="+", default=[], metavar="IMAGE", help="further photos of the same person"
    )
    parser.add_argument("--video-source", metavar="VIDEO", help="a short clip of the same person, used like photos")
    parser.add_argument("--depth-model", metavar="MODEL", help="transformers depth model (folder or hub id) for hair")
    parser.add_argument("--checkpoint", help="weights to use instead of those that ship")
    parser.add_argument("--no-provenance", action="store_true", help="don't say in the file that it is generated")
    parser.add_argument("--c2pa-certificate", metavar="PEM", help="sign with C2PA: your certificate chain")
    parser.add_argument("--c2pa-key", metavar="PEM", help="sign with C2PA: your private key (ES256)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    # before mediapipe and numba are imported: no chatter of TensorFlow Lite, no busy waiting of OpenMP threads
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = build_parser().parse_args(arguments)
    if not options.verbose:
        _silence_native_code()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="mggtalk: %(message)s")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _stdout_for_json() as stdout:
            report = options.run(options)
            code = report.pop("exit_code", 0)
            text = json.dumps(_plain(report)) if options.json else _readable(options.command, report)
            encoding = stdout.encoding or "utf-8"  # a Windows pipe's code page lacks most letters
            stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
            stdout.flush()
        return code
    except InputError as error:
        sys.stderr.write(f"mggtalk: error: {' '.join(str(error).split())}\n")
        return BAD_INPUT
    except KeyboardInterrupt:
        sys.stderr.write("mggtalk: interrupted; no unfinished file was left under its final name\n")
        return INTERRUPTED


def _silence_native_code() -> None:
    """Sends what native code writes to stderr nowhere; Python's stderr stays.

    MediaPipe logs a dozen lines per run there before its log level can be set.
    """
    if sys.stderr is not sys.__stderr__:  # somebody captures it
        return
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    faulthandler.enable(sys.stderr)  # a crash of native code still says where


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


@contextmanager
def _stdout_for_json():
    """The real stdout for the report; whatever libraries print meanwhile goes to stderr."""
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        yield stdout
    finally:
        sys.stdout = stdout


class _Progress:
    """A progress bar on stderr when it is a terminal, called as progress(done, total) of some unit."""

    WIDTH = 30

    def __init__(self, unit: str = "frames"):
        self._unit = unit
        self._shown = sys.stderr.isatty()
        self._start = time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        if not self._shown:
            return
        rate = done / max(time.perf_counter() - self._start, 1e-6)
        bar = "#" * round(self.WIDTH * done / max(total, 1))
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\r[{bar:<{self.WIDTH}}] {done}/{total} {self._unit}, {rate:.1f}/s {end}")
        sys.stderr.flush()


def _render_arguments(options: argparse.Namespace) -> dict:
    """The options shared by demo, animate and reenact, as `pipeline` takes them."""
    if bool(options.c2pa_certificate) != bool(options.c2pa_key):
        raise InputError("C2PA signing needs both --c2pa-certificate and --c2pa-key")
    from .geometry.dsgr import HEAD_PRIOR

    return dict(
        size=options.size,
        camera=None if options.camera == "photo" else options.camera,
        framing=options.framing,
        background=_background(options.background),
        face_index=options.face,
        further_images=options.more_images,
        video_source=options.video_source,
        depth_source=options.depth_model or HEAD_PRIOR,
        checkpoint=options.checkpoint,
        provenance=not options.no_provenance,
        progress=_Progress(),
    )


def _background(text: str) -> str | tuple[float, float, float]:
    """`photo`, or #rrggbb as three numbers 0..1."""
    if text == "photo":
        return text
    digits = text.removeprefix("#")
    try:
        if len(digits) != 6:
            raise ValueError
        return tuple(byte / 255 for byte in bytes.fromhex(digits))
    except ValueError:
        raise InputError(f"--background {text!r} is neither 'photo' nor a colour such as #00ff00") from None


def _animate(options: argparse.Namespace) -> dict:
    from . import pipeline

    report = pipeline.animate(
        options.image, options.audio, options.output, fps=options.fps, seed=options.seed, **_render_arguments(options)
    )
    return _signed(options, report)


def _demo(options: argparse.Namespace) -> dict:
    from .assets import DEMO_PORTRAIT, DEMO_SPEECH

    options.image, options.audio = DEMO_PORTRAIT, DEMO_SPEECH
    return _animate(options)


def _reenact(options: argparse.Namespace) -> dict:
    from . import pipeline

    report = pipeline.reenact(
        options.image, options.video, options.output, missing=options.missing, **_render_arguments(options)
    )
    return _signed(options, report)


def _signed(options: argparse.Namespace, report: dict) -> dict:
    """Signs the finished file when asked to."""
    if options.c2pa_certificate:
        from .media.provenance import sign_c2pa

        sign_c2pa(options.output, options.c2pa_certificate, options.c2pa_key)
    return report


def _drive(options: argparse.Namespace) -> dict:
    from .media.audio import read_audio
    from .media.files import require_output
    from .motion.audio.drive import drive_with_audio
    from .motion.blendshape_csv import write_motion_csv

    output = require_output(options.output, suffixes=(".csv",))
    audio = read_audio(options.audio, sample_rate=16_000, channels=1)
    start = time.perf_counter()
    motion = drive_with_audio(
        audio.waveform, audio.sample_rate, options.fps, seed=options.seed, progress=_Progress("windows")
    )  # fmt: skip
    seconds = time.perf_counter() - start
    write_motion_csv(motion, output)
    return {
        "frames": len(motion),
        "fps": motion.fps,
        "audio_s": audio.seconds,
        "realtime_factor": audio.seconds / seconds,
        "output": str(output),
        "warnings": list(motion.warnings),
    }


def _evaluate(options: argparse.Namespace) -> dict:
    from .evaluation import protocols

    shared = dict(every=options.every, frames=options.frames, size=options.size, checkpoint=options.checkpoint)
    if options.audio_video:
        report = protocols.audio_driven(
            options.audio_video, source=options.source, checkpoint=options.checkpoint
        )
    elif options.synthetic:
        from .evaluation.synthetic_heads import synthetic_heads

        report = synthetic_heads(
            options.synthetic, people=options.people, size=options.size, checkpoint=options.checkpoint,
            ablate=options.ablate, progress=_Progress(),
        )  # fmt: skip
    elif options.source:
        report = protocols.cross_reenactment(options.source, options.video, **shared)
    else:
        report = protocols.self_reenactment(
            options.video, ablate=options.ablate, more_photos=options.more_photos, progress=_Progress(), **shared
        )
    if options.output:
        from .evaluation.tables import write_table

        write_table(report, options.output)
    return report


def _benchmark(options: argparse.Namespace) -> dict:
    from . import benchmark

    return benchmark.run(options.what)


def _preprocess(options: argparse.Namespace) -> dict:
    from .training.preprocess import preprocess

    return preprocess(options.videos, options.output, size=options.size)


def _train(options: argparse.Namespace) -> dict:
    if options.what == "audio":
        from .media.files import require_output
        from .motion.audio.encoders import TransformersEncoder
        from .training.audio import train_audio

        output = require_output(options.output, suffixes=(".safetensors",))
        encoder = TransformersEncoder(options.encoder, options.layer) if options.encoder else None
        cache = Path(options.cache or output.with_name("audio-cache"))
        return train_audio([Path(clips) for clips in options.clips], cache, output, encoder, options.seed)
    if options.what == "synth":
        from .training.synthetic import preview_sheet

        if not (options.preview and options.assets):
            raise InputError("mggtalk train synth needs --preview and --assets, MakeHuman's asset folder")
        return preview_sheet(options.assets, options.output, seed=options.seed)
    if options.config is None:
        raise InputError("training the networks needs --config; give a recipe's name or settings, .json")
    from .training.trainer import train

    return train(
        options.config, options.output, resume=options.resume, data=options.data, assets=options.assets,
        photos=options.photos,
    )  # fmt: skip


def _export(options: argparse.Namespace) -> dict:
    from . import pipeline
    from .gaussians.splat_io import write_splat_file
    from .media.files import require_output
    from .media.image import read_photo
    from .weights import load_model

    output = require_output(options.output, suffixes=(".ply", ".spz", ".splat", ".safetensors", ".png"))
    model = load_model(options.checkpoint)
    head = pipeline.build_head(read_photo(options.image), model=model, size=options.size, face_index=options.face)
    if output.suffix.lower() == ".safetensors":
        head.save(output)
    elif output.suffix.lower() == ".png":
        pipeline.write_still(head, output, image=options.image, checkpoint=options.checkpoint)
    else:
        write_splat_file(head.gaussians(), output)
    return {"gaussians": len(head), "output": str(output), "warnings": list(head.warnings)}


def _doctor(options: argparse.Namespace) -> dict:
    from .doctor import examine

    report = examine()
    return {**report, "exit_code": BAD_INPUT if report["problems"] else 0}


def _plain(value):
    """A report as JSON types: numpy numbers become Python's, NaN becomes null, paths become text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and value - value != 0:  # NaN and the infinities are not JSON
        return None
    return str(value) if isinstance(value, Path) else value


def _readable(command: str, report: dict) -> str:
    """A report for people."""
    if command == "evaluate":
        from .evaluation.tables import markdown

        return markdown(report)
    if command == "benchmark":
        from .benchmark import table

        return table(report)
    return _lines(report)


def _lines(report: dict, indent: str = "") -> str:
    lines = []
    for key, value in report.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", _lines(value, indent + "  ")]
        elif isinstance(value, (list, tuple)):
            lines += [f"{indent}{key}: {item}" for item in value]
        else:
            lines.append(f"{indent}{key}: {value:.4g}" if isinstance(value, float) else f"{indent}{key}: {value}")
    return "\n".join(lines)
