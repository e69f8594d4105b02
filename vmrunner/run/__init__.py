"""The main job: stage, start a machine, run the unit, collect the result, report."""
