"""Heads and motion as files and as ComfyUI's own 3D types."""

from __future__ import annotations

import io as memory
import os
from pathlib import Path

import torch
from comfy_api.latest import Types, io, ui

from ..mggtalk_core.errors import InputError
from . import cameras, expressions, host, types

HEAD_SUFFIX = ".safetensors"


def _posed(node: str, head, motion, frame: int):
    """The head's Gaussians in one frame of a motion, or as in the photo without one.

    Raises InputError when the motion has no such frame.
    """
    from ..mggtalk_core.gaussians.deformation import deform
    from ..mggtalk_core.gaussians.head import gaussians_from_covars
    from ..mggtalk_core.gaussians.light import Relighter
    from ..mggtalk_core.gaussians.opacities import Opacities

    if motion is None:
        return head.gaussians()
    if frame >= len(motion):
        raise InputError(
            f"{node}, input 'frame': frame {frame} does not exist, the motion has {len(motion)} frames "
            f"(0 to {len(motion) - 1})"
        )
    motion = expressions.frame_of(expressions.for_head(motion, head), frame)
    means, covars = deform(head, motion.expression[0], motion.rotation[0], motion.translation[0])
    colors = Relighter.of(head).colors(motion.expression[0], motion.rotation[0])
    opacities = Opacities.of(head).from_all_sides(motion.expression[0])
    return gaussians_from_covars(*map(torch.from_numpy, (means, covars, opacities, colors)))


class HeadToSplat(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkHeadToSplat",
            display_name="Head to Splat (MGGTalk)",
            category="MGGTalk/export",
            description="The head as ComfyUI's SPLAT for Render Splat and friends, and as a .ply or .spz file for "
            "Preview Splat, Save Splat and any 3D Gaussian viewer.",
            search_aliases=["export ply", "export spz", "3d gaussian", "gaussian splat", "mggtalk"],
            inputs=[
                types.Head.Input("head", tooltip="From Predict Invisible Params or Load Head."),
                types.Motion.Input(
                    "motion",
                    optional=True,
                    tooltip="Which expression and pose to export. Without it the head is exported as in the photo.",
                ),
                io.Int.Input(
                    "frame",
                    default=0,
                    min=0,
                    max=10_000_000,
                    tooltip="Which frame of the motion: 0 is the first. Not used without a motion.",
                ),
                io.Combo.Input(
                    "file_format",
                    options=["ply", "spz", "splat"],
                    default="ply",
                    tooltip="'ply' is exact and read everywhere (17 MB for a 512 head), 'spz' is a tenth of that with "
                    "slightly rounded values, 'splat' suits web viewers.",
                ),
            ],
            outputs=[
                io.Splat.Output(display_name="splat", tooltip="For Render Splat, Transform Splat, Merge Splat ..."),
                io.File3DSplatAny.Output(display_name="file_3d", tooltip="For Preview Splat and Save Splat."),
                io.Load3DCamera.Output(
                    display_name="camera_info",
                    tooltip="The photo's camera, for Preview Splat and Render Splat: they start with the photo's view.",
                ),
            ],
        )

    @classmethod
    def execute(cls, head, frame, file_format, motion=None) -> io.NodeOutput:
        from ..mggtalk_core.gaussians.splat_io import colors_to_sh, encode_splat

        gaussians = host.cancellable(_posed, "Head to Splat", head, motion, frame)
        splat = Types.SPLAT(
            positions=gaussians.means[None].clone(),
            scales=gaussians.scales[None],
            rotations=gaussians.quats[None],
            opacities=gaussians.opacities[None, :, None].clone(),
            sh=colors_to_sh(gaussians.colors)[None, :, None],
        )
        file = Types.File3D(memory.BytesIO(encode_splat(gaussians, file_format)), file_format)
        return io.NodeOutput(splat, file, cameras.to_camera_info(head.camera))


class SaveHead(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkSaveHead",
            display_name="Save Head (MGGTalk)",
            category="MGGTalk/export",
            description="Saves the head, with its photo and background, as one .safetensors file in ComfyUI's output "
            "folder. Load Head reads it in any graph and on any machine.",
            search_aliases=["save avatar", "export head", "mggtalk"],
            inputs=[
                types.Head.Input("head", tooltip="From Predict Invisible Params."),
                io.String.Input(
                    "filename_prefix",
                    default="mggtalk/head",
                    tooltip="Folder and beginning of the file name; a number is added, nothing is overwritten.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, head, filename_prefix) -> io.NodeOutput:
        path, name, subfolder = host.new_output(filename_prefix, HEAD_SUFFIX)
        head.save(path)
        return io.NodeOutput(ui=ui.PreviewText(f"Saved {len(head):,} Gaussians as {Path(subfolder) / name}"))


class LoadHead(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkLoadHead",
            display_name="Load Head (MGGTalk)",
            category="MGGTalk/export",
            description="Loads a head made by Save Head: no photo and no model needed.",
            search_aliases=["load avatar", "import head", "mggtalk"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=host.user_files(HEAD_SUFFIX),
                    tooltip="Heads in ComfyUI's input folder, and in its output folder (marked [output]).",
                )
            ],
            outputs=[types.Head.Output(display_name="head", tooltip="For the render nodes and the editor.")],
        )

    @classmethod
    def validate_inputs(cls, file):
        return host.check_user_file(file, HEAD_SUFFIX)

    @classmethod
    def fingerprint_inputs(cls, file):
        return os.stat(host.user_file(file)).st_mtime_ns

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        from ..mggtalk_core.gaussians.head import GaussianHead

        with host.errors_named("Load Head", "file"):
            head = GaussianHead.load(host.user_file(file))
        return io.NodeOutput(head)


class SaveMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkSaveMotion",
            display_name="Save Motion (MGGTalk)",
            category="MGGTalk/export",
            description="Saves a motion as the CSV that Live Link Face writes (52 ARKit shapes, head and eye angles), "
            "for Unreal, Blender, Maya, or Drive with Blendshapes.",
            search_aliases=["export arkit", "live link face", "blendshape csv", "mggtalk"],
            inputs=[
                types.Motion.Input("motion", tooltip="From any driver or the Expression Editor."),
                io.String.Input(
                    "filename_prefix",
                    default="mggtalk/motion",
                    tooltip="Folder and beginning of the file name; a number is added, nothing is overwritten.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, motion, filename_prefix) -> io.NodeOutput:
        from ..mggtalk_core.motion.blendshape_csv import write_motion_csv

        path, name, subfolder = host.new_output(filename_prefix, ".csv")
        write_motion_csv(motion, path)
        return io.NodeOutput(ui=ui.PreviewText(f"Saved {len(motion)} frames as {Path(subfolder) / name}"))
