"""The speech recipe and its scores: rule teacher, ridge, alignment of picture and sound, lip-sync metrics."""

import numpy as np
import pytest

from mggtalk_core.evaluation import lip_sync
from mggtalk_core.evaluation.lip_closures import closure_test
from mggtalk_core.motion.audio.head import OUTPUTS, TAPS, HeadConfig, context_of, load_mouth_head
from mggtalk_core.motion.audio.mouth import SPEECH_APERTURE
from mggtalk_core.training import audio
from mggtalk_core.training.audio_backgrounds import music, silent_stream
from mggtalk_core.training.audio_data import Clip, ClipFeatures, Stream
from mggtalk_core.training.audio_phones import CHANNELS, VISEME_NAMES, join_segments, segments_of_ipa, teach

APERTURE = CHANNELS.index("aperture")


def say(phones: str, each: float = 0.1) -> list[tuple[float, float, str]]:
    """Segments of phones that last equally long, between two half-second silences."""
    spoken = segments_of_ipa([(0.5 + i * each, p) for i, p in enumerate(phones)], 0.5 + len(phones) * each)
    return [(0.0, 0.5, "sil"), *spoken, (spoken[-1][1], spoken[-1][1] + 0.5, "sil")]


def test_teacher_opens_for_vowels_closes_for_bilabials_and_rounds_for_u():
    curves = teach(say("apaua"), 75, 50)
    at = {time: curves[int(time * 50)] for time in (0.54, 0.64, 0.74, 0.86)}
    assert at[0.74][APERTURE] > 0.3 > 0.1 > at[0.64][APERTURE]
    assert at[0.54][APERTURE] > 0.2  # coming from silence
    assert at[0.86][CHANNELS.index("mouthPucker")] > 0.3
    assert at[0.86][CHANNELS.index("width")] < -0.3
    assert curves[5, APERTURE] < 0.05 and curves[-5, APERTURE] < 0.05


def test_teacher_does_not_close_in_short_pauses():
    pause = [(0, 0.3, "a"), (0.3, 0.5, "sil"), (0.5, 0.8, "a")]
    long = [(0, 0.3, "a"), (0.3, 1.1, "sil"), (1.1, 1.4, "a")]
    assert teach(pause, 40, 50)[20, APERTURE] > 0.2
    assert teach(long, 70, 50)[35, APERTURE] < 0.1


def test_ipa_becomes_visemes():
    assert [s[2] for s in segments_of_ipa([(0, "tʃ"), (0.1, "aɪ"), (0.3, "m"), (0.4, "")], 0.6)] == [
        "SH", "a", "I", "PBM", "sil",
    ]  # fmt: skip
    joined = join_segments([(0, 0.1, "a"), (0.1, 0.13, "sil"), (0.2, 0.4, "sil"), (0.4, 0.5, "sil"), (0.5, 0.6, "e")])
    assert joined == [(0, 0.13, "a"), (0.2, 0.5, "sil"), (0.5, 0.6, "e")]


def test_moments_and_solution_are_weighted_ridge_regression():
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((400, 6)).astype(np.float32), rng.uniform(0.1, 1, 400).astype(np.float32)
    y = (x @ rng.standard_normal((6, 2)) + 3).astype(np.float32)
    moments = audio.Moments.of([(x[:150], y[:150], weights[:150]), (x[150:], y[150:], weights[150:])])
    solution = audio.solve([(1.0, moments.gram, moments.cross)], 1e-6)
    sqrt = np.sqrt(weights)[:, None]
    expected = np.linalg.lstsq(np.c_[x, np.ones(400)] * sqrt, y * sqrt, rcond=None)[0]
    assert solution == pytest.approx(expected, abs=1e-3)
    assert np.abs(audio.solve([(1.0, moments.gram, moments.cross)], 10.0)[:-1]).max() < 0.3
    assert moments.weight == pytest.approx(weights.sum(), rel=1e-5)


def toy_data(seed: int = 0, width: int = 8) -> tuple[list[Stream], list[ClipFeatures]]:
    """Streams and a speaker whose features are a fixed linear picture of what the mouth does."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(1).standard_normal((len(CHANNELS) + 2, width))

    def features(segments, frames):
        from mggtalk_core.training.audio_phones import BILABIAL, SILENCE, classes

        index = classes(segments, frames, 50)
        known = np.c_[teach(segments, frames, 50), index == SILENCE, np.roll(index, -2) == BILABIAL]
        return (known @ mixing + 0.02 * rng.standard_normal((frames, width))).astype(np.float16)

    def sentence():
        time, segments = 0.5, [(0.0, 0.5, "sil")]
        for name in rng.choice(VISEME_NAMES[1:], 60):
            segments.append((time, time + 0.1, str(name)))
            time += 0.1
        return [*segments, (time, time + 0.5, "sil")]

    streams = []
    for _ in range(6):
        segments = sentence()
        level = np.where(np.arange(350) % 325 < 25, -60.0, -20.0)
        streams.append(Stream(features(segments, 350), level.astype(np.float32), segments))
    clips = []
    for k in range(4):
        segments = sentence()
        taught = teach(segments, 350, 50)
        lips = np.stack([0.007 + 0.15 * taught[:, APERTURE], 0.55 + 0.05 * taught[:, -1], 0.3 * taught[:, 2]], 1)
        clips.append(ClipFeatures(f"clip{k}", features(segments, 350), np.full(350, -20, np.float32), lips.astype("f")))
    return streams, clips


class ToyEncoder:
    name, hash, width, layer = "toy", "1" * 64, 8, -1


def test_recipe_learns_a_mouth_and_gives_it_the_range_of_speech():
    streams, clips = toy_data()
    head = audio.fit_head(ToyEncoder(), streams, [audio.Speaker("one", clips)], "toy")
    assert head.config == HeadConfig("toy", "1" * 64, 8, -1, "toy")
    unseen, fresh = toy_data(seed=9)
    outputs = head.predict(fresh[0].features.astype(np.float32))
    assert np.corrcoef(outputs[:, 0], fresh[0].lips[:, 0])[0, 1] > 0.9
    assert np.corrcoef(outputs[:, 1], fresh[0].lips[:, 1])[0, 1] > 0.9
    spoken = np.concatenate([head.predict(s.features.astype(np.float32))[30:-30, 0] for s in streams])
    assert np.percentile(spoken, 95) == pytest.approx(SPEECH_APERTURE[2] - 0.007, rel=0.25)
    test = closure_test(head, unseen)
    assert test["bilabials_closed"] > 0.75 and test["false_closures"] < 0.15


def test_recipe_is_deterministic():
    first, second = (audio.fit_head(ToyEncoder(), toy_data()[0], [], "toy") for _ in range(2))
    assert np.array_equal(first.weight, second.weight)


def test_picture_offset_is_found():
    rng = np.random.default_rng(0)
    from scipy.ndimage import gaussian_filter1d

    clips, guesses = [], []
    for k in range(3):
        curve = gaussian_filter1d(rng.standard_normal(300), 2)
        lips = lip_sync.LipCurves(np.roll(curve, 4), curve, curve)
        clips.append(Clip(f"c{k}", np.zeros(1), lips))
        guesses.append(curve + 0.02 * rng.standard_normal(300))
    assert audio.picture_offset(clips, guesses) == 4


def test_context_repeats_the_ends():
    features = np.arange(20, dtype=np.float32)[:, None]
    context = context_of(features)
    assert context.shape == (20, TAPS)
    assert context[0].tolist() == [0, 0, 0, 3, 6]
    assert context[10].tolist() == [4, 7, 10, 13, 16]


def test_shipped_head_rests_through_music_it_never_heard():
    """New music, new silence: the encoder is fooled by instruments, the head must not be."""
    from mggtalk_core.motion.audio import drive_with_audio
    from mggtalk_core.motion.audio.mouth import mouth_rig

    rng = np.random.default_rng(12345)
    sounds = np.concatenate([0.2 * music(rng, 8.0) / 3, silent_stream(rng, 16.0)])
    opening = mouth_rig().aperture_of(drive_with_audio(sounds, 16000).expression)
    assert np.percentile(opening, 90) < 0.03
    assert load_mouth_head().config.outputs == OUTPUTS


# Scores


def curves(aperture) -> lip_sync.LipCurves:
    return lip_sync.LipCurves(aperture, aperture, aperture)


def test_scores_of_the_same_mouth_shifted_are_perfect_at_that_offset():
    from scipy.ndimage import gaussian_filter1d

    rng = np.random.default_rng(0)
    mouth = np.maximum(gaussian_filter1d(rng.standard_normal(400), 4), 0)
    score = lip_sync.lip_scores(curves(mouth[10:]), curves(mouth[:-10]))
    assert score.offset_ms == 200
    assert score.lip_corr == pytest.approx(1) and score.closure_f1 == pytest.approx(1)
    assert score.jitter_ratio == pytest.approx(1) and score.range_ratio == pytest.approx(1)
    other = np.maximum(gaussian_filter1d(rng.standard_normal(400), 4), 0)
    assert lip_sync.lip_scores(curves(other), curves(mouth)).lip_corr < 0.6


def test_closures_are_short_and_whole():
    mouth = np.ones(300)
    mouth[50:54] = mouth[100:104] = 0  # two closures
    mouth[150:200] = 0  # a pause
    mouth[:5] = 0  # cut by the beginning
    assert lip_sync.closures(mouth).tolist() == [50, 100]
    mouth[:5] = 1
    late = np.roll(mouth, 4)
    assert lip_sync.closure_scores(late, mouth) == (1, 1, 1)
    assert lip_sync.closure_scores(np.roll(mouth, 6), mouth) == (0, 0, 0)


def test_tracked_curves_skip_lost_frames_and_use_the_eye_distance():
    points = np.zeros((5, 478, 2), np.float32)
    points[:, 263, 0] = 100
    points[:, 14, 1] = [0, 10, 0, 30, 40]
    points[:, 291, 0] = 60
    points[2] = np.nan
    scores = np.zeros((5, 52), np.float32)
    tracked = lip_sync.tracked_curves(points, scores, np.arange(5) / 25, 0.2)
    assert tracked.aperture[:9:2] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert tracked.width == pytest.approx(0.6)


def test_mean_counts_a_dead_channel_as_nothing():
    one = lip_sync.LipScores(*[1.0] * 9)
    dead = lip_sync.LipScores(*[float("nan")] * 9)
    assert lip_sync.mean_scores([one, dead]).lip_corr == 0.5
