"""Tests of tools/shared."""
