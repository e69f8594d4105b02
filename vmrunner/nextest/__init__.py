"""cargo-nextest: archives, arguments, exit codes, JUnit."""
