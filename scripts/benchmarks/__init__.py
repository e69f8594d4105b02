"""What scripts/bench measures, one file per thing. Only the standard library is needed to import it."""
