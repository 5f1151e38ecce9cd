"""tools/shared."""
