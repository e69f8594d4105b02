# All that is here, by name:
#
#   nix-build nix -A image --arg modules '[ ./vm.nix ]'   an image for `vmrunner test --image`
#   nix-build nix -A package                              vmrunner itself
#   nix-build nix -A checks                               it tests a crate in such an image
#   nix-shell nix -A shell                                a shell to develop it in
#   (import ./nix { }).archive, .check, .nixos            functions: ./archive.nix, ./check.nix
#
# Neither flakes nor channels: nixpkgs is the pin in ./nixpkgs.json, or what the caller gives.
let
  read = spec: if spec == null then { } else builtins.fromJSON (builtins.readFile spec);

  find =
    { spec, nixpkgs }:
    let
      wish = read spec;
      known = wish.revision or null != null;
    in
    import ./nixpkgs.nix {
      source =
        if nixpkgs != null then
          { path = nixpkgs; }
        else if wish ? nixpkgs then
          { path = wish.nixpkgs; } // (if known then { inherit (wish) revision; } else { })
        else
          null;
    };
in
{
  # How `vmrunner` says what follows all at once: the path of a JSON file
  # { "nixpkgs": "/path", "revision": "…" or null, "system": "x86_64-linux",
  #   "modules": [ "/path/vm.nix" ], "storePaths": [ "/nix/store/…" ] }.
  spec ? null,
  # A path; null takes that of `spec`, else the pin.
  nixpkgs ? null,
  system ? (read spec).system or "x86_64-linux",
  # NixOS modules that go into the image beside ./guest.nix.
  modules ? (read spec).modules or [ ],
  # Store paths that are to be in the image, with all they refer to, whatever the modules say.
  storePaths ? map builtins.storePath ((read spec).storePaths or [ ]),
  pkgs ? import (find { inherit spec nixpkgs; }).path {
    inherit system;
    config = { };
    overlays = [ ];
  },
}:

let
  origin = find { inherit spec nixpkgs; };
  guest = ./guest.nix;

  # NixOS of these modules and the guest contract: { config, options, pkgs, … }.
  nixos =
    modules:
    import (origin.path + "/nixos/lib/eval-config.nix") {
      # The default is the evaluating machine's; the second module says what is meant.
      system = null;
      modules = [
        guest
        { nixpkgs.hostPlatform = system; }
      ]
      ++ modules;
    };

  image = import ./image.nix {
    inherit modules origin storePaths;
    evaluated = nixos modules;
  };

  package = pkgs.callPackage ./package.nix { };
  archive = import ./archive.nix { inherit pkgs; };
  check = import ./check.nix { inherit pkgs package; };
  shell = import ./shell.nix { inherit pkgs package; };

  # Without what cargo left there, and there in the source tree only.
  mydns = pkgs.lib.cleanSourceWith {
    name = "mydns";
    src = ../tests/crates/mydns;
    filter = path: _: baseNameOf path != "target";
  };

  checks = {
    mydns = check {
      inherit image;
      archive = archive {
        pname = "mydns-nextest-archive";
        src = mydns;
      };
    };
  };
in
{
  inherit
    archive
    check
    checks
    guest
    image
    nixos
    package
    pkgs
    shell
    ;
}
