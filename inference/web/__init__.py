"""What the page in a browser is made of."""
