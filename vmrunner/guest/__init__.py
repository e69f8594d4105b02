"""Inside one virtual machine: SSH, the systemd unit, the shares."""
