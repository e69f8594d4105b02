"""What a machine is made of, as words of QEMU's command line: one file for each part."""
