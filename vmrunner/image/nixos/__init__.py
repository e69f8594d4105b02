"""The NixOS image: which nixpkgs, `nix-build` with live progress, what its failures mean, and when not to call it."""
