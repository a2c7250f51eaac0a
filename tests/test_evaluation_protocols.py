"""Protocols on a clip whose truth is known: our own render of the demo portrait, talking."""

import json

import numpy as np
import pytest
from conftest import shared_data

from mggtalk_core import cli, pipeline
from mggtalk_core.assets import DEMO_PORTRAIT, DEMO_SPEECH
from mggtalk_core.errors import InputError
from mggtalk_core.evaluation import protocols, tables
from mggtalk_core.evaluation.clips import Window, find_clips, resampled, sampled_frames
from mggtalk_core.portrait.analysis import analyze_portrait
from mggtalk_core.weights import load_model


@pytest.fixture(scope="module", autouse=True)
def small_heads():
    """Heads of 192 pixels instead of 512: these tests are about the protocols."""
    patch = pytest.MonkeyPatch()
    patch.setattr(protocols, "HEAD_SIZE", 192)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The demo, small."""
    path = tmp_path_factory.mktemp("clip") / "talk.mp4"
    pipeline.animate(DEMO_PORTRAIT, DEMO_SPEECH, path, size=256, provenance=False)
    return path


@pytest.fixture(scope="module")
def report(clip):
    return protocols.self_reenactment([clip], every=9, size=128, ablate=["symmetry", "densify"])


def test_self_reenactment_beats_its_baselines(report):
    rows = {name: {metric: value["mean"] for metric, value in row.items()} for name, row in report["variants"].items()}
    assert {"full", "blurred prior", "rigid head", "repeat first frame", "without symmetry"} <= set(rows)
    for metric in ("psnr", "psnr_face", "psnr_mouth", "ssim"):
        assert rows["full"][metric] > rows["rigid head"][metric] > rows["repeat first frame"][metric] - 3, metric
        assert rows["full"][metric] > rows["repeat first frame"][metric], metric
    assert rows["full"]["lip_corr"] > 0.9 and rows["full"]["found"] == 1
    assert rows["full"]["lmd"] < rows["rigid head"]["lmd"] < 0.2
    assert np.isnan(rows["repeat first frame"]["lip_corr"])  # a constant has no correlation
    has_densify = load_model().densify is not None
    assert ("without densify" in rows) == has_densify
    assert any("densify" in line for line in report["not_measured"]) != has_densify
    assert report["clips"][0]["frames"] == 15  # frames 9, 18 ... 135; frame 0 is the source


def test_the_table_holds_every_variant_and_metric(report, tmp_path):
    text = tables.markdown(report)
    assert all(f"| {name} |" in text for name in report["variants"])
    assert "face PSNR" in text and "32.40" in text and text.count("\n") >= 8
    tables.write_table(report, tmp_path / "t.json")
    loaded = json.loads((tmp_path / "t.json").read_text())
    assert loaded["variants"]["full"]["psnr"]["mean"] == pytest.approx(report["variants"]["full"]["psnr"]["mean"])
    assert loaded["variants"]["full"]["psnr"]["low"] is None  # one clip has no interval
    tables.write_table(report, tmp_path / "t.md")
    assert (tmp_path / "t.md").read_text().strip() == text.strip()
    with pytest.raises(InputError, match="end in"):
        tables.write_table(report, tmp_path / "t.html")


def test_intervals_appear_with_several_clips(report):
    clips = [dict(report["clips"][0]), dict(report["clips"][0])]
    clips[1]["variants"] = {
        name: {metric: value + 1 for metric, value in row.items()} for name, row in clips[1]["variants"].items()
    }
    both = protocols.make_report("self-reenactment", clips, report["settings"], {})
    low, mean, high = (both["variants"]["full"]["psnr"][key] for key in ("low", "mean", "high"))
    assert low < mean < high and high - low == pytest.approx(1, abs=0.01)
    assert "[" in tables.markdown(both)


def test_cross_reenactment_follows_the_clip(clip):
    rows = protocols.cross_reenactment(DEMO_PORTRAIT, [clip], every=9)["variants"]
    assert rows["full"]["lip_corr"]["mean"] > 0.8
    assert rows["full"]["apd"]["mean"] < 4
    assert rows["full"]["aed"]["mean"] < rows["rigid head"]["aed"]["mean"]


def test_lip_sync_of_a_driven_clip_is_near_perfect(clip):
    """The clip's mouth was driven by its own sound, so driving again has to agree with what is tracked."""
    rows = protocols.audio_driven([clip], source=DEMO_PORTRAIT)["variants"]
    assert rows["full"]["lip_corr"]["mean"] > 0.9 and rows["rendered"]["lip_corr"]["mean"] > 0.9
    assert abs(rows["full"]["offset_ms"]["mean"]) <= 40
    assert rows["full"]["lip_corr"]["mean"] > rows["loudness"]["lip_corr"]["mean"]


def test_command_line_prints_json(clip, capsys):
    arguments = ["evaluate", "--video", str(clip), "--every", "45", "--size", "64"]
    assert cli.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variants"]["full"]["psnr"]["mean"] > 15


@pytest.mark.parametrize(
    "options, reason",
    [(dict(ablate=["hair"]), "hair"), (dict(every=0), "every"), (dict(frames=1), "frames")],
)
def test_bad_options_are_refused(clip, options, reason):
    with pytest.raises(InputError, match=reason):
        protocols.self_reenactment([clip], **options)


def test_folders_are_searched(clip, tmp_path):
    assert find_clips([clip.parent]) == [clip]
    with pytest.raises(InputError, match="no videos"):
        find_clips([tmp_path])


def test_square_clips_are_compared_whole_and_others_by_the_crop():
    wide = shared_data("dev/video/v07_biden_720p_small_face.mp4")
    frame = next(sampled_frames(wide, 1, 2))
    window = Window.of(analyze_portrait(frame.astype(np.float32) / 255, size=256))
    assert not window.whole and window.view(frame).shape == (256, 256, 3)
    assert resampled(window.view(frame), 64).shape == (64, 64, 3)
    # the crop shows what the portrait shows
    assert np.abs(window.view(frame) / 255 - window.portrait.image).max() < 0.01


@pytest.mark.slow
def test_the_real_clip_reaches_the_required_figures(monkeypatch):
    monkeypatch.setattr(protocols, "HEAD_SIZE", 512)
    rows = protocols.self_reenactment([shared_data("dev/video/v01_hdtf_aoc.mp4")])["variants"]
    full, rigid, repeat = (rows[name] for name in ("full", "rigid head", "repeat first frame"))
    assert full["psnr_face"]["mean"] >= 19.0 and full["lip_corr"]["mean"] >= 0.95
    assert full["psnr_face"]["mean"] > max(rigid["psnr_face"]["mean"], repeat["psnr_face"]["mean"])
    assert full["lip_corr"]["mean"] > rigid["lip_corr"]["mean"]
