"""Tests. Formulas first (tests/formulas), then the numbers of the authors' code (tests/golden), then the rest."""
