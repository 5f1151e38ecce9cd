"""The web page: what it answers, which requests it refuses, how it is laid out."""
