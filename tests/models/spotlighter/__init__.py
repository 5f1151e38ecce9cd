"""tests/models/spotlighter."""
