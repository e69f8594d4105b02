# Stands in for nixpkgs' stdenv: runs the build command, or the phases, of a derivation.
set -e -o pipefail
if [[ -n ${NIX_ATTRS_SH_FILE-} ]]; then
  # Structured attributes come as a file of shell variables and not as the environment.
  source "$NIX_ATTRS_SH_FILE"
  out=${outputs[out]}
  export out PATH HOME
fi
for input in ${nativeBuildInputs[*]} ${buildInputs[*]}; do
  PATH=$input/bin:$PATH
done

# A hook is the text of the variable of its name.
runHook() { eval "${!1-}"; }

unpackPhase() {
  cp -r --no-preserve=mode,ownership -- "$src" source
  cd source
}

cd "$NIX_BUILD_TOP"
if [[ -n ${buildCommand-} ]]; then
  eval "$buildCommand"
  exit
fi
for phase in unpackPhase patchPhase configurePhase buildPhase checkPhase installPhase; do
  if [[ $phase == checkPhase && -z ${doCheck-} ]]; then
    continue
  elif [[ -n ${!phase-} ]]; then
    eval "${!phase}"
  elif declare -F "$phase" >/dev/null; then
    "$phase"
  fi
done
