"""Version 1 of the protocol: protos/curator/rpc/v1."""
