# What can go wrong with Nix, each by name. Builders are this computer's /bin/sh, so Nix must not
# use a sandbox.
{
  directory ? "/nonexistent",
}:
let
  make =
    attributes:
    derivation (
      {
        system = builtins.currentSystem;
        builder = "/bin/sh";
      }
      // attributes
    );
  run =
    name: script:
    make {
      inherit name;
      args = [
        "-c"
        script
      ];
    };
  # Another derivation each time, so that nothing is there already.
  content = "${directory}";
  wrong = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
in
rec {
  fine = make {
    name = "fine";
    args = [
      "-c"
      "echo working; echo ${content} > $out"
    ];
  };

  builder = run "broken" ''
    i=0; while [ $i -lt 50 ]; do echo line $i; i=$((i+1)); done
    echo no such thing >&2
    exit 3
  '';
  dependency = make {
    name = "dependent";
    inherit builder;
    args = [
      "-c"
      "echo > $out"
    ];
  };
  noOutput = run "forgetful" "echo nothing made";
  killed = run "killed" "kill -9 $$";

  hash = make {
    name = "fixed";
    outputHashMode = "flat";
    outputHash = wrong;
    outputHashAlgo = "sha256";
    args = [
      "-c"
      "echo ${content} > $out"
    ];
  };
  fetch = builtins.fetchTarball {
    url = "file://${directory}/archive.tar.gz";
    sha256 = wrong;
  };
  download = builtins.fetchTarball {
    url = "http://127.0.0.1:9/archive.tar.gz";
    sha256 = wrong;
  };
  builtinDownload = derivation {
    name = "downloaded";
    system = "builtin";
    builder = "builtin:fetchurl";
    url = "http://127.0.0.1:9/archive.tar.gz";
    outputHash = wrong;
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
  };

  sleeping = run "sleepy" "echo going to sleep; /bin/sleep 1000; echo > $out";
  feature = make {
    name = "demanding";
    requiredSystemFeatures = [ "vmrunner-test" ];
    args = [
      "-c"
      "echo > $out"
    ];
  };
  system = derivation {
    name = "foreign";
    system = "riscv64-linux";
    builder = "/bin/sh";
  };
  full = run "large" "/usr/bin/head -c 1000000000 /dev/zero > $out";

  evaluation = (import (directory + "/module.nix")).value;
  option = throw ''

    Failed assertions:
    - services.example.port must be set
  '';
  syntax = import (directory + "/syntax.nix");
  searchPath = import <nixpkgs> { };
  tooOld = abort ''

    This version of Nixpkgs requires Nix >= 99.1, please upgrade:
  '';
}
