# Stands in for nixpkgs: packages are links to programs of this computer, and derivations run with
# its bash and its PATH, so Nix must not use a sandbox. Enough of it for nix/ to be evaluated and
# built where no cache of nixpkgs can be reached.
{
  system ? builtins.currentSystem,
  config ? { },
  overlays ? [ ],
}:
let
  lib = import ./lib;
  debian = import ./debian.nix;

  # The virtual environment of the tests, which has vmrunner's dependencies and cargo-nextest.
  venv = builtins.getEnv "NIXPKGS_STAND_IN_VENV";

  # What every builder sees: the programs of this computer, and the places that cargo has its
  # toolchain in.
  environment = {
    PATH = "${builtins.getEnv "PATH"}:${venv}/bin:/usr/sbin:/sbin:/usr/bin:/bin";
  }
  // builtins.listToAttrs (builtins.concatMap given [ "HOME" "CARGO_HOME" "RUSTUP_HOME" ]);

  given =
    name:
    let
      value = builtins.getEnv name;
    in
    if value == "" then [ ] else [ { inherit name value; } ];

  # What a derivation is told but its builder is not.
  aside = [
    "cargoLock"
    "dependencies"
    "makeWrapperArgs"
    "meta"
    "passthru"
  ];

  mkDerivation =
    attributes:
    let
      built = derivation (
        environment
        // removeAttrs attributes aside
        // {
          inherit system;
          name = attributes.name or "${attributes.pname}-${attributes.version}";
          builder = "/bin/bash";
          args = [ ./builder.sh ];
        }
      );
    in
    built // attributes.passthru or { } // attributes;

  runCommand =
    name: attributes: buildCommand:
    mkDerivation ({ inherit name buildCommand; } // attributes);

  # A package with some of this computer's programs.
  host =
    pname: version: programs:
    mkDerivation {
      inherit pname version;
      buildCommand = ''
        mkdir -p $out/bin
        for program in ${toString programs}; do
          ln -s "$(command -v $program)" $out/bin/
        done
      '';
    };
  words = text: lib.filter (word: lib.isString word && word != "") (lib.split "[ \n]+" text);
  programs = names: lib.genAttrs names (name: host name "1" [ name ]);
  placeholders = names: lib.genAttrs names (name: host name "1" [ ]);

  pkgs =
    programs (words "bash cargo git jq mmdebstrap perl rustc zstd")
    # They are named, and nothing here runs them.
    // placeholders (words "dropbear iproute2 nix nixfmt openssh")
    // {
      inherit
        lib
        pkgs
        runCommand
        config
        ;
      stdenv = { inherit mkDerivation; };
      mkShell = attributes: mkDerivation ({ name = "shell"; } // attributes);

      callPackage =
        file: arguments:
        let
          function = import file;
        in
        function (builtins.intersectAttrs (lib.functionArgs function) pkgs // arguments);

      writeText = name: text: runCommand name { inherit text; } "printf %s \"$text\" >$out";

      closureInfo =
        { rootPaths }:
        let
          graph = n: path: [
            "graph-${toString n}"
            path
          ];
        in
        runCommand "closure-info"
          { exportReferencesGraph = lib.concatLists (lib.imap0 graph rootPaths); }
          ''
            mkdir $out
            cat graph-* >$out/registration
            grep -h ^/ graph-* | grep -v '\.drv$' | sort -u >$out/store-paths
          '';

      # A copy, which runs in a Debian guest as well. What version it is, only the program itself
      # knows.
      cargo-nextest = mkDerivation {
        pname = "cargo-nextest";
        version =
          if debian.given then
            builtins.readFile (
              runCommand "nextest-version" { } ''
                cargo-nextest nextest --version | sed -n 's/^release: //p' | tr -d '\n' >$out
              ''
            )
          else
            "0.9";
        buildCommand = ''
          mkdir -p $out/bin
          cp -L "$(command -v cargo-nextest)" $out/bin/
        '';
      };

      e2fsprogs = host "e2fsprogs" "1" [
        "debugfs"
        "e2fsck"
        "mke2fs"
        "resize2fs"
        "tune2fs"
      ];

      # Its loader is the Debian guest's own.
      glibc = mkDerivation {
        pname = "glibc";
        version = debian.glibc;
        buildCommand = ''
          mkdir -p $out/lib
          ln -s /lib64/ld-linux-x86-64.so.2 $out/lib/
        '';
      };

      qemu_kvm = host "qemu" "1" [
        "qemu-img"
        "qemu-system-x86_64"
      ];
      systemd = host "systemd" debian.systemd [ ];
      util-linux = host "util-linux" "1" [ "setpriv" ];

      # For crates that need no others: cargo finds none.
      rustPlatform.buildRustPackage = mkDerivation;

      python3Packages =
        placeholders (words ''
          click cryptography defusedxml hatchling junitparser mypy paramiko platformdirs
          psutil pydantic pyelftools pytest pytest-timeout pyyaml qemu-qmp rich ruff
          types-defusedxml types-paramiko types-psutil types-pyyaml zstandard
        '')
        // {
          # Runs from its sources, with the Python of the tests and the packages that it has.
          buildPythonApplication =
            attributes:
            mkDerivation (
              attributes
              // {
                buildCommand = ''
                  mkdir -p $out/bin
                  cat >$out/bin/vmrunner <<end
                  #!/bin/sh
                  PYTHONPATH=$src exec ${venv}/bin/python3 -m vmrunner "\$@"
                  end
                  chmod +x $out/bin/vmrunner
                '';
              }
            );
        };
    };
in
pkgs
