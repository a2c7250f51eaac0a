"""Speech to motion: log-mel -> speech encoder -> mouth head -> ARKit coefficients of our head model (Exp. Enc.)."""

from .drive import drive_with_audio

__all__ = ["drive_with_audio"]
