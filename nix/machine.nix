# The machine that vmrunner makes, as a NixOS module: a kernel that QEMU starts itself, one virtio
# disk, one network card, one serial line.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkDefault mkForce mkIf;
  inherit (config.networking) nameservers resolvconf;
  inherit (config.services) resolved;
in
{
  boot.loader.grub.enable = mkForce false;

  boot.initrd = {
    systemd.enable = mkDefault true;
    availableKernelModules = [
      "9p"
      "9pnet_virtio"
      "dmi_sysfs"
      "ext4"
      "overlay"
      "qemu_fw_cfg"
      "virtio_balloon"
      "virtio_blk"
      "virtio_net"
      "virtio_pci"
      "virtio_rng"
    ];
    # udev of the running system would load them too, but later.
    kernelModules = [
      # systemd finds the host's credentials in what these two show.
      "dmi_sysfs"
      "qemu_fw_cfg"
      # The card has its address when SSH is there.
      "virtio_net"
      "virtio_rng"
    ];
  };

  # The mounts of a run need them; loaded before, they cost it nothing.
  boot.kernelModules = [
    "9p"
    "9pnet_virtio"
    "overlay"
  ];

  boot.kernelParams = [
    "console=ttyS0"
    # The algorithms' tests of themselves; 0.15 s of an emulated boot.
    "cryptomgr.notests"
    # A processor that shares a busy host looks as if its clocks were wrong. They are right: they
    # are the host's.
    "tsc=reliable"
    "no_timer_check"
    # Units that fail are printed, those that start are not.
    "systemd.show_status=error"
  ];

  # Forced: a configuration that was written for another machine has another disk.
  fileSystems."/" = mkForce {
    device = "/dev/vda";
    fsType = "ext4";
    # systemd grows it to the size of the disk.
    autoResize = true;
    # Checked when the image was built; the journal keeps it right.
    noCheck = true;
  };

  # For Nix in the guest, where a module turns it on: what the image was built with is in its store.
  systemd.services.vmrunner-store = mkIf config.nix.enable {
    description = "Register the image's store paths";
    wantedBy = [ "sysinit.target" ];
    after = [ "local-fs.target" ];
    before = [
      "sysinit.target"
      "shutdown.target"
    ];
    conflicts = [ "shutdown.target" ];
    unitConfig = {
      DefaultDependencies = false;
      ConditionPathExists = "/nix-path-registration";
    };
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
    };
    script = ''
      ${config.nix.package}/bin/nix-store --load-db < /nix-path-registration
      rm /nix-path-registration
    '';
  };

  # QEMU's user network, whose addresses never change: no DHCP, nothing to wait for.

  networking = {
    hostName = mkDefault "vmrunner";
    usePredictableInterfaceNames = false;
    useDHCP = false;
    nameservers = mkDefault [ "10.0.2.3" ];
    resolvconf.enable = mkDefault false;
    firewall = {
      enable = mkDefault false;
      allowedTCPPorts = [ 22 ];
    };
  };

  # Where a module turns networkd on, it would wait for a card that is none of its own.
  systemd.network.wait-online.enable = mkDefault false;

  systemd.services.vmrunner-network = {
    description = "Static address of the first network card";
    wantedBy = [
      "multi-user.target"
      "network-online.target"
    ];
    wants = [ "network.target" ];
    before = [
      "network.target"
      "network-online.target"
      "shutdown.target"
    ];
    conflicts = [ "shutdown.target" ];
    unitConfig = {
      DefaultDependencies = false;
      ConditionPathExists = "/sys/class/net/eth0";
    };
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart =
        "${pkgs.iproute2}/bin/ip -batch ${../images/guest/usr/lib/vmrunner/network.batch}";
    };
  };

  # Files, not links into the store: a run's own are mounted over them, and a mount follows links.
  environment.etc.hosts.mode = "0644";
  environment.etc."resolv.conf" = mkIf (!(resolvconf.enable || resolved.enable)) {
    text = lib.concatStrings (map (address: "nameserver ${address}\n") nameservers);
    mode = "0644";
  };

  # No password on the serial line: only the owner of the machine can open it.
  services.getty.autologinUser = mkDefault "root";

  # Images are made anew, not upgraded: none meets the state of an older release.
  system.stateVersion = mkDefault lib.trivial.release;
}
