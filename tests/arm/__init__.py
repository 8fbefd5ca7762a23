"""The compiled scans for ARM, computed by an emulated processor."""
