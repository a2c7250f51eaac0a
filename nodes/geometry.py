"""Estimate Depth and Build Symmetric Gaussians: from a photo to points around the whole head (DSGR)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from comfy_api.latest import io

from ..mggtalk_core.errors import InputError
from ..mggtalk_core.portrait.tracking import TrackedFace
from ..mggtalk_core.types import DepthMap, Portrait
from . import host, types


@dataclass(frozen=True)
class AnalysedPortrait:
    """What Estimate Depth hands to Build Symmetric Gaussians."""

    portrait: Portrait
    depth: DepthMap


def depth_picture(depth: DepthMap) -> np.ndarray:
    """Nearness (S, S, 3) 0..1: white is nearest, black is the far end and outside the person."""
    near, far = np.nanmin(depth.depth), np.nanmax(depth.depth)
    nearness = np.nan_to_num((far - depth.depth) / max(far - near, 1e-6))
    return np.repeat(nearness[..., None], 3, axis=2).astype(np.float32)


def normal_picture(depth: DepthMap) -> np.ndarray:
    """Normals (S, S, 3) 0..1 as ControlNet expects them: red right, green up, blue to the viewer."""
    picture = depth.normals * np.array([0.5, -0.5, -0.5], np.float32) + 0.5
    return np.where(np.isnan(depth.depth)[..., None], 0, picture).astype(np.float32)


def faces_of_photo(landmarks: dict, photo: np.ndarray) -> list[TrackedFace]:
    """The faces of ComfyUI's FACE_LANDMARKS on this photo (H, W, 3), largest first.

    Raises:
        InputError: landmarks of a picture of another size, or without a face.
    """
    height, width = landmarks["image_size"]
    if (height, width) != photo.shape[:2]:
        raise InputError(
            f"these are landmarks of a picture of {width}x{height}, 'image' has {photo.shape[1]}x{photo.shape[0]}; "
            "detect them on the same image"
        )
    faces = host.faces_from(landmarks)[0]
    if not faces:
        raise InputError("no face was detected; disconnect it, and Estimate Depth looks for one itself")
    return sorted(faces, key=lambda face: -face.size)


class EstimateDepth(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkEstimateDepth",
            display_name="Estimate Depth (MGGTalk)",
            category="MGGTalk",
            description="Finds the face in a photo, cuts the portrait out, separates person and background, and "
            "estimates how far away every pixel of the person is.",
            search_aliases=["analyse portrait", "face crop", "depth map", "normal map", "matting", "mggtalk"],
            inputs=[
                types.Model.Input("model", tooltip="From Load MGGTalk."),
                io.Image.Input(
                    "image",
                    tooltip="One photo of a person. The face should be visible, 120 pixels or more, and turned less "
                    "than about 25 degrees to the side.",
                ),
                types.FaceLandmarks.Input(
                    "face_landmarks",
                    optional=True,
                    tooltip="From ComfyUI's Detect Face Landmarks on the same image, where that finds a face this node "
                    "misses, or edited landmarks; taken as they are. Without it the face is looked for here.",
                ),
                io.Int.Input(
                    "face_index",
                    default=0,
                    min=0,
                    max=15,
                    tooltip="Which face, when the photo has several: 0 is the largest, 1 the next one, and so on.",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=128,
                    max=1024,
                    step=64,
                    advanced=True,
                    tooltip="Side of the square portrait in pixels, and with it the number of Gaussians: 256 is four "
                    "times as fast as 512 and soft, 1024 keeps the detail of large photos and is four times as slow.",
                ),
                io.DynamicCombo.Input(
                    "depth_source",
                    options=[
                        io.DynamicCombo.Option("head prior", []),
                        io.DynamicCombo.Option(
                            "depth model",
                            [
                                io.String.Input(
                                    "depth_model",
                                    default="",
                                    tooltip="A folder that holds a transformers depth model (config.json and "
                                    ".safetensors). Nothing is downloaded: get the model first.",
                                )
                            ],
                        ),
                    ],
                    optional=True,
                    tooltip="'head prior' takes depth from the fitted head and rounds hair and shoulders. 'depth "
                    "model' shapes those with a network of yours, such as Depth Anything: slower, closer to the photo.",
                ),
            ],
            outputs=[
                types.Portrait.Output(display_name="portrait", tooltip="For Build Symmetric Gaussians."),
                io.Image.Output(display_name="depth", tooltip="White is near, black is far or not the person."),
                io.Image.Output(display_name="normal", tooltip="Red right, green up, blue towards the viewer."),
                io.Mask.Output(display_name="person_mask", tooltip="1 on the person, 0 on the background."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, image, face_index, size, face_landmarks=None, depth_source=None) -> io.NodeOutput:
        from ..mggtalk_core.geometry.dsgr import HEAD_PRIOR, estimate_depth
        from ..mggtalk_core.portrait.analysis import analyze_portrait

        photo = host.photo_from(image, "Estimate Depth")
        with host.errors_named("Estimate Depth", "face_landmarks"):
            faces = None if face_landmarks is None else faces_of_photo(face_landmarks, photo)
        with host.errors_named("Estimate Depth", "image"):
            networks = model.on_device()
            portrait = host.cancellable(
                analyze_portrait, photo, size=size, face_index=face_index, faces=faces,
                matting=networks.matting, spectacles=networks.spectacles,
            )  # fmt: skip
        host.show_warnings(portrait.warnings, cls.hidden.unique_id)
        source = (depth_source or {}).get("depth_model", HEAD_PRIOR)
        with host.errors_named("Estimate Depth", "depth_model"):
            if source != HEAD_PRIOR and not Path(source).is_dir():  # a hub id would be downloaded
                raise InputError(f"there is no folder '{source}'; give the folder of a transformers depth model")
            depth = host.cancellable(estimate_depth, portrait, source=source, model=model.on_device())
        return io.NodeOutput(
            AnalysedPortrait(portrait, depth),
            host.image_from(depth_picture(depth)),
            host.image_from(normal_picture(depth)),
            host.mask_from(portrait.alpha),
        )


class BuildSymmetricGaussians(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkBuildPoints",
            display_name="Build Symmetric Gaussians (MGGTalk)",
            category="MGGTalk",
            description="Turns depth into surface points, mirrors them to the side the photo does not show, and adds "
            "the mouth's inside.",
            search_aliases=["point cloud", "surface reconstruction", "symmetry", "dsgr", "mggtalk"],
            inputs=[
                types.Portrait.Input("portrait", tooltip="From Estimate Depth."),
                io.Boolean.Input(
                    "symmetry",
                    default=True,
                    tooltip="On: the hidden side of the face is filled with the mirrored visible one. Off: only what "
                    "the photo shows, so a turned head has holes.",
                ),
                io.Boolean.Input(
                    "voxel_filter",
                    default=True,
                    advanced=True,
                    tooltip="On: mirrored points that lie where the photo already has some are dropped. Off: all are "
                    "kept, which doubles asymmetric features such as a parting or a mole.",
                ),
            ],
            outputs=[types.Points.Output(display_name="points", tooltip="For Predict Visible Params.")],
        )

    @classmethod
    def execute(cls, portrait, symmetry, voxel_filter) -> io.NodeOutput:
        from ..mggtalk_core.geometry.dsgr import build_points

        points = host.cancellable(
            build_points, portrait.portrait, portrait.depth, symmetry=symmetry, voxel_filter=voxel_filter
        )
        return io.NodeOutput(points)
