# A nextest archive as a derivation: $out/archive.tar.zst, for `vmrunner test --archive` and
# ./check.nix.
#
#   archive { src = ./.; }                               # plain nixpkgs; Cargo.lock is in src
#   archive { inherit src craneLib cargoArtifacts; }     # crane; dependencies are built once
#   archive { src = ./.; cargoExtraArgs = "--all-features"; buildInputs = [ pkgs.openssl ]; }
#
# What is not named below goes to `rustPlatform.buildRustPackage` or `craneLib.mkCargoDerivation`.
{ pkgs }:

{
  src,
  pname ? "nextest-archive",
  # Given, so that evaluation need not read src/Cargo.toml: src may have to be built first.
  version ? "0",
  # Arguments of `cargo nextest archive`: packages, features, profile.
  cargoExtraArgs ? "",
  nativeBuildInputs ? [ ],
  # Plain nixpkgs: its toolchain, or another one by `makeRustPlatform`; and the dependencies, as
  # buildRustPackage takes them: `cargoLock`, or `cargoHash`, `cargoDeps` or `cargoVendorDir`.
  rustPlatform ? pkgs.rustPlatform,
  cargoLock ? { lockFile = src + "/Cargo.lock"; },
  # crane: its library, and what `craneLib.buildDepsOnly` made.
  craneLib ? null,
  cargoArtifacts ? null,
  ...
}@args:

let
  inherit (pkgs) lib;

  # CARGO_PROFILE is set by crane alone: `cargoArtifacts` are of that profile, and for another one
  # all dependencies would be built again. Without it it is cargo's own, as for `cargo test`.
  makeArchive = ''
    cargo nextest archive --offline ''${CARGO_PROFILE:+--cargo-profile "$CARGO_PROFILE"} \
      --archive-format tar-zst --archive-file archive.tar.zst ${cargoExtraArgs}
  '';

  # Nix keeps what an output names, and shows it to builds that use the output. In the archive it
  # finds no names, for all is compressed: glibc and every library of the test binaries could be
  # collected as garbage, and would be missing where ./check.nix runs them. So `references` has in
  # plain text each store path that is named in the archive: dynamic loaders, run paths, and what
  # `env!` compiled in.
  installArchive = ''
    mkdir -p $out
    cp archive.tar.zst $out/
    zstd --decompress --stdout archive.tar.zst | {
      LC_ALL=C grep --text --only-matching --extended-regexp \
        '${builtins.storeDir}/[0-9a-z]{32}-[0-9A-Za-z+._?=-]+' || [ $? -eq 1 ]
    } | LC_ALL=C sort --unique > $out/references
  '';

  common =
    builtins.removeAttrs args [
      "cargoArtifacts"
      "cargoExtraArgs"
      "cargoLock"
      "craneLib"
      "rustPlatform"
    ]
    // {
      inherit src pname version;
      nativeBuildInputs = nativeBuildInputs ++ [
        pkgs.cargo-nextest
        pkgs.zstd
      ];
      # The tests run in the machine that the archive is for.
      doCheck = false;
      # There is nothing in $out that is to be stripped or patched.
      dontFixup = true;
      meta = {
        description = "Tests of ${pname}, built, as a nextest archive";
      }
      // args.meta or { };
    };

  hasOtherDependencies = args ? cargoHash || args ? cargoDeps || args ? cargoVendorDir;
in
if craneLib != null then
  craneLib.mkCargoDerivation (
    common
    // lib.optionalAttrs (args ? cargoLock) { inherit cargoLock; }
    // {
      inherit cargoArtifacts;
      # Nobody builds on from here: `target/` would double the size of the output.
      doInstallCargoArtifacts = false;
      buildPhaseCargoCommand = makeArchive;
      installPhaseCommand = installArchive;
    }
  )
else
  rustPlatform.buildRustPackage (
    common
    // lib.optionalAttrs (!hasOtherDependencies || args ? cargoLock) { inherit cargoLock; }
    // {
      # cargo-auditable is for programs that are shipped.
      auditable = false;
      buildPhase = ''
        runHook preBuild
        ${makeArchive}
        runHook postBuild
      '';
      installPhase = ''
        runHook preInstall
        ${installArchive}
        runHook postInstall
      '';
    }
  )
