# Stands in for nixpkgs' nixos/lib/make-ext4-fs.nix: a snug ext4 file with the closure of
# `storePaths` in its Nix store. The system in it is not NixOS but the Debian image's, whose root
# file system is shrunk to what it holds: Nix hashes each output, and all 8 GiB of the sparse
# original take 20 s.
{
  cargo-nextest,
  closureInfo,
  e2fsprogs,
  runCommand,
  storePaths,
  volumeLabel,
  uuid ? "44444444-4444-4444-8888-888888888888",
  compressImage ? false,
  populateImageCommands ? "",
}:
let
  debian = import ../../debian.nix;
  closure = closureInfo { rootPaths = storePaths; };
in
assert !compressImage;
runCommand "ext4-fs.img" { nativeBuildInputs = [ e2fsprogs ]; } ''
  cp --sparse=always --no-preserve=mode ${debian.file "root_disk"} $out
  tune2fs -L ${volumeLabel} -U ${uuid} $out

  # What the image's manifest says that NixOS has, on the PATH that Debian's unit has.
  mkdir -p files/usr/local/bin
  ln -s ${cargo-nextest}/bin/cargo-nextest files/usr/local/bin
  ${populateImageCommands}
  xargs cp -r --parents --target-directory=files <${closure}/store-paths

  # debugfs writes to an ext4 file, and need not be root for it. It ends well whatever happens, so
  # what it says is looked at; directories that are there already are no fault.
  cd files
  find . -mindepth 1 -printf '%y %P %l\n' | while read -r type name target; do
    case $type in
      d) echo "mkdir /$name" ;;
      f) printf 'cd /%s\nwrite %s %s\n' "$(dirname "$name")" "$name" "$(basename "$name")" ;;
      l) echo "symlink /$name $target" ;;
    esac
  done >../commands
  debugfs -w -f ../commands $out >../said 2>&1
  if grep -Ev '^debugfs|^Allocated inode|directory already exists' ../said; then
    exit 1
  fi

  e2fsck -fy $out || (($? == 1))
  resize2fs -M $out
''
