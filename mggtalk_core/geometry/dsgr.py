"""DSGR, depth-aware symmetric geometry reconstruction: from a portrait to points that cover the whole head."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ..headmodel.model import load_head_model
from ..model import MGGTalkModel
from ..types import DepthMap, PointCloud, Portrait
from .border import above_photo
from .depth import head_prior_depth
from .interior import interior_points
from .refine import refine_depth
from .steps import behind_steps
from .substitutes import with_substitutes
from .surfels import visible_points
from .symmetry import concatenate, symmetric_points
from .worn import worn_points

HEAD_PRIOR = "head prior"


def estimate_depth(portrait: Portrait, *, source: str = HEAD_PRIOR, model: MGGTalkModel | None = None) -> DepthMap:
    """Depth, normals and head-model binding of the portrait's person (paper: Depth Est., Surface Rec., Geo. Refine).

    `source` is "head prior", which `model` refines if it has a network for that (trained on that depth, it would be
    wrong about another); or a transformers depth model (folder or hub id) that shapes hair, ears and shoulders.

    Raises:
        InputError: the depth model can't be used.
    """
    depth_map = head_prior_depth(portrait)
    if source != HEAD_PRIOR:
        from .depth_models import model_depth

        return model_depth(portrait, depth_map, source)
    if model is not None and model.geo_refine is not None:
        return refine_depth(model.geo_refine, portrait, depth_map)
    return depth_map


def build_points(
    portrait: Portrait, depth_map: DepthMap, *, symmetry: bool = True, voxel_filter: bool = True
) -> PointCloud:
    """[P_f ; P_f^s], hidden surface, and spectacles (paper: Surface Rec., Sym., Filter).

    `symmetry` mirrors the visible points to the hidden side and, where a face is turned away, onto its far half;
    `voxel_filter` drops mirrored points that only repeat visible ones.
    """
    head = load_head_model()
    chin_height = float(head.landmarks_of(portrait.vertices)[152, 1])
    with ThreadPoolExecutor(1) as thread:
        interior = thread.submit(interior_points, portrait, depth_map, head, chin_height)
        visible = visible_points(portrait, depth_map, head, chin_height)
        clouds = [visible]
        if symmetry:
            kept, substitutes, oblique = with_substitutes(visible, head)
            mirrored = symmetric_points(concatenate([kept, substitutes]), head, voxel_filter=voxel_filter)
            clouds = [kept, substitutes, mirrored, oblique]
        clouds += [behind_steps(visible), interior.result()]
    clouds.append(above_photo(visible))
    if portrait.spectacles is not None:
        clouds.append(worn_points(portrait, depth_map))
    return concatenate(clouds)
