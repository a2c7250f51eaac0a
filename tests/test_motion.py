"""Motion files and tools: Live Link CSV, text timeline, smoothing and friends, blinks and sway."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mggtalk_core.errors import InputError
from mggtalk_core.headmodel.arkit import ARKIT_INDEX, ARKIT_NAMES
from mggtalk_core.motion import idle, tools
from mggtalk_core.motion.blendshape_csv import euler_from_rotation, read_motion_csv, write_motion_csv
from mggtalk_core.motion.timeline import read_timeline
from mggtalk_core.types import Motion


@pytest.fixture
def motion() -> Motion:
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.standard_normal((60, 3)), 0) * 0.02
    expression = np.clip(rng.random((60, 52)), 0, 1).astype(np.float32)
    return Motion(expression, walk.astype(np.float32), np.zeros((60, 3), np.float32), 25.0)


# CSV


@pytest.mark.parametrize("fps", [23.976, 24.0, 25.0, 29.97, 30.0, 59.94, 60.0])
def test_csv_round_trip(motion, tmp_path, fps):
    motion = replace(motion, fps=fps)
    write_motion_csv(motion, tmp_path / "m.csv")
    back = read_motion_csv(tmp_path / "m.csv")
    assert back.fps == fps
    assert np.abs(back.expression - motion.expression).max() < 1e-6
    assert np.abs(back.rotation - motion.rotation).max() < 1e-5
    assert not (tmp_path / "m.csv.partial").exists()


def test_csv_header_is_live_link_face(motion, tmp_path):
    write_motion_csv(motion, tmp_path / "m.csv")
    header, first = (tmp_path / "m.csv").read_text().splitlines()[:2]
    names = header.split(",")
    assert names[:4] == ["Timecode", "BlendShapeCount", "EyeBlinkLeft", "EyeLookDownLeft"]
    assert names[53:57] == ["TongueOut", "HeadYaw", "HeadPitch", "HeadRoll"]
    assert names[57:] == [f"{s}Eye{a}" for s in ("Left", "Right") for a in ("Yaw", "Pitch", "Roll")]
    assert first.startswith("00:00:00:00.000,61,")


def test_csv_keeps_translation_only_when_there_is_one(motion, tmp_path):
    moved = replace(motion, translation=np.full((60, 3), 0.01, np.float32))
    write_motion_csv(moved, tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text().splitlines()[0].endswith("HeadX,HeadY,HeadZ")
    assert read_motion_csv(tmp_path / "m.csv").translation == pytest.approx(0.01)


def test_head_angles_have_the_signs_the_file_promises():
    """A face (looking along -z, y down) that turns right of the image, lowers itself, tilts its top right."""
    right = Rotation.from_rotvec([0, -0.3, 0])
    assert right.apply([0, 0, -1])[0] > 0
    down = Rotation.from_rotvec([0.3, 0, 0])
    assert down.apply([0, 0, -1])[1] > 0
    tilted = Rotation.from_rotvec([0, 0, 0.3])
    assert tilted.apply([0, -1, 0])[0] > 0
    angles = [euler_from_rotation(r.as_rotvec()[None])[0] for r in (right, down, tilted)]
    assert np.array(angles) == pytest.approx(0.3 * np.eye(3), abs=1e-12)


def test_csv_fills_frames_a_recording_dropped(motion, tmp_path):
    write_motion_csv(motion, tmp_path / "m.csv")
    lines = (tmp_path / "m.csv").read_text().splitlines()
    (tmp_path / "m.csv").write_text("\n".join(lines[:21] + lines[23:]))
    back = read_motion_csv(tmp_path / "m.csv")
    assert len(back) == 60 and back.fps == 25
    middle = motion.expression[19] * 2 / 3 + motion.expression[22] / 3
    assert back.expression[20] == pytest.approx(middle, abs=1e-5)


def test_csv_accepts_other_columns_orders_and_ranges(tmp_path):
    (tmp_path / "m.csv").write_text("jawopen,EYEBLINKLEFT,comment\n1.2,0.5,a\n-0.1,0.25,b\n")
    motion = read_motion_csv(tmp_path / "m.csv", fps=30)
    assert motion.expression[:, ARKIT_INDEX["jawOpen"]] == pytest.approx([1, 0])
    assert motion.expression[:, ARKIT_INDEX["eyeBlinkLeft"]] == pytest.approx([0.5, 0.25])
    assert "clipped" in motion.warnings[0]


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "empty"),
        ("a,b\n1,2", "no ARKit column"),
        ("JawOpen", "no frames"),
        ("JawOpen\n0.1", "no Timecode"),
        ("Timecode,JawOpen\n00:00:00:00.0,x\n00:00:00:01.0,1", "row 2, column jawOpen"),
        ("Timecode,JawOpen\n00:00:00:00.0,nan\n00:00:00:01.0,1", "row 2, column jawOpen"),
        ("Timecode,JawOpen\nnoon,0\nnight,1", "time code"),
        ("Timecode,JawOpen\n00:00:01:00.0,0\n00:00:00:00.0,1", "do not rise"),
    ],
)
def test_csv_errors_name_the_place(tmp_path, text, words):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_motion_csv(tmp_path / "m.csv")


def test_csv_missing_file():
    with pytest.raises(InputError, match="no file"):
        read_motion_csv("no/such.csv")


# Tools


def test_smoothing_calms_noise_keeps_blinks_and_turns_rotations(motion):
    calm = tools.smooth(motion, 0.08)
    jaw, blink = ARKIT_INDEX["jawOpen"], ARKIT_INDEX["eyeBlinkLeft"]
    assert np.abs(np.diff(calm.expression[:, jaw])).mean() < 0.3 * np.abs(np.diff(motion.expression[:, jaw])).mean()
    assert np.array_equal(calm.expression[:, blink], motion.expression[:, blink])
    half_turn = replace(motion, rotation=np.tile(np.float32([0, 3.1, 0]), (60, 1)) * np.float32([[1], [-1]] * 30))
    turned = Rotation.from_rotvec(tools.smooth(half_turn, 0.08).rotation)
    facing_away = Rotation.from_rotvec([0, np.pi, 0])
    assert np.degrees((facing_away.inv() * turned).magnitude()).max() < 3  # averaging axis-angle would face forward
    assert tools.smooth(motion, 0) is motion


@pytest.mark.parametrize("fps", [23.976, 50, 60])
def test_resampling_keeps_duration_and_values(motion, fps):
    other = tools.resample(motion, fps)
    assert len(other) == int(np.ceil(60 / 25 * fps - 1e-6))
    assert other.expression[0] == pytest.approx(motion.expression[0])
    if fps == 50:
        assert other.expression[::2] == pytest.approx(motion.expression, abs=1e-6)
        assert other.rotation[::2] == pytest.approx(motion.rotation, abs=1e-6)


def test_trim_and_concatenate(motion):
    part = tools.trim(motion, 0.4, 1.2)
    assert len(part) == 20
    assert np.array_equal(part.expression, motion.expression[10:30])
    both = tools.concatenate([motion, part], blend=0.2)
    assert len(both) == 80
    assert np.array_equal(both.expression[:60], motion.expression)
    assert both.expression[65:] == pytest.approx(part.expression[5:])
    step = np.linalg.norm(both.rotation[60] - both.rotation[59])
    assert step < 0.5 * np.linalg.norm(part.rotation[0] - motion.rotation[-1]) + 0.03
    assert len(tools.concatenate([motion, tools.resample(part, 50)])) == 80


@pytest.mark.parametrize("start, end", [(-1, 1), (1, 1), (3, 4)])
def test_trim_refuses_what_is_not_there(motion, start, end):
    with pytest.raises(InputError, match="can't cut"):
        tools.trim(motion, start, end)


def test_retarget_removes_rest_and_lifts_eyes(motion):
    expression = np.zeros((60, 52), np.float32)
    expression[:, ARKIT_INDEX["eyeBlinkLeft"]] = 0.1
    expression[30, ARKIT_INDEX["eyeBlinkLeft"]] = 0.5
    expression[:, ARKIT_INDEX["jawOpen"]] = np.linspace(0, 0.5, 60)
    expression[:, ARKIT_INDEX["eyeLookInLeft"]] = 0.3
    out = tools.retarget(replace(motion, expression=expression)).expression
    assert out[30, ARKIT_INDEX["eyeBlinkLeft"]] == pytest.approx(0.8)
    assert out[0, ARKIT_INDEX["eyeBlinkLeft"]] == 0
    assert out[-1, ARKIT_INDEX["jawOpen"]] == pytest.approx(0.5, abs=0.03)
    assert out[:, ARKIT_INDEX["eyeLookInLeft"]] == pytest.approx(0.3)


def test_range_calibration_reaches_the_other_top(motion):
    quiet = replace(motion, expression=0.25 * motion.expression)
    loud = tools.calibrate_range(quiet, motion)
    wanted = np.percentile(motion.expression, 95, axis=0)
    assert np.percentile(loud.expression, 95, axis=0) == pytest.approx(wanted, rel=1e-3)


# Timeline


def test_timeline_reaches_its_poses():
    motion = read_timeline("0 rest\n1.0 jawOpen=0.5 mouthSmileLeft=.3 yaw=10 x=2 # half way\n\n2.0 blink", fps=30)
    assert len(motion) == 61
    assert motion.expression[30, ARKIT_INDEX["jawOpen"]] == pytest.approx(0.5)
    assert motion.expression[30, ARKIT_INDEX["mouthSmileRight"]] == 0
    assert np.degrees(euler_from_rotation(motion.rotation[30:31]))[0] == pytest.approx([10, 0, 0], abs=1e-4)
    assert motion.translation[30] == pytest.approx([0.02, 0, 0])
    assert motion.expression[60, ARKIT_INDEX["eyeBlinkRight"]] == 1
    assert 0 < motion.expression[45, ARKIT_INDEX["jawOpen"]] < 0.5
    assert len(read_timeline("0 smile")) == 1


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "no lines"),
        ("0 grin", "line 1.*grin"),
        ("0 rest\n1 jawOpen=2", "line 2.*0..1"),
        ("0 rest\n1 jawWide=0.2", "line 2.*jawWide"),
        ("0 rest\n1 jawOpen=big", "line 2.*big"),
        ("1 rest\n0.5 smile", "line 2.*after"),
        ("soon smile", "not a time"),
    ],
)
def test_timeline_errors_name_line_and_word(text, words):
    with pytest.raises(InputError, match=words):
        read_timeline(text)


# Idle movement


def test_blinks_come_15_to_25_times_a_minute_and_never_overlap():
    times = np.arange(600 * 60) / 60
    rates = []
    for seed in range(4):
        closure = idle.blinks(seed, times)
        starts = np.flatnonzero(np.diff((closure > 0.5).astype(int)) == 1)
        stops = np.flatnonzero(np.diff((closure > 0.5).astype(int)) == -1)
        rates.append(len(starts) / 10)
        durations = (stops[: len(starts)] - starts[: len(stops)]) / 60
        assert np.median(durations) == pytest.approx(0.16, abs=0.05)
        assert np.diff(starts).min() / 60 > 0.45
        assert closure.min() == 0 and closure.max() > 0.99
    assert 15 < np.mean(rates) < 25


def test_head_sway_is_measured_size_starts_at_rest_and_never_jumps():
    quiet, speaking = np.zeros(60 * 50), np.ones(60 * 50)
    turns = np.degrees(np.concatenate([idle.sway(seed, quiet, speaking) for seed in range(8)]))
    assert np.all((0.8 < turns.std(0)) & (turns.std(0) < 4))
    first = np.degrees(idle.sway(0, quiet, speaking))
    assert np.abs(first[0]).max() == 0
    assert np.abs(np.diff(first, axis=0)).max() * 50 < 30  # degrees per second
    assert np.abs(turns).max() < 15


def test_part_of_a_performance_moves_like_that_part():
    n = 500
    zeros, ones = np.zeros(n), np.ones(n)
    whole = idle.sway(3, zeros, ones)
    assert idle.sway(3, zeros[200:], ones[200:], start=200)[50:] == pytest.approx(whole[250:], abs=1e-4)
    assert idle.glances(3, n - 200, start=200)[20:] == pytest.approx(idle.glances(3, n)[220:], abs=1e-6)
    assert idle.brows(3, zeros[200:], start=200) == pytest.approx(idle.brows(3, zeros)[200:], abs=1e-6)


def test_eyes_turn_to_where_they_look():
    """Front of the left eyeball moves right of the image for +x, down for +y, by about the angle asked."""
    from mggtalk_core.headmodel.model import LEFT_EYE, load_head_model

    head = load_head_model()
    ball = head.part_vertices(LEFT_EYE)
    front = ball[np.argmin(head.mean[ball, 2])]
    centre = (head.mean[ball].min(0) + head.mean[ball].max(0)) / 2
    identity = np.zeros(len(head.identity_basis), np.float32)
    for degrees, axis in (((8.0, 0.0), 0), ((0.0, 4.0), 1)):
        moved = head.shape(identity, idle.eye_expression(np.array([degrees]))[0])[front] - head.mean[front]
        angle = np.degrees(moved[axis] / np.linalg.norm(head.mean[front] - centre))
        assert angle == pytest.approx(max(degrees), rel=0.25)


def test_names_are_apples():
    assert len(ARKIT_NAMES) == len(set(ARKIT_NAMES)) == 52
