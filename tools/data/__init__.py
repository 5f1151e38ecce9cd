"""tools/data."""
