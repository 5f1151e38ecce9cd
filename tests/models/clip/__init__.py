"""tests/models/clip."""
