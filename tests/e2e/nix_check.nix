# A crate as a check of nix/, as a user would write it.
{
  nix,
  nixpkgs,
  crate,
}:
let
  vmrunner = import nix { inherit nixpkgs; };
in
rec {
  image = vmrunner.image;

  archive = vmrunner.archive {
    src = builtins.path {
      name = "sources";
      path = crate;
      filter = path: _: baseNameOf path != "target";
    };
  };

  # In the place of the crate's own vmrunner.yaml.
  check = vmrunner.check {
    inherit image archive;
    settings = {
      cpus = 1;
      hosts."52.0.56.137" = [ "52-0-56-137.nip.io" ];
    };
  };

  # Of the crate `verdicts`.
  failing = vmrunner.check {
    inherit image archive;
    nextestArgs = [
      "-E"
      "test(=tests::failing)"
    ];
  };
}
