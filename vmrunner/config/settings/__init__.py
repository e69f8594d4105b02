"""The rows of Config by group: one file for each part of a machine, or of a run, that can be set."""
