"""tools/results."""
