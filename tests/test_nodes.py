"""What the nodes do, on the stand-in for ComfyUI and with the real core: from the demo photo to pictures and files."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("aiohttp")

from comfy_double import load_pack  # noqa: E402

from mggtalk_core.assets import DEMO_PORTRAIT, DEMO_SPEECH  # noqa: E402


@pytest.fixture(scope="module")
def pack():
    """The nodes by id."""
    return load_pack("pack_for_tests")[1]


def run(pack, name, **inputs):
    """A node's outputs; inputs that were not given get their defaults."""
    described = pack[name].describe()["input"]
    defaults = {
        key: properties["default"]
        for group in described.values()
        for key, (kind, properties) in group.items()
        if "default" in properties
    }
    return pack[name].execute(**{**defaults, **inputs}).args


@pytest.fixture(scope="module")
def photo():
    from mggtalk_core.media.image import read_photo

    return torch.from_numpy(read_photo(DEMO_PORTRAIT))[None]


@pytest.fixture(scope="module")
def speech():
    from mggtalk_core.media.audio import read_audio

    clip = read_audio(DEMO_SPEECH)
    return {
        "waveform": torch.from_numpy(clip.waveform[:, : 2 * clip.sample_rate])[None],
        "sample_rate": clip.sample_rate,
    }


@pytest.fixture(scope="module")
def model(pack):
    return run(pack, "MGGTalkLoadModel")[0]


@pytest.fixture(scope="module")
def analysed(pack, model, photo):
    return run(pack, "MGGTalkEstimateDepth", model=model, image=photo, size=256)


@pytest.fixture(scope="module")
def head(pack, model, analysed):
    (points,) = run(pack, "MGGTalkBuildPoints", portrait=analysed[0])
    (visible,) = run(pack, "MGGTalkPredictVisible", model=model, points=points)
    return run(pack, "MGGTalkPredictInvisible", model=model, visible=visible)[0]


@pytest.fixture(scope="module")
def motion(pack, speech):
    return run(pack, "MGGTalkDriveWithAudio", audio=speech)[0]


def render(pack, head, **inputs):
    return run(pack, "MGGTalkRender", head=head, **{"background": {"background": "photo"}, "size": 128, **inputs})


def test_depth_and_normals_are_pictures_of_the_person(analysed):
    _, depth, normal, mask = analysed
    assert depth.shape == normal.shape == (1, 256, 256, 3) and mask.shape == (1, 256, 256)
    assert 0.2 < mask.mean() < 0.8
    face = depth[0, 100:160, 108:148, 0].mean()
    assert face > depth[0, 4:12, 4:12].mean() + 0.3, "the face is nearer than the corner"
    assert normal[0, 100:160, 108:148, 2].mean() > 0.75, "the face looks at the viewer"


def test_speech_becomes_as_many_pictures_as_its_duration_needs(pack, head, motion, speech):
    seconds = speech["waveform"].shape[-1] / speech["sample_rate"]
    assert len(motion) == math.ceil(seconds * 25)
    images, mask = render(pack, head, motion=motion, frame_count=5)
    assert images.shape == (5, 128, 128, 3) and mask.shape == (5, 128, 128)
    assert images.dtype == torch.float32 and 0 <= images.min() and images.max() <= 1
    assert (images[0] - images[-1]).abs().mean() > 1e-4, "the head moves"


def test_parts_of_a_clip_are_the_clip(pack, head, motion):
    whole, _ = render(pack, head, motion=motion, frame_count=6)
    part, _ = render(pack, head, motion=motion, start_frame=4, frame_count=2)
    torch.testing.assert_close(part, whole[4:6])


def test_without_motion_the_photo_is_reproduced(pack, head, analysed):
    image, mask = render(pack, head, size=256)
    portrait = torch.from_numpy(analysed[0].portrait.image)
    inside = mask[0] > 0.98
    error = (image[0] - portrait)[inside].square().mean()
    assert -10 * torch.log10(error) > 28


def test_backgrounds(pack, head):
    corner = {}
    for background in ({"background": "color", "color": "#ff0000"}, {"background": "transparent"}):
        image, mask = render(pack, head, background=background)
        corner[background["background"]] = image[0, 2, 2]
        assert mask[0, 2, 2] < 0.05
    assert corner["color"].tolist() == pytest.approx([1, 0, 0], abs=0.05)
    assert corner["transparent"].max() < 0.05
    picture = torch.zeros(1, 40, 80, 3)
    picture[..., 2] = 1
    image, _ = render(pack, head, background={"background": "image", "image": picture})
    assert image[0, 2, 2].tolist() == pytest.approx([0, 0, 1], abs=0.05)


def test_paste_keeps_the_photo_around_the_head(pack, head, photo):
    image, _ = render(pack, head, framing="paste")
    assert image.shape == photo.shape
    torch.testing.assert_close(image[0, -8:, :8], photo[0, -8:, :8], atol=0.01, rtol=0)


def test_the_camera_goes_where_the_orbit_says(pack, head):
    (camera,) = run(pack, "MGGTalkCameraOrbit", path={"path": "still", "yaw": 25.0, "pitch": 0.0})
    front, _ = render(pack, head)
    side, _ = render(pack, head, camera=camera)
    from mggtalk_core.portrait.tracking import FaceTracker

    def nose_offset(image):
        """How far the nose is to the right of the eyes' middle, in eye distances."""
        picture = (image[0] * 255).byte().numpy().repeat(4, 0).repeat(4, 1)
        with FaceTracker() as tracker:
            landmarks = tracker.detect(picture)[0].landmarks
        eyes = landmarks[[468, 473]]
        return (landmarks[1, 0] - eyes[:, 0].mean()) / np.linalg.norm(eyes[1] - eyes[0])

    assert nose_offset(side) < nose_offset(front) - 0.15, "from the right the face looks to the left of the picture"


def test_comfyui_camera_info_is_the_same_view(pack, head):
    cameras = sys_module(pack, "cameras")
    info = cameras.to_camera_info(head.camera.resized(128, 128))
    front, _ = render(pack, head)
    same, _ = render(pack, head, camera=info)
    assert (front - same).abs().mean() < 0.02


def sys_module(pack, name):
    import sys

    return sys.modules[pack["MGGTalkRender"].__module__.rsplit(".", 1)[0] + "." + name]


def test_render_to_video_streams_picture_and_sound(pack, head, motion, speech):
    import av

    (video,) = run(
        pack, "MGGTalkRenderVideo", head=head, motion=motion, audio=speech, size=128,
        background={"background": "photo"}, frame_count=10, start_frame=5,
    )  # fmt: skip
    with av.open(video.get_stream_source()) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10
        assert "trainedAlgorithmicMedia" in container.metadata["digitalSourceType"].replace("With", "") or (
            "TrainedAlgorithmicMedia" in container.metadata["digitalSourceType"]
        )
        assert len(container.streams.audio) == 1
        assert float(container.streams.audio[0].duration * container.streams.audio[0].time_base) == pytest.approx(
            0.4, abs=0.05
        )


def test_progress_shows_previews_and_cancel_stops_at_once_without_half_files(pack, head, motion, speech, monkeypatch):
    import comfy.model_management
    import comfy.utils
    import folder_paths

    render(pack, head, motion=motion, frame_count=3)
    assert comfy.utils.ProgressBar.last.value == 3 and comfy.utils.ProgressBar.last.previews
    asked = []

    def cancel_at_third_frame():
        asked.append(None)
        if len(asked) > 3:
            raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", cancel_at_third_frame)
    before = set(Path(folder_paths.get_temp_directory()).rglob("*"))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(
            pack, "MGGTalkRenderVideo", head=head, motion=motion, audio=speech, size=64,
            background={"background": "photo"},
        )  # fmt: skip
    assert {p for p in set(Path(folder_paths.get_temp_directory()).rglob("*")) - before if p.is_file()} == set()


def test_long_calls_let_go_when_cancelled(pack, monkeypatch):
    import time

    import comfy.model_management

    host = sys_module(pack, "host")
    monkeypatch.setattr(comfy.model_management, "interrupted", True)
    begin = time.monotonic()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        host.cancellable(time.sleep, 5)
    assert time.monotonic() - begin < 0.5


def test_a_video_drives_like_its_frames(pack, head, motion, speech):
    images, _ = render(pack, head, motion=motion, frame_count=12, size=256)
    from_frames, fps = run(pack, "MGGTalkDriveWithVideo", driving=images, fps=25.0, smoothing=0.0)
    assert len(from_frames) == 12 and fps == 25
    (video,) = run(
        pack, "MGGTalkRenderVideo", head=head, motion=motion, frame_count=12, size=256,
        background={"background": "photo"},
    )  # fmt: skip
    from_video, fps = run(pack, "MGGTalkDriveWithVideo", driving=video, smoothing=0.0)
    assert len(from_video) == 12 and fps == 25
    assert np.abs(from_video.expression - from_frames.expression).mean() < 0.05
    trimmed = type(video)(video.get_stream_source(), start_time=0.2, duration=0.2)
    assert len(run(pack, "MGGTalkDriveWithVideo", driving=trimmed)[0]) == 5
    faster, fps = run(pack, "MGGTalkDriveWithVideo", driving=video, fps=50.0)
    assert len(faster) == 24 and fps == 50


def face_landmarks(images):
    """FACE_LANDMARKS as ComfyUI's Detect Face Landmarks gives them, made by our own tracker."""
    from mggtalk_core.headmodel.arkit import ARKIT_NAMES
    from mggtalk_core.portrait.tracking import FaceTracker

    with FaceTracker() as tracker:
        found = [tracker.detect((image * 255).round().byte().numpy()) for image in images]
    frames = [
        [
            {
                "landmarks_xy": face.landmarks,
                "blendshapes": dict(zip(ARKIT_NAMES, face.scores.tolist())),
                "transformation_matrix": face.matrix,
            }
            for face in faces
        ]
        for faces in found
    ]
    return {"frames": frames, "image_size": tuple(images.shape[1:3]), "connection_sets": {}}


def test_face_landmarks_of_comfyui_drive(pack, head, motion):
    images, _ = render(pack, head, motion=motion, frame_count=6, size=256)
    landmarks = face_landmarks(images)
    landmarks["frames"][3] = []
    driven, fps = run(pack, "MGGTalkDriveWithVideo", driving=landmarks, smoothing=0.0)
    assert len(driven) == 6 and fps == 25 and "1 of 6" in driven.warnings[0]
    reference, _ = run(pack, "MGGTalkDriveWithVideo", driving=images, fps=25.0, smoothing=0.0)
    assert np.abs(driven.expression[:3] - reference.expression[:3]).mean() < 0.05
    with pytest.raises(ValueError, match="Drive with Video, input 'driving'.*frame 3"):
        run(pack, "MGGTalkDriveWithVideo", driving=landmarks, missing_face="error")


def test_face_landmarks_of_comfyui_find_the_portrait(pack, model, photo, analysed):
    landmarks = face_landmarks(photo)
    portrait = run(
        pack, "MGGTalkEstimateDepth", model=model, image=photo, size=256, face_landmarks=landmarks
    )[0].portrait  # fmt: skip
    own = analysed[0].portrait
    assert np.abs(portrait.landmarks - own.landmarks).mean() < 2, "pixels of the crop"
    assert np.abs(portrait.fit.rotation - own.fit.rotation).max() < 0.05
    with pytest.raises(ValueError, match="Estimate Depth, input 'face_landmarks': .*64x64, 'image' has 512x512"):
        run(
            pack, "MGGTalkEstimateDepth", model=model, image=photo,
            face_landmarks={**landmarks, "image_size": (64, 64)},
        )  # fmt: skip
    with pytest.raises(ValueError, match="Estimate Depth, input 'face_landmarks': no face was detected"):
        run(pack, "MGGTalkEstimateDepth", model=model, image=photo, face_landmarks={**landmarks, "frames": [[]]})


def test_audio_that_comfyui_encoded_drives(pack, speech, motion):
    """The shipped head on Whisper-tiny's own features, in the layout of AudioEncoderEncode."""
    from mggtalk_core.motion.audio.encoders import whisper_tiny
    from mggtalk_core.motion.audio.head import HEAD_FILE
    from mggtalk_core.motion.audio.windows import to_mono_16k

    samples = to_mono_16k(speech["waveform"][0].numpy(), speech["sample_rate"])
    features = torch.nn.functional.pad(torch.from_numpy(whisper_tiny()(samples)), (0, 0, 0, 1400))[None]
    encoded = {"encoded_audio_all_layers": [features], "audio_samples": len(samples)}
    with pytest.raises(ValueError, match="Drive with Audio, input 'encoded_audio': 'encoder' is Whisper-tiny"):
        run(pack, "MGGTalkDriveWithAudio", audio=speech, encoded_audio=encoded)
    import folder_paths

    models = Path(folder_paths.get_folder_paths("mggtalk")[0])
    models.mkdir(parents=True, exist_ok=True)
    (models / "my_head.safetensors").write_bytes(HEAD_FILE.read_bytes())
    (driven,) = run(
        pack, "MGGTalkDriveWithAudio", audio=speech, encoded_audio=encoded, encoder="my_head.safetensors"
    )  # fmt: skip
    assert np.abs(driven.expression - motion.expression).mean() < 1e-3


def test_long_speech_shows_progress_and_stops_when_cancelled(pack, speech):
    import comfy.model_management
    import comfy.utils

    long = {**speech, "waveform": speech["waveform"].repeat(1, 1, 10)}
    run(pack, "MGGTalkDriveWithAudio", audio=long)
    assert comfy.utils.ProgressBar.last.value == comfy.utils.ProgressBar.last.total == 3
    comfy.model_management.interrupted = True
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(pack, "MGGTalkDriveWithAudio", audio=long)


def test_typed_timeline_and_saved_motion_agree(pack):
    import folder_paths

    text = "0 rest\n# a comment\n1.0 jawOpen=0.5 mouthSmile=0.4 yaw=10"
    (typed,) = run(pack, "MGGTalkDriveWithBlendshapes", source={"source": "timeline", "timeline": text}, fps=30.0)
    from mggtalk_core.headmodel.arkit import ARKIT_INDEX

    assert len(typed) == 31 and typed.fps == 30
    assert typed.expression[15, ARKIT_INDEX["jawOpen"]] == pytest.approx(0.25, abs=1e-4)
    assert typed.expression[30, ARKIT_INDEX["mouthSmileRight"]] == pytest.approx(0.4, abs=1e-4)
    run(pack, "MGGTalkSaveMotion", motion=typed)
    run(pack, "MGGTalkSaveMotion", motion=typed)
    saved = sorted(path.name for path in Path(folder_paths.get_output_directory(), "mggtalk").glob("motion*.csv"))
    assert len(saved) == 2, "nothing is overwritten"
    (back,) = run(
        pack, "MGGTalkDriveWithBlendshapes",
        source={"source": "file", "file": f"mggtalk/{saved[0]} [output]"}, fps=30.0,
    )  # fmt: skip
    np.testing.assert_allclose(back.expression, typed.expression, atol=1e-4)
    np.testing.assert_allclose(back.rotation, typed.rotation, atol=1e-4)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no lines"),
        ("jawOpen=1", "line 1: 'jawOpen=1' is not a time"),
        ("0 jawOpn=1", "line 1: 'jawOpn' is no ARKit"),
    ],
)
def test_timelines_with_mistakes_name_node_input_and_line(pack, text, message):
    with pytest.raises(ValueError, match=f"Drive with Blendshapes, input 'timeline'.*{message}"):
        run(pack, "MGGTalkDriveWithBlendshapes", source={"source": "timeline", "timeline": text})


def test_editor_adds_replaces_and_multiplies(pack, head, motion):
    from mggtalk_core.headmodel.arkit import ARKIT_INDEX

    jaw = ARKIT_INDEX["jawOpen"]

    def edited(mode, text, **inputs):
        return run(pack, "MGGTalkExpressionEditor", mode=mode, expression=text, **inputs)[0]

    added = edited("add", '{"jawOpen": 0.2}', motion=motion)
    np.testing.assert_allclose(added.expression[:, jaw], np.clip(motion.expression[:, jaw] + 0.2, 0, 1), atol=1e-6)
    assert edited("replace", "jawOpen=0.3", motion=motion).expression[:, jaw] == pytest.approx(0.3)
    halved = edited("multiply", "headYaw=0.0, headPitch=0, headRoll=0", motion=motion)
    assert np.abs(halved.rotation).max() < 1e-6 < np.abs(motion.rotation).max()
    still = edited("add", "{}", head=head)
    np.testing.assert_allclose(still.expression[0], head.source_expression.numpy(), atol=1e-6)
    assert pack["MGGTalkExpressionEditor"].validate_inputs(expression="jawOpen=oops") != True  # noqa: E712
    assert pack["MGGTalkExpressionEditor"].validate_inputs(expression="{}") is True


def test_what_the_editor_shows_is_what_is_rendered(pack, head):
    """With a head connected the sliders are exact: no fitting to the portrait comes on top."""
    (motion,) = run(pack, "MGGTalkExpressionEditor", head=head)
    exact, _ = render(pack, head, motion=motion)
    photo, _ = render(pack, head)
    torch.testing.assert_close(exact, photo)


def test_splat_and_files_hold_the_head(pack, head, motion):
    splat, file, camera = run(pack, "MGGTalkHeadToSplat", head=head)
    assert 10 < camera["fov"] < 20 and camera["position"]["z"] > 0.5, "in front of the face, y up"
    count = len(head)
    assert splat.positions.shape == (1, count, 3) and splat.opacities.shape == (1, count, 1)
    assert splat.sh.shape == (1, count, 1, 3) and splat.rotations.shape == (1, count, 4)
    assert (splat.scales > 0).all()
    from mggtalk_core.gaussians.splat_io import decode_splat

    torch.testing.assert_close(decode_splat(file.get_bytes(), "ply").means, splat.positions[0])
    posed, _, _ = run(pack, "MGGTalkHeadToSplat", head=head, motion=motion, frame=20)
    assert (posed.positions - splat.positions).abs().max() > 1e-3
    with pytest.raises(ValueError, match="Head to Splat, input 'frame': frame 999"):
        run(pack, "MGGTalkHeadToSplat", head=head, motion=motion, frame=999)


def test_a_saved_head_loads_and_renders_the_same(pack, head):
    import folder_paths

    run(pack, "MGGTalkSaveHead", head=head)
    name = next(Path(folder_paths.get_output_directory(), "mggtalk").glob("head*.safetensors")).name
    node = pack["MGGTalkLoadHead"]
    assert node.validate_inputs(file=f"mggtalk/{name} [output]") is True
    (loaded,) = run(pack, "MGGTalkLoadHead", file=f"mggtalk/{name} [output]")
    torch.testing.assert_close(render(pack, loaded)[0], render(pack, head)[0], atol=2e-2, rtol=0)
    for bad in ("../secret.safetensors", "mggtalk/none.safetensors [output]", "/etc/passwd", f"mggtalk/{name}.txt"):
        assert isinstance(node.validate_inputs(file=bad), str), bad


def test_a_further_photo_corrects_colours_and_must_show_a_face(pack, head, analysed, photo):
    darker = (photo * 0.8).clamp(0, 1)
    (corrected,) = run(pack, "MGGTalkPersonalize", head=head, portrait=analysed[0], images=darker)
    assert len(corrected) == len(head)
    assert (render(pack, corrected)[0] - render(pack, head)[0]).abs().max() < 0.6
    with pytest.raises(ValueError, match="Personalize Head, input 'images': no face found in photo 2"):
        run(pack, "MGGTalkPersonalize", head=head, portrait=analysed[0], images=torch.rand(1, 64, 64, 3))


def test_evaluation_knows_a_perfect_copy(pack, head, motion):
    images, _ = render(pack, head, motion=motion, frame_count=8, size=256)
    report, psnr, ssim, lips = run(pack, "MGGTalkEvaluate", images=images, reference=images)
    assert psnr > 60 and ssim == pytest.approx(1) and lips == pytest.approx(1) and "faces_lost: 0" in report
    _, worse, _, _ = run(pack, "MGGTalkEvaluate", images=images, reference=images.flip(0))
    assert worse < psnr
    with pytest.raises(ValueError, match="Evaluate Reenactment, input 'reference': 7 frames"):
        run(pack, "MGGTalkEvaluate", images=images, reference=images[:7])


@pytest.mark.parametrize(
    "name, inputs, message",
    [
        ("MGGTalkEstimateDepth", {"image": torch.rand(1, 64, 64, 3)}, "Estimate Depth, input 'image': .*no face"),
        ("MGGTalkEstimateDepth", {"image": torch.rand(2, 64, 64, 3)}, "Estimate Depth, input 'image': one picture"),
        (
            "MGGTalkDriveWithAudio",
            {"audio": {"waveform": torch.zeros(1, 1, 0), "sample_rate": 16000}},
            "Drive with Audio, input 'audio': .*no samples",
        ),
    ],
)
def test_errors_name_node_and_input(pack, model, name, inputs, message):
    if name == "MGGTalkEstimateDepth":
        inputs = {**inputs, "model": model}
    with pytest.raises(ValueError, match=message):
        run(pack, name, **inputs)


def test_a_depth_model_that_is_not_there_is_an_error_of_its_input(pack, model, photo, tmp_path):
    source = {"depth_source": "depth model", "depth_model": str(tmp_path / "none")}
    with pytest.raises(ValueError, match="Estimate Depth, input 'depth_model'"):
        run(pack, "MGGTalkEstimateDepth", model=model, image=photo, size=128, depth_source=source)


def test_render_refuses_what_it_would_have_to_ignore(pack, head, motion):
    with pytest.raises(ValueError, match="Render Gaussians, input 'start_frame': frame 500"):
        render(pack, head, motion=motion, start_frame=500)
    with pytest.raises(ValueError, match="Render Gaussians, input 'framing'"):
        render(pack, head, framing="paste", background={"background": "transparent"})
    with pytest.raises(ValueError, match="Render Gaussians, input 'color'"):
        render(pack, head, background={"background": "color", "color": "red"})
