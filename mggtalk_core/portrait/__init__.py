"""Portrait analysis: find the face, crop, separate the person from the background."""
