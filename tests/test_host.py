"""The pack in a real ComfyUI server: set COMFYUI_PATH to a checkout (and COMFYUI_PYTHON to the Python it runs with).

Everything goes over HTTP and the websocket, as the page does it.
"""

import copy
import json
import os
import statistics
import urllib.error
import urllib.parse

import pytest
import workflow_files
from real_host import ROOT, RealHost

pytestmark = pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH does not name a ComfyUI")
NEEDS_A_MODEL = {"drive_with_face_landmarks"}  # ComfyUI's own face landmark model is a download of the user's
LANDMARKS_OF_A_FILE = '''
import numpy as np
import folder_paths

class LandmarksOfAFile:
    """FACE_LANDMARKS in the layout of ComfyUI's Detect Face Landmarks, which needs a model to be downloaded."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("FACE_LANDMARKS",), "load", "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def load(self, image):
        from comfy_extras.mediapipe.face_landmarker import BLENDSHAPE_NAMES

        with np.load(folder_paths.get_annotated_filepath("landmarks.npz")) as saved:
            frames = [
                [{
                    "bbox_xyxy": np.r_[points.min(0), points.max(0)], "landmarks_xy": points,
                    "landmarks_3d": np.pad(points, ((0, 0), (0, 1))), "presence": 1.0, "score": 1.0,
                    "blendshapes": dict(zip(BLENDSHAPE_NAMES, [0.0, *scores])), "transformation_matrix": matrix,
                }]
                for points, scores, matrix in zip(saved["points"], saved["scores"], saved["matrices"])
            ]
        return ({"frames": frames, "image_size": tuple(image.shape[1:3]), "connection_sets": {}},)

NODE_CLASS_MAPPINGS = {"LandmarksOfAFile": LandmarksOfAFile}
'''
SCHEMAS = json.loads((ROOT / "tests" / "comfy_double" / "node_schemas.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A server with the pack under another name, beside a pack whose modules have our modules' names."""
    folder = tmp_path_factory.mktemp("comfyui")
    neighbour = folder / "custom_nodes" / "a_neighbour"
    for package in (neighbour, neighbour / "nodes", neighbour / "mggtalk_core"):
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
    (neighbour / "__init__.py").write_text(
        "import sys; sys.path.insert(0, __path__[0]); import mggtalk_core\n"
        "from .nodes import *\nNODE_CLASS_MAPPINGS = {}\n"
    )
    stand_in = folder / "custom_nodes" / "landmarks_of_a_file"
    stand_in.mkdir()
    (stand_in / "__init__.py").write_text(LANDMARKS_OF_A_FILE)
    with RealHost(folder, pack_name="zz-talking_heads.fork") as server:
        print(
            f"\nComfyUI {server.get('/system_stats')['system']['comfyui_version']}, up in {server.start_seconds:.0f} s"
        )
        yield server


@pytest.fixture(scope="module")
def info(host):
    return host.get("/object_info")


@pytest.fixture(scope="module")
def prompts(info):
    """The workflows as prompts, by name."""

    def inputs_of(kind):
        return {name for group in info[kind]["input"].values() for name in group}

    return {name: workflow_files.to_prompt(workflow_files.load(name), inputs_of) for name in workflow_files.WORKFLOWS}


def of_type(prompt, kind):
    return next(node_id for node_id, node in prompt.items() if node["class_type"] == kind)


def output_file(host, run, suffix):
    found = [item for item in run.files() if item["filename"].endswith(suffix)]
    return host.folder / found[0]["type"] / found[0]["subfolder"] / found[0]["filename"]


def executed(run, prompt):
    """Types of the nodes that really ran."""
    # To a client that comes back at once ComfyUI names the node it ran last, without its prompt.
    own = [event["data"] for event in run.of("executing") if event["data"].get("prompt_id") == run.prompt_id]
    ran = [data["node"] for data in own if data.get("node")]
    return {prompt[node]["class_type"] for node in ran}


def test_all_nodes_load_and_the_stand_in_describes_them_as_comfyui_does(info):
    ours = {name: info[name] for name in info if name.startswith("MGGTalk")}
    assert ours.keys() == SCHEMAS.keys()
    for name, expected in SCHEMAS.items():
        real = ours[name]
        for key in ("display_name", "category", "description", "output", "output_name", "output_tooltips",
                    "output_is_list", "output_node", "search_aliases"):  # fmt: skip
            assert real[key] == expected[key], (name, key)
        for group, members in expected["input"].items():
            assert list(real["input"].get(group, {})) == list(members), name
            for input_name, (kind, properties) in members.items():
                real_kind, real_properties = real["input"][group][input_name]
                assert real_kind == kind, (name, input_name)
                if input_name in ("file", "source"):
                    continue  # lists the user's files
                if kind == "COMFY_DYNAMICCOMBO_V3":
                    assert [o["key"] for o in real_properties["options"]] == [o["key"] for o in properties["options"]]
                else:
                    assert {k: real_properties.get(k) for k in properties} == properties, (name, input_name)


def test_page_finds_scripts_help_names_and_templates(host):
    extensions = host.get("/extensions")
    assert any(path.endswith("/js/mggtalk.js") for path in extensions)
    folder = "/extensions/" + urllib.parse.quote(host.pack_name)
    assert b"Render Gaussians" in host.get(f"{folder}/docs/MGGTalkRender.md")
    assert host.get("/i18n")["zh"]["nodeDefs"]["MGGTalkRender"]["display_name"].endswith("(MGGTalk)")
    assert set(host.get("/workflow_templates")[host.pack_name]) == set(workflow_files.WORKFLOWS)


@pytest.mark.parametrize("name", workflow_files.WORKFLOWS)
def test_workflow_runs_as_it_opens(host, prompts, name):
    run = host.run(prompts[name])
    if name in NEEDS_A_MODEL:
        loader = of_type(prompts[name], "LoadMediaPipeFaceLandmarker")
        assert set(run.node_errors) == {loader}, "nothing but the missing model is wrong"
        return
    assert run.node_errors == {} and run.status == "success", run.error
    assert run.files(), "nothing was saved"
    now, peak = host.memory_mb()
    print(f"\n{name}: {run.seconds:.1f} s, {run.previews} previews, server {now:.0f} MB (peak {peak:.0f})")


def track(frames):
    """Landmarks, scores in the order of MediaPipe's names, and matrices of frames (H, W, 3) uint8, by our tracker."""
    import numpy as np

    from mggtalk_core.headmodel.arkit import ARKIT_NAMES
    from mggtalk_core.portrait.tracking import FaceTracker

    names = sorted(name for name in ARKIT_NAMES if name != "tongueOut")  # MediaPipe's list is alphabetical
    order = [ARKIT_NAMES.index(name) for name in names]
    with FaceTracker() as tracker:
        faces = [tracker.detect(frame)[0] for frame in frames]
    return {
        "points": np.stack([face.landmarks for face in faces]),
        "scores": np.stack([face.scores[order] for face in faces]),
        "matrices": np.stack([face.matrix for face in faces]),
    }


def test_face_landmarks_in_comfyuis_layout_find_the_portrait_and_drive_it(host, prompts):
    """The workflow with ComfyUI's detector replaced by landmarks from a file, for the video and for the photo."""
    import av
    import numpy as np
    from PIL import Image

    prompt = copy.deepcopy(prompts["drive_with_face_landmarks"])
    loader, detector = of_type(prompt, "LoadMediaPipeFaceLandmarker"), of_type(prompt, "MediaPipeFaceLandmarker")
    images = prompt[detector]["inputs"]["image"]
    del prompt[loader]
    prompt[detector] = {"class_type": "LandmarksOfAFile", "inputs": {"image": images}}
    with av.open(str(host.folder / "input" / "mggtalk_demo_driving.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    np.savez(host.folder / "input" / "landmarks.npz", **track(frames))
    run = host.run(prompt)
    assert run.node_errors == {} and run.status == "success", run.error
    with av.open(str(output_file(host, run, ".mp4"))) as video:
        assert sum(1 for _ in video.decode(video=0)) == len(frames)
    print(f"\nlandmarks of {len(frames)} frames drive: {run.seconds:.1f} s")

    photo = np.asarray(Image.open(host.folder / "input" / "mggtalk_demo_portrait.png").convert("RGB"))
    np.savez(host.folder / "input" / "landmarks.npz", **track([photo]))
    prompt = copy.deepcopy(prompts["expression_editor_and_3d_export"])
    depth = prompt[of_type(prompt, "MGGTalkEstimateDepth")]["inputs"]
    prompt["95"] = {"class_type": "LandmarksOfAFile", "inputs": {"image": depth["image"]}}
    depth["face_landmarks"] = ["95", 0]
    run = host.run(prompt)
    assert run.node_errors == {} and run.status == "success" and run.files(), run.error


def test_the_video_has_all_frames_and_all_sound(host, prompts):
    import av

    prompt = copy.deepcopy(prompts["audio_driven_portrait"])
    prompt[of_type(prompt, "SaveVideo")]["inputs"]["filename_prefix"] = "again"
    run = host.run(prompt)
    with (
        av.open(str(output_file(host, run, ".mp4"))) as video,
        av.open(str(host.folder / "input" / "mggtalk_demo_speech.flac")) as speech,
    ):
        frames = sum(1 for _ in video.decode(video=0))
        seconds = float(speech.duration / av.time_base)
        sound = video.streams.audio[0]
        assert frames == -(-round(seconds * 25_000) // 1000)
        assert float(sound.duration * sound.time_base) == pytest.approx(seconds, abs=0.06)


def test_queueing_again_runs_nothing_and_a_new_camera_only_the_render(host, prompts):
    prompt = copy.deepcopy(prompts["orbit_camera_while_talking"])
    host.run(prompt)
    again = host.run(prompt)
    assert executed(again, prompt) == set()
    prompt[of_type(prompt, "MGGTalkCameraOrbit")]["inputs"]["path.yaw"] = 11.0
    moved = host.run(prompt)
    assert executed(moved, prompt) == {"MGGTalkCameraOrbit", "MGGTalkRenderVideo", "SaveVideo"}
    print(f"\nrun again {again.seconds:.2f} s, with another camera {moved.seconds:.1f} s")


def test_progress_and_previews_arrive_while_rendering(host, prompts):
    prompt = copy.deepcopy(prompts["orbit_camera_while_talking"])
    prompt[of_type(prompt, "MGGTalkRenderVideo")]["inputs"]["size"] = 304
    run = host.run(prompt)
    render = of_type(prompt, "MGGTalkRenderVideo")
    values = [
        event["data"]["nodes"][render]["value"]
        for event in run.of("progress_state")
        if render in event["data"]["nodes"]
    ]
    assert values == sorted(values) and len(set(values)) > 5 and values[-1] == 136
    assert run.previews >= 2


@pytest.mark.parametrize(
    "kind", ["MGGTalkEstimateDepth", "MGGTalkPredictInvisible", "MGGTalkDriveWithAudio", "MGGTalkRender"]
)
def test_cancel_stops_within_half_a_second(host, prompts, kind):
    prompt = copy.deepcopy(prompts["audio_driven_portrait"])
    depth = prompt[of_type(prompt, "MGGTalkEstimateDepth")]
    speech = prompt[of_type(prompt, "MGGTalkDriveWithAudio")]
    target = of_type(prompt, kind)
    delays = []
    for attempt in range(3):  # changed each time, so that nothing is cached
        depth["inputs"]["size"] = 512 + 64 * (1 + attempt + 3 * (kind == "MGGTalkRender"))
        speech["inputs"]["seed"] = hash(kind) % 1000 + attempt

        def running(run):
            return run.of("executing") and run.of("executing")[-1]["data"].get("node") == target

        run = host.run(prompt, interrupt_when=running)
        if run.status == "success" or run.interrupted_at is None:
            continue  # it was done before the click arrived
        assert run.status == "interrupted", run.error
        delays.append(run.seconds - run.interrupted_at)
    print(f"\n{kind}: stopped after {', '.join(f'{delay:.2f}' for delay in delays)} s")
    assert not delays or statistics.median(delays) < float(os.environ.get("MGGTALK_CANCEL_SECONDS", "0.5"))


def test_an_error_names_node_and_input_and_leaves_comfyui_usable(host, prompts):
    from PIL import Image

    Image.new("RGB", (256, 256), "gray").save(host.folder / "input" / "nobody.png")
    prompt = copy.deepcopy(prompts["audio_driven_portrait"])
    prompt[of_type(prompt, "LoadImage")]["inputs"]["image"] = "nobody.png"
    run = host.run(prompt)
    assert run.status == "error"
    assert run.error["node_type"] == "MGGTalkEstimateDepth"
    assert run.error["exception_message"].startswith("Estimate Depth, input 'image': no face found")
    assert host.run(prompts["expression_editor_and_3d_export"]).status == "success"


def test_bad_values_are_refused_before_anything_runs(host, prompts):
    prompt = copy.deepcopy(prompts["expression_editor_and_3d_export"])
    editor = of_type(prompt, "MGGTalkExpressionEditor")
    prompt[editor]["inputs"]["expression"] = "jawOpn=1"
    errors = host.run(prompt).node_errors
    assert "'jawOpn' is not one of ARKit's 52 shapes" in json.dumps(errors[editor]["errors"])


def test_a_saved_head_is_found_by_another_graph(host, prompts, info):
    assert host.run(prompts["expression_editor_and_3d_export"]).status == "success"
    options = host.get("/object_info/MGGTalkLoadHead")["MGGTalkLoadHead"]["input"]["required"]["file"][1]["options"]
    saved = [name for name in options if name.startswith("mggtalk/head_")]
    assert saved
    defaults = {"size": 128, "background": "photo", "framing": "crop", "start_frame": 0, "frame_count": 0}
    prompt = {
        "1": {"class_type": "MGGTalkLoadHead", "inputs": {"file": saved[-1]}},
        "2": {"class_type": "MGGTalkRender", "inputs": {"head": ["1", 0], **defaults}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "loaded"}},
    }
    run = host.run(prompt)
    assert run.node_errors == {} and run.status == "success" and run.files()
    prompt["1"]["inputs"]["file"] = "../../../etc/passwd"
    assert "1" in host.run(prompt).node_errors


def test_comfyuis_own_splat_nodes_take_our_head(host, prompts):
    prompt = copy.deepcopy(prompts["expression_editor_and_3d_export"])
    splat = of_type(prompt, "MGGTalkHeadToSplat")
    prompt[of_type(prompt, "MGGTalkHeadToSplat")]["inputs"]["file_format"] = "spz"
    prompt["90"] = {"class_type": "File3DToSplat", "inputs": {"model_3d": [splat, 1]}}
    prompt["91"] = {"class_type": "GetSplatCount", "inputs": {"splat": ["90", 0]}}
    info = host.get("/object_info")
    for node in ("90", "91"):  # input names differ between versions: take the first required one
        first = next(iter(info[prompt[node]["class_type"]]["input"]["required"]))
        prompt[node]["inputs"] = {first: next(iter(prompt[node]["inputs"].values()))}
    prompt["92"] = {"class_type": "PreviewAny", "inputs": {"source": ["91", len(info["GetSplatCount"]["output"]) - 1]}}
    run = host.run(prompt)
    assert run.node_errors == {} and run.status == "success", run.error


def test_live_view_answers_our_page_only(host, prompts):
    run = host.run(prompts["expression_editor_and_3d_export"])
    editor = of_type(prompts["expression_editor_and_3d_export"], "MGGTalkExpressionEditor")
    token = run.outputs[editor]["mggtalk_view"][0]["token"]
    wish = {"frame": 0, "yaw": 10, "pitch": 0, "distance": 1, "size": 384, "expression": "{}", "mode": "add"}
    path = f"/api/mggtalk/view/{token}"
    assert host.post(path, wish, {"Origin": host.url})[:2] == b"\xff\xd8", "a JPEG"
    for bad_path, headers in (
        (path, {"Origin": "https://evil.example"}),
        (path[:-1], {}),
        (path, {"Sec-Fetch-Site": "cross-site"}),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            host.post(bad_path, wish, headers)
        assert refused.value.code in (403, 404)
    import time

    times = []
    for index in range(40):
        begin = time.perf_counter()
        host.post(path, {**wish, "expression": f"headYaw={index}"})
        times.append(time.perf_counter() - begin)
    print(
        f"\nlive view 384: median {1000 * statistics.median(times):.0f} ms, {1 / statistics.mean(times):.1f} pictures/s"
    )


def test_render_to_video_keeps_memory_while_frames_grow(host, prompts):
    """1500 frames of 256 would be 1.6 GB as IMAGE."""
    prompt = copy.deepcopy(prompts["orbit_camera_while_talking"])
    render = prompt[of_type(prompt, "MGGTalkRenderVideo")]["inputs"]
    for name in ("audio", "camera"):
        render.pop(name)
    lines = "\n".join(f"{second} jawOpen={second % 2 * 0.5} yaw={second % 5}" for second in range(61))
    prompt["80"] = {
        "class_type": "MGGTalkDriveWithBlendshapes",
        "inputs": {"source": "timeline", "source.timeline": lines, "fps": 25.0},
    }
    render.update({"motion": ["80", 0], "size": 256, "frame_count": 100})
    assert host.run(prompt).status == "success"
    _, before = host.memory_mb()
    render["frame_count"] = 1500
    run = host.run(prompt)
    assert run.status == "success"
    now, peak = host.memory_mb()
    print(f"\n1500 frames in {run.seconds:.0f} s, peak {before:.0f} -> {peak:.0f} MB")
    assert peak - before < 200
