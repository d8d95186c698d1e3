"""The protocol in Python, generated from protos/; only ``curator.wire`` uses it."""
