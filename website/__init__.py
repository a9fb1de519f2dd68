"""The documentation as a site (`make docs`): the repository's pages, and those made of its code."""
