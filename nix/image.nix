# The directory of an image: kernel, initrd, root disk, and the manifest that says what they are.
#
# No machine is booted for it and no system feature is asked for: mkfs.ext4 makes the root disk in
# an ordinary build, and QEMU starts the kernel itself, so there is no boot loader to install.
#
# ext4 and not erofs, because the root disk is written to: tests install things, a long-lived
# machine keeps them over a restart, and the disk is as large as its user says. Over a read-only
# file system all that would need a second disk and an overlay, and templates and snapshots would
# have two disks to keep together. The price is a larger file: ext4 does not compress.
{
  # Of ./nixpkgs.nix.
  origin,
  # What NixOS made of the modules, and what they were.
  evaluated,
  modules,
  storePaths,
}:

let
  inherit (evaluated) config pkgs;
  inherit (pkgs) lib;
  inherit (config.system.build) toplevel;

  kernel = config.system.boot.loader.kernelFile;
  initrd = config.system.boot.loader.initrdFile;
  contents = [ toplevel ] ++ storePaths;

  # As small as it can be; the guest grows it. A sparse file of the size that disks have by default
  # would spare the guest that, but Nix hashes and copies holes as the zeros they stand for.
  rootDisk = pkgs.callPackage (origin.path + "/nixos/lib/make-ext4-fs.nix") {
    storePaths = contents;
    volumeLabel = "nixos";
  };

  closure = pkgs.closureInfo { rootPaths = contents; };

  # Foreign programs find nix-ld where they expect their loader, and are handed to glibc's. nix-ld
  # adds the libraries in the first of these directories; glibc's loader finds those in the second.
  hasForeignLoader = config.programs.nix-ld.enable;
  libraryDirectories = lib.optionals hasForeignLoader [
    "${config.system.path}/share/nix-ld/lib"
    "${pkgs.glibc}/lib"
  ];

  # The manifest tells of nixpkgs and of the modules, and is no reason to keep them.
  name = value: builtins.unsafeDiscardStringContext (toString value);
  moduleName =
    module: if lib.isAttrs module || lib.isFunction module then "(inline)" else name module;

  manifest = {
    format_version = 2;
    name = "nixos";
    architecture = "x86_64";
    inherit kernel initrd;
    kernel_command_line = toString (config.boot.kernelParams ++ [ "init=${toplevel}/init" ]);
    root_disk = "root.img";
    root_disk_format = "raw";
    init = "${toplevel}/init";
    systemd_version = config.systemd.package.version;
    # The number behind the dash counts nixpkgs' patches.
    glibc = lib.head (lib.splitString "-" pkgs.glibc.version);
    nextest = if config.vmrunner.nextest == null then null else config.vmrunner.nextest.version;
    interpreters = lib.optional hasForeignLoader "/lib64/ld-linux-x86-64.so.2" ++ [
      "${pkgs.glibc}/lib/ld-linux-x86-64.so.2"
    ];
    built_from = {
      nixpkgs = name origin.path;
      nixpkgs_version = origin.version;
      modules = toString (map moduleName modules);
    }
    // lib.optionalAttrs (origin.revision != null) { nixpkgs_revision = origin.revision; };
    # Not a property of it: the same inputs give the same image.
    created = "1970-01-01T00:00:01+00:00";
  };
in
pkgs.runCommand "vmrunner-image"
  {
    nativeBuildInputs = [ pkgs.jq ];
    manifest = builtins.toJSON manifest;
    passAsFile = [ "manifest" ];
    passthru = { inherit config rootDisk; };
  }
  ''
    mkdir $out
    ln -s ${config.system.build.kernel}/${kernel} $out/${kernel}
    ln -s ${config.system.build.initialRamdisk}/${initrd} $out/${initrd}
    ln -s ${rootDisk} $out/root.img

    sizeOf() { stat --dereference --format %s "$out/$1"; }
    for file in ${kernel} ${initrd} root.img; do
      sum=$(sha256sum < "$out/$file")
      jq --null-input --arg name "$file" --arg sha256 "''${sum%% *}" \
        --argjson size "$(sizeOf "$file")" '{ ($name): { $size, $sha256 } }'
    done > files

    for directory in ${toString libraryDirectories}; do
      find -L "$directory" -maxdepth 1 -type f -name '*.so*' -printf '%f\n'
    done | sort --unique > libraries

    digest=$(basename "$out")
    jq --arg digest "''${digest%%-*}" --argjson root_disk_size "$(sizeOf root.img)" \
      --slurpfile files files --rawfile libraries libraries --rawfile paths ${closure}/store-paths \
      'def lines: split("\n") | map(select(. != ""));
       . + {
         $digest, $root_disk_size, files: ($files | add),
         libraries: ($libraries | lines), store_paths: ($paths | lines)
       }' \
      "$manifestPath" > $out/manifest.json
  ''
