"""The baked head model: shape, ARKit actions, landmarks, and fitting it to a face."""
