"""A module that imports a package that does not exist."""

import surely_no_such_package  # noqa: F401  # pyright: ignore[reportMissingImports]
