# All values of nix/ that the unit tests look at, so that Nix evaluates once for all of them.
{ nix, nixpkgs }:
let
  given = arguments: import nix ({ inherit nixpkgs; } // arguments);
  plain = given { };
  inherit (plain) pkgs;
  inherit (pkgs) lib;

  guest =
    modules:
    let
      inherit ((plain.nixos modules)) config;
    in
    {
      inherit (config) fileSystems users;
      inherit (config.boot) initrd kernelModules kernelParams loader;
      inherit (config.environment) etc pathsToLink;
      inherit (config.networking) firewall hostName hosts useDHCP;
      inherit (config.services) openssh postgresql timesyncd;
      inherit (config.system) activationScripts stateVersion;
      inherit (config.systemd) mounts services;
      packages = map (package: package.name) config.environment.systemPackages;
      nixLd = config.programs.nix-ld.enable;
    };
  # Whether evaluating it fails.
  refused = value: !(builtins.tryEval (builtins.deepSeq value null)).success;

  manifest =
    arguments:
    builtins.fromJSON (builtins.unsafeDiscardStringContext (given arguments).image.manifest);

  # A derivation's own attributes, without functions and other derivations.
  attributes =
    derivation:
    lib.filterAttrs (_: value: !lib.isFunction value && !lib.isDerivation value) (
      removeAttrs derivation [ "all" "drvAttrs" "passthru" "outPath" "drvPath" ]
    )
    // {
      nativeBuildInputs = map (package: package.pname) (derivation.nativeBuildInputs or [ ]);
    };

  crate = builtins.path {
    name = "crate";
    path = ../../crates/mydns;
    filter = path: _: baseNameOf path != "target";
  };
  archive = arguments: attributes (plain.archive ({ src = crate; } // arguments));
  tests = pkgs.runCommand "tests" { src = "/sources"; } "";
  check =
    arguments:
    attributes (
      plain.check (
        {
          image = "/image";
          archive = tests // { outPath = "/archive"; };
        }
        // arguments
      )
    );
in
{
  guest = {
    plain = guest [ ];
    user = guest [ (toString ./user.nix) ];
    without_nextest = guest [ { vmrunner.nextest = null; } ];
    with_nix = guest [ { nix.enable = true; } ];
  };
  refused = {
    unknown_option = refused (guest [ { networking.hostNam = "db"; } ]);
    wrong_type = refused (guest [ { networking.hostName = 3; } ]);
    failed_assertion = refused (
      (given {
        modules = [
          {
            assertions = [
              {
                assertion = false;
                message = "no";
              }
            ];
          }
        ];
      }).image.drvPath
    );
  };
  manifest = {
    plain = manifest { };
    user = manifest { modules = [ (toString ./user.nix) ]; };
    without_nextest = manifest { modules = [ { vmrunner.nextest = null; } ]; };
    without_foreign_loader = manifest { modules = [ { programs.nix-ld.enable = false; } ]; };
  };
  archive = {
    plain = archive { };
    own = archive {
      pname = "mydns-tests";
      version = "1.2";
      cargoExtraArgs = "--all-features";
      nativeBuildInputs = [ pkgs.perl ];
      cargoHash = lib.fakeHash;
      RUSTFLAGS = "-g";
      meta.license = lib.licenses.mit;
    };
    crane = plain.archive {
      src = crate;
      cargoArtifacts = "/artifacts";
      craneLib.mkCargoDerivation = arguments: removeAttrs arguments [ "nativeBuildInputs" ];
      CARGO_PROFILE = "release";
    };
  };
  check = {
    plain = check { };
    own = check {
      name = "dns";
      src = "/other sources";
      settings = {
        memory = "4G";
        start = "restored";
      };
      args = [ "--network=user" ];
      nextestArgs = [
        "-E"
        "test(dns)"
      ];
    };
  };
  package = attributes plain.package // {
    dependencies = map (dependency: dependency.pname) plain.package.dependencies;
    source = "${plain.package.src}";
  };
  shell = {
    packages = map (package: package.pname) plain.shell.packages;
    inputs = map (package: package.pname) plain.shell.inputsFrom;
    inherit (plain.shell) drvPath shellHook;
  };
  # What Nix would refuse to build on a builder that lacks them.
  features = lib.mapAttrs (_: derivation: derivation.requiredSystemFeatures or [ ]) {
    inherit (plain) image package shell;
    inherit (plain.image) rootDisk;
    archive = plain.archive { src = crate; };
    check = plain.checks.mydns;
  };
}
