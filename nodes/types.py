"""Sockets of the pack. Only what ComfyUI has no socket for is our own; the values are the core's types."""

from comfy_api.latest import io

Model = io.Custom("MGGTALK_MODEL")
Portrait = io.Custom("MGGTALK_PORTRAIT")
Points = io.Custom("MGGTALK_POINTS")
Visible = io.Custom("MGGTALK_VISIBLE")
Head = io.Custom("MGGTALK_HEAD")
Motion = io.Custom("MGGTALK_MOTION")
Camera = io.Custom("MGGTALK_CAMERA")
FaceLandmarks = io.Custom("FACE_LANDMARKS")  # ComfyUI declares its own this way too
