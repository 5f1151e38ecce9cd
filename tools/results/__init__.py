"""Results of runs: read them, put them into rows, print tables, draw figures."""
