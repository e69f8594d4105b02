# Stands in for nixpkgs' lib: a few functions, with the names and the meaning that they have there.
with builtins;
let
  lib =
    builtins
    // import ./modules.nix lib
    // rec {
      trivial.release = readFile ./.version;
      fileset = import ./fileset.nix lib;
      licenses = genAttrs [
        "asl20"
        "mit"
      ] (shortName: { inherit shortName; });

      optional = condition: value: optionals condition [ value ];
      optionals = condition: list: if condition then list else [ ];
      optionalAttrs = condition: set: if condition then set else { };
      optionalString = condition: text: if condition then text else "";

      last = list: elemAt list (length list - 1);
      toList = value: if isList value then value else [ value ];
      imap0 = f: list: genList (n: f n (elemAt list n)) (length list);
      unique = foldl' (seen: value: if elem value seen then seen else seen ++ [ value ]) [ ];

      nameValuePair = name: value: { inherit name value; };
      mapAttrs' = f: set: listToAttrs (mapAttrsToList f set);
      mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
      filterAttrs =
        keep: set: removeAttrs set (filter (name: !keep name set.${name}) (attrNames set));
      genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
      setAttrByPath =
        path: value:
        if path == [ ] then value else { ${head path} = setAttrByPath (tail path) value; };

      concatStrings = concatStringsSep "";
      concatLines = concatMapStrings (line: line + "\n");
      concatMapStrings = concatMapStringsSep "";
      concatMapStringsSep =
        separator: f: list:
        concatStringsSep separator (map f list);
      hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
      hasSuffix =
        suffix: text:
        let
          start = stringLength text - stringLength suffix;
        in
        start >= 0 && substring start (-1) text == suffix;
      splitString =
        separator: text: filter isString (split "[${separator}]" text);
      escapeShellArg = value: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString value)}'";
      escapeShellArgs = concatMapStringsSep " " escapeShellArg;

      isDerivation = value: isAttrs value && value.type or null == "derivation";
      makeBinPath = concatMapStringsSep ":" (package: "${package}/bin");
      getExe = package: "${package}/bin/${package.meta.mainProgram or package.pname}";
      getExe' = package: program: "${package}/bin/${program}";

      assertMsg = condition: message: condition || throw message;
      literalExpression = text: text;
      fakeHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
      cleanSourceWith =
        {
          name ? "source",
          src,
          filter,
        }:
        {
          outPath = builtins.path {
            inherit name filter;
            path = src;
          };
        };
    };
in
lib
