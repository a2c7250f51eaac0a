"""Shared test helpers."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data(relative: str) -> Path:
    """A file of the development data, or skip: the README's commands never need it."""
    path = SHARED_DATA / relative
    if not path.exists():
        pytest.skip(f"development data not present: shared/data/{relative}")
    return path


@pytest.fixture(scope="session")
def demo_portrait():
    """The demo photo, analysed at 256 px."""
    from mggtalk_core.assets import DEMO_PORTRAIT
    from mggtalk_core.media.image import read_photo
    from mggtalk_core.portrait.analysis import analyze_portrait

    return analyze_portrait(read_photo(DEMO_PORTRAIT), size=256)


@pytest.fixture(scope="session")
def demo_points(demo_portrait):
    """Its points."""
    from mggtalk_core.geometry.dsgr import build_points, estimate_depth

    return build_points(demo_portrait, estimate_depth(demo_portrait))


@pytest.fixture(scope="session")
def demo_head(demo_points):
    """Its head on the analytic prior."""
    from mggtalk_core.gaussians.sgp import predict_invisible, predict_visible
    from mggtalk_core.model import MGGTalkModel

    model = MGGTalkModel()
    return predict_invisible(model, predict_visible(model, demo_points))
