"""`python -m vmrunner` is `vmrunner`."""

from vmrunner.cli import main

if __name__ == "__main__":
    main()
