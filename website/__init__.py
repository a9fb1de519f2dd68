"""The documentation as a site (`make docs`): the repository's pages, and those that are made from its code."""
