# What a user of vmrunner may have in vm.nix.
{ lib, pkgs, ... }:
{
  imports = [ ./user_hosts.nix ];

  services.postgresql.enable = true;
  services.timesyncd.enable = true;
  networking.hostName = "db";
  boot.initrd.systemd.enable = false;
  boot.kernelParams = [ "mitigations=off" ];
  boot.loader.grub.enable = true;
  environment.systemPackages = [ pkgs.jq ];
  fileSystems."/data" = {
    device = "/dev/vdb";
    fsType = "ext4";
  };
  fileSystems."/".device = "/dev/sda1";

  systemd.services.seed = {
    wantedBy = [ "multi-user.target" ];
    script = "echo seeded >/run/seeded";
  };
  systemd.services.cargo-nextest = {
    after = [ "seed.service" ];
    environment.RUST_LOG = "debug";
    serviceConfig.OOMPolicy = lib.mkForce "continue";
  };
}
