"""Fetching, unpacking and arranging data sets; the command is tools/prepare_data.py."""
