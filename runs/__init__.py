"""What surrounds any method: config, data, checkpoints, evaluation, records, several processes."""
