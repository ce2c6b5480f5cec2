"""Python behind the workflow: which runs a figure needs, what they cost, what has been done."""
