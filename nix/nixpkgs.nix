# Where nixpkgs is and which one it is, without evaluating any of it. It never comes from a channel
# or from NIX_PATH: what is built does not depend on who builds it.
{
  # What to take instead of the pin in ./nixpkgs.json, as a value, or as the path of a JSON file of
  # it:
  #   { "path": "/somewhere/nixpkgs" }
  #   { "url": "https://…/nixpkgs.tar.gz", "hash": "sha256-…" }
  #   { "npins": "/somewhere/npins" }     its pin called `nixpkgs`
  # Each may say its "revision" too.
  source ? null,
}:

let
  readJSON = file: builtins.fromJSON (builtins.readFile file);

  asked =
    if source == null then
      readJSON ./nixpkgs.json
    else if builtins.isAttrs source then
      source
    else
      readJSON source;

  # Of the name that Nix gives by default: with another, nixpkgs would be in the store twice.
  download = builtins.fetchTarball {
    name = "source";
    inherit (asked) url;
    sha256 = asked.hash;
  };

  pins = import asked.npins;
  pin =
    pins.nixpkgs or (throw ''
      ${asked.npins} has no pin called "nixpkgs", only: ${toString (builtins.attrNames pins)}
    '');

  path =
    if asked ? path then
      toString asked.path
    else if asked ? npins then
      "${pin.outPath}"
    else
      download;

  firstWord =
    file:
    builtins.head (
      builtins.match "[[:space:]]*([^[:space:]]*).*" (builtins.readFile (path + file))
    );

  # What releases have and checkouts have not.
  firstWordOr =
    default: file: if builtins.pathExists (path + file) then firstWord file else default;

  version =
    if builtins.pathExists (path + "/lib/.version") then
      firstWord "/lib/.version" + firstWordOr "" "/.version-suffix"
    else
      throw "there is no nixpkgs at ${path}: it has no file lib/.version";
in
{
  inherit path version;
  revision =
    asked.revision
      or (if asked ? npins then pin.revision or null else firstWordOr null "/.git-revision");
}
