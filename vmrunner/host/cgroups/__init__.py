"""The three ways to give a process its share of the processors: cgroup v1, cgroup v2, and a systemd scope."""
