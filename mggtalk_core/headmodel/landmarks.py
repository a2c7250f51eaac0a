"""Groups of MediaPipe's 478 face landmarks used in fitting, binding and measuring."""

from __future__ import annotations

import numpy as np

OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149,
        150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)  # fmt: skip
"""Face outline: slides along the silhouette as the head turns, so it is trusted little."""

INNER_LIP_UPPER = (191, 80, 81, 82, 13, 312, 311, 310, 415)
INNER_LIP_LOWER = (95, 88, 178, 87, 14, 317, 402, 318, 324)
INNER_LIP_RING = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
LIP_CORNERS = (78, 308)  # where both lips' inner edges end
OUTER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
LIPS = OUTER_LIP + INNER_LIP_UPPER + INNER_LIP_LOWER + LIP_CORNERS

RIGHT_EYE_RING = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
LEFT_EYE_RING = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
"""Lid outlines; left and right are the subject's (the right eye is on the image's left)."""
EYES = RIGHT_EYE_RING + LEFT_EYE_RING
UPPER_LIDS = RIGHT_EYE_RING[1:8] + LEFT_EYE_RING[1:8]
LOWER_LIDS = RIGHT_EYE_RING[:8:-1] + LEFT_EYE_RING[:8:-1]
UPPER_EDGES, LOWER_EDGES = INNER_LIP_UPPER + UPPER_LIDS, INNER_LIP_LOWER + LOWER_LIDS
"""Landmarks above each other across the openings of the face, corners left out."""
RIGHT_IRIS, LEFT_IRIS = 468, 473
IRISES = tuple(range(468, 478))

INNER_FACE = np.array([index for index in range(468) if index not in OVAL])
"""Every landmark of the face surface except the outline."""

OPEN_MOUTH = 0.06
"""Lip gap in inter-ocular distances from which on a photo shows the inside of the mouth."""


def inter_ocular_distance(landmarks: np.ndarray) -> float:
    """Distance between the iris centres of landmarks (478, 2+), in their unit."""
    return float(np.linalg.norm(landmarks[RIGHT_IRIS, :2] - landmarks[LEFT_IRIS, :2]))


def mouth_is_open(landmarks: np.ndarray) -> bool:
    """Whether landmarks (478, 2) show the inside of the mouth."""
    return bool(np.linalg.norm(landmarks[13] - landmarks[14]) > OPEN_MOUTH * inter_ocular_distance(landmarks))
