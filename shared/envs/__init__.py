"""Environments: one row convention, pixels and toys."""
