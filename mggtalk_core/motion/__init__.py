"""Motion: what drives a head. Speech (`audio`), video, ARKit CSV, idle movement and the tools to edit curves."""
