"""A trained run as other programs use it: open, predict, draw, export, serve a web page."""
