"""The command line: the verbs, and the only code that prints or exits."""
