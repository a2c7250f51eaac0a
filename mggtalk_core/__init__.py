"""MGGTalk: one photo and speech become a talking 3D Gaussian head. Start reading at `pipeline.py`."""

__version__ = "0.1.0"
