"""Checking, downloading and arranging data sets; the commands are tools/*_data.py."""
