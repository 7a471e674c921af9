"""The household against TextWorld, the engine that ALFWorld runs on."""
