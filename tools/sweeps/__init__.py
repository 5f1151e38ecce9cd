"""Grids of runs: which jobs a protocol asks for, and where they are carried out."""
