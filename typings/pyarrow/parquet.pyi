# pyarrow ships no types. Any, and not Unknown: what comes out of Arrow is checked from
# where our code annotates it, and pyright stays strict about the rest.
from typing import Any

def __getattr__(name: str) -> Any: ...
