"""Rendering: cameras, the rasterizer and its backends, frames for video."""
