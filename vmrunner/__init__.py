"""vmrunner: run impure Rust test suites (nextest archives) inside QEMU virtual machines."""

__version__ = "0.1.0"
