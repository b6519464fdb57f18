from collections.abc import Mapping
from typing import Any, final

__all__ = [
    "ClientDisconnected",
    "ConfigError",
    "Running",
    "StartError",
    "__version__",
    "main",
    "start",
    "tree",
]

__version__: str

class ClientDisconnected(OSError): ...
class ConfigError(ValueError): ...
class StartError(RuntimeError): ...

def main(args: list[str]) -> int: ...
def tree(config: Mapping[str, Any], live: Mapping[str, Any], dir: str) -> str: ...
def start(config: Mapping[str, Any], live: Mapping[str, Any], dir: str) -> Running: ...

@final
class Running:
    @property
    def addresses(self) -> list[str]: ...
    def shutdown(self) -> None: ...
    def wait(self) -> None: ...
