{
  networking.hosts."52.0.56.137" = [ "52-0-56-137.nip.io" ];
}
