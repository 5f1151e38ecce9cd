"""Speed of the project's trainers beside their published formulations; see tools/benchmark.py."""
