"""The data sets; importing this package registers them."""
