"""An input mapping and a small network: built, trained, saved."""
