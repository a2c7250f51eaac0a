"""DSGR: depth, surface reconstruction, symmetric points."""
