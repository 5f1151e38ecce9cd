"""Commands; their helpers are in the folders below."""
