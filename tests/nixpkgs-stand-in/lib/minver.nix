# Stands in for nixpkgs' lib/minver.nix: the oldest Nix that it is meant for. Debian 12 has 2.8.
"2.3.17"
