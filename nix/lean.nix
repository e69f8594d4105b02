# What a machine that runs tests has no use for is off: it boots faster and its image is smaller.
# All of these are defaults: a module of yours has its way.
{ lib, ... }:

let
  inherit (lib) mkDefault;
in
{
  boot = {
    bcache.enable = mkDefault false;
    initrd = {
      # What drives other machines' disks and keyboards, most of an initrd.
      includeDefaultModules = mkDefault false;
      # Unpacking costs more than reading where the processor is emulated.
      compressor = mkDefault "cat";
      systemd.tpm2.enable = mkDefault false;
    };
  };

  # Nobody sits at a screen. A serial console is started on demand.
  console.enable = mkDefault false;
  systemd.targets.getty.enable = mkDefault false;

  documentation.enable = mkDefault false;
  environment.defaultPackages = mkDefault [ ];
  fonts.fontconfig.enable = mkDefault false;
  nix.enable = mkDefault false;
  programs.command-not-found.enable = mkDefault false;
  system.switch.enable = mkDefault false;

  services = {
    fstrim.enable = mkDefault false;
    # A run's record is its log and its report: the journal is in memory and small.
    journald = {
      storage = mkDefault "volatile";
      extraConfig = mkDefault "RuntimeMaxUse=16M";
    };
    logrotate.enable = mkDefault false;
    lvm.enable = mkDefault false;
    # The host sets the clock.
    timesyncd.enable = mkDefault false;
    udisks2.enable = mkDefault false;
  };

  systemd = {
    # A dump of each test that aborts would cost more than the test.
    coredump.enable = mkDefault false;
    # Nobody would answer the prompt of its shell. A machine that came up in part can be logged in
    # to.
    enableEmergencyMode = mkDefault false;
    # What is killed when memory runs out is the kernel's choice, and told to the host as such.
    oomd.enable = mkDefault false;
    # It would start work in the middle of a test run.
    timers.systemd-tmpfiles-clean.enable = mkDefault false;
    tpm2.enable = mkDefault false;
  };

  xdg = {
    autostart.enable = mkDefault false;
    icons.enable = mkDefault false;
    mime.enable = mkDefault false;
    sounds.enable = mkDefault false;
  };
}
