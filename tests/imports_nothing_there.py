"""A module that needs a package that is not installed."""

import importlib

importlib.import_module("surely_no_such_package")
