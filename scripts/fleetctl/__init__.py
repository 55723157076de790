"""fleetctl: the operator's hands on a Metrica Fleet."""
