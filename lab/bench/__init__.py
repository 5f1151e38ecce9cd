"""Speed of the project's trainers beside their published formulations; see lab/benchmark.py."""
