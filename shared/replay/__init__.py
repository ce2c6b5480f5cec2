"""Experience on disk and in memory, framework-free."""
