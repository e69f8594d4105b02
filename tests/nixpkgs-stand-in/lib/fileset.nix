# Stands in for nixpkgs' lib.fileset: a file set is a list of { root, keep }, which files below
# which path.
lib:
let
  everything = root: {
    inherit root;
    keep = _: true;
  };
  parts = set: if lib.isList set then set else [ (everything set) ];
  below = directory: path: lib.hasPrefix "${toString directory}/" "${toString path}/";
in
{
  unions = lib.concatMap parts;
  fileFilter = keep: root: [ { inherit root keep; } ];
  toSource =
    { root, fileset }:
    {
      outPath = builtins.path {
        name = "source";
        path = root;
        filter =
          path: type:
          let
            file = {
              name = baseNameOf path;
              hasExt = extension: lib.hasSuffix ".${extension}" file.name;
            };
            wanted = part: below part.root path && (type == "directory" || part.keep file);
            leadsTo = part: below path part.root;
          in
          lib.any (part: wanted part || leadsTo part) (parts fileset);
      };
    };
}
