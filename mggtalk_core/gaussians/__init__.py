"""SGP: Gaussian parameters of visible and hidden points, the reusable head, and its motion."""
