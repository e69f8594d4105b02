# A shell to work on vmrunner in: `nix-shell nix/shell.nix`, or `nix-shell nix -A shell`.
{
  pkgs ? (import ./. { }).pkgs,
  package ? pkgs.callPackage ./package.nix { },
}:

let
  shell = pkgs.mkShell {
    # Python and all that vmrunner imports.
    inputsFrom = [ package ];

    # Not ruff and mypy: pyproject.toml asks for one version of each, and `scripts/setup` gets it.
    packages = [
      pkgs.cargo
      pkgs.cargo-nextest
      pkgs.e2fsprogs
      pkgs.nixfmt
      pkgs.python3Packages.pytest
      pkgs.python3Packages.pytest-timeout
      pkgs.qemu_kvm
      pkgs.rustc
      pkgs.util-linux
    ];

    # `python -m vmrunner` runs these sources, wherever it is called.
    shellHook = ''
      export PYTHONPATH="${toString ../.}''${PYTHONPATH:+:$PYTHONPATH}"
    '';
  };
in
# Since 2.24, `nix-shell DIRECTORY` reads shell.nix and not default.nix, so `-A shell` is asked for
# here; before, it is asked for there.
shell // { inherit shell; }
