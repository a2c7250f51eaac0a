"""The demo's portrait and speech: redistributable, see THIRD_PARTY.md."""

from pathlib import Path

DEMO_PORTRAIT = Path(__file__).parent / "demo_portrait.png"
DEMO_SPEECH = Path(__file__).parent / "demo_speech.flac"
