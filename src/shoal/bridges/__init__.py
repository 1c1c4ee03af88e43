"""Ways into Shoal from other libraries, one file each; the library is imported when its bridge is used."""
