# What the stand-in for NixOS is made of: the directory of a Debian image of vmrunner, which the
# environment names. Where it names none, all can still be evaluated, and no system can be built.
let
  directory = builtins.getEnv "NIXPKGS_STAND_IN_IMAGE";
  given = directory != "";
  manifest =
    if given then
      builtins.fromJSON (builtins.readFile (directory + "/manifest.json"))
    else
      {
        glibc = "2.41";
        libraries = [ "libc.so.6" ];
        systemd_version = "257.13";
        kernel_command_line = "";
      };
in
{
  inherit given;
  inherit (manifest) glibc libraries;
  systemd = manifest.systemd_version;
  kernelParams = builtins.filter (word: builtins.isString word && word != "") (
    builtins.split " " manifest.kernel_command_line
  );
  # The file that the manifest names under `part`. As a string: a path would go to the store.
  file =
    part:
    if given then
      "${directory}/${manifest.${part}}"
    else
      throw "NIXPKGS_STAND_IN_IMAGE must name the directory of a Debian image for this to be built";
}
