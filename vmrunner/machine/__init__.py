"""One virtual machine: plan, QEMU arguments, QMP, lifecycle."""
