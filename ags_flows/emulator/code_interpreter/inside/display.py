"""What a Python kernel shows besides IPython's own formats, and the variables of one execution.

A script that runs in the kernel; nothing imports it.
"""

import json
import math
import os
import sys
import types
import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from typing import Any

DATA = "e2b/data"
CHART = "e2b/chart"
_FRAMES = (("pandas.core.frame", "DataFrame"), ("pandas", "DataFrame"))


_MISSING = ("NaTType", "NAType")


def plain(value: Any) -> Any:
    """Return a value as JSON has it: numbers of numpy as numbers, times as text, what is not a number as null."""
    if type(value).__name__ in _MISSING:
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    return str(value)


def _table(frame: Any) -> dict[str, Any]:
    """Return the columns; of columns with one name, the later ones get a number."""
    table: dict[str, Any] = {}
    for position, column in enumerate(frame.columns):
        name, number = str(column), 0
        while name in table:
            number += 1
            name = f"{column}.{number}"
        # By position: the name of several columns gives all of them.
        table[name] = [plain(value) for value in frame.iloc[:, position].tolist()]
    return table


def _structure(value: Any) -> Any:
    """Return a list or mapping for the format of JSON; None if it contains a value that JSON does not have."""
    try:
        # Only JSON types and numbers of numpy: the text of a list of other objects is of no use.
        return json.loads(json.dumps(value, default=_number, allow_nan=False)), {"expanded": True}
    except (TypeError, ValueError, RecursionError):
        return None


def _number(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"not JSON: {type(value).__name__}")


_said: set[str] = set()


def _say_once(text: str) -> None:
    """Write a line to the cell's stderr, once for each kernel."""
    if text not in _said:
        _said.add(text)
        print(text, file=sys.stderr)


class Variables:
    """Environment variables of one execution."""

    def __init__(self) -> None:
        self._before: dict[str, str | None] = {}

    def apply(self, values: Mapping[str, str]) -> None:
        """Set them."""
        self._before = {name: os.environ.get(name) for name in values}
        os.environ.update(values)

    def restore(self) -> None:
        """Make them what they were."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before = {}


class _Afterwards(MetaPathFinder):
    """Does something when a module has been imported, which is not imported for it."""

    def __init__(self, actions: Mapping[str, Any]) -> None:
        self._actions = dict(actions)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        action = self._actions.pop(name, None)
        if action is None:
            return None
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                execute(module)
                action(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _show_images(module: Any) -> None:
    """Let `Image.show` show the image here: there is no screen."""
    display = import_module("IPython.display").display

    class Shown(module.Viewer):  # type: ignore[misc]
        def show(self, image: Any, **options: Any) -> int:
            display(image)
            return 1

    module.register(Shown(), 0)


def _show_saved(module: Any) -> None:
    """Let `Image.save` show what is saved under a name."""
    display = import_module("IPython.display").display
    save = module.Image.save

    def shown(self: Any, fp: Any, format: Any = None, **params: Any) -> None:
        save(self, fp, format, **params)
        if isinstance(fp, (str, os.PathLike)):
            display(self)

    module.Image.save = shown


def install(shell: Any) -> None:
    """Teach a shell the formats."""
    formats: Any = import_module("IPython.core.formatters")
    traitlets: Any = import_module("traitlets")

    class Data(formats.BaseFormatter):  # type: ignore[misc]
        format_type = traitlets.Unicode(DATA)
        print_method = traitlets.ObjectName("_repr_e2b_data_")
        _return_type = (dict, str)

    class Chart(formats.BaseFormatter):  # type: ignore[misc]
        format_type = traitlets.Unicode(CHART)
        print_method = traitlets.ObjectName("_repr_e2b_chart_")
        _return_type = (dict, str)

        def __call__(self, value: Any) -> Any:
            # By its type and not by a printer: matplotlib takes the printers of figures out of all formatters.
            figures = sys.modules.get("matplotlib.figure")
            if figures is None or not isinstance(value, figures.Figure):
                return super().__call__(value)
            try:
                with warnings.catch_warnings():
                    # Those of the package: they are not of the user's code.
                    warnings.simplefilter("ignore")
                    return plain(import_module("e2b_charts").chart_figure_to_dict(value)) or None
            except ImportError:
                _say_once("A chart is a picture only: the emulator lacks the package e2b-charts.")
                return None
            except Exception:
                # A chart that it does not understand is shown as an image alone.
                return None

    class Structure(formats.JSONFormatter):  # type: ignore[misc]
        def __call__(self, value: Any) -> Any:
            if isinstance(value, (list, dict)):
                return _structure(value)
            return super().__call__(value)

    formatters = shell.display_formatter.formatters
    formatters[DATA] = Data(parent=shell.display_formatter)
    formatters[CHART] = Chart(parent=shell.display_formatter)
    formatters["application/json"] = Structure(parent=shell.display_formatter)
    for module, name in _FRAMES:
        formatters[DATA].for_type_by_name(module, name, _table)
    sys.meta_path.insert(0, _Afterwards({"PIL.ImageShow": _show_images, "PIL.Image": _show_saved}))
    variables = types.ModuleType("_sandbox_variables")
    variables.of_execution = Variables()  # type: ignore[attr-defined]
    sys.modules[variables.__name__] = variables
