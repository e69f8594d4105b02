"""Changes of a machine that runs: one file for each part of it. Each change is read back, and what was read is told."""
