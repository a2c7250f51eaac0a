"""Evaluate Reenactment: how close rendered frames come to the true ones."""

from __future__ import annotations

import numpy as np
from comfy_api.latest import io, ui

from ..mggtalk_core.errors import InputError
from ..mggtalk_core.evaluation import masks, motion_metrics
from ..mggtalk_core.evaluation.image_metrics import psnr, ssim
from ..mggtalk_core.portrait.tracking import FaceTracker
from . import host


class EvaluateReenactment(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkEvaluate",
            display_name="Evaluate Reenactment (MGGTalk)",
            category="MGGTalk/evaluate",
            description="Compares rendered frames with the true ones: likeness of the whole picture and of the face, "
            "and whether lips and eyes move alike. For self-reenactment take the video's first frame as the photo and "
            "framing 'paste'.",
            search_aliases=["psnr", "ssim", "metrics", "benchmark", "lip sync score", "mggtalk"],
            inputs=[
                io.Image.Input("images", tooltip="The rendered frames."),
                io.Image.Input("reference", tooltip="The true frames: as many, and of the same size."),
                io.Int.Input(
                    "every",
                    default=1,
                    min=1,
                    max=1000,
                    tooltip="Compare every n-th frame: 1 compares all, 4 is four times as fast.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="All figures, one per line."),
                io.Float.Output(display_name="psnr", tooltip="Whole picture, dB: 20 is rough, 30 close, 40 the same."),
                io.Float.Output(display_name="ssim", tooltip="Whole picture: 1 is identical."),
                io.Float.Output(
                    display_name="lip_corr", tooltip="Correlation of the lip openings: 1 moves alike, 0 is chance."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images, reference, every) -> io.NodeOutput:
        if images.shape[:3] != reference.shape[:3]:
            raise InputError(
                f"Evaluate Reenactment, input 'reference': {len(reference)} frames of {reference.shape[2]}x"
                f"{reference.shape[1]}, but 'images' has {len(images)} of {images.shape[2]}x{images.shape[1]}; give "
                "the same number and size"
            )
        chosen = range(0, len(images), every)
        with FaceTracker(max_faces=1) as tracker:
            rows = [
                frame_scores(tracker, images[index, ..., :3].numpy(), reference[index, ..., :3].numpy())
                for index in host.watched(chosen, len(chosen))
            ]
        scores = clip_scores(rows)
        report = "\n".join(f"{name}: {value:.3f}" for name, value in scores.items())
        return io.NodeOutput(report, scores["psnr"], scores["ssim"], scores["lip_corr"], ui=ui.PreviewText(report))


def frame_scores(tracker: FaceTracker, picture: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Figures of one frame (H, W, 3) float32 0..1; those of the face are missing where it is not found in both."""
    scores = {"psnr": psnr(picture, truth), "ssim": ssim(picture, truth)}
    found, true = (tracker.detect(np.round(image * 255).astype(np.uint8)) for image in (picture, truth))
    if not found or not true:
        return scores
    found, true = found[0], true[0]
    region = masks.face_mask(true.landmarks, *truth.shape[:2])
    return {
        **scores,
        "psnr_face": psnr(picture, truth, region),
        "lip_distance": motion_metrics.lip_landmark_distance(found.landmarks, true.landmarks),
        "expression_distance": motion_metrics.average_expression_distance(found.scores, true.scores),
        "pose_distance": motion_metrics.average_pose_distance(found.matrix, true.matrix),
        "lip": motion_metrics.lip_opening(found.landmarks),
        "true_lip": motion_metrics.lip_opening(true.landmarks),
        "eye": motion_metrics.eye_opening(found.landmarks),
        "true_eye": motion_metrics.eye_opening(true.landmarks),
    }


def clip_scores(rows: list[dict[str, float]]) -> dict[str, float]:
    """Means over the frames, and correlations of the lip and eye openings (NaN for fewer than three faces)."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: np.array([row[name] for row in rows if name in row]) for name in names}
    scores = {name: float(values.mean()) for name, values in columns.items() if name[-3:] not in ("lip", "eye")}
    for part in ("lip", "eye"):
        known = len(columns.get(part, ())) > 2
        scores[f"{part}_corr"] = (
            motion_metrics.correlation(columns[part], columns[f"true_{part}"]) if known else float("nan")
        )
    return {**scores, "frames": float(len(rows)), "faces_lost": float(len(rows) - len(columns.get("lip", ())))}
