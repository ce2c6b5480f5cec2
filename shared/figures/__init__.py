"""Curves, tables and statistics with few seeds."""
