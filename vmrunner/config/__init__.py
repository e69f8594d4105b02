"""vmrunner.yaml, environment and flags become one frozen, validated Config."""
