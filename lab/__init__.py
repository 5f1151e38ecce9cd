"""Research instruments: published formulations, benchmark, pretraining, ablation, search."""
