"""tests/inference."""
