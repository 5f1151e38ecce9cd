"""models/spotlighter."""
