# vmrunner itself, from the source tree that this directory is in.
{
  lib,
  python3Packages,
  cargo-nextest,
  qemu_kvm,
  util-linux,
}:

let
  root = ../.;

  src = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.unions [
      ../README.md
      ../images
      ../nix
      ../pyproject.toml
      (lib.fileset.fileFilter (file: file.hasExt "py" || file.name == "py.typed") ../vmrunner)
    ];
  };

  version = builtins.head (
    builtins.match ".*\n__version__ = \"([^\"]+)\".*" (builtins.readFile ../vmrunner/__init__.py)
  );
in
# An installed vmrunner carries this directory too, but not the sources round it.
assert
  builtins.pathExists ../pyproject.toml
  || throw "the package vmrunner is built from its source tree, and ${toString root} is not one";
python3Packages.buildPythonApplication {
  pname = "vmrunner";
  inherit version src;
  pyproject = true;

  build-system = [ python3Packages.hatchling ];

  dependencies = with python3Packages; [
    click
    cryptography
    defusedxml
    junitparser
    paramiko
    platformdirs
    psutil
    pydantic
    pyelftools
    pyyaml
    qemu-qmp
    rich
    zstandard
  ];

  # nixpkgs has one version of each and moves them together; the bounds are for PyPI.
  pythonRelaxDeps = true;

  # `qemu_kvm` emulates the host's architecture only, and has 9p like the full QEMU. `qemu_test` is
  # smaller, but patched to show all files on 9p as root's: tests in a check would see other owners
  # than under `vmrunner test` elsewhere.
  # A user's own nextest comes before ours; cargo, git and nix-build are the user's.
  makeWrapperArgs = [
    "--prefix"
    "PATH"
    ":"
    (lib.makeBinPath [
      qemu_kvm
      util-linux
    ])
    "--suffix"
    "PATH"
    ":"
    (lib.makeBinPath [ cargo-nextest ])
  ];

  # The programs that go into guests keep the interpreters that guests have.
  dontPatchShebangs = true;

  pythonImportsCheck = [ "vmrunner.cli" ];

  meta = {
    description = "Run impure Rust test suites (nextest archives) inside QEMU virtual machines";
    license = with lib.licenses; [
      asl20
      mit
    ];
    mainProgram = "vmrunner";
    platforms = [ "x86_64-linux" ];
  };
}
