"""Tests against numbers that the authors' code produced. loading.py reads them."""
