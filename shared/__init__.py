"""Formulas and infrastructure that no paper owns: see README.md."""
