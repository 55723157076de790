"""What a device is for: role.yaml and the device's values."""
