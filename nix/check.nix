# `vmrunner test` inside a derivation, for `checks.<system>` or `nix-build -A checks`: it builds
# where the tests pass, and $out then holds junit.xml, report.json and the logs.
#
#   check { inherit image archive; }                    # settings from vmrunner.yaml in the sources
#   check { inherit image archive; settings.memory = "4G"; }
#
# It asks for no system feature. A builder that has the feature "kvm" shows /dev/kvm to every build,
# and vmrunner takes it if a guest really runs on it; elsewhere QEMU emulates, which takes longer.
{ pkgs, package }:

{
  name ? "vmrunner-test",
  # A directory that keeps the contract for images, as ./image.nix builds it.
  image,
  # A derivation with archive.tar.zst, as ./archive.nix builds it.
  archive,
  # The sources of the archive. A filter that keeps what cargo compiles drops other files that tests
  # read: give all of the sources here where that matters.
  src ? archive.src,
  # vmrunner.yaml as a value, in place of the one in the sources. It is needed where that one says
  # what the image is made of (modules, nixpkgs, packages): here the image is made already.
  settings ? { },
  # Flags of `vmrunner test`; they beat the settings.
  args ? [ ],
  # What nextest in the guest gets.
  nextestArgs ? [ ],
}:

let
  inherit (pkgs) lib;

  flags = [
    "--image"
    "${image}"
    "--archive"
    "${archive}/archive.tar.zst"
  ]
  ++ lib.optionals (settings != { }) [
    "--config"
    # JSON is YAML.
    "${pkgs.writeText "vmrunner.yaml" (builtins.toJSON settings)}"
  ]
  # A memory template would be made, used once, and gone with the build directory.
  ++ lib.optionals (!settings ? start) [
    "--start"
    "booted"
  ]
  ++ args;

  words = flags ++ [ "${src}" ] ++ lib.optionals (nextestArgs != [ ]) ([ "--" ] ++ nextestArgs);
in
pkgs.runCommand name
  {
    nativeBuildInputs = [ package ];
    # The report names the image by the hash of its store path: whoever keeps a result would keep
    # the image. Nix heeds this only in derivations with structured attributes.
    __structuredAttrs = true;
    unsafeDiscardReferences.out = true;
    passthru = { inherit archive image; };
    meta.description = "Run of a nextest archive in a virtual machine";
  }
  ''
    # The home that Nix gives to builds cannot be made. $TMPDIR itself holds the sockets: their
    # paths must stay below 107 bytes, and the build directory's alone can be half of that.
    export HOME="$TMPDIR/home" XDG_RUNTIME_DIR="$TMPDIR"
    export XDG_CACHE_HOME="$TMPDIR/cache" XDG_STATE_HOME="$TMPDIR/state"
    mkdir -p "$HOME"
    # Nix gives builds a terminal too, but what they show there becomes a log: no progress bars.
    export TERM=dumb

    code=0
    vmrunner test ${lib.escapeShellArgs words} || code=$?
    if [ "$code" -ne 0 ]; then
      echo "vmrunner test: exit code $code" >&2
      echo "with --keep-failed, the logs stay in $XDG_STATE_HOME/vmrunner/runs" >&2
      exit "$code"
    fi

    # What the guest wrote itself stays behind; the reports made of it have been checked.
    rm -rf "$XDG_STATE_HOME"/vmrunner/runs/*/{,shard-*/}out
    mkdir -p "$out"
    cp -r "$XDG_STATE_HOME"/vmrunner/runs/*/. "$out"/
  ''
