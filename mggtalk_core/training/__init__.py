"""Training: synthetic heads, tracked clips, losses and the trainer. Nothing here is needed to use the pipeline."""
