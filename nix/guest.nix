# A NixOS module that makes any configuration a guest of vmrunner. It keeps the contract that the
# Debian image keeps, with the same programs and units (../images/guest).
#
# What the contract needs is set as it must be. All else is a default: a module of yours has its
# way.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkDefault mkForce;
  inherit (config.vmrunner) nextest;

  # The host calls them as /usr/lib/vmrunner/… in every image.
  guestPrograms = pkgs.runCommand "vmrunner-guest-programs" { } ''
    cp -r ${../images/guest/usr/lib/vmrunner} $out
    chmod -R u+w $out
    sed -i '1s|^#!/usr/bin/perl$|#!${pkgs.perl}/bin/perl|' $out/*
    chmod a+x $out/clock $out/prepare $out/unit
  '';

  # Where a session of the host and the test run find programs.
  systemPath = "/run/wrappers/bin:/run/current-system/sw/bin";

  # Mounted on demand, never at boot: a machine with a mounted share cannot be saved.
  share =
    {
      tag,
      mode,
      cache,
      description,
    }:
    {
      inherit description;
      what = tag;
      where = "/run/vmrunner/${tag}";
      type = "9p";
      options = "${mode},trans=virtio,version=9p2000.L,msize=512000,cache=${cache}";
      unitConfig.DefaultDependencies = false;
      conflicts = [ "umount.target" ];
      before = [ "umount.target" ];
    };
in
{
  imports = [
    ./lean.nix
    ./machine.nix
  ];

  options.vmrunner.nextest = lib.mkOption {
    type = lib.types.nullOr lib.types.package;
    default = pkgs.cargo-nextest;
    defaultText = lib.literalExpression "pkgs.cargo-nextest";
    description = "The cargo-nextest that runs the tests in this guest; null takes the host's.";
  };

  config = {
    # The host's way in. The unit of the same name in ../images says why dropbear, and why before
    # all else.
    systemd.services.vmrunner-ssh = {
      description = "SSH server for the host";
      documentation = [ "man:dropbear(8)" ];
      wantedBy = [ "multi-user.target" ];
      after = [ "systemd-journald.socket" ];
      conflicts = [ "shutdown.target" ];
      before = [
        "shutdown.target"
        "multi-user.target"
        "dev-mqueue.mount"
        "sys-kernel-debug.mount"
        "sys-kernel-tracing.mount"
        "kmod-static-nodes.service"
        "systemd-journald.service"
        "systemd-modules-load.service"
        "systemd-sysctl.service"
        "systemd-tmpfiles-setup-dev-early.service"
        "systemd-udevd.service"
      ];
      unitConfig.DefaultDependencies = false;
      # dropbear of nixpkgs hands its own PATH on to sessions.
      environment.PATH = mkForce systemPath;
      serviceConfig = {
        Type = "exec";
        ExecStart = lib.concatStringsSep " " [
          "${pkgs.dropbear}/bin/dropbear -F -E -s -m -p 22"
          "-r /run/credentials/@system/vmrunner.ssh_host_key"
          "-D /etc/dropbear/login -W 1048576"
        ];
        StandardError = "null";
        KillMode = "process";
        Restart = "on-failure";
        SendSIGKILL = false;
      };
    };

    # The key for logins comes from the host at each boot; dropbear wants the directory that it is
    # in.
    environment.etc."dropbear/login/authorized_keys".source =
      "/run/credentials/@system/ssh.authorized_keys.root";

    # OpenSSH may be there for tests; port 22 is taken.
    services.openssh.ports = mkDefault [ 2222 ];

    users = {
      # The key is the way in.
      allowNoPasswordLogin = mkDefault true;
      # Each command over SSH starts root's shell. bash reads /etc/bashrc first, unless it is called
      # sh. Stronger than NixOS's own default, weaker than a value of yours.
      users.root.shell = lib.mkOverride 900 "/bin/sh";
    };

    systemd.mounts = [
      (share {
        tag = "in";
        mode = "ro";
        # Nothing under it changes while it is mounted, so the guest may cache it without asking.
        cache = "loose";
        description = "Files from the host";
      })
      (share {
        tag = "out";
        mode = "rw";
        # So that the host sees each line at once.
        cache = "none";
        description = "Results for the host";
      })
    ];

    systemd.services.cargo-nextest = {
      description = "Test run of cargo-nextest";
      wants = [ "network-online.target" ];
      after = [
        "network-online.target"
        "basic.target"
        "systemd-udev-trigger.service"
      ];
      unitConfig.RequiresMountsFor = "/run/vmrunner/in /run/vmrunner/out";
      # One run right after the other is what a long-lived machine is for.
      startLimitIntervalSec = 0;
      environment = {
        HOME = "/root";
        PATH = mkForce (
          lib.concatStringsSep ":" (
            [ "/run/vmrunner/in/bin" ]
            ++ lib.optional (nextest != null) "${nextest}/bin"
            ++ [ systemPath ]
          )
        );
      };
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        Restart = "no";
        StateDirectory = "cargo-nextest";
        StateDirectoryMode = "0750";
        WorkingDirectory = "%S/cargo-nextest";
        ExecStart = "/bin/sh /usr/lib/vmrunner/unit";
        # No limit here: the host has one for the whole run and stops this unit when it passes.
        TimeoutStartSec = "infinity";
        # On stop every process gets SIGTERM, so that nextest ends its tests and writes its report.
        KillMode = "control-group";
        TimeoutStopSec = "30s";
        # A test that is killed for memory ends the run, and `Result=oom-kill` tells the host why.
        OOMPolicy = "stop";
      };
    };

    # As early as /usr/bin/env and /bin/sh: the host may ask for them as soon as it is logged in.
    system.activationScripts.vmrunner = ''
      mkdir -p /usr/lib
      ln -sfn ${guestPrograms} /usr/lib/vmrunner
    '';

    environment.systemPackages = [
      # dropbear starts /run/current-system/sw/libexec/sftp-server.
      pkgs.openssh
    ]
    ++ lib.optional (nextest != null) nextest;
    environment.pathsToLink = [ "/libexec" ];

    # Programs that rustup's toolchain linked look for their loader where other systems have it.
    programs.nix-ld.enable = mkDefault true;

    # A test that eats all memory is killed within seconds (../images/guest/usr/lib/tmpfiles.d).
    systemd.tmpfiles.rules = [ "w- /sys/kernel/mm/lru_gen/min_ttl_ms - - - - 1000" ];
  };
}
