"""The lab: hosts in podman containers that boot systemd and answer SSH."""
