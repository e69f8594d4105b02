# Stands in for nixpkgs' nixos/lib/eval-config.nix: a NixOS configuration, evaluated.
{
  modules,
  system ? builtins.currentSystem,
  specialArgs ? { },
}:
let
  lib = import ../../lib;

  base =
    { config, ... }:
    {
      imports = [ ../options.nix ];
      nixpkgs.hostPlatform = lib.mkIf (system != null) (lib.mkOptionDefault system);
      _module.args.pkgs = lib.mkOptionDefault (
        import ../.. { system = config.nixpkgs.hostPlatform; }
      );
    };
  evaluated = lib.evalModules {
    modules = [ base ] ++ modules;
    specialArgs = {
      modulesPath = toString ../modules;
    }
    // specialArgs;
  };
in
evaluated
// {
  inherit lib;
  inherit (evaluated._module.args) pkgs;
}
