# Stands in for nixpkgs' lib/modules.nix and lib/types.nix: modules with imports, options and
# config, the properties mkIf, mkMerge, mkOverride and mkOrder, and types that merge as they do
# there. Much simpler: no freeform types, no disabledModules, no positions in messages.
lib:
with builtins;
let
  hasTag = tag: value: isAttrs value && value._type or null == tag;
  names = sets: attrNames (foldl' (a: b: a // b) { } sets);
  dotted = concatStringsSep ".";

  # What may be put round a value.
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };
  property =
    given: content:
    given
    // {
      _type = "property";
      inherit content;
    };
  mkIf = condition: property { inherit condition; };
  mkOverride = priority: property { inherit priority; };
  mkOrder = order: property { inherit order; };
  ofDefaults = 1500;

  # A set with properties round it -> sets with these properties round each of their values, so that
  # names are known before any condition is.
  spread =
    set:
    if hasTag "merge" set then
      concatMap spread set.contents
    else if hasTag "property" set then
      map (mapAttrs (_: content: set // { inherit content; })) (spread set.content)
    else
      [ set ];

  # A value with properties round it -> what is left of it, each with its priority and place.
  settle =
    value:
    if hasTag "merge" value then
      concatMap settle value.contents
    else if hasTag "property" value then
      if value.condition or true then
        map (found: found // intersectAttrs found value) (settle value.content)
      else
        [ ]
    else
      [
        {
          priority = 100;
          order = 1000;
          inherit value;
        }
      ];

  # The values that count: those of the strongest (smallest) priority, in their order.
  winners =
    definitions:
    let
      found = concatMap settle definitions;
      strongest = foldl' (a: b: if b.priority < a then b.priority else a) 100000 found;
      kept = filter (each: each.priority == strongest) found;
    in
    catAttrs "value" (sort (a: b: a.order < b.order) kept);

  merged =
    path: type: definitions:
    let
      values = winners definitions;
      wrong = filter (value: !type.check value) values;
    in
    if wrong != [ ] then
      throw "A definition for option `${dotted path}' is not of type `${type.name}'."
    else if values == [ ] then
      type.empty or (throw "The option `${dotted path}' was accessed but has no value defined.")
    else
      type.merge path values;

  mergeEqual =
    path: values:
    if all (value: value == head values) (tail values) then
      head values
    else
      throw "The option `${dotted path}' has conflicting definition values.";

  mkType = name: check: merge: { inherit name check merge; };
  scalar = name: check: mkType name check mergeEqual;
  text =
    separator:
    mkType "strings joined by ${toJSON separator}" isString (_: concatStringsSep separator);

  types = rec {
    anything = mkType "anything" (_: true) (
      path: values:
      if all (value: isAttrs value && !lib.isDerivation value) values then
        (attrsOf anything).merge path values
      else
        mergeEqual path values
    );
    attrs = mkType "attribute set" isAttrs (_: foldl' (a: b: a // b) { });
    attrsOf = type: {
      name = "attribute set of ${type.name}";
      empty = { };
      check = isAttrs;
      merge =
        path: values:
        let
          sets = concatMap spread values;
          given = filter (name: winners (catAttrs name sets) != [ ]) (names sets);
        in
        lib.genAttrs given (name: merged (path ++ [ name ]) type (catAttrs name sets));
    };
    bool = scalar "boolean" isBool;
    int = scalar "integer" isInt;
    lines = text "\n";
    listOf = type: {
      name = "list of ${type.name}";
      empty = [ ];
      check = value: isList value && all type.check value;
      merge = path: lists: map (value: merged path type [ value ]) (concatLists lists);
    };
    nullOr = type: {
      name = "null or ${type.name}";
      check = value: value == null || type.check value;
      merge =
        path: values: if all (value: value == null) values then null else type.merge path values;
    };
    package = scalar "package" (value: lib.isDerivation value || isString value);
    path = scalar "path" (value: isPath value || isString value || lib.isDerivation value);
    raw = mkType "raw value" (_: true) (_: head);
    str = scalar "string" isString;
    submodule = module: {
      name = "submodule";
      empty = { };
      check = value: isAttrs value || isFunction value || isPath value;
      merge =
        path: values:
        (evalModules {
          modules = [
            module
          ]
          ++ map (value: if isAttrs value then { config = value; } else value) values;
          specialArgs.name = lib.last path;
          prefix = path;
        }).config;
    };
    # What systemd's own settings are: a list repeats the setting.
    unitSetting = mkType "systemd option" (_: true) (
      path: values:
      if any isList values then concatMap lib.toList values else mergeEqual path values
    );
  };

  # All modules there are, each once, as { imports, options, config } without any function.
  collected =
    modules: arguments:
    let
      item =
        parent: index: module:
        let
          content = if isPath module || isString module then import module else module;
          called = if isFunction content then content (arguments content) else content;
          full = called ? config || called ? options;
          rest = removeAttrs called [
            "_file"
            "imports"
            "key"
          ];
        in
        {
          key = if isPath module then toString module else "${parent}/${toString index}";
          imports = called.imports or [ ];
          options = called.options or { };
          config = if !full then rest else called.config or { };
        };
      items = parent: list: lib.imap0 (item parent) list;
    in
    genericClosure {
      startSet = items "" modules;
      operator = module: items module.key module.imports;
    };

  evaluatedOption =
    path: option: definitions:
    let
      type = option.type or types.anything;
      default = lib.optional (option ? default) (mkOverride ofDefaults option.default);
    in
    {
      options = option;
      config = (option.apply or (value: value)) (merged path type (default ++ definitions));
      unknown = [ ];
    };

  # Sets of `a.b.enable` only. They need no declaration: the list of options does not have to follow
  # all that is switched off.
  onlySwitches =
    value:
    if hasTag "merge" value then
      all onlySwitches value.contents
    else if hasTag "property" value then
      onlySwitches value.content
    else
      isAttrs value && all (name: name == "enable" || onlySwitches value.${name}) (attrNames value);

  evaluated =
    path: declared: definitions:
    let
      sets = concatMap spread definitions;
      each =
        name:
        let
          here = path ++ [ name ];
          declarations = catAttrs name declared;
          found = catAttrs name sets;
        in
        if declarations == [ ] || any (hasTag "option") declarations then
          evaluatedOption here (foldl' (a: b: a // b) { } declarations) found
        else
          evaluated here declarations found;
      undeclared = filter (name: !elem name (names declared)) (names sets);
      isSwitch = name: all onlySwitches (catAttrs name sets);
      children = lib.genAttrs (names declared ++ filter isSwitch undeclared) each;
    in
    {
      config = mapAttrs (_: child: child.config) children;
      options = mapAttrs (_: child: child.options) children;
      unknown =
        map (name: dotted (path ++ [ name ])) (filter (name: !isSwitch name) undeclared)
        ++ concatMap (name: children.${name}.unknown) (attrNames children);
    };

  evalModules =
    {
      modules,
      specialArgs ? { },
      prefix ? [ ],
    }:
    let
      given = specialArgs // {
        inherit lib specialArgs;
        inherit (result) config options;
      };
      arguments =
        module:
        given
        // mapAttrs (name: _: given.${name} or result.config._module.args.${name}) (
          functionArgs module
        );
      base.options._module.args = mkOption { type = types.attrsOf types.raw; };
      all = collected ([ base ] ++ modules) arguments;
      result = evaluated prefix (catAttrs "options" all) (catAttrs "config" all);
    in
    if result.unknown != [ ] then
      throw "The option `${head result.unknown}' does not exist."
    else
      {
        config = removeAttrs result.config [ "_module" ];
        options = removeAttrs result.options [ "_module" ];
        inherit (result.config) _module;
      };

  mkOption = option: option // { _type = "option"; };
in
{
  inherit
    evalModules
    mkIf
    mkMerge
    mkOption
    mkOrder
    mkOverride
    types
    ;
  mkBefore = mkOrder 500;
  mkAfter = mkOrder 1500;
  mkOptionDefault = mkOverride ofDefaults;
  mkDefault = mkOverride 1000;
  mkForce = mkOverride 50;
}
