"""models/clip."""
