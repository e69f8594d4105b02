# Stands in for NixOS' modules: declares the options that nix/guest.nix and the modules of tests
# set, with the types that NixOS gives them, and takes the system itself from a Debian image. What
# is set has no effect on that system.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) types;

  debian = import ../debian.nix;

  of = type: default: { inherit type default; };
  on = of types.bool true;
  off = of types.bool false;
  list = type: of (types.listOf type) [ ];
  set = type: of (types.attrsOf type) { };
  text = of types.str;
  maybe = type: of (types.nullOr type) null;

  # Modules that declare options with these names and these types and defaults.
  declare = lib.mapAttrsToList (
    name: option: {
      options = lib.setAttrByPath (lib.splitString "." name) (lib.mkOption option);
    }
  );

  unit.imports = declare {
    after = list types.str;
    before = list types.str;
    conflicts = list types.str;
    description = text "";
    documentation = list types.str;
    enable = on;
    requires = list types.str;
    unitConfig = set types.unitSetting;
    wantedBy = list types.str;
    wants = list types.str;
  };
  service =
    { config, ... }:
    {
      imports = [
        unit
      ]
      ++ declare {
        enableDefaultPath = on;
        environment = set types.unitSetting;
        path = list types.package;
        preStart = of types.lines "";
        script = of types.lines "";
        serviceConfig = set types.unitSetting;
        startLimitIntervalSec = maybe types.int;
      };
      # It is no default: who wants another PATH has to force it.
      config.environment = lib.mkIf config.enableDefaultPath {
        PATH = lib.makeBinPath (config.path ++ [ pkgs.systemd ]);
      };
    };
  mount.imports = [
    unit
  ]
  ++ declare {
    mountConfig = set types.unitSetting;
    options = text "";
    type = text "";
    what = text "";
    where = text "";
  };
  file.imports = declare {
    mode = text "symlink";
    source = maybe types.path;
    text = maybe types.lines;
  };

  failed = lib.filter (each: !each.assertion) config.assertions;

  copied =
    name: from: pkgs.runCommand name { } "mkdir $out; cp --no-preserve=mode ${from} $out/${name}";
in
{
  imports = declare {
    assertions = list types.attrs;
    fileSystems = set types.anything;
    warnings = list types.str;
    "boot.initrd.availableKernelModules" = list types.str;
    "boot.initrd.compressor" = text "zstd";
    "boot.initrd.includeDefaultModules" = on;
    "boot.initrd.kernelModules" = list types.str;
    "boot.initrd.systemd.enable" = on;
    "boot.kernelModules" = list types.str;
    "boot.kernelParams" = list types.str;
    "boot.loader.grub.enable" = on;
    "environment.defaultPackages" = list types.package;
    "environment.etc" = set (types.submodule file);
    "environment.pathsToLink" = list types.str;
    "environment.systemPackages" = list types.package;
    "networking.firewall.allowedTCPPorts" = list types.int;
    "networking.firewall.enable" = on;
    "networking.hostName" = text "nixos";
    "networking.hosts" = set (types.listOf types.str);
    "networking.nameservers" = list types.str;
    "networking.resolvconf.enable" = on;
    "networking.useDHCP" = on;
    "networking.usePredictableInterfaceNames" = on;
    "nix.enable" = on;
    "nix.package" = of types.package pkgs.nix;
    "nixpkgs.hostPlatform" = text "x86_64-linux";
    "programs.nix-ld.enable" = off;
    "services.getty.autologinUser" = maybe types.str;
    "services.journald.extraConfig" = of types.lines "";
    "services.journald.storage" = text "persistent";
    "services.openssh.ports" = of (types.listOf types.int) [ 22 ];
    "services.postgresql.enable" = off;
    "services.resolved.enable" = off;
    "services.timesyncd.enable" = on;
    "system.activationScripts" = set types.lines;
    "system.boot.loader.initrdFile" = text "initrd";
    "system.boot.loader.kernelFile" = text "bzImage";
    "system.build" = set types.raw;
    "system.path".type = types.package;
    "system.stateVersion" = text "";
    "systemd.enableEmergencyMode" = on;
    "systemd.mounts" = list (types.submodule mount);
    "systemd.package" = of types.package pkgs.systemd;
    "systemd.services" = set (types.submodule service);
    "systemd.targets" = set types.anything;
    "systemd.tmpfiles.rules" = list types.str;
    "users.allowNoPasswordLogin" = off;
    "users.users" = set types.anything;
  };

  config = {
    # The Debian image's initrd does not know what to mount without them.
    boot.kernelParams = lib.mkAfter debian.kernelParams;

    # Of the libraries only the names matter: they go into the manifest.
    system.path = pkgs.runCommand "system-path" { } ''
      mkdir -p $out/bin $out/share/nix-ld/lib
      ln -s ${pkgs.glibc} $out/glibc
      for package in ${toString config.environment.systemPackages}; do
        [ ! -e $package/bin ] || find $package/bin -mindepth 1 -exec ln -sf -t $out/bin {} +
      done
      cd $out/share/nix-ld/lib
      touch ${toString debian.libraries}
    '';
    system.build = {
      kernel = copied "bzImage" (debian.file "kernel");
      initialRamdisk = copied "initrd" (debian.file "initrd");
      toplevel =
        if failed != [ ] then
          throw "Failed assertions:\n${lib.concatMapStrings (each: "- ${each.message}\n") failed}"
        else
          pkgs.runCommand "nixos-system" { } ''
            mkdir $out
            ln -s ${config.system.path} $out/sw
            ln -s /usr/lib/systemd/systemd $out/init
          '';
    };
  };
}
